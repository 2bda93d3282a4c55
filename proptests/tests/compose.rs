//! `docker-compose.yml` read as it would be run: it is well-formed, and every command, flag, variable, port and health path
//! that it names for our own programs exists in them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use thmanyah_dev::{Broker, BrokerOptions, Processor, ProcessorOptions, ScratchDir, Topic};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The file as docker-compose understands it.
fn composed() -> Value {
    let config = Command::new("docker-compose")
        .args(["-f", "docker-compose.yml", "config"])
        .current_dir(root())
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&config.stderr);
    assert!(
        config.status.success() && complaints.is_empty(),
        "{complaints}"
    );
    let mut child = Command::new("python3")
        .args([
            "-c",
            "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &config.stdout).unwrap();
    let json = child.wait_with_output().unwrap();
    serde_json::from_slice(&json.stdout).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().unwrap();
    items
        .iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let Some(pairs) = service["environment"].as_object() else {
        return BTreeMap::new();
    };
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn program(name: &str) -> PathBuf {
    thmanyah_dev::target_dir().unwrap().join(name)
}

/// What a program says of a command.
fn help(name: &str, command: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {command:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_flags(words: &[String], help: &str) {
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        let known = help
            .split_whitespace()
            .any(|word| word.trim_end_matches(',') == flag);
        assert!(known, "{flag} is not in\n{help}");
    }
}

#[test]
fn every_service_is_pinned_and_starts_after_what_it_needs() {
    let composed = composed();
    let services = composed["services"].as_object().unwrap();
    for (name, service) in services {
        if let Some(image) = service["image"].as_str() {
            let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            assert!(
                tag.starts_with(|c: char| c.is_ascii_digit()),
                "{name}: {image} is not pinned"
            );
        } else {
            let target = service["build"]["target"].as_str().unwrap();
            let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
            assert!(
                dockerfile.contains(&format!(" AS {target}\n")),
                "{name}: no target {target}"
            );
        }
        let Some(needed) = service["depends_on"].as_object() else {
            continue;
        };
        for (other, how) in needed {
            let condition = how["condition"].as_str().unwrap();
            let checked = services[other]["healthcheck"].is_object();
            assert_eq!(
                condition == "service_healthy",
                checked,
                "{name} waits for {other}: {condition}"
            );
        }
    }
    let expected = [
        "postgres",
        "kafka",
        "debezium",
        "connector",
        "thmanyah",
        "redis",
        "bigquery-emulator",
        "external-system-mock",
        "data-generator",
    ];
    for name in expected {
        assert!(services.contains_key(name), "{name}");
    }
    assert!(!services.contains_key("zookeeper"), "Kafka 4 has none");
}

#[test]
fn images_are_made_of_pinned_ones_and_of_files_that_are_here() {
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let mut stages = Vec::new();
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", image, "AS", stage] => {
                assert!(
                    stages.contains(image) || image.contains(':'),
                    "{image} is not pinned"
                );
                stages.push(stage);
            }
            ["COPY", from, ..] if from.starts_with("--from=") => {
                assert!(stages.contains(&&from["--from=".len()..]), "{line}");
            }
            ["COPY", files @ .., _] => {
                for file in files {
                    assert!(root().join(file).exists(), "{file} is not here");
                }
            }
            _ => {}
        }
    }
    for name in ["thmanyah", "data-generator", "external-system-mock"] {
        assert!(program(name).exists(), "{name}");
        assert!(dockerfile.contains(name));
    }
}

