//! What was said about settings, by whom: the file, then the environment, then flags; the later wins.

use super::definition::{Setting, variable_of};
use super::error::{ConfigError, nearest};
use super::{sections, toml_file};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Start of every variable that can be a setting.
const VARIABLE_PREFIX: &str = "THMANYAH_";
/// The variable that names the configuration file.
const FILE_VARIABLE: &str = "THMANYAH_CONFIG";
/// The one setting whose keys are free.
pub(super) const PROPERTIES: &str = "kafka.properties.";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A text, number or truth value.
    Scalar(String),
    /// An array of them.
    List(Vec<String>),
}

/// A value, and who said so.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// Flags of the command line that are settings, by their dashed name.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The others that were given.
    pub settings: Vec<(&'static str, String)>,
}

/// All that was said, by key.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    given: BTreeMap<String, Given>,
    ignored: Vec<String>,
}

impl Layers {
    /// Reads the file that a flag or `THMANYAH_CONFIG` names, the process's environment, and the flags.
    pub fn gather(flags: &Flags) -> Result<Self, ConfigError> {
        Self::from_parts(flags, std::env::vars_os())
    }

    /// As [`Self::gather`], with an environment that is passed in.
    pub fn from_parts(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        let mut file = flags
            .file
            .clone()
            .map(|path| (path, Origin::Flag("--config")));
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            let Some(name) = name
                .to_str()
                .filter(|name| name.starts_with(VARIABLE_PREFIX))
            else {
                continue;
            };
            if name == FILE_VARIABLE {
                file = file.or_else(|| Some((value.into(), Origin::Variable(name.to_owned()))));
            } else {
                variables.insert(name.to_owned(), value);
            }
        }
        if let Some((path, origin)) = file {
            layers.add_file(&path, &origin)?;
        }
        for (name, value) in variables {
            layers.add_variable(name, value)?;
        }
        for (flag, value) in &flags.settings {
            if let Some(setting) = sections::all().find(|setting| setting.flag == Some(flag)) {
                layers.set(
                    setting.key(),
                    Raw::Scalar(value.clone()),
                    Origin::Flag(flag),
                );
            }
        }
        Ok(layers)
    }

    /// Variables that begin like ours, are not ours, and were ignored.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.given
            .get(key)
            .map_or(Origin::Default, |given| given.origin.clone())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    /// The keys below an open table, without its name.
    pub(super) fn below<'a>(
        &'a self,
        table: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Given)> + 'a {
        self.given.iter().filter_map(move |(key, given)| {
            let name = key.strip_prefix(table)?.strip_prefix('.')?;
            Some((name, given))
        })
    }

    /// Says a value where nothing was said.
    pub(super) fn fill(&mut self, key: &str, value: &str) {
        if self.get(key).is_none() {
            self.set(
                key.to_owned(),
                Raw::Scalar(value.to_owned()),
                Origin::Default,
            );
        }
    }

    fn set(&mut self, key: String, raw: Raw, origin: Origin) {
        self.given.insert(key, Given { raw, origin });
    }

    fn add_file(&mut self, path: &Path, named_by: &Origin) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            named_by: named_by.clone(),
            source,
        })?;
        for (key, raw, line) in toml_file::entries(path, &text)? {
            let origin = Origin::File {
                path: path.to_owned(),
                line,
            };
            if !is_known(&key) {
                return Err(unknown(key, origin));
            }
            self.set(key, raw, origin);
        }
        Ok(())
    }

    /// A variable with `__` is meant for us, so a typo in one is an error. One without may be anybody's: Kubernetes sets
    /// `THMANYAH_PORT`, `THMANYAH_SERVICE_HOST` and more in every pod beside a service that is called `thmanyah`.
    fn add_variable(&mut self, name: String, value: OsString) -> Result<(), ConfigError> {
        let key = match name.strip_prefix("THMANYAH_KAFKA__PROPERTIES__") {
            // No property that may be set has an underscore in its name, and no variable's name may hold a dot.
            Some(property) => {
                let property = property.replace('_', ".").to_lowercase();
                Some(format!("{PROPERTIES}{property}"))
            }
            None => sections::all()
                .filter(|setting| !setting.open)
                .find(|setting| setting.variable() == name)
                .map(Setting::key),
        };
        let Some(key) = key else {
            let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
            if rest.contains("__") {
                let nearest = nearest(&name, sections::all().map(Setting::variable));
                return Err(ConfigError::UnknownVariable { name, nearest });
            }
            self.ignored.push(name);
            return Ok(());
        };
        let origin = Origin::Variable(name);
        let text = value.into_string().map_err(|_| ConfigError::Invalid {
            key: key.clone(),
            origin: origin.clone(),
            value: None,
            problem: "not UTF-8".to_owned(),
        })?;
        self.set(key, Raw::Scalar(text), origin);
        Ok(())
    }
}

fn is_known(key: &str) -> bool {
    key.strip_prefix(PROPERTIES)
        .is_some_and(|name| !name.is_empty())
        || sections::all().any(|setting| !setting.open && setting.key() == key)
}

fn unknown(key: String, origin: Origin) -> ConfigError {
    let tables = sections::all()
        .map(|setting| setting.section.to_owned())
        .filter(|table| !table.is_empty());
    let nearest = nearest(&key, sections::all().map(Setting::key).chain(tables));
    ConfigError::UnknownKey {
        key,
        origin,
        nearest,
    }
}

/// What to write to set a setting, in every way there is.
pub(super) fn ways_to_set(key: &str, flag: Option<&str>) -> String {
    let in_file = match key.rsplit_once('.') {
        Some((section, name)) => format!("{name} under [{section}] in the configuration file"),
        None => format!("{key} in the configuration file"),
    };
    let variable = variable_of(key);
    match flag {
        Some(flag) => format!("set {flag}, {variable}, or {in_file}"),
        None => format!("set {variable}, or {in_file}"),
    }
}
