//! How a setting is declared: one entry gives the struct's field, the key in the file, the variable, the flag, the default,
//! the check and the documentation.

use super::error::ConfigError;
use super::layers::Layers;
use super::values::Value;

/// What applies when nobody sets a setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// This text, as if it stood in the file.
    Text(&'static str),
    /// Found out on this machine.
    Computed(fn() -> String),
    /// Absence means something; the words say what.
    Unset(&'static str),
    /// It must be set.
    Required,
}

/// One setting, without its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// Table of the TOML file; empty at the top level.
    pub(super) section: &'static str,
    /// Name within its table.
    pub(super) name: &'static str,
    /// What it is for; one line per element.
    pub(super) doc: &'static [&'static str],
    /// The default.
    pub(super) fallback: Fallback,
    /// The flag that sets it, with its dashes.
    pub(super) flag: Option<&'static str>,
    /// What a value looks like.
    pub(super) expects: &'static str,
    /// A table whose keys are free.
    pub(super) open: bool,
    /// Reads it as the program would.
    pub(super) effective: Effective,
}

impl Setting {
    /// `section.name`, as errors and the file call it.
    pub(super) fn key(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        variable_of(&self.key())
    }
}

/// `a.b_c` is `THMANYAH_A__B_C`.
pub(super) fn variable_of(key: &str) -> String {
    format!("THMANYAH_{}", key.replace('.', "__").to_uppercase())
}

/// What a check says of a value: nothing, or what is wrong with it.
pub(super) type Check<T> = fn(&T) -> Result<(), String>;

/// The check of a setting that has none.
#[allow(clippy::unnecessary_wraps, reason = "it must have the type of a check")]
pub(super) fn anything<T: Value>(_: &T) -> Result<(), String> {
    Ok(())
}

/// Refuses what is not from `min` to `max`, both in.
pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    value: &T,
    min: &T,
    max: &T,
) -> Result<(), String> {
    if value < min || value > max {
        Err(format!("must be from {min} to {max}"))
    } else {
        Ok(())
    }
}

/// What `thmanyah config` asks of a setting: its effective value as TOML; none when it is unset or secret.
pub(super) type Effective = fn(&Layers, &Setting) -> Result<Option<String>, ConfigError>;

/// Declares a section: the struct that the program uses, and the table of its settings, from one text.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $fallback:expr
                    $(, flag $flag:literal)? $(, check $check:expr)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl $name {
            /// The settings of this section, in the order they are documented.
            pub(super) const SETTINGS: &'static [$crate::config::definition::Setting] = &[
                $($crate::config::definition::Setting {
                    section: $section,
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    fallback: $fallback,
                    flag: $crate::config::definition::section!(@flag $($flag)?),
                    expects: <$type as $crate::config::values::Value>::EXPECTS,
                    open: <$type as $crate::config::values::Value>::OPEN,
                    effective: |layers, setting| {
                        $crate::config::values::read::<$type>(
                            layers,
                            setting,
                            $crate::config::definition::section!(@check $($check)?),
                        )
                        .map(|value| $crate::config::values::Value::to_toml(&value))
                    },
                },)+
            ];

            /// Reads the section from what was given.
            pub(super) fn read(
                layers: &$crate::config::Layers,
            ) -> Result<Self, $crate::config::ConfigError> {
                let [$($field),+] = Self::SETTINGS else {
                    unreachable!("the table has one entry per field");
                };
                Ok(Self {
                    $($field: $crate::config::values::read::<$type>(
                        layers,
                        $field,
                        $crate::config::definition::section!(@check $($check)?),
                    )?,)+
                })
            }
        }
    };
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
    (@check) => { $crate::config::definition::anything };
    (@check $check:expr) => { $check };
}
pub(super) use section;
