//! One connection to Redis for all partitions, made when it is needed and made anew after it failed.

use super::super::destination::SinkError;
use super::failure::Peer;
use crate::config::{REDIS, RedisConfig, check_url, secret};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisError,
};
use secrecy::ExposeSecret;
use std::time::Duration;
use tokio::sync::Mutex;

/// The connection that there is, and how many there were before it.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

/// The way to Redis.
pub(super) struct Connection {
    config: RedisConfig,
    /// What the URL says, or what is wrong with it.
    info: Result<ConnectionInfo, String>,
    peer: Peer,
    current: Mutex<Current>,
}

impl Connection {
    /// Connects to nothing yet. That the URL is wrong is told when it is to.
    pub(super) fn new(config: &RedisConfig) -> Self {
        let url = config.url.as_deref().unwrap_or_default();
        let info = check_url("sinks.redis.url", url, REDIS).and_then(|()| {
            url.into_connection_info()
                .map_err(|error| format!("`sinks.redis.url`: {error}"))
        });
        let peer = Peer {
            address: info
                .as_ref()
                .map_or_else(|_| "no address".to_owned(), |info| info.addr().to_string()),
            user: config
                .username
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            prefix: config.prefix.clone(),
        };
        Self {
            config: config.clone(),
            info,
            peer,
            current: Mutex::default(),
        }
    }

    /// Whom this talks to.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Makes one call. It may have taken effect though it failed: an answer can be lost.
    pub(super) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SinkError> {
        let called = self.try_call(command).await?;
        called.map_err(|error| self.peer.explain(&error))
    }

    /// The same, for who wants to look at what Redis said.
    pub(super) async fn try_call<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Result<T, RedisError>, SinkError> {
        let (number, mut connection) = self.connected().await?;
        let called = command.query_async(&mut connection).await;
        if let Err(error) = &called
            && must_reconnect(error)
        {
            let mut current = self.current.lock().await;
            if current.number == number {
                current.connection = None;
            }
        }
        Ok(called)
    }

    async fn connected(&self) -> Result<(u64, MultiplexedConnection), SinkError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.number, connection.clone()));
        }
        let connection = self.connect().await?;
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    /// Reads the password anew each time: it may have been rotated.
    async fn connect(&self) -> Result<MultiplexedConnection, SinkError> {
        let config = &self.config;
        let info = self.info.clone().map_err(SinkError::Misconfigured)?;
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(user) = &config.username {
            settings = settings.set_username(user);
        }
        let password = secret(config.password.as_ref(), config.password_file.as_deref()).map_err(
            |problem| SinkError::Misconfigured(format!("sinks.redis.password_file: {problem}")),
        )?;
        if let Some(password) = &password {
            settings = settings.set_password(password.expose_secret());
        }
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout));
        let connecting = async {
            let client = Client::open(info.set_redis_settings(settings))?;
            client
                .get_multiplexed_async_connection_with_config(&timeouts)
                .await
        };
        // The library's own limits leave the look-up of the name out.
        match tokio::time::timeout(config.timeout + Duration::from_secs(1), connecting).await {
            Ok(connected) => connected.map_err(|error| self.peer.explain(&error)),
            Err(_) => Err(SinkError::Unavailable(format!(
                "Redis at {} does not answer: no connection within {:?}",
                self.peer.address, config.timeout
            ))),
        }
    }
}

/// Whether another connection may lead to a server that answers otherwise: after a network failure, or at a server that was
/// demoted, or that forgot who we are.
fn must_reconnect(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.code(),
            Some("READONLY" | "NOAUTH" | "NOPERM" | "WRONGPASS" | "MOVED" | "MASTERDOWN")
        )
}
