//! BigQuery's REST interface, as far as it is needed: datasets, tables, one query.

use super::super::SinkError;
use super::auth::Auth;
use crate::config::{BigQueryConfig, WEB, check_url};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const URL: &str = "https://bigquery.googleapis.com/bigquery/v2";
/// How long one request may take. A query that takes longer is asked about again.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long BigQuery waits with the answer to a query.
const QUERY_MS: u64 = 20_000;
/// How often a query is asked about before it is given up.
const LOOKS: u32 = 15;
/// Refusals that pass by themselves, which come as 403 too.
const PASSING: [&str; 5] = [
    "rateLimitExceeded",
    "jobRateLimitExceeded",
    "quotaExceeded",
    "backendError",
    "jobBackendError",
];

/// A client of one project.
pub(super) struct Rest {
    client: Client,
    auth: Arc<Auth>,
    url: String,
    project: String,
}

/// What was asked for.
pub(super) enum Found {
    /// The resource.
    There(Value),
    /// It does not exist.
    Missing,
}

impl Rest {
    /// Connects when the first request is made.
    pub(super) fn new(
        config: &BigQueryConfig,
        project: &str,
        auth: Arc<Auth>,
    ) -> Result<Self, SinkError> {
        let client = Client::builder()
            .timeout(REQUEST)
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| {
                SinkError::Misconfigured(format!("cannot make a client for BigQuery: {error}"))
            })?;
        let url = config.rest_url.as_deref().unwrap_or(URL);
        check_url("sinks.bigquery.rest_url", url, WEB).map_err(SinkError::Misconfigured)?;
        Ok(Self {
            client,
            auth,
            url: url.trim_end_matches('/').to_owned(),
            project: project.to_owned(),
        })
    }

    /// A resource below the project, such as `datasets/d`.
    pub(super) async fn get(&self, path: &str) -> Result<Found, SinkError> {
        match self.ask(Method::GET, path, None).await? {
            (status, body) if status.is_success() => Ok(Found::There(body)),
            (StatusCode::NOT_FOUND, _) => Ok(Found::Missing),
            (status, body) => Err(refusal(&format!("look at {path}"), status, &body)),
        }
    }

    /// Makes a resource below `path`. One that is there already is no error: another process made it meanwhile.
    pub(super) async fn create(&self, path: &str, resource: &Value) -> Result<(), SinkError> {
        match self.ask(Method::POST, path, Some(resource)).await? {
            (status, _) if status.is_success() || status == StatusCode::CONFLICT => Ok(()),
            (status, body) => Err(refusal(&format!("create one of {path}"), status, &body)),
        }
    }

    /// The cells of the one row that a query gives; NULL is none. Nothing is taken from a cache.
    pub(super) async fn row(&self, sql: &str) -> Result<Vec<Option<String>>, SinkError> {
        let request = json!({"query": sql, "useLegacySql": false, "useQueryCache": false, "timeoutMs": QUERY_MS});
        let mut answer = self.ask(Method::POST, "queries", Some(&request)).await?;
        for _ in 0..LOOKS {
            let (status, body) = answer;
            if !status.is_success() {
                return Err(refusal("query the table", status, &body));
            }
            if body.get("jobComplete") == Some(&Value::Bool(true)) {
                return first_row(&body).ok_or_else(|| {
                    SinkError::Unavailable("a query of the table gave no row".to_owned())
                });
            }
            let job = |key: &str| {
                let text = body
                    .pointer(&format!("/jobReference/{key}"))
                    .and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let path = format!(
                "queries/{}?timeoutMs={QUERY_MS}&location={}",
                job("jobId"),
                job("location")
            );
            answer = self.ask(Method::GET, &path, None).await?;
        }
        Err(SinkError::Unavailable(
            "a query of the table takes too long".to_owned(),
        ))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), SinkError> {
        let failed = |error: reqwest::Error| {
            let mut reason = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(deeper) = source {
                reason = deeper.to_string();
                source = deeper.source();
            }
            SinkError::Unavailable(format!(
                "BigQuery does not answer at {}: {reason}",
                self.url
            ))
        };
        let mut request = self.client.request(
            method,
            format!("{}/projects/{}/{path}", self.url, self.project),
        );
        if let Some(token) = self.auth.token().await? {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let text = answer.bytes().await.map_err(failed)?;
        let unreadable =
            || Value::String(String::from_utf8_lossy(&text).chars().take(200).collect());
        Ok((
            status,
            serde_json::from_slice(&text).unwrap_or_else(|_| unreadable()),
        ))
    }
}

/// What a refusal asks for.
fn refusal(what: &str, status: StatusCode, body: &Value) -> SinkError {
    let message = body.pointer("/error/message").and_then(Value::as_str);
    let reason = body
        .pointer("/error/errors/0/reason")
        .and_then(Value::as_str);
    let said = message.map_or_else(|| body.to_string(), str::to_owned);
    let problem = format!("BigQuery refuses to {what}: {said} ({status})");
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
        || reason.is_some_and(|reason| PASSING.contains(&reason));
    if passes {
        SinkError::Unavailable(problem)
    } else {
        SinkError::Misconfigured(problem)
    }
}

fn first_row(body: &Value) -> Option<Vec<Option<String>>> {
    let cells = body.pointer("/rows/0/f")?.as_array()?;
    let text = |cell: &Value| Some(cell.get("v")?.as_str()?.to_owned());
    Some(cells.iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_passes_is_told_from_one_that_stays() {
        let limit =
            json!({"error": {"message": "slow down", "errors": [{"reason": "rateLimitExceeded"}]}});
        let denied = json!({"error": {"message": "no", "errors": [{"reason": "accessDenied"}]}});
        let html = json!("<html>");
        for (status, body, passes) in [
            (StatusCode::FORBIDDEN, &limit, true),
            (StatusCode::FORBIDDEN, &denied, false),
            (StatusCode::UNAUTHORIZED, &html, false),
            (StatusCode::BAD_GATEWAY, &html, true),
            (StatusCode::TOO_MANY_REQUESTS, &html, true),
        ] {
            let refused = refusal("x", status, body);
            assert_eq!(
                matches!(refused, SinkError::Unavailable(_)),
                passes,
                "{refused}"
            );
        }
    }

    #[test]
    fn cells_are_texts_and_null_is_none() {
        let body = json!({"jobComplete": true, "rows": [{"f": [{"v": "7"}, {"v": null}]}]});
        assert_eq!(first_row(&body), Some(vec![Some("7".to_owned()), None]));
        assert_eq!(first_row(&json!({"jobComplete": true})), None);
    }
}
