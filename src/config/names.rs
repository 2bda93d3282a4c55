//! Texts with a grammar of their own: instances, topics, brokers, peers.

use super::layers::{Layers, Raw};
use super::values::{Value, elements, quoted};
use std::fmt;
use std::ops::Deref;

/// The setting that goes before the topics' default names.
const TOPIC_PREFIX: &str = "topics.prefix";

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $expects:literal, $check:expr $(, $from_default:item)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the text; the error says what is wrong with it.
            pub fn new(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Value for $name {
            const EXPECTS: &'static str = $expects;

            fn parse(raw: &Raw) -> Result<Self, String> {
                let text = String::parse(raw)?;
                Self::new(text.trim())
            }

            fn to_toml(&self) -> Option<String> {
                Some(quoted(&self.0))
            }

            $($from_default)?
        }
    };
}

text!(
    /// Name of an instance or of the app: part of group and transactional ids, so its characters are few.
    InstanceName,
    "1 to 64 of A-Z a-z 0-9 . _ -",
    |text| check_name(text, 64)
);
text!(
    /// Full name of a topic, as Kafka allows it.
    TopicName,
    "a topic name",
    |text| match text {
        "." | ".." => Err("no topic may be called so".to_owned()),
        text => check_name(text, 249),
    },
    /// A default name takes the prefix; a name that was set is the whole name.
    fn from_default(layers: &Layers, text: &str) -> Result<Self, String> {
        let prefix = String::find(layers, TOPIC_PREFIX).ok().flatten().unwrap_or_default();
        Self::new(&format!("{prefix}{text}"))
            .map_err(|problem| format!("with `{TOPIC_PREFIX}` = {prefix:?}: {problem}"))
    }
);
text!(
    /// Brokers to start from.
    BrokerList,
    "HOST:PORT, separated by commas",
    check_brokers
);
text!(
    /// Base URL of another instance, without a slash at its end.
    PeerUrl,
    "http://HOST:PORT",
    check_peer
);

fn check_name(text: &str, longest: usize) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > longest || !text.bytes().all(allowed) {
        return Err(format!(
            "must be 1 to {longest} of the characters A-Z a-z 0-9 . _ -"
        ));
    }
    Ok(())
}

fn check_brokers(text: &str) -> Result<(), String> {
    let wrong = || "must be HOST:PORT, several separated by commas".to_owned();
    for broker in text.split(',') {
        // librdkafka allows a protocol before the address.
        let address = broker.trim().rsplit("://").next().unwrap_or_default();
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
    }
    Ok(())
}

fn check_peer(text: &str) -> Result<(), String> {
    let wrong = || "must be the base URL of an instance, such as http://10.0.0.2:8080".to_owned();
    let authority = text.strip_prefix("http://").ok_or_else(wrong)?;
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | '?' | '#' | '@' | '"');
    if authority.is_empty() || !authority.chars().all(plain) {
        return Err(wrong());
    }
    Ok(())
}

impl Value for Vec<PeerUrl> {
    const EXPECTS: &'static str = "base URLs, separated by commas";

    fn parse(raw: &Raw) -> Result<Self, String> {
        let peers = elements(raw);
        let peers = peers
            .iter()
            .map(|peer| PeerUrl::new(peer.trim_end_matches('/')));
        peers.collect()
    }

    fn to_toml(&self) -> Option<String> {
        let peers: Vec<String> = self.iter().map(|peer| quoted(peer)).collect();
        Some(format!("[{}]", peers.join(", ")))
    }
}
