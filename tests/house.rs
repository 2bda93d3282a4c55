//! The house rules that a reader relies on: imports point one way, RocksDB, bincode and unsafe code stay in their rooms, and
//! no room outgrows its purpose.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of `src` from the ground up. A module may use those before it, never one after it.
const FLOORS: &[&[&str]] = &[
    &["domain"],
    &["codec"],
    &["enricher"],
    &["config"],
    &["logging", "metrics", "health", "shutdown"],
    &["progress"],
    &["kafka"],
    &["content", "recent", "sinks"],
    &["http"],
    &["run"],
    &["commands"],
];
/// Longest file, in lines.
const LONGEST: usize = 450;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// The code of a file without its comments.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The module of `src` that a file belongs to.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy();
    Some(first.trim_end_matches(".rs").to_owned())
}

#[test]
fn imports_point_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let Some(from) = module_of(&path).filter(|module| module != "lib" && module != "main")
        else {
            continue;
        };
        let floor = floor_of(&from).unwrap_or_else(|| panic!("`{from}` has no floor in this test"));
        for part in code(&text).split("crate::").skip(1) {
            let module: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let Some(to) = floor_of(&module) else {
                continue;
            };
            if to > floor || (to == floor && module != from) {
                wrong.push(format!("{} uses {module}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_uses_std_and_serde_only_and_the_step_knows_no_edge() {
    let edges = [
        "rdkafka",
        "tokio",
        "rocksdb",
        "thmanyah_state",
        "SystemTime::now",
        "Instant::now",
    ];
    let beside = ["serde_json", "bincode", "uuid::", "jiff"];
    for (folder, forbidden) in [
        ("src/domain", [&edges[..], &beside[..]].concat()),
        ("src/enricher", edges.to_vec()),
    ] {
        for (path, text) in sources(folder) {
            for name in &forbidden {
                assert!(
                    !code(&text).contains(name),
                    "{} names {name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn what_is_risky_or_foreign_has_one_room() {
    let mut files = sources("src");
    files.extend(sources("state/src"));
    for (what, rooms) in [
        ("bincode::", &["src/codec/changelog.rs"][..]),
        ("rocksdb::", &["state/src/rocks.rs"][..]),
        ("unsafe {", &["src/kafka/ffi.rs"][..]),
    ] {
        let named: Vec<_> = files
            .iter()
            .filter(|(path, text)| !is_test(path) && code(text).contains(what))
            .map(|(path, _)| {
                path.strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(named, rooms, "who names `{what}`");
    }
}

#[test]
fn every_room_says_its_purpose_and_none_is_too_large() {
    for folder in ["src", "state/src", "dev/src", "tools/src", "proptests/src"] {
        for (path, text) in sources(folder) {
            let path = path.display();
            let first = text.lines().next().unwrap_or_default();
            assert!(
                first.starts_with("//! "),
                "{path} does not begin with its purpose"
            );
            let lines = text.lines().count();
            assert!(lines <= LONGEST, "{path} has {lines} lines");
        }
    }
}

#[test]
fn every_guarantee_of_the_readme_names_a_test_that_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("## Guarantees").unwrap();
    let (table, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| what"))
        .collect();
    assert!(rows.len() >= 10, "{rows:?}");
    for row in rows {
        let (_, proof) = row.trim_end_matches([' ', '|']).rsplit_once('|').unwrap();
        let mut paths = proof.split('`').skip(1).step_by(2).peekable();
        assert!(paths.peek().is_some(), "no test is named: {row}");
        for path in paths {
            assert!(root().join(path).exists(), "{path} is not there: {row}");
        }
    }
}
