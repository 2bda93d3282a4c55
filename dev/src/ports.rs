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
    let mut guard = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = guard.get_or_insert_default();
    for _ in 0..ATTEMPTS {
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 10_000 + u16::from_le_bytes([a, b]) % 22_000;
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    Err(Error::io("find a free port on 127.0.0.1")(
        std::io::ErrorKind::AddrInUse.into(),
    ))
}
