//! The binary as an operator meets it: one message, the right exit code, nothing secret. No Kafka is needed.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the binary with nothing of this machine's environment.
fn thmanyah(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thmanyah"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the binary starts")
}

fn written(directory: &Path, text: &str) -> String {
    let path = directory.join("thmanyah.toml");
    std::fs::write(&path, text).expect("the directory takes a file");
    path.display().to_string()
}

const REQUIRED: [&str; 6] = [
    "--bootstrap-servers",
    "127.0.0.1:1",
    "--instance",
    "0",
    "--state-dir",
    "state",
];

/// Asserts one line on standard error that holds each part, nothing on standard output, and the exit code.
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("error: "), "{told}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    for part in parts {
        assert!(told.contains(part), "{told:?} without {part:?}");
    }
}

#[test]
fn wrong_configuration_is_one_message_and_exit_code_2() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (text, parts) in [
        ("[enricher\n", &["thmanyah.toml:1:10", "not valid TOML"][..]),
        (
            "[enricher]\ndedline = '1s'\n",
            &[
                "`enricher.dedline`",
                "thmanyah.toml:2",
                "`enricher.deadline`",
            ],
        ),
        (
            "[enricher]\ndeadline = '1 fortnight'\n",
            &["`enricher.deadline`", "thmanyah.toml:2", "7.5s"],
        ),
        (
            "[kafka.properties]\nacks = 1\n",
            &["`kafka.properties.acks`", "thmanyah.toml:2", "exactly-once"],
        ),
        (
            "[kafka.properties]\n'no.such' = 1\n",
            &[
                "`kafka.properties.no.such`",
                "No such configuration property",
            ],
        ),
    ] {
        let file = written(directory.path(), text);
        let arguments = [&["run", "--config", &file], &REQUIRED[..]].concat();
        assert_fails(&thmanyah(&arguments, &[]), 2, parts);
    }
}

#[test]
fn wrong_flags_and_variables_are_one_message_and_exit_code_2() {
    let with = |more: &[&'static str]| [&["run"], &REQUIRED[..4], more].concat();
    for (arguments, variables, parts) in [
        (with(&[]), &[][..], &["`state_dir`", "--state-dir"][..]),
        (
            vec!["topics"],
            &[],
            &["`kafka.bootstrap_servers`", "--bootstrap-servers"],
        ),
        (
            with(&["--state-dir", "s", "--deadline", "7,5s"]),
            &[],
            &["`enricher.deadline`", "flag --deadline"],
        ),
        (
            with(&["--state-dir", "s", "--app", "a/b"]),
            &[],
            &["`app`", "flag --app", "A-Z a-z 0-9"],
        ),
        (
            with(&["--state-dir", "s", "--config", "/no/such/file"]),
            &[],
            &["/no/such/file", "flag --config"],
        ),
        (
            with(&["--state-dir", "s"]),
            &[("THMANYAH_CONFIG", "/no/file")],
            &["/no/file", "THMANYAH_CONFIG"],
        ),
        (
            with(&["--state-dir", "s"]),
            &[("THMANYAH_LOG__FORMT", "json")],
            &["`THMANYAH_LOG__FORMAT`"],
        ),
        (
            with(&["--state-dir", "s"]),
            &[("THMANYAH_LISTEN", "x")],
            &["`listen`", "variable THMANYAH_LISTEN"],
        ),
        (
            vec!["topics", "--bootstrap-servers", "a:1"],
            &[("THMANYAH_ENRICHER__WORKERS", "0")],
            &["`enricher.workers`"],
        ),
    ] {
        assert_fails(&thmanyah(&arguments, variables), 2, parts);
    }
    let variables = [("THMANYAH_KAFKA__HEARTBEAT", "5s")];
    assert_fails(
        &thmanyah(&["config"], &variables),
        2,
        &["`kafka.heartbeat`", "`kafka.session_timeout`"],
    );
    assert_eq!(
        thmanyah(&["run", "--no-such-flag"], &[]).status.code(),
        Some(2)
    );
    assert_eq!(thmanyah(&["no-such-command"], &[]).status.code(), Some(2));
}

#[test]
fn a_broker_that_is_never_reached_is_one_message_and_exit_code_1() {
    let arguments = [&["run"], &REQUIRED[..]].concat();
    for command in [
        &arguments[..],
        &["topics", "--bootstrap-servers", "127.0.0.1:1"],
    ] {
        let output = thmanyah(command, &[("THMANYAH_KAFKA__STARTUP_TIMEOUT", "1s")]);
        assert_fails(
            &output,
            1,
            &[
                "127.0.0.1:1",
                "within 1s",
                "Connection refused",
                "`kafka.bootstrap_servers`",
            ],
        );
    }
}

#[test]
fn config_prints_values_with_their_origin_and_no_secret() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = written(directory.path(), "[recent]\nretention = '36h'\n");
    let variables = [
        ("THMANYAH_KAFKA__PROPERTIES__SASL_PASSWORD", "hush"),
        ("THMANYAH_HTTP__CURSOR_KEY", "hush-hush-hush-hush"),
    ];
    let output = thmanyah(
        &["config", "--config", &file, "--deadline", "7.5s"],
        &variables,
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        &format!("retention = \"36h\"  # {file}:2"),
        "deadline = \"7.5s\"  # flag --deadline",
        "app = \"thmanyah\"  # default",
        "# \"sasl.password\" = \"<redacted>\"  # variable THMANYAH_KAFKA__PROPERTIES__SASL_PASSWORD",
        "# cursor_key = \"<redacted>\"  # variable THMANYAH_HTTP__CURSOR_KEY",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("hush"), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "{text}");
}

