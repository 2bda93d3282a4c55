//! Free loopback ports.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Attempts before giving up; each fails only if the port is taken.
const ATTEMPTS: usize = 200;

/// Ports handed out by this process; two services that start at the same time must not get the same one.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback port that nobody listens on.
///
/// It lies below the range from which the system takes ports for outgoing connections: a service that is killed and
/// restarted finds its port free, whatever was connected in between.
pub fn free_port() -> Result<u16, Error> {
    free_listener().map(|(port, _)| port)
}

/// The same, listened on already: to close it and bind again at once may fail, since a child that another thread is just
/// starting holds a copy until it runs its program.
pub(crate) fn free_listener() -> Result<(u16, TcpListener), Error> {
    let mut guard = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = guard.get_or_insert_default();
    for _ in 0..ATTEMPTS {
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 10_000 + u16::from_le_bytes([a, b]) % 22_000;
        if taken.contains(&port) {
            continue;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            taken.insert(port);
            return Ok((port, listener));
        }
    }
    Err(Error::io("find a free port on 127.0.0.1")(
        std::io::ErrorKind::AddrInUse.into(),
    ))
}
