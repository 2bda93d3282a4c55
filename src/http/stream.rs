//! Events as lines of JSON (`application/x-ndjson`), with a trailer line so that truncation shows.

use super::Served;
use super::events::{EventsQuery, MOST_ITEMS, Sources, append_members};
use super::problem::Problem;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// Chunks that wait for the client.
const QUEUED: usize = 2;
/// A client that takes nothing for this long is left.
const STALLED: Duration = Duration::from_secs(30);

/// The whole range, or as many items as `limit` says when it is given. It is read page by page, so that a slow client
/// holds neither a thread nor a snapshot.
pub(super) fn respond(served: Arc<Served>, query: EventsQuery, sources: Sources) -> Response {
    let (chunks, body) = mpsc::channel(QUEUED);
    tokio::spawn(produce(served, query, sources, chunks));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::new(Chunks(body))).into_response()
}

async fn produce(
    served: Arc<Served>,
    mut query: EventsQuery,
    sources: Sources,
    chunks: mpsc::Sender<Bytes>,
) {
    let mut given = 0;
    let outcome = loop {
        let left = query.limit.map_or(MOST_ITEMS, |limit| limit - given);
        let (asked, from) = (query.clone(), sources.clone());
        let read = served
            .reads
            .run(move |store| asked.items(store, &from, left, b'\n'))
            .await;
        let items = match read {
            Ok(items) => items,
            Err(problem) => break Err(problem),
        };
        given += items.count;
        if !items.bytes.is_empty() && !send(&chunks, items.bytes).await {
            return;
        }
        if items.next.is_none() || query.limit == Some(given) {
            break Ok(items.next);
        }
        query.after = items.next;
    };
    let next = outcome.map(|next| next.map(|next| query.seal(&served.cursor_key, next)));
    send(&chunks, trailer(next, given, &sources)).await;
}

/// Whether the client is still there.
async fn send(chunks: &mpsc::Sender<Bytes>, bytes: Vec<u8>) -> bool {
    let sent = tokio::time::timeout(STALLED, chunks.send(Bytes::from(bytes))).await;
    matches!(sent, Ok(Ok(())))
}

fn trailer(next: Result<Option<String>, Problem>, items: usize, sources: &Sources) -> Vec<u8> {
    let complete = next.is_ok();
    let mut line =
        format!("{{\"trailer\":{{\"complete\":{complete},\"items\":{items}").into_bytes();
    match next {
        Ok(next) => append_members(&mut line, next, sources),
        Err(problem) => {
            line.extend_from_slice(b",\"problem\":");
            line.extend_from_slice(&problem.json());
        }
    }
    line.extend_from_slice(b"}}\n");
    line
}

/// A body of the chunks that come through a channel.
struct Chunks(mpsc::Receiver<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.0.poll_recv(context);
        chunk.map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
