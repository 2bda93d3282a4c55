//! What machines that run the process ask for: `/livez`, `/readyz`, `/metrics`.

use super::{Served, now_ms};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 200 while every worker makes progress.
pub(super) async fn livez(State(served): State<Arc<Served>>) -> Response {
    let stuck = served.health.stuck(now_ms());
    if stuck.is_empty() {
        return Json(json!({"live": true})).into_response();
    }
    let since: BTreeMap<&String, i64> = stuck.iter().map(|(name, s)| (name, s.since_ms)).collect();
    let doing: BTreeMap<&String, &str> = stuck.iter().map(|(name, s)| (name, s.doing)).collect();
    let body = json!({"live": false, "milliseconds_without_progress": since, "while": doing});
    let body = Json(body);
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// 200 once everything is restored; else what is left. Sinks that are unwell are named, and change nothing of that: what is
/// asked here does not depend on them.
pub(super) async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let restoring = served.health.restoring();
    let unwell = served.health.unwell();
    let mut body = Map::new();
    let ready = restoring.as_ref().is_some_and(BTreeMap::is_empty);
    body.insert("ready".to_owned(), ready.into());
    if !ready {
        body.insert("restoring".to_owned(), json!(restoring));
    }
    if !unwell.is_empty() {
        body.insert("unwell".to_owned(), json!(unwell));
    }
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// The metrics as `OpenMetrics` text.
pub(super) async fn metrics(State(served): State<Arc<Served>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (served.metrics)()).into_response()
}
