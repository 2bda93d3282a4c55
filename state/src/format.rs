//! The file `FORMAT`: one line that names the format of the directory, with its checksum.

use crate::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The format that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Name of the file.
pub(crate) const FILE: &str = "FORMAT";

const NAME: &str = "thmanyah-state";

/// The file's text for a version: name, version, and the checksum of both in hexadecimal.
fn text(version: u32) -> String {
    let head = format!("{NAME} {version}");
    format!("{head} {:016x}\n", xxh3_64(head.as_bytes()))
}

/// The version in a file's text. The line is read the same way in every version to come.
fn version_of(text: &[u8]) -> Result<u32, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not text".to_owned())?;
    let line = text.strip_suffix('\n').ok_or("no line end")?;
    let (head, checksum) = line.rsplit_once(' ').ok_or("no checksum")?;
    if checksum != format!("{:016x}", xxh3_64(head.as_bytes())) {
        return Err("the checksum does not match".to_owned());
    }
    head.strip_prefix(NAME)
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| "it names no format of this program".to_owned())
}

/// Checks the format of a directory. `Ok(false)` when it has no `FORMAT` file yet.
pub(crate) fn check(dir: &Path) -> Result<bool, Error> {
    let file = dir.join(FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => {
            return Err(Error::CorruptFormat {
                file,
                detail: e.to_string(),
            });
        }
    };
    match version_of(&text) {
        Ok(VERSION) => Ok(true),
        Ok(found) if found > VERSION => Err(Error::NewerFormat {
            dir: dir.to_owned(),
            found,
            known: VERSION,
        }),
        Ok(found) => Err(Error::CorruptFormat {
            file,
            detail: format!("there never was a format {found}"),
        }),
        Err(detail) => Err(Error::CorruptFormat { file, detail }),
    }
}

/// Writes the file, whole or not at all.
pub(crate) fn write(dir: &Path) -> io::Result<()> {
    let draft = dir.join("FORMAT.new");
    let mut file = File::create(&draft)?;
    file.write_all(text(VERSION).as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_format_1_is_golden() {
        assert_eq!(text(1), "thmanyah-state 1 86bc8e60d60de3b5\n");
    }

    #[test]
    fn a_text_gives_its_version_back_and_a_changed_one_is_refused() {
        assert_eq!(version_of(text(7).as_bytes()), Ok(7));
        let good = text(1).into_bytes();
        for i in 0..good.len() {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(i) {
                *byte ^= 1;
            }
            assert!(version_of(&bad).is_err(), "byte {i}");
        }
        for cut in 0..good.len() {
            assert!(version_of(good.get(..cut).unwrap_or_default()).is_err());
        }
    }
}
