//! The effective settings as TOML, each with its meaning and where it came from. Secrets are left out.

use super::definition::{Fallback, Setting};
use super::error::ConfigError;
use super::layers::{Layers, Origin};
use super::properties::Properties;
use super::sections::{self, Config};
use super::values::{Value, is_url_with_secret, quoted};
use std::fmt::Write;

/// Every setting. The text is a configuration file that gives the same settings again, but for secrets.
pub fn effective(layers: &Layers) -> Result<String, ConfigError> {
    Config::check(layers)?;
    let mut out = String::from("# Effective settings. Later wins: file, environment, flags.\n");
    let mut section = "";
    for setting in sections::all() {
        let table = if setting.open {
            setting.key()
        } else {
            setting.section.to_owned()
        };
        if setting.section != section || setting.open {
            section = setting.section;
            // Writing into a String cannot fail.
            let _ = write!(out, "\n[{table}]\n");
        }
        if setting.open {
            properties(&mut out, layers, setting)?;
        } else {
            line(&mut out, layers, setting)?;
        }
    }
    if !layers.ignored().is_empty() {
        let names = layers.ignored().join(", ");
        let _ = write!(
            out,
            "\n# Variables that are no settings, ignored: {names}\n"
        );
    }
    Ok(out)
}

/// What the setting means, what it takes, and how else it is set.
fn document(out: &mut String, setting: &Setting) {
    for doc in setting.doc {
        let _ = writeln!(out, "#{doc}");
    }
    let mut variable = setting.variable();
    if setting.open {
        variable.push_str("__NAME with _ for each dot");
    }
    let flag = setting
        .flag
        .map_or_else(String::new, |flag| format!("{flag}, "));
    let _ = writeln!(out, "# ({}; {flag}{variable})", setting.expects);
}

fn line(out: &mut String, layers: &Layers, setting: &Setting) -> Result<(), ConfigError> {
    let key = setting.key();
    let origin = layers.origin(&key);
    document(out, setting);
    let name = setting.name;
    let _ = match (setting.effective)(layers, setting) {
        Ok(Some(value)) if is_url_with_secret(&value) => {
            writeln!(out, "# {name} = \"<redacted>\"  # {origin}")
        }
        Ok(Some(value)) => writeln!(out, "{name} = {value}  # {}", told(&origin, setting)),
        Ok(None) if origin == Origin::Default => {
            let meaning = match setting.fallback {
                Fallback::Unset(meaning) => meaning,
                _ => "unset",
            };
            writeln!(out, "# {name} =   # default: {meaning}")
        }
        Ok(None) => writeln!(out, "# {name} = \"<redacted>\"  # {origin}"),
        Err(ConfigError::Missing { .. }) => {
            writeln!(out, "# {name} =   # not set, and has no default")
        }
        Err(error) => return Err(error),
    };
    Ok(())
}

fn told(origin: &Origin, setting: &Setting) -> String {
    match setting.fallback {
        Fallback::Computed(_) if *origin == Origin::Default => "default: found here".to_owned(),
        _ => origin.to_string(),
    }
}

fn properties(out: &mut String, layers: &Layers, setting: &Setting) -> Result<(), ConfigError> {
    document(out, setting);
    let table = setting.key();
    let found = Properties::find(layers, &table)?.unwrap_or_default();
    for (name, value) in found.shown() {
        let origin = layers.origin(&format!("{table}.{name}"));
        let name = quoted(name);
        let _ = match value {
            Some(value) => writeln!(out, "{name} = {value}  # {origin}"),
            None => writeln!(out, "# {name} = \"<redacted>\"  # {origin}"),
        };
    }
    Ok(())
}