/// The processor starts with the very command and environment of the file, only that other names and ports stand for the
/// services around it, and its health check's path answers.
#[test]
fn the_processor_starts_as_it_is_told_there() -> Result<(), thmanyah_dev::Error> {
    let composed = composed();
    let service = &composed["services"]["thmanyah"];
    let command = texts(&service["command"]);
    assert_eq!(command[0], "run");
    assert_flags(&command, &help("thmanyah", &["run"]));
    let value = |flag: &str| {
        let at = command.iter().position(|word| word == flag).unwrap();
        command[at + 1].clone()
    };
    let port = value("--listen").rsplit_once(':').unwrap().1.to_owned();
    let check = texts(&service["healthcheck"]["test"]).concat();
    assert!(
        check.contains(&format!("/dev/tcp/127.0.0.1/{port}")),
        "{check}"
    );
    let published = texts(&service["ports"]).concat();
    assert!(
        published.ends_with(&format!(":{port}")) || published.contains(&format!(":{port}/")),
        "{published}"
    );
    let path = check
        .split("GET ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();

    let variables = environment(service);
    let settings = Command::new(program("thmanyah"))
        .arg("config")
        .env_clear()
        .envs(&variables)
        .output()
        .unwrap();
    let shown = String::from_utf8(settings.stdout).unwrap();
    assert!(
        settings.status.success(),
        "{}",
        String::from_utf8_lossy(&settings.stderr)
    );
    for name in variables.keys() {
        assert!(
            shown.contains(&format!("# variable {name}\n")),
            "{name} is no setting\n{shown}"
        );
    }

    let broker = Broker::start(BrokerOptions::default())?;
    broker.create_topics(&[
        Topic::new("engagement-events.raw", 4),
        Topic::new("content.raw", 4),
    ])?;
    let dir = ScratchDir::new("compose")?;
    let mut options = ProcessorOptions::new(broker.bootstrap(), &value("--instance"), dir.path());
    let unreachable = thmanyah_dev::free_port()?.to_string();
    for (name, text) in variables {
        let here = composed["services"]
            .as_object()
            .unwrap()
            .keys()
            .fold(text, |text, other| {
                text.replace(&format!("//{other}:"), "//127.0.0.1:")
            });
        let elsewhere = match here.rsplit_once("127.0.0.1:") {
            Some((scheme, rest)) => {
                let digits = rest.chars().take_while(char::is_ascii_digit).count();
                format!("{scheme}127.0.0.1:{unreachable}{}", &rest[digits..])
            }
            None => here,
        };
        options.env.push((name, elsewhere));
    }
    let mut processor = Processor::spawn(options)?;
    processor.await_ready(Duration::from_mins(1))?;
    assert_eq!(processor.get(&path)?.status, 200, "{path}");
    Ok(())
}

#[test]
fn the_tools_have_the_flags_and_the_health_path_that_are_used_there()
-> Result<(), thmanyah_dev::Error> {
    let composed = composed();
    let mut asked = 0;
    for name in ["data-generator", "external-system-mock"] {
        let service = &composed["services"][name];
        let command = texts(&service["command"]);
        assert_eq!(command[0], name);
        let help = help(name, &[]);
        assert_flags(&command, &help);
        for variable in environment(service).keys() {
            assert!(
                help.contains(&format!("[env: {variable}")),
                "{variable} is not in\n{help}"
            );
        }
        let Some(check) = service["healthcheck"]["test"].as_array() else {
            continue;
        };
        let check: String = check.iter().filter_map(Value::as_str).collect();
        let path = check
            .split("GET ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let listen = format!("127.0.0.1:{}", thmanyah_dev::free_port()?);
        let mut child = Command::new(program(name))
            .args(["--listen", &listen])
            .spawn()
            .unwrap();
        let answered = (0..200).find_map(|_| {
            let answer = thmanyah_dev::get(&format!("http://{listen}{path}")).ok();
            if answer.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            answer
        });
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(
            answered.map(|answer| answer.status),
            Some(200),
            "{name} {path}"
        );
        asked += 1;
    }
    assert_eq!(asked, 1);
    Ok(())
}

#[test]
fn files_that_are_mounted_are_here_and_so_are_their_placeholders() {
    let composed = composed();
    let connect = std::fs::read_to_string(root().join("dev/connect.properties")).unwrap();
    let connector = std::fs::read_to_string(root().join("dev/connector.json")).unwrap();
    for (service, file, names) in [
        (
            "debezium",
            connect,
            &["${BOOTSTRAP}", "${PLUGINS}", "127.0.0.1:${PORT}"][..],
        ),
        (
            "connector",
            connector,
            &["127.0.0.1", "${DATABASE_PORT}"][..],
        ),
    ] {
        let script = texts(&composed["services"][service]["command"])
            .concat()
            .replace("$$", "$");
        for name in names {
            assert!(file.contains(name), "{service}: {name} is not in its file");
            assert!(
                script.contains(name),
                "{service}: {name} is not replaced\n{script}"
            );
        }
    }
    for service in composed["services"].as_object().unwrap().values() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with(['/', '.']) {
                assert!(Path::new(source).exists(), "{source} is not here");
            }
        }
    }
}
