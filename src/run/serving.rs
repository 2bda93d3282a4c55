//! The HTTP side of the process.

use super::{Process, RunError};
use crate::config::secret;
use crate::http::Api;
use crate::recent::Recent;
use crate::sinks::Switches;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::sync::Arc;

impl Process {
    pub(super) fn serve(
        &self,
        listener: std::net::TcpListener,
        recent: Option<&Recent>,
        switches: Switches,
    ) -> Result<tokio::runtime::Runtime, RunError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            .enable_all()
            .build()?;
        listener.set_nonblocking(true)?;
        let metrics = self.metrics.clone();
        let api = Api {
            store: self.store.clone(),
            recent: recent.map(Recent::view),
            health: Arc::clone(&self.health),
            metrics: Arc::new(move || metrics.encode()),
            partitions: tokio::sync::watch::channel(self.topics.raw_partitions).1,
            cursor_key: self.cursor_key(),
            max_queries: self.config.http.max_queries,
            switches: Some(switches),
            operate_token: self.operate_token()?,
        };
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(guard);
        let asked = self.asked.clone();
        tracing::info!(listen = %self.config.listen, "serving HTTP");
        runtime.spawn(async move {
            if let Err(error) = crate::http::serve(listener, api, asked.clone()).await {
                tracing::error!(%error, "the HTTP server ended");
                asked.cancel();
            }
        });
        Ok(runtime)
    }

    fn operate_token(&self) -> Result<Option<SecretString>, RunError> {
        let http = &self.config.http;
        let file = http.operate_token_file.as_deref();
        secret(http.operate_token.as_ref(), file)
            .map_err(|problem| RunError::Secret("http.operate_token_file", problem))
    }

    /// The configured key, or one that every instance of this deployment derives alike.
    fn cursor_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match &self.config.http.cursor_key {
            Some(key) => hash.update(key.expose_secret()),
            None => hash.update(format!("{}/{}", self.cluster, self.config.app)),
        }
        hash.finalize().into()
    }
}
