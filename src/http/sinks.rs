//! `GET /v1/sinks`, and `POST /v1/sinks/{name}/pause` and `/resume` for whoever has the operate token.

use super::Served;
use super::problem::{Problem, excerpt};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::Arc;

/// Which sinks run here, and how each fares.
pub(super) async fn list(State(served): State<Arc<Served>>) -> Response {
    let unwell = served.health.unwell();
    let switches = served.switches.as_ref();
    let sinks = switches
        .map(crate::sinks::Switches::all)
        .unwrap_or_default();
    let items = sinks.into_iter().map(|(name, paused)| {
        let reason = unwell.get(&format!("sink-{name}"));
        json!({"name": name, "paused": paused, "well": reason.is_none(), "reason": reason})
    });
    let items: Vec<Value> = items.collect();
    Json(json!({"items": items})).into_response()
}

/// Stops the deliveries of a sink after what is under way, until it is resumed; also over restarts.
pub(super) async fn pause(
    State(served): State<Arc<Served>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set(served, name, &headers, true).await
}

/// Lets a sink deliver again.
pub(super) async fn resume(
    State(served): State<Arc<Served>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set(served, name, &headers, false).await
}

async fn set(
    served: Arc<Served>,
    name: String,
    headers: &HeaderMap,
    paused: bool,
) -> Result<Response, Problem> {
    allow(headers, served.operate_token.as_ref())?;
    let asked = name.clone();
    let written = tokio::task::spawn_blocking(move || {
        let switches = served.switches.as_ref();
        switches.map_or(Ok(false), |switches| switches.set(&asked, paused))
    });
    match written.await {
        Ok(Ok(true)) => {
            tracing::info!(sink = name, paused, "an operator has switched a sink");
            Ok(Json(json!({"name": name, "paused": paused})).into_response())
        }
        Ok(Ok(false)) => {
            let name = excerpt(&name);
            Err(Problem::not_found(format!(
                "no sink `{name}` runs here: GET /v1/sinks lists them"
            )))
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot write which sinks are paused");
            Err(Problem::internal())
        }
        Err(_) => Err(Problem::internal()),
    }
}

/// Refuses who does not have the token. Both are hashed under the same key before they are compared, so the time it takes
/// tells nothing of the token.
fn allow(headers: &HeaderMap, token: Option<&SecretString>) -> Result<(), Problem> {
    let Some(token) = token else {
        return Err(Problem::forbidden(
            "nobody may: set http.operate_token or http.operate_token_file, and send it as a bearer token",
        ));
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        // The scheme is told from others whatever its case (RFC 9110, 11.1).
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    let mac = |text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"operate").ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    };
    let expected = mac(token.expose_secret()).map(|mac| mac.finalize().into_bytes());
    let same = given
        .and_then(mac)
        .zip(expected)
        .is_some_and(|(given, expected)| given.verify_slice(&expected).is_ok());
    if same {
        Ok(())
    } else {
        Err(Problem::unauthorized(
            "send the operate token as `Authorization: Bearer …`",
        ))
    }
}
