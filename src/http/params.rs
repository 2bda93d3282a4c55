//! Query strings, read strictly: a parameter that is unknown, repeated, empty or badly encoded is refused, never passed over.

use super::problem::{Problem, excerpt};
use crate::domain::{ContentId, EventType, Timestamp};

/// The decoded parameters of one request.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(&'static str, Given)>,
}

#[derive(Debug)]
struct Given {
    value: String,
    /// Whether a bare `+` stood in it, which the query grammar reads as a space.
    plus: bool,
}

impl Params {
    /// Reads a query string whose parameters may be these.
    pub(super) fn read(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(&'static str, Given)> = Vec::new();
        let query = query.unwrap_or_default();
        if query.is_empty() {
            return Ok(Self { pairs });
        }
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let Some(name) = known.iter().find(|known| **known == name) else {
                let known = known.join(", ");
                return Err(Problem::bad_request(if known.is_empty() {
                    format!("there is no parameter `{}` here", excerpt(&name))
                } else {
                    format!(
                        "there is no parameter `{}` here; there are {known}",
                        excerpt(&name)
                    )
                }));
            };
            if pairs.iter().any(|(given, _)| given == name) {
                return Err(Problem::bad_request(format!("`{name}` is given twice")));
            }
            let given = Given {
                plus: value.contains('+'),
                value: decode(value)?,
            };
            if given.value.is_empty() {
                return Err(Problem::bad_request(format!("`{name}` is empty")));
            }
            pairs.push((name, given));
        }
        Ok(Self { pairs })
    }

    fn given(&self, name: &str) -> Option<&Given> {
        let found = self.pairs.iter().find(|(given, _)| *given == name);
        found.map(|(_, given)| given)
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given(name).map(|given| given.value.as_str())
    }

    /// A time that must be given.
    pub(super) fn time(&self, name: &str) -> Result<Timestamp, Problem> {
        let given = self
            .given(name)
            .ok_or_else(|| Problem::bad_request(format!("`{name}` is required")))?;
        Timestamp::parse(&given.value).map_err(|error| {
            let hint = if given.plus {
                "; a `+` in a query means a space, so write it as %2B"
            } else {
                ""
            };
            let value = excerpt(&given.value);
            Problem::bad_request(format!("`{name}` is no time: `{value}` is {error}{hint}"))
        })
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&self, name: &str, most: usize) -> Result<Option<usize>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<usize>() {
            Ok(count) if digits && (1..=most).contains(&count) => Ok(Some(count)),
            _ => Err(Problem::bad_request(format!(
                "`{name}` is a whole number from 1 to {most}, not `{}`",
                excerpt(text)
            ))),
        }
    }

    /// `true` or `false`; false when it is not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!(
                "`{name}` is true or false, not `{}`",
                excerpt(other)
            ))),
        }
    }

    /// A content id.
    pub(super) fn content_id(&self, name: &str) -> Result<Option<ContentId>, Problem> {
        self.text(name).map(content_id).transpose()
    }

    /// An event type.
    pub(super) fn event_type(&self, name: &str) -> Result<Option<EventType>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        EventType::from_name(text).map(Some).ok_or_else(|| {
            let names = EventType::ALL.map(EventType::name).join(", ");
            Problem::bad_request(format!(
                "`{name}` is one of {names}, not `{}`",
                excerpt(text)
            ))
        })
    }
}

/// A content id in a path or a query.
pub(super) fn content_id(text: &str) -> Result<ContentId, Problem> {
    ContentId::parse(text).ok_or_else(|| {
        Problem::bad_request(format!(
            "a content id is a UUID with hyphens, not `{}`",
            excerpt(text)
        ))
    })
}

/// The last segment of a path, decoded.
pub(super) fn last_segment(path: &str) -> Result<String, Problem> {
    let segment = path.rsplit('/').next().unwrap_or_default();
    // A `+` in a path is a plus.
    decode_bytes(segment, false)
}

fn decode(text: &str) -> Result<String, Problem> {
    decode_bytes(text, true)
}

/// Percent-decodes; what is not UTF-8 or not two hexadecimal digits after a percent sign is refused.
fn decode_bytes(text: &str, plus_is_space: bool) -> Result<String, Problem> {
    let malformed =
        || Problem::bad_request(format!("`{}` is not percent-encoded UTF-8", excerpt(text)));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (hex, after) = rest.split_at_checked(2).ok_or_else(malformed)?;
                rest = after;
                hex.iter().try_fold(0u8, |sum, digit| {
                    let digit = char::from(*digit).to_digit(16).ok_or_else(malformed)?;
                    Ok::<u8, Problem>((sum << 4) | digit as u8)
                })?
            }
            b'+' if plus_is_space => b' ',
            byte => *byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}
