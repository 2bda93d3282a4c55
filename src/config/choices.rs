//! Settings that choose from a list.

use super::layers::Raw;
use super::values::{Value, elements, quoted};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$variant),)+];
        }

        impl Value for $name {
            const EXPECTS: &'static str = concat!("one of", $(" ", $text),+);

            fn parse(raw: &Raw) -> Result<Self, String> {
                let text = String::parse(raw)?;
                let found = Self::NAMES.iter().find(|(name, _)| *name == text);
                found.map(|(_, choice)| *choice).ok_or_else(|| format!("must be {}", Self::EXPECTS))
            }

            fn to_toml(&self) -> Option<String> {
                let name = match self { $(Self::$variant => $text,)+ };
                Some(quoted(name))
            }
        }
    };
}

choice!(
    /// What becomes of an operation that an engagement event, being a fact, should not meet.
    OperationRule {
        /// A dead letter.
        DeadLetter = "dead-letter",
        /// Ignored and counted.
        Ignore = "ignore",
    }
);
choice!(
    /// How times are written in an input topic. Declared, never guessed.
    TimeMode {
        /// Text with a zone.
        Iso = "iso",
        /// An integer of milliseconds since 1970.
        EpochMillis = "epoch-millis",
        /// An integer of microseconds since 1970.
        EpochMicros = "epoch-micros",
    }
);
choice!(
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
);

/// What an instance runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Turns `content.raw` into the content changelog.
    pub materializer: bool,
    /// Joins and publishes.
    pub enricher: bool,
    /// Answers queries.
    pub api: bool,
}

impl Value for Roles {
    const EXPECTS: &'static str = "some of materializer, enricher, api, separated by commas";

    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut roles = Self::default();
        for role in elements(raw) {
            match role {
                "materializer" => roles.materializer = true,
                "enricher" => roles.enricher = true,
                "api" => roles.api = true,
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
        ];
        let names = roles
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| quoted(name));
        Some(format!("[{}]", names.collect::<Vec<_>>().join(", ")))
    }
}
