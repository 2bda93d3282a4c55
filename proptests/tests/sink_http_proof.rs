//! How the sink to an external system proves its requests, whom it trusts, and what it says of settings that cannot be.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use thmanyah::sinks::Lane;
use thmanyah_dev::ScratchDir;
use thmanyah_proptests::http_lane::{batch, frame, open, reason, settings};
use thmanyah_tools::external::{ExternalOptions, ExternalSystem, Script};

async fn system(script: &str) -> ExternalSystem {
    let options = ExternalOptions {
        script: Script::from_json(script).unwrap(),
        ..ExternalOptions::default()
    };
    ExternalSystem::start("127.0.0.1:0", options).await.unwrap()
}

/// A file of a scratch directory.
fn file(dir: &ScratchDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn requests_are_proved_and_secrets_that_were_rotated_are_read_again() {
    let dir = ScratchDir::new("secrets").unwrap();
    let script = |credentials: &str| format!(r#"{{"credentials": {{{credentials}}}}}"#);
    let old = script(r#""bearer": "old", "hmac_key": "key""#);
    let system = system(&old).await;
    let mut config = settings(&system.url());
    config.bearer_token_file = Some(file(&dir, "token", "old\n"));
    config.hmac_key_file = Some(file(&dir, "key", "key"));
    let (frame, health) = frame();
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(5)).await.unwrap();
    assert_eq!(
        (system.totals().accepted, system.totals().unauthorized),
        (5, 0)
    );

    // Rotated at both ends: no more than the first request of each lane is refused, and nobody is unwell.
    let new = script(r#""bearer": "new", "hmac_key": "key""#);
    system.play(Script::from_json(&new).unwrap());
    file(&dir, "token", "new");
    lane.deliver(&batch(9)).await.unwrap();
    assert_eq!(system.totals().accepted, 14);
    assert!((1..=4).contains(&system.totals().unauthorized));
    assert!(health.unwell().is_empty());

    // Rotated there first: unwell until the file has it.
    let newest = script(r#""bearer": "newest", "hmac_key": "other""#);
    system.play(Script::from_json(&newest).unwrap());
    let delivery = tokio::spawn(async move { lane.deliver(&batch(11)).await });
    assert!(
        reason(&health)
            .await
            .contains("does not take the credentials")
    );
    file(&dir, "key", "other");
    file(&dir, "token", "newest");
    delivery.await.unwrap().unwrap();
    assert_eq!(system.totals().accepted, 25);
    assert!(health.unwell().is_empty());

    let basic = script(r#""basic": "someone:a:secret""#);
    system.play(Script::from_json(&basic).unwrap());
    let mut config = settings(&system.url());
    config.username = Some("someone".to_owned());
    config.password_file = Some(file(&dir, "password", "a:secret"));
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(5)).await.unwrap();
    assert_eq!(system.totals().accepted, 30);
}

#[tokio::test]
async fn what_cannot_be_set_up_says_why() {
    let (frame, _) = frame();
    let dir = ScratchDir::new("set-up").unwrap();
    let url = "http://127.0.0.1:1/";
    let mut wrong = Vec::new();
    wrong.push((settings("http://[::1"), "sinks.http.url"));
    let mut config = settings(url);
    config.bearer_token_file = Some("/nowhere/token".into());
    wrong.push((config, "/nowhere/token"));
    let mut config = settings(url);
    config.hmac_key_file = Some(file(&dir, "empty", "\n"));
    wrong.push((config, "is empty"));
    let mut config = settings(url);
    config.ca_file = Some(file(&dir, "ca", "no certificate"));
    wrong.push((config, "sinks.http.ca_file"));
    for (config, told) in wrong {
        let error = open(&config, &frame).await.err().unwrap();
        assert!(
            error.is_misconfigured() && error.to_string().contains(told),
            "{error}"
        );
    }
}

/// A certificate for 127.0.0.1 that nobody signed but itself, and its key.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

/// Answers 200 over TLS to whoever trusts it, one connection after the other.
fn serve_tls(listener: &TcpListener, certificate: &Path, key: &Path) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    for stream in listener.incoming() {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
        let mut request = [0; 4096];
        // The request is smaller than that and comes whole, or not at all.
        if stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_only_when_it_is_named() {
    let dir = ScratchDir::new("tls").unwrap();
    let (certificate, key) = certificate(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/events", listener.local_addr().unwrap());
    let (frame, health) = frame();
    {
        let certificate = certificate.clone();
        std::thread::spawn(move || serve_tls(&listener, &certificate, &key));
    }
    let mut lane = open(&settings(&url), &frame).await.unwrap();
    let delivery = tokio::spawn(async move { lane.deliver(&batch(1)).await });
    let reason = reason(&health).await;
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(frame.metrics.delivered.get(), 0);
    delivery.abort();

    let mut config = settings(&url);
    config.ca_file = Some(certificate);
    let mut lane = open(&config, &frame).await.unwrap();
    lane.deliver(&batch(2)).await.unwrap();
    assert_eq!(frame.metrics.delivered.get(), 2);
}
