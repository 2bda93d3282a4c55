//! The end of the process: a signal asks for it, a second one forces it, and a limit makes sure of it.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// After the first signal, or once a part has failed, the process is gone within 20 s, whatever Kafka does; a second is left for the exit itself.
const LIMIT: Duration = Duration::from_secs(19);
/// The exit code of a forced end.
const FORCED: i32 = 1;

/// Ends the process at once, with one message: something is stuck that cannot be waited for.
#[allow(clippy::print_stderr, reason = "the one message of a failure")]
pub fn at_once(reason: &str) {
    tracing::error!("{reason}");
    eprintln!("error: {reason}");
    std::process::exit(FORCED);
}

/// Listens for SIGTERM and SIGINT on a thread of its own. The token is cancelled by the first; the second, or the limit, ends
/// the process at once. That is safe at any moment, as nothing but committed transactions counts. The limit counts too when
/// the token was cancelled because a part has failed: another part may be stuck in a call that never returns, and a process
/// that neither works nor ends helps nobody.
pub fn on_signals() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let asked = token.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(guard);
    let listen = move || {
        let signal = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        runtime.block_on(overdue(&asked, signal, LIMIT));
        std::process::exit(FORCED);
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)?;
    Ok(token)
}

/// Cancels the token at the first signal. Comes back when the process must not wait for its end in good order any longer.
async fn overdue(asked: &CancellationToken, mut signal: impl AsyncFnMut(), limit: Duration) {
    let failed = tokio::select! {
        () = signal() => false,
        () = asked.cancelled() => true,
    };
    asked.cancel();
    let told = "stopping: the open transactions are finished first; another signal stops at once";
    let second = async {
        if failed {
            // The first signal comes while the process is stopping already.
            signal().await;
        }
        tracing::info!("{told}");
        signal().await;
    };
    tokio::select! {
        () = second => tracing::warn!("stopped by a second signal"),
        () = tokio::time::sleep(limit) => tracing::error!("not stopped within {limit:?}: gave up"),
    }
}

#[cfg(test)]
mod tests {
    use super::overdue;
    use std::future::{pending, ready};
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn the_first_signal_asks_for_the_end_and_the_second_forces_it() {
        let asked = CancellationToken::new();
        overdue(&asked, || ready(()), Duration::from_hours(1)).await;
        assert!(asked.is_cancelled());
    }

    #[tokio::test]
    async fn the_first_signal_after_a_failure_forces_nothing() {
        let asked = CancellationToken::new();
        asked.cancel();
        let mut signals = 0;
        let signal = async || signals += 1;
        overdue(&asked, signal, Duration::from_hours(1)).await;
        assert_eq!(signals, 2);
    }

    #[tokio::test]
    async fn a_process_whose_part_has_failed_does_not_wait_for_ever_for_the_others() {
        let asked = CancellationToken::new();
        asked.cancel();
        overdue(&asked, pending, Duration::from_millis(1)).await;
    }
}
