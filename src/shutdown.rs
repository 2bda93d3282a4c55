//! The end of the process: a signal asks for it, a second one forces it, and a limit makes sure of it.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// After the first signal the process is gone within 20 s, whatever Kafka does; a second is left for the exit itself.
const LIMIT: Duration = Duration::from_secs(19);
/// The exit code of a forced end.
const FORCED: i32 = 1;

/// Listens for SIGTERM and SIGINT on a thread of its own. The token is cancelled by the first; the second, or the limit, ends
/// the process at once. That is safe at any moment, as nothing but committed transactions counts.
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
    let listen = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(
            "stopping: the open transactions are finished first; another signal stops at once"
        );
        asked.cancel();
        tokio::select! {
            _ = terminate.recv() => tracing::warn!("stopped by a second signal"),
            _ = interrupt.recv() => tracing::warn!("stopped by a second signal"),
            () = tokio::time::sleep(LIMIT) => tracing::error!("not stopped within {LIMIT:?}: gave up"),
        }
        std::process::exit(FORCED);
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(listen))?;
    Ok(token)
}
