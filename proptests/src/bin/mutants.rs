//! `make simulate-mutants`: each mutant is applied to a copy of the tree, which the simulator must then catch.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Schedules that a mutant may survive.
const LIMIT: &str = "200000";

fn main() -> Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize()?;
    if std::env::var_os("ROCKSDB_LIB_DIR").is_none() {
        bail!(
            "run `make simulate-mutants`: without its variables every dependency is compiled again"
        );
    }
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root.join("target"), PathBuf::from);
    let scratch = target.join("mutants");
    let tree = scratch.join("tree");
    let mut patches: Vec<PathBuf> = fs::read_dir(root.join("proptests/mutants"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    patches.retain(|path| only.is_empty() || only.contains(&name_of(path)));
    patches.sort();
    if patches.is_empty() {
        bail!("no such mutant");
    }
    let mut survivors = Vec::new();
    for patch in &patches {
        let began = Instant::now();
        let name = name_of(patch);
        let verdict = copy(&root, &tree).and_then(|()| try_mutant(&tree, &scratch, &target, patch));
        let seconds = began.elapsed().as_secs();
        match verdict {
            Ok(verdict) => println!("{name:<50} {verdict} ({seconds} s)"),
            Err(error) => {
                println!("{name:<50} NOT CAUGHT: {error:#} ({seconds} s)");
                survivors.push(name);
            }
        }
    }
    if !survivors.is_empty() {
        bail!("not caught: {survivors:?}");
    }
    println!("{} mutants, every one caught", patches.len());
    Ok(())
}

fn name_of(patch: &Path) -> String {
    let stem = patch.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Copies what git knows or would add. Files that did not change keep their times, so that little is compiled again.
fn copy(root: &Path, tree: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    for file in listed.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), tree.join(file));
        let Ok(bytes) = fs::read(&from) else {
            continue;
        };
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::write(&to, bytes)?;
    }
    Ok(())
}

/// Applies, builds, runs; says how it was caught. Dependencies are those of the real build.
fn try_mutant(tree: &Path, scratch: &Path, target: &Path, patch: &Path) -> Result<String> {
    run(Command::new("patch")
        .args(["-p1", "--silent", "-i"])
        .arg(patch)
        .current_dir(tree))
    .context("the patch does not apply")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--release", "--quiet"])
        .args(["-p", "thmanyah-proptests", "--bin", "simulate"])
        // Quickly made is better here than fast.
        .args(["--config", &quick("thmanyah", "opt-level=0")])
        .args(["--config", &quick("thmanyah", "debug=false")])
        .args(["--config", &quick("thmanyah-proptests", "opt-level=0")])
        .args(["--config", &quick("thmanyah-proptests", "debug=false")])
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_BUILD_BUILD_DIR", target)
        .env("CARGO_TARGET_DIR", scratch.join("out"))
        .current_dir(tree))
    .context("the mutant does not compile")?;
    let told = run(Command::new(scratch.join("out/release/simulate")).args(["until", LIMIT]))?;
    Ok(told.trim().to_owned())
}

fn quick(package: &str, setting: &str) -> String {
    format!("profile.release.package.{package}.{setting}")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let head: Vec<&str> = lines.take(12).collect();
        bail!("{}", head.join(" | "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
