//! The types a setting can have: how each is read, and written again as TOML.

use super::definition::{Check, Fallback, Setting};
use super::error::ConfigError;
use super::layers::{Layers, Origin, Raw};
use secrecy::SecretString;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

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
    let value = match raw {
        Some(Raw::Scalar(text)) if !T::SECRET && text.len() <= LONGEST_SHOWN => Some(text.clone()),
        _ => None,
    };
    ConfigError::Invalid {
        key: key.to_owned(),
        origin: origin.clone(),
        value,
        problem,
    }
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

fn scalar(raw: &Raw) -> Result<&str, String> {
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

impl Value for Duration {
    const EXPECTS: &'static str = "a duration such as 7.5s, 100ms or 24h";

    fn parse(raw: &Raw) -> Result<Self, String> {
        parse_duration(scalar(raw)?)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&show_duration(*self)))
    }
}

/// Units of time, largest first, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration: numbers with a unit, decimals allowed, such as `7.5s`, `100ms`, `24h` or `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        "must be a duration: a number and one of d, h, m, s, ms, us, ns, such as 7.5s or 100ms"
            .to_owned()
    };
    let mut rest = text.trim();
    let mut nanos = 0u128;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        let part = scaled(number, scale).ok_or_else(wrong)?;
        nanos = nanos.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| "a duration out of range".to_owned())
}

/// A decimal number times a scale, exactly; digits below a nanosecond are cut.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let divisor = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().ok()?;
    Some(whole * scale + fraction * scale / divisor)
}

/// Writes a duration so that [`parse_duration`] reads the same one.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, scale) in UNITS {
        // Days read badly as hours are what people set: `24h`, not `1d`.
        if unit != "d" && nanos >= scale && nanos.is_multiple_of(scale) {
            return format!("{}{unit}", nanos / scale);
        }
        if unit == "s" && nanos >= scale && nanos.is_multiple_of(1_000_000) {
            let millis = format!("{:03}", nanos % scale / 1_000_000);
            return format!("{}.{}s", nanos / scale, millis.trim_end_matches('0'));
        }
    }
    "0s".to_owned()
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Units of size, larger first.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().find(|(name, size)| {
            (name.contains('i') || *name == "B") && self.0 >= *size && self.0.is_multiple_of(*size)
        });
        match unit {
            Some((name, size)) => write!(f, "{} {name}", self.0 / size),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Value for Bytes {
    const EXPECTS: &'static str = "a size such as 64 MiB";

    fn parse(raw: &Raw) -> Result<Self, String> {
        let wrong =
            || "must be a size: a number and one of B, kB, KiB, MB, MiB, GB, GiB".to_owned();
        let text = scalar(raw)?.trim();
        let number_len = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_len);
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        let size = SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?
            .1;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(size).map(Self).ok_or_else(wrong)
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Value for Option<Bytes> {
    const EXPECTS: &'static str = Bytes::EXPECTS;

    fn parse(raw: &Raw) -> Result<Self, String> {
        Bytes::parse(raw).map(Some)
    }

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn to_toml(&self) -> Option<String> {
        self.and_then(|bytes| bytes.to_toml())
    }
}
