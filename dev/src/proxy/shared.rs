//! What the connections of a proxy and its owner share: the traps, the open connections, and whether anything flows.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::frame::Frame;
use super::trap::{Fate, Requests};
use crate::Error;

/// Both ends of a client's connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) client: Arc<TcpStream>,
    pub(super) broker: Arc<TcpStream>,
    /// Its end is a reset: no thread may close it in good order before.
    pub(super) is_reset: Arc<AtomicBool>,
}

impl Link {
    /// Closes the client's end, unless a reset is on its way there.
    pub(super) fn close_client(&self) {
        if !self.is_reset.load(Ordering::Acquire) {
            let _ = self.client.shutdown(Shutdown::Both);
        }
    }

    /// Tells the broker that nothing more comes.
    pub(super) fn close_broker(&self) {
        if !self.is_reset.load(Ordering::Acquire) {
            let _ = self.broker.shutdown(Shutdown::Write);
        }
    }
}

#[derive(Debug)]
struct TrapState {
    requests: Requests,
    fate: Fate,
    caught: usize,
    answered: usize,
    released: bool,
    /// What is held is never sent.
    discarded: bool,
}

/// The reply to a caught request.
#[derive(Debug)]
struct Awaited {
    trap: u64,
    lost: bool,
}

#[derive(Debug, Default)]
struct State {
    traps: BTreeMap<u64, TrapState>,
    links: BTreeMap<u64, Link>,
    /// Links with a request that is held.
    holding: Vec<u64>,
    /// Replies to caught requests that have not come yet, by link and number.
    awaited: BTreeMap<(u64, i32), Awaited>,
    next_id: u64,
    stalled: bool,
    refusing: bool,
    closed: bool,
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Shared by the proxy's handle, its traps and the threads of its connections.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    fn await_that(&self, mut holds: impl FnMut(&State) -> bool) {
        let guard = self.state();
        let waits = |state: &mut State| !state.closed && !holds(state);
        drop(
            self.changed
                .wait_while(guard, waits)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(super) fn set_trap(&self, requests: Requests, fate: Fate) -> u64 {
        self.change(|state| {
            let id = state.new_id();
            let trap = TrapState {
                requests,
                fate,
                caught: 0,
                answered: 0,
                released: false,
                discarded: false,
            };
            state.traps.insert(id, trap);
            id
        })
    }

    pub(super) fn counts(&self, trap: u64) -> (usize, usize) {
        let state = self.state();
        let trap = state.traps.get(&trap);
        trap.map_or((0, 0), |trap| (trap.caught, trap.answered))
    }

    pub(super) fn await_counts(
        &self,
        trap: u64,
        awaited: &str,
        limit: Duration,
        enough: impl Fn((usize, usize)) -> bool,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let counts = |state: &State| {
            let trap = state.traps.get(&trap);
            trap.map_or((0, 0), |trap| (trap.caught, trap.answered))
        };
        let (state, waited) = self
            .changed
            .wait_timeout_while(self.state(), limit, |state| !enough(counts(state)))
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let (caught, answered) = counts(&state);
            return Err(Error::Late {
                service: "the proxy".into(),
                awaited: awaited.into(),
                waited: began.elapsed(),
                log: format!("{caught} were caught, {answered} answered"),
            });
        }
        Ok(())
    }

    pub(super) fn release(&self, trap: u64) {
        self.change(|state| {
            if let Some(trap) = state.traps.get_mut(&trap) {
                trap.released = true;
            }
        });
    }

    pub(super) fn discard(&self, trap: u64) {
        self.change(|state| {
            if let Some(trap) = state.traps.get_mut(&trap) {
                trap.released = true;
                trap.discarded = true;
            }
        });
    }