#[test]
fn help_teaches_the_flow_the_settings_and_the_exit_codes() {
    let output = thmanyah(&["--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for part in [
        "engagement-events.enriched",
        "THMANYAH_SECTION__NAME",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let version = thmanyah(&["--version"], &[]);
    let version = String::from_utf8_lossy(&version.stdout);
    assert_eq!(version, format!("thmanyah {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn state_commands_tell_a_missing_and_a_used_directory_apart_and_make_neither() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state").display().to_string();
    let copy = directory.path().join("copy").display().to_string();
    let kafka = ["--bootstrap-servers", "127.0.0.1:1"];
    let commands = [
        vec!["state", "inspect", "--state-dir", &state],
        [&["state", "verify", "--state-dir", &state], &kafka[..]].concat(),
        vec!["state", "checkpoint", "--state-dir", &state, &copy],
    ];
    for command in &commands {
        assert_fails(&thmanyah(command, &[]), 1, &[&state, "holds no state"]);
    }
    assert!(!directory.path().join("state").exists());
    let store = thmanyah_state::Store::open(
        &directory.path().join("state"),
        &thmanyah_state::Options::default(),
    )
    .expect("a new directory opens");
    let pid = format!("pid {}", std::process::id());
    for command in &commands {
        assert_fails(&thmanyah(command, &[]), 1, &[&state, "in use", &pid]);
    }
    drop(store);
    assert_fails(&thmanyah(&["state", "inspect"], &[]), 2, &["`state_dir`"]);
}

#[test]
fn a_copy_of_an_empty_state_is_inspected_like_the_state() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state");
    drop(thmanyah_state::Store::open(
        &state,
        &thmanyah_state::Options::default(),
    ));
    let (state, copy) = (
        state.display().to_string(),
        directory.path().join("copy").display().to_string(),
    );
    let made = thmanyah(&["state", "checkpoint", "--state-dir", &state, &copy], &[]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let again = thmanyah(&["state", "checkpoint", "--state-dir", &state, &copy], &[]);
    assert_fails(&again, 1, &[&copy, "is there already"]);
    for dir in [&state, &copy] {
        let output = thmanyah(&["state", "inspect", "--json", "--state-dir", dir], &[]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for (place, value) in [("/format", 1), ("/tables/content/rows", 0)] {
            assert_eq!(report.pointer(place), Some(&value.into()), "{report}");
        }
    }
}

#[test]
fn help_of_state_teaches_what_the_tables_are() {
    let output = thmanyah(&["state", "--help"], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "content.changelog",
        "inspect",
        "verify",
        "checkpoint",
        "Examples:",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
