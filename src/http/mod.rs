//! The HTTP API: queries of recent events and content for the partitions of this instance, health, metrics, and the switches
//! of the sinks.
//!
//! Nothing that a client sends gives a 5xx: what it sends is checked before anything is read, what a read costs is bounded,
//! and reads run on blocking threads, a bounded number at a time.

mod content;
mod cursor;
mod events;
mod ops;
mod params;
mod problem;
mod reads;
mod sinks;
mod stream;

use crate::health::Health;
use crate::recent::RecentView;
use crate::sinks::Switches;
use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use problem::Problem;
use reads::Reads;
use secrecy::SecretString;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thmanyah_state::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

/// Path and query of a request may have this many bytes.
const URI_LIMIT: usize = 8 << 10;
/// A body is never read; one that says to be longer than this is refused.
const BODY_LIMIT: u64 = 64 << 10;
/// How long requests in flight may take after the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(5);

/// Writes the metrics as `OpenMetrics` text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the API answers from.
pub struct Api {
    /// Where rows are.
    pub store: Store,
    /// How far recent events are followed; `None` when that is switched off.
    pub recent: Option<RecentView>,
    /// What is live and ready.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: MetricsText,
    /// How many partitions the enriched topic has; 0 while that is not known.
    pub partitions: watch::Receiver<i32>,
    /// What cursors are signed with; the same on every instance.
    pub cursor_key: [u8; 32],
    /// Queries that run at the same time.
    pub max_queries: usize,
    /// What pauses and resumes sinks, where there are any.
    pub switches: Option<Switches>,
    /// Who sends it may operate the switches.
    pub operate_token: Option<SecretString>,
}

/// [`Api`] as the handlers see it.
struct Served {
    reads: Reads,
    recent: Option<RecentView>,
    health: Arc<Health>,
    metrics: MetricsText,
    partitions: watch::Receiver<i32>,
    cursor_key: [u8; 32],
    switches: Option<Switches>,
    operate_token: Option<SecretString>,
}

/// Serves until `shutdown`, then for a few seconds more what is in flight.
pub async fn serve(listener: TcpListener, api: Api, shutdown: CancellationToken) -> io::Result<()> {
    let begun = shutdown.clone();
    let server = axum::serve(listener, router(api))
        .with_graceful_shutdown(async move { begun.cancelled().await });
    tokio::select! {
        ended = server.into_future() => ended,
        // A client that neither finishes its request nor leaves must not keep the process.
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

fn router(api: Api) -> Router {
    let served = Arc::new(Served {
        reads: Reads::new(api.store, api.max_queries),
        recent: api.recent,
        health: api.health,
        metrics: api.metrics,
        partitions: api.partitions,
        cursor_key: api.cursor_key,
        switches: api.switches,
        operate_token: api.operate_token,
    });
    Router::new()
        .route("/v1/enriched-events", get(events::list))
        .route("/v1/enriched-events/{event_id}", get(events::one))
        .route("/v1/content", get(content::list))
        .route("/v1/content/{id}", get(content::one))
        .route("/v1/sinks", get(sinks::list))
        .route("/v1/sinks/{name}/pause", post(sinks::pause))
        .route("/v1/sinks/{name}/resume", post(sinks::resume))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .fallback(async || Problem::not_found("no resource has this address"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(served)
        .layer(middleware::from_fn(refuse_oversize))
        .layer(CatchPanicLayer::custom(panicked))
}

/// Refuses addresses and bodies that no request here needs.
async fn refuse_oversize(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let uri_len = uri.path_and_query().map_or(0, |text| text.as_str().len());
    if uri_len > URI_LIMIT {
        return Problem::uri_too_long(URI_LIMIT).into_response();
    }
    let body_len = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if body_len.is_some_and(|len| len > BODY_LIMIT) {
        // The body is not read, so the connection cannot be used again.
        return ([(header::CONNECTION, "close")], Problem::body_too_large()).into_response();
    }
    next.run(request).await
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer hands panics over by value"
)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let reason = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(reason, "a request handler has panicked");
    Problem::internal().into_response()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests;
