//! A few HTTP requests to services on loopback, from any thread.

use std::time::Duration;

use crate::Error;
use crate::topic::off_runtime;

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for a page and gives whatever status came back.
pub fn get(url: &str) -> Result<Answer, Error> {
    request(reqwest::Method::GET, url, None)
}

/// Sends a request, with a JSON body if there is one.
pub(crate) fn request(
    method: reqwest::Method,
    url: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer, Error> {
    let failed = |error: reqwest::Error| Error::Http {
        url: url.into(),
        reason: error.without_url().to_string(),
    };
    off_runtime(async {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .no_proxy()
            .build()
            .map_err(failed)?;
        let mut request = client.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = answer.text().await.map_err(failed)?;
        Ok(Answer { status, body })
    })?
}
