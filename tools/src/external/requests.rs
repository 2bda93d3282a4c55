//! What the mock answers: events, and those who ask what it has seen.

use super::Shared;
use super::connection::Switch;
use super::script::{Credentials, Duplicates, Kind, Script};
use super::seen::{Accepted, Arrival};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;

/// The largest event, in bytes.
const LARGEST_EVENT: usize = 8 << 20;
/// A dripping body has so many drops.
const DROPS: u64 = 20;
/// Events that one page of the journal holds by default.
const PAGE: usize = 1_000;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/events", post(take).get(journal))
        .route("/seen", get(seen))
        .route("/seen/{key}", get(seen_of_key))
        .route("/control/script", post(play).delete(play_nothing))
        .route("/control/forget", post(forget))
        .route("/healthz", get(async || "ok\n"))
        .layer(DefaultBodyLimit::max(LARGEST_EVENT))
        .with_state(shared)
}

async fn take(
    ConnectInfo(switch): ConnectInfo<Switch>,
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arrival = read(&headers, &body);
    let key = arrival.as_ref().map_or("", |arrival| &arrival.key);
    let (decision, script) = {
        let mut play = shared.play();
        (play.decide(key, shared.now_ms()), play.script().clone())
    };
    {
        let mut seen = shared.seen();
        seen.totals_mut().requests += 1;
        if let Some(arrival) = &arrival {
            seen.came(arrival);
        } else {
            seen.totals_mut().malformed += 1;
        }
        if decision.latency_ms > 0 {
            seen.played("latency".to_owned());
        }
    }
    tokio::time::sleep(Duration::from_millis(decision.latency_ms)).await;
    if let Some(fault) = &decision.fault {
        shared.seen().played(fault.name());
    }
    // What stands before the system does not look at the event.
    match decision.fault.clone() {
        Some(Kind::Status {
            status,
            retry_after,
            location,
            body,
        }) => return with_status(status, retry_after, location, body),
        Some(Kind::Reset) => {
            switch.reset();
            return StatusCode::OK.into_response();
        }
        _ => {}
    }
    if !proves(&script.credentials, &headers, &body) {
        shared.seen().totals_mut().unauthorized += 1;
        return told(StatusCode::UNAUTHORIZED, "the credentials are wrong");
    }
    let Some(arrival) = arrival else {
        let why = "Idempotency-Key must be the event_id of the JSON";
        return told(StatusCode::BAD_REQUEST, why);
    };
    let accept = || {
        let mut seen = shared.seen();
        let duplicate = seen.has(&arrival.key);
        seen.accept(&arrival);
        match script.duplicates {
            Duplicates::Conflict if duplicate => told(StatusCode::CONFLICT, "it is there already"),
            _ => told(StatusCode::OK, "taken"),
        }
    };
    match decision.fault {
        Some(Kind::LostAnswer) => {
            switch.reset();
            accept()
        }
        Some(Kind::LateAnswer { milliseconds }) => {
            let answer = accept();
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            answer
        }
        Some(Kind::SlowBody { milliseconds }) => {
            let (parts, _) = accept().into_parts();
            let drops = (0..DROPS).map(|_| Ok::<_, Infallible>(Bytes::from_static(b" ")));
            let pause = Duration::from_millis(milliseconds / DROPS);
            let body = Body::from_stream(tokio_stream::iter(drops).throttle(pause));
            let mut answer = (parts.status, body).into_response();
            answer.headers_mut().extend(parts.headers);
            answer.headers_mut().remove(header::CONTENT_LENGTH);
            answer
        }
        _ => accept(),
    }
}

fn told(status: StatusCode, what: &str) -> Response {
    (status, Json(json!({ "told": what }))).into_response()
}

fn with_status(
    status: u16,
    retry_after: Option<String>,
    location: Option<String>,
    body: String,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = (status, body).into_response();
    for (name, value) in [
        (header::RETRY_AFTER, retry_after),
        (header::LOCATION, location),
    ] {
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// The event, if it is one with its key.
fn read(headers: &HeaderMap, body: &[u8]) -> Option<Arrival> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    let event: Value = serde_json::from_slice(body).ok()?;
    if event.get("event_id")?.as_str()? != key {
        return None;
    }
    let shown = headers
        .iter()
        .filter(|(name, _)| **name != header::AUTHORIZATION)
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let shown: BTreeMap<String, String> = shown.collect();
    Some(Arrival {
        key: key.to_owned(),
        content_id: event
            .get("content_id")
            .and_then(Value::as_str)
            .map(str::to_owned),
        body: String::from_utf8_lossy(body).into_owned(),
        headers: shown,
    })
}

fn proves(wanted: &Credentials, headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text("authorization");
    let bearer = wanted.bearer.as_ref().is_none_or(|token| {
        authorization.and_then(|given| given.strip_prefix("Bearer ")) == Some(token)
    });
    let basic = wanted.basic.as_ref().is_none_or(|pair| {
        let given = authorization.and_then(|given| given.strip_prefix("Basic "));
        given == Some(&base64(pair.as_bytes()))
    });
    let signed = wanted.hmac_key.as_ref().is_none_or(|key| {
        let Ok(mut signer) = <Hmac<Sha256> as KeyInit>::new_from_slice(key.as_bytes()) else {
            return false;
        };
        signer.update(body);
        let signature = signer.finalize().into_bytes();
        let digits = signature.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex: String = digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect();
        text("x-signature-256") == Some(&format!("sha256={hex}"))
    });
    bearer && basic && signed
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or_default())
        });
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or_default();
            text.push(if digit > chunk.len() {
                '='
            } else {
                letter.into()
            });
        }
    }
    text
}

async fn seen(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.seen().totals()).into_response()
}

async fn seen_of_key(State(shared): State<Arc<Shared>>, Path(key): Path<String>) -> Response {
    match shared.seen().key(&key) {
        Some(seen) => Json(seen).into_response(),
        None => told(StatusCode::NOT_FOUND, "this key never came"),
    }
}

#[derive(Deserialize)]
struct PageOf {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
}

async fn journal(State(shared): State<Arc<Shared>>, Query(page): Query<PageOf>) -> Response {
    let seen = shared.seen();
    let events = seen.journal().iter().skip(page.from);
    let events: Vec<&Accepted> = events.take(page.limit.unwrap_or(PAGE)).collect();
    Json(json!({"events": events, "all": seen.journal().len()})).into_response()
}

async fn play(State(shared): State<Arc<Shared>>, script: String) -> Response {
    match Script::from_json(&script) {
        Ok(script) => {
            shared.play_from_now(script);
            told(StatusCode::OK, "it is played")
        }
        Err(problem) => told(StatusCode::BAD_REQUEST, &problem),
    }
}

async fn play_nothing(State(shared): State<Arc<Shared>>) -> Response {
    shared.play_from_now(Script::default());
    told(StatusCode::OK, "no faults from now on")
}

async fn forget(State(shared): State<Arc<Shared>>) -> Response {
    shared.seen().clear();
    told(StatusCode::OK, "forgotten")
}
