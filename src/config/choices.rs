//! Settings that choose from a list.

use super::layers::Raw;
use super::values::{Value, elements, quoted};
use crate::codec::{OperationRule, TimeMode};

/// Gives an enum its names in the settings.
macro_rules! choice {
    ($name:ident { $($variant:ident = $text:literal,)+ }) => {
        impl Value for $name {
            const EXPECTS: &'static str = concat!("one of", $(" ", $text),+);

            fn parse(raw: &Raw) -> Result<Self, String> {
                match String::parse(raw)?.as_str() {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be {}", Self::EXPECTS)),
                }
            }

            fn to_toml(&self) -> Option<String> {
                let name = match self { $(Self::$variant => $text,)+ };
                Some(quoted(name))
            }
        }
    };
}

choice!(OperationRule {
    DeadLetter = "dead-letter",
    Ignore = "ignore",
});
choice!(TimeMode {
    Iso = "iso",
    EpochMillis = "epoch-millis",
    EpochMicros = "epoch-micros",
});

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

choice!(LogFormat {
    Text = "text",
    Json = "json",
});

/// What an instance runs.
#[allow(clippy::struct_excessive_bools, reason = "one for each role")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Turns `content.raw` into the content changelog.
    pub materializer: bool,
    /// Joins and publishes.
    pub enricher: bool,
    /// Answers queries.
    pub api: bool,
    /// Delivers to BigQuery, where that is set up.
    pub sink_bigquery: bool,
    /// Delivers to Redis, where that is set up.
    pub sink_redis: bool,
    /// Delivers to the external system, where that is set up.
    pub sink_http: bool,
}

impl Value for Roles {
    const EXPECTS: &'static str = "some of materializer, enricher, api, sink-bigquery, sink-redis, sink-http, separated by commas";

    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut roles = Self::default();
        for role in elements(raw) {
            match role {
                "materializer" => roles.materializer = true,
                "enricher" => roles.enricher = true,
                "api" => roles.api = true,
                "sink-bigquery" => roles.sink_bigquery = true,
                "sink-redis" => roles.sink_redis = true,
                "sink-http" => roles.sink_http = true,
                other => {
                    return Err(format!(
                        "no role is called `{other}`: must be {}",
                        Self::EXPECTS
                    ));
                }
            }
        }
        if roles == Self::default() {
            return Err(format!("no role at all: must be {}", Self::EXPECTS));
        }
        Ok(roles)
    }

    fn to_toml(&self) -> Option<String> {
        let roles = [
            (self.materializer, "materializer"),
            (self.enricher, "enricher"),
            (self.api, "api"),
            (self.sink_bigquery, "sink-bigquery"),
            (self.sink_redis, "sink-redis"),
            (self.sink_http, "sink-http"),
        ];
        let names = roles
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| quoted(name));
        Some(format!("[{}]", names.collect::<Vec<_>>().join(", ")))
    }
}