    /// Registers a connection; none while they are refused.
    pub(super) fn open(&self, client: TcpStream, broker: TcpStream) -> Option<Link> {
        self.change(|state| {
            if state.refusing || state.closed {
                return None;
            }
            let link = Link {
                id: state.new_id(),
                client: Arc::new(client),
                broker: Arc::new(broker),
                is_reset: Arc::default(),
            };
            state.links.insert(link.id, link.clone());
            Some(link)
        })
    }

    /// Whether new connections are taken.
    pub(super) fn refuses(&self) -> bool {
        self.state().refusing
    }

    /// Whether the proxy has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits while everything is stalled.
    pub(super) fn await_flow(&self) {
        self.await_that(|state| !state.stalled);
    }

    /// The fate of a request, with the trap that caught it; the reply is awaited from here on.
    pub(super) fn catch(&self, link: &Link, frame: &Frame) -> Option<(u64, Fate)> {
        self.change(|state| {
            let caught = state.traps.iter_mut().find(|(_, trap)| {
                !trap.released && trap.caught < trap.requests.most() && trap.requests.matches(frame)
            });
            let (id, trap) = caught?;
            trap.caught += 1;
            let (id, fate) = (*id, trap.fate);
            if let Some(number) = frame.request_id() {
                let lost = fate == Fate::LoseReply;
                let awaited = Awaited { trap: id, lost };
                state.awaited.insert((link.id, number), awaited);
            }
            Some((id, fate))
        })
    }

    /// Waits until a trap lets go of what it holds; says whether that is sent on its way.
    pub(super) fn await_release(&self, link: &Link, trap: u64) -> bool {
        self.change(|state| state.holding.push(link.id));
        self.await_that(|state| state.traps.get(&trap).is_none_or(|trap| trap.released));
        self.change(|state| {
            state.holding.retain(|id| *id != link.id);
            let sent = !state.traps.get(&trap).is_some_and(|trap| trap.discarded);
            if !sent {
                state.awaited.retain(|(id, _), _| *id != link.id);
            }
            sent
        })
    }

    /// Takes note of a reply; says whether its client must not get it.
    pub(super) fn replied(&self, link: &Link, frame: &Frame) -> bool {
        let Some(number) = frame.reply_id() else {
            return false;
        };
        self.change(|state| {
            let Some(awaited) = state.awaited.remove(&(link.id, number)) else {
                return false;
            };
            if let Some(trap) = state.traps.get_mut(&awaited.trap) {
                trap.answered += 1;
            }
            awaited.lost
        })
    }

    /// Waits until the replies to all caught requests of a link have come, or none will.
    pub(super) fn await_replies(&self, link: &Link) {
        self.await_that(|state| !state.awaited.keys().any(|(id, _)| *id == link.id));
    }

    /// The broker's end of a link is closed.
    pub(super) fn ended(&self, link: &Link) {
        self.change(|state| {
            state.awaited.retain(|(id, _), _| *id != link.id);
            state.links.remove(&link.id);
        });
    }

    pub(super) fn set_stalled(&self, stalled: bool) {
        self.change(|state| state.stalled = stalled);
    }

    pub(super) fn set_refusing(&self, refusing: bool) {
        self.change(|state| state.refusing = refusing);
    }

    /// Ends every connection: in good order, or by a reset.
    pub(super) fn end_links(&self, by_reset: bool) {
        let state = self.state();
        for link in state.links.values() {
            // A thread that holds a request keeps the socket, which therefore cannot be reset.
            if !by_reset || state.holding.contains(&link.id) {
                link.close_client();
                continue;
            }
            link.is_reset.store(true, Ordering::Release);
            for end in [&link.client, &link.broker] {
                // A close without lingering is a reset; the threads let go of the socket when reading ends.
                let _ = rustix::net::sockopt::set_socket_linger(end, Some(Duration::ZERO));
                let _ = end.shutdown(Shutdown::Read);
            }
        }
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        self.change(|state| {
            state.closed = true;
            for link in state.links.values() {
                let _ = link.client.shutdown(Shutdown::Both);
                let _ = link.broker.shutdown(Shutdown::Both);
            }
        });
    }
}
