//! The types a setting can have: how each is read, and written again as TOML.

use super::definition::{Check, Fallback, Setting};
use super::error::ConfigError;
use super::layers::{Layers, Origin, Raw};
use secrecy::SecretString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// A type of setting.
pub(super) trait Value: Sized {
    /// What a value looks like, for errors and documentation.
    const EXPECTS: &'static str;
    /// Whether it must never be printed.
    const SECRET: bool = false;
    /// Whether it is a table with free keys.
    const OPEN: bool = false;

    /// Reads a value; the error says what is wrong with it.
    fn parse(raw: &Raw) -> Result<Self, String>;

    /// The value when nobody set it, where absence is legal.
    fn unset() -> Option<Self> {
        None
    }

    /// The value that the default's text stands for.
    fn from_default(_: &Layers, text: &str) -> Result<Self, String> {
        Self::parse(&Raw::Scalar(text.to_owned()))
    }

    /// The value in the layers, if it is there.
    fn find(layers: &Layers, key: &str) -> Result<Option<Self>, ConfigError> {
        let Some(given) = layers.get(key) else {
            return Ok(None);
        };
        Self::parse(&given.raw)
            .map(Some)
            .map_err(|problem| invalid::<Self>(key, &given.origin, Some(&given.raw), problem))
    }

    /// As TOML; none when there is nothing to print.
    fn to_toml(&self) -> Option<String>;
}

/// The longest value that an error repeats.
const LONGEST_SHOWN: usize = 120;

fn invalid<T: Value>(
    key: &str,
    origin: &Origin,
    raw: Option<&Raw>,
    problem: String,
) -> ConfigError {
    let shows =
        |text: &&String| !T::SECRET && text.len() <= LONGEST_SHOWN && !is_url_with_secret(text);
    let value = match raw {
        Some(Raw::Scalar(text)) => Some(text).filter(shows).cloned(),
        _ => None,
    };
    ConfigError::Invalid {
        key: key.to_owned(),
        origin: origin.clone(),
        value,
        problem,
    }
}

/// Whether a text is a URL with a user or a query: where people put passwords and tokens.
pub(super) fn is_url_with_secret(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(_, rest)| rest.contains(['@', '?']))
}

/// The effective value of a setting.
pub(super) fn read<T: Value>(
    layers: &Layers,
    setting: &Setting,
    check: Check<T>,
) -> Result<T, ConfigError> {
    let key = setting.key();
    let value = match T::find(layers, &key)? {
        Some(value) => value,
        None => fall_back::<T>(layers, setting, &key)?,
    };
    check(&value).map_err(|problem| {
        let raw = layers.get(&key).map(|given| &given.raw);
        invalid::<T>(&key, &layers.origin(&key), raw, problem)
    })?;
    Ok(value)
}

fn fall_back<T: Value>(layers: &Layers, setting: &Setting, key: &str) -> Result<T, ConfigError> {
    let text = match setting.fallback {
        Fallback::Text(text) => text.to_owned(),
        Fallback::Computed(compute) => compute(),
        Fallback::Unset(_) | Fallback::Required => {
            return T::unset().ok_or_else(|| ConfigError::Missing {
                key: key.to_owned(),
                flag: setting.flag,
            });
        }
    };
    T::from_default(layers, &text).map_err(|problem| {
        let raw = Raw::Scalar(text);
        invalid::<T>(key, &Origin::Default, Some(&raw), problem)
    })
}

pub(super) fn scalar(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Scalar(text) => Ok(text),
        Raw::List(_) => Err("a list, where one value belongs".to_owned()),
    }
}

/// The elements of a list, or of a text with commas.
pub(super) fn elements(raw: &Raw) -> Vec<&str> {
    match raw {
        Raw::Scalar(text) => text
            .split(',')
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .collect(),
        Raw::List(items) => items.iter().map(String::as_str).collect(),
    }
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for String {
    const EXPECTS: &'static str = "text";

    fn parse(raw: &Raw) -> Result<Self, String> {
        scalar(raw).map(str::to_owned)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for PathBuf {
    const EXPECTS: &'static str = "a path";

    fn parse(raw: &Raw) -> Result<Self, String> {
        match scalar(raw)? {
            "" => Err("an empty path".to_owned()),
            text => Ok(Self::from(text)),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.display().to_string()))
    }
}

impl Value for bool {
    const EXPECTS: &'static str = "true or false";

    fn parse(raw: &Raw) -> Result<Self, String> {
        scalar(raw)?
            .parse()
            .map_err(|_| "must be true or false".to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! integer {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const EXPECTS: &'static str = "a whole number";

            fn parse(raw: &Raw) -> Result<Self, String> {
                scalar(raw)?
                    .parse()
                    .map_err(|_| format!("must be a whole number of at most {}", Self::MAX))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}
integer!(usize, i32);

impl Value for SocketAddr {
    const EXPECTS: &'static str = "HOST:PORT";

    /// A host name is resolved once; an IPv4 address is preferred, as `localhost` has both.
    fn parse(raw: &Raw) -> Result<Self, String> {
        let text = scalar(raw)?;
        if !text.contains(':') {
            return Err("must be HOST:PORT, such as 127.0.0.1:8080".to_owned());
        }
        let found: Vec<Self> = text
            .to_socket_addrs()
            .map_err(|error| format!("must be HOST:PORT, such as 127.0.0.1:8080 ({error})"))?
            .collect();
        let best = found
            .iter()
            .find(|address| address.is_ipv4())
            .or(found.first());
        best.copied()
            .ok_or_else(|| "this host has no address".to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// A setting that may be absent.
macro_rules! optional {
    ($($type:ty),+) => {$(
        impl Value for Option<$type> {
            const EXPECTS: &'static str = <$type as Value>::EXPECTS;

            fn parse(raw: &Raw) -> Result<Self, String> {
                <$type as Value>::parse(raw).map(Some)
            }

            fn unset() -> Option<Self> {
                Some(None)
            }

            fn to_toml(&self) -> Option<String> {
                self.as_ref().and_then(Value::to_toml)
            }
        }
    )+};
}
optional!(String, PathBuf);

/// A password or a token that somebody else chose: any text, never printed.
#[derive(Clone, Debug)]
pub struct Credential(pub SecretString);

impl Value for Option<Credential> {
    const EXPECTS: &'static str = "text (secret)";
    const SECRET: bool = true;

    fn parse(raw: &Raw) -> Result<Self, String> {
        match scalar(raw)? {
            "" => Err("an empty text".to_owned()),
            text => Ok(Some(Credential(SecretString::from(text)))),
        }
    }

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn to_toml(&self) -> Option<String> {
        None
    }
}

impl Value for Option<SecretString> {
    const EXPECTS: &'static str = "text (secret)";
    const SECRET: bool = true;

    fn parse(raw: &Raw) -> Result<Self, String> {
        match scalar(raw)? {
            text if text.len() < 16 => Err("must have at least 16 characters".to_owned()),
            text => Ok(Some(SecretString::from(text))),
        }
    }

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn to_toml(&self) -> Option<String> {
        None
    }
}
