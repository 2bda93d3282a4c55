//! What Kafka's format tool leaves in a broker's log directory, without the second that each of its runs takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::PROPERTIES;
use crate::child::run;
use crate::scratch_dir::ScratchDir;
use crate::{Error, cache};

/// The features that the tool switches on for this version, made once and copied for each broker.
const FORMAT: &str = "kafka-format";

/// Makes a formatted log directory for one node of a cluster.
///
/// Kafka's format tool takes a second. What it writes apart from the ids is the same each time, so that is kept in the cache.
pub(crate) fn format_log_dir(dir: &Path, cluster: &str, node: i32) -> Result<(), Error> {
    let template = match cache::cached(FORMAT) {
        Ok(template) => template,
        Err(_) => make_template()?,
    };
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::copy(
            template.join("bootstrap.checkpoint"),
            dir.join("bootstrap.checkpoint"),
        )?;
        std::fs::write(
            dir.join("meta.properties"),
            format!(
                "version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={}\n",
                kafka_uuid()
            ),
        )
    };
    written().map_err(Error::io(format!("format {}", dir.display())))
}

/// The cluster id of the template; it is not copied.
const TEMPLATE_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Runs the format tool once and leaves its result in the cache.
fn make_template() -> Result<PathBuf, Error> {
    let target = cache::cache_dir().join(FORMAT);
    let work = ScratchDir::new("format")?;
    let log_dir = work.path().join("log");
    let file = work.path().join("server.properties");
    let properties = PROPERTIES
        .replace("${DIR}", &log_dir.display().to_string())
        .replace("${PORT}", "9092")
        .replace("${CONTROLLER_PORT}", "9093");
    std::fs::write(&file, properties).map_err(Error::io(format!("write {}", file.display())))?;
    run(Command::new("java")
        .args(cache::java_flags("jars/kafka.jsa"))
        .args(["-cp", &cache::class_path("jars/kafka")?])
        .args(["kafka.tools.StorageTool", "format", "-t", TEMPLATE_ID])
        .arg("-c")
        .arg(&file))?;
    // Moved into place whole; when another process was faster, its copy is as good.
    let staged = target.with_extension(format!("{}", std::process::id()));
    let moved = || -> std::io::Result<()> {
        std::fs::create_dir_all(&staged)?;
        std::fs::copy(
            log_dir.join("bootstrap.checkpoint"),
            staged.join("bootstrap.checkpoint"),
        )?;
        if std::fs::rename(&staged, &target).is_err() {
            std::fs::remove_dir_all(&staged)?;
        }
        Ok(())
    };
    moved().map_err(Error::io(format!("write {}", target.display())))?;
    Ok(target)
}

/// An id as Kafka writes it: 16 random bytes in URL-safe base64 without padding, 22 characters.
pub(crate) fn kafka_uuid() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = uuid::Uuid::new_v4().as_u128();
    (0..22)
        .map(|digit| {
            // The last digit holds the two bits that are left, at its top.
            let index = if digit == 21 {
                (bits & 0b11) << 4
            } else {
                (bits >> (122 - 6 * digit)) & 0b11_1111
            };
            char::from(ALPHABET.get(index as usize).copied().unwrap_or(b'A'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::kafka_uuid;

    #[test]
    fn a_kafka_id_is_22_url_safe_characters_and_new_each_time() {
        let (one, two) = (kafka_uuid(), kafka_uuid());
        assert_ne!(one, two);
        assert_eq!(one.len(), 22);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
    }
}
