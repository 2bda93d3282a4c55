//! Faults between one instance and all brokers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use thmanyah_dev::{ApiKey, Proxy, Requests, Trap};

use super::field::Field;
use super::kind::Kind;
use super::rounds::Inflicted;
use super::schedule::Fault;

/// How long a commit may be waited for: an instance that owns nothing commits nothing.
const CATCH_LIMIT: Duration = Duration::from_secs(10);
/// How long the reply to a caught commit may be waited for.
const REPLY_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Between two resets.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) fn inflict(field: &Field<'_>, fault: &Fault) -> Inflicted {
    let proxies = field.cluster.proxies(fault.target);
    let commit = || Requests::of(ApiKey::EndTxn).first(1);
    match fault.kind {
        Kind::TrafficStalled => {
            proxies.iter().for_each(Proxy::stall);
            sleep(fault.lasts);
            proxies.iter().for_each(Proxy::go_on);
        }
        Kind::TrafficCut => {
            proxies.iter().for_each(Proxy::cut);
            sleep(fault.lasts);
            proxies.iter().for_each(Proxy::restore);
        }
        Kind::CommitReplyLost => {
            let traps: Vec<Trap> = proxies.iter().map(|p| p.lose_reply(commit())).collect();
            if !caught(&traps) {
                return Inflicted::No("nothing was committed");
            }
            for trap in traps.iter().filter(|trap| trap.caught() > 0) {
                // A broker that is down meanwhile replies to nobody.
                let _ = trap.await_answered(1, REPLY_LIMIT);
            }
        }
        Kind::CommitDelayed => {
            let traps: Vec<Trap> = proxies.iter().map(|p| p.detach(commit())).collect();
            if !caught(&traps) {
                return Inflicted::No("nothing was committed");
            }
            sleep(fault.lasts);
            for trap in &traps {
                trap.release();
            }
            for trap in traps.iter().filter(|trap| trap.caught() > 0) {
                let _ = trap.await_answered(1, REPLY_LIMIT);
            }
        }
        _ => {
            let began = Instant::now();
            loop {
                proxies.iter().for_each(Proxy::reset);
                if began.elapsed() >= fault.lasts {
                    break;
                }
                sleep(PAUSE);
            }
        }
    }
    Inflicted::Yes
}

/// Waits until one of the traps has caught something.
fn caught(traps: &[Trap]) -> bool {
    let began = Instant::now();
    while began.elapsed() < CATCH_LIMIT {
        if traps.iter().any(|trap| trap.caught() > 0) {
            return true;
        }
        sleep(LOOK_AGAIN);
    }
    false
}
