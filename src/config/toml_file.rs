//! The configuration file: TOML into keys, values and lines.

use super::error::ConfigError;
use super::layers::{PROPERTIES, Raw};
use super::sections;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every value of the file with its full key and line, in no particular order.
pub(super) fn entries(path: &Path, text: &str) -> Result<Vec<(String, Raw, usize)>, ConfigError> {
    let root = DeTable::parse(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            column,
            problem: error.message().replace('\n', ", "),
        }
    })?;
    let mut reader = Reader {
        path,
        text,
        entries: Vec::new(),
    };
    reader.table("", root.get_ref())?;
    Ok(reader.entries)
}

/// Line and column of a byte, both from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (line, column)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    entries: Vec<(String, Raw, usize)>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let line = place(self.text, name.span().start).0;
            if let DeValue::Table(inner) = value.get_ref() {
                self.inner_table(&key, inner, line)?;
            } else {
                let raw = self.value(&key, value)?;
                self.entries.push((key, raw, line));
            }
        }
        Ok(())
    }

    /// A table where a value belongs is reported as such: its keys would be told as unknown one by one.
    fn inner_table(
        &mut self,
        key: &str,
        table: &DeTable<'_>,
        line: usize,
    ) -> Result<(), ConfigError> {
        if sections::all().any(|setting| !setting.open && setting.key() == key) {
            return Err(self.wrong(key, line, "a table, where one value belongs"));
        }
        let known = format!("{key}.");
        let is_section = sections::all().any(|setting| setting.key().starts_with(&known));
        if !is_section && !known.starts_with(PROPERTIES) {
            self.entries
                .push((key.to_owned(), Raw::List(Vec::new()), line));
            return Ok(());
        }
        self.table(&known, table)
    }

    fn value(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Raw, ConfigError> {
        if let DeValue::Array(items) = value.get_ref() {
            let texts = items.iter().map(|item| self.scalar(key, item));
            return Ok(Raw::List(texts.collect::<Result<_, _>>()?));
        }
        self.scalar(key, value).map(Raw::Scalar)
    }

    fn scalar(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        let line = place(self.text, value.span().start).0;
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| self.wrong(key, line, "a number out of range")),
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            DeValue::Boolean(truth) => Ok(truth.to_string()),
            DeValue::Datetime(time) => Ok(time.to_string()),
            DeValue::Array(_) => Err(self.wrong(key, line, "a list within a list")),
            DeValue::Table(_) => Err(self.wrong(key, line, "a table within a list")),
        }
    }

    fn wrong(&self, key: &str, line: usize, problem: &str) -> ConfigError {
        ConfigError::Invalid {
            key: key.to_owned(),
            origin: super::Origin::File {
                path: self.path.to_owned(),
                line,
            },
            value: None,
            problem: problem.to_owned(),
        }
    }
}
