//! What an answer of Redis means for who waits for the delivery: one clear sentence, with the way out where there is one.

use super::super::destination::SinkError;
use redis::{ErrorKind, RedisError};

/// Whom the sink talks to, as its messages call them.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// `HOST:PORT`.
    pub(super) address: String,
    /// The ACL user.
    pub(super) user: String,
    /// Hash tag of the keys.
    pub(super) prefix: String,
}

/// What a failure was, in a form that needs no connection to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No connection, or none any more, or no answer in time.
    Network,
    /// The credentials were refused.
    Credentials,
    /// Anything else that the server said.
    Said,
}

impl Peer {
    /// What became of a call.
    pub(super) fn explain(&self, error: &RedisError) -> SinkError {
        let kind = match error.kind() {
            ErrorKind::AuthenticationFailed => Kind::Credentials,
            ErrorKind::Io => Kind::Network,
            _ if error.is_timeout() || error.is_connection_dropped() => Kind::Network,
            _ => Kind::Said,
        };
        let code = error.code().unwrap_or_default();
        let said = match error.detail() {
            Some(detail) if !code.is_empty() => format!("{code} {detail}"),
            Some(detail) => detail.to_owned(),
            None => error.to_string(),
        };
        self.judge(kind, code, said.trim())
    }

    fn judge(&self, kind: Kind, code: &str, said: &str) -> SinkError {
        let Self {
            address,
            user,
            prefix,
        } = self;
        let lower = said.to_lowercase();
        let denied = code == "NOPERM" || lower.contains("the user executing the script can't");
        let misconfigured = if kind == Kind::Network {
            return SinkError::Unavailable(format!("Redis at {address} does not answer: {said}"));
        } else if kind == Kind::Credentials || code == "WRONGPASS" || code == "NOAUTH" {
            format!(
                "Redis at {address} refuses the user `{user}` or its password: set sinks.redis.username and \
                 sinks.redis.password or sinks.redis.password_file ({said})"
            )
        } else if denied {
            format!(
                "the user `{user}` of Redis at {address} is not allowed what the sink needs: \
                 ACL SETUSER {user} ~{{{prefix}}}* +@read +@write +@scripting +@connection +time +info ({said})"
            )
        } else if lower.contains("unknown command") {
            self.too_old(said)
        } else if code == "MOVED" || code == "ASK" {
            format!(
                "Redis at {address} is a node of a cluster, and the keys {{{prefix}}}* live on another: \
                 set sinks.redis.url to the node that it names, or to an address that follows its slot ({said})"
            )
        } else if code == "CROSSSLOT"
            || lower.contains("db index is out of range")
            || lower.contains("select is not allowed")
        {
            format!("Redis at {address} refuses sinks.redis.url or sinks.redis.prefix: {said}")
        } else {
            // Loading, a replica, a cluster that is down, out of memory, a script that runs: all may pass by themselves.
            return SinkError::Unavailable(match code {
                "OOM" => format!("Redis at {address} is full: raise its maxmemory ({said})"),
                "READONLY" => {
                    format!("Redis at {address} is a replica, which takes no writes ({said})")
                }
                _ if lower.contains("function not found") => {
                    format!("Redis at {address} has lost the sink's functions: it came back empty")
                }
                _ => format!("Redis at {address} says: {said}"),
            });
        };
        SinkError::Misconfigured(misconfigured)
    }

    /// The server has no functions.
    pub(super) fn too_old(&self, said: &str) -> String {
        format!(
            "Redis at {} is too old: functions are needed, which Redis 7.0 and newer have ({said})",
            self.address
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer {
            address: "redis:6379".into(),
            user: "sink".into(),
            prefix: "thm".into(),
        }
    }

    #[test]
    fn what_will_not_pass_by_itself_names_its_way_out() {
        for (kind, said, way_out) in [
            (
                Kind::Credentials,
                "WRONGPASS invalid username-password pair",
                "sinks.redis.password",
            ),
            (
                Kind::Said,
                "NOAUTH Authentication required.",
                "sinks.redis.password",
            ),
            (
                Kind::Said,
                "NOPERM User sink has no permissions to run the 'function|load' command",
                "ACL SETUSER sink ~{thm}*",
            ),
            (
                Kind::Said,
                "ERR The user executing the script can't run this command or subcommand",
                "ACL SETUSER sink",
            ),
            (
                Kind::Said,
                "ERR unknown command 'FCALL_RO', with args beginning with:",
                "7.0",
            ),
            (Kind::Said, "MOVED 1337 10.0.0.2:6379", "sinks.redis.url"),
            (
                Kind::Said,
                "ERR DB index is out of range",
                "sinks.redis.url",
            ),
        ] {
            let code = said.split(' ').next().unwrap_or_default();
            let SinkError::Misconfigured(message) = peer().judge(kind, code, said) else {
                panic!("{said}");
            };
            assert!(
                message.contains(way_out) && message.contains(said),
                "{message}"
            );
        }
    }

    #[test]
    fn what_may_pass_by_itself_is_waited_for() {
        for (kind, said) in [
            (Kind::Network, "Connection refused (os error 111)"),
            (Kind::Said, "LOADING Redis is loading the dataset in memory"),
            (
                Kind::Said,
                "READONLY You can't write against a read only replica.",
            ),
            (Kind::Said, "CLUSTERDOWN Hash slot not served"),
            (
                Kind::Said,
                "OOM command not allowed when used memory > 'maxmemory'.",
            ),
        ] {
            let code = said.split(' ').next().unwrap_or_default();
            let SinkError::Unavailable(message) = peer().judge(kind, code, said) else {
                panic!("{said}");
            };
            assert!(message.contains(said), "{message}");
        }
        let SinkError::Unavailable(empty) =
            peer().judge(Kind::Said, "ERR", "ERR Function not found")
        else {
            panic!("it is loaded again");
        };
        assert!(empty.contains("came back empty"), "{empty}");
    }
}
