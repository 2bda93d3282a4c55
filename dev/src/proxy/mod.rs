//! A TCP proxy in front of a Kafka broker that knows requests apart: it holds some back, loses replies, stalls, resets and
//! cuts.

mod frame;
mod shared;
#[cfg(test)]
mod tests;
mod trap;

pub use trap::{ApiKey, Requests, Trap};

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::ports::free_listener;
use crate::{Error, free_port};
use frame::Frame;
use shared::{Link, Shared};
use trap::Fate;

/// A proxy in front of one listener of one broker.
///
/// A broker tells its clients where to connect to, so it must know the proxy: make the proxy first, start the broker
/// [behind](crate::BrokerOptions::behind) it, and give the client under test [`Self::bootstrap`]. All other clients use
/// [`Broker::bootstrap`](crate::Broker::bootstrap), which the proxy does not see.
///
/// ```no_run
/// use thmanyah_dev::{ApiKey, Broker, BrokerOptions, Proxy, Requests};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), thmanyah_dev::Error> {
/// let proxy = Proxy::start()?;
/// let broker = Broker::start(BrokerOptions::default().behind(&proxy))?;
/// let trap = proxy.detach(Requests::of(ApiKey::EndTxn).naming("app-a-0").first(1));
/// // … a client on `proxy.bootstrap()` commits …
/// trap.await_caught(1, Duration::from_secs(10))?;
/// trap.release(); // late, it reaches the broker
/// trap.await_answered(1, Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
///
/// Dropped, it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    upstream: u16,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of the loopback, for a broker that will listen on another one.
    pub fn start() -> Result<Self, Error> {
        let ((port, listener), upstream) = (free_listener()?, free_port()?);
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || accept(&listener, upstream, &serving))
            .map_err(Error::io("start a thread"))?;
        Ok(Self {
            shared,
            port,
            upstream,
            acceptor: Some(acceptor),
        })
    }

    /// `HOST:PORT` for the clients whose requests pass through here.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port here.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port of the broker.
    pub(crate) fn upstream(&self) -> u16 {
        self.upstream
    }

    /// Counts requests; they pass.
    pub fn watch(&self, requests: Requests) -> Trap {
        self.trap(requests, Fate::Pass)
    }

    /// Holds requests back until they are [released](Trap::release), and all that their clients send after them on the same
    /// connection. A client that loses patience and reconnects does not take a held request back: it stays on its way.
    pub fn hold(&self, requests: Requests) -> Trap {
        self.trap(requests, Fate::Hold)
    }

    /// Holds requests back as [`Self::hold`] does, and closes their clients' connections at once, so that a client sends a
    /// second copy on a new one, while the first is still on its way.
    pub fn detach(&self, requests: Requests) -> Trap {
        self.trap(requests, Fate::Detach)
    }

    /// Lets requests pass, and closes the connection instead of giving the reply: the broker has done what was asked, and
    /// the client cannot know.
    pub fn lose_reply(&self, requests: Requests) -> Trap {
        self.trap(requests, Fate::LoseReply)
    }

    fn trap(&self, requests: Requests, fate: Fate) -> Trap {
        Trap {
            id: self.shared.set_trap(requests, fate),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Keeps connections open and lets nothing through, in either direction, until [`Self::go_on`].
    pub fn stall(&self) {
        self.shared.set_stalled(true);
    }

    /// Undoes [`Self::stall`]: what waited goes on, nothing is lost.
    pub fn go_on(&self) {
        self.shared.set_stalled(false);
    }

    /// Resets every connection. Clients may connect again at once.
    pub fn reset(&self) {
        self.shared.end_links(true);
    }

    /// Closes every connection and refuses new ones until [`Self::restore`].
    pub fn cut(&self) {
        self.shared.set_refusing(true);
        self.shared.end_links(false);
    }

    /// Undoes [`Self::cut`].
    pub fn restore(&self) {
        self.shared.set_refusing(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.close();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, upstream: u16, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_closed() {
            return;
        }
        // A client that goes away meanwhile, or a broker that is down, is no reason to end: the client sees a closed
        // connection and tries again.
        if shared.refuses() {
            continue;
        }
        if let Ok(client) = client {
            let _ = connect(client, upstream, shared);
        }
    }
}

/// Connects a client with the broker, by a thread for each direction.
fn connect(client: TcpStream, upstream: u16, shared: &Arc<Shared>) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let Some(link) = shared.open(client, broker) else {
        return Ok(());
    };
    let (up, down) = (link.clone(), link);
    let (up_shared, down_shared) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::Builder::new()
        .name("proxy up".into())
        .spawn(move || forward_requests(&up, &up_shared))?;
    std::thread::Builder::new()
        .name("proxy down".into())
        .spawn(move || forward_replies(&down, &down_shared))?;
    Ok(())
}

fn forward_requests(link: &Link, shared: &Shared) {
    while let Ok(Some(frame)) = Frame::read(&*link.client) {
        shared.await_flow();
        if let Some((trap, fate)) = shared.catch(link, &frame) {
            if fate == Fate::Detach {
                link.close_client();
            }
            let held = matches!(fate, Fate::Hold | Fate::Detach);
            if held && !shared.await_release(link, trap) {
                link.close_client();
                break;
            }
        }
        if frame.write(&*link.broker).is_err() {
            break;
        }
    }
    // A broker may drop the requests of a connection that was closed: those that are told of are waited for.
    shared.await_replies(link);
    link.close_broker();
}

fn forward_replies(link: &Link, shared: &Shared) {
    let mut client_is_there = true;
    while let Ok(Some(frame)) = Frame::read(&*link.broker) {
        shared.await_flow();
        if shared.replied(link, &frame) {
            link.close_client();
            client_is_there = false;
        }
        client_is_there = client_is_there && frame.write(&*link.client).is_ok();
    }
    shared.ended(link);
    // What the client sends now can reach nobody.
    link.close_client();
}
