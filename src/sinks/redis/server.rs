//! What the server says of itself: whether it is new enough, and whether it may throw keys away.

use super::super::destination::SinkError;
use super::connection::Connection;
use redis::ErrorKind;

/// Functions came with this version.
const OLDEST: u32 = 7;

/// A field of the text that INFO answers with.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

/// What is wrong with a server of this description.
fn too_old(info: &str) -> Option<&str> {
    let version = field(info, "redis_version")?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major < OLDEST).then_some(version)
}

/// The policy by which keys are thrown away when memory is short, if it is any but none.
fn evicts(info: &str) -> Option<&str> {
    field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
}

/// Refuses a server that is too old. Gives the policy by which it throws keys away, where it does.
pub(super) async fn check(connection: &Connection) -> Result<Option<String>, SinkError> {
    let info: String = match connection.try_call(&redis::cmd("INFO")).await? {
        Ok(info) => info,
        // Some providers do not allow it; the functions themselves then show whether they run.
        Err(error)
            if error.code() == Some("NOPERM") || matches!(error.kind(), ErrorKind::Extension) =>
        {
            tracing::debug!(%error, "Redis does not tell of itself");
            return Ok(None);
        }
        Err(error) => return Err(connection.peer().explain(&error)),
    };
    if let Some(version) = too_old(&info) {
        return Err(SinkError::Misconfigured(connection.peer().too_old(version)));
    }
    Ok(evicts(&info).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_policy_are_read_from_the_servers_own_words() {
        let old = "# Server\r\nredis_version:6.2.14\r\nredis_git_sha1:0\r\n# Memory\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(
            (too_old(old), evicts(old)),
            (Some("6.2.14"), Some("allkeys-lru"))
        );
        let new = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!((too_old(new), evicts(new)), (None, None));
        assert_eq!(
            (too_old("redis_version:valkey\r\n"), evicts("")),
            (None, None)
        );
    }
}
