//! An agent over https: it trusts whom its machine trusts, and nobody else. The certificates in
//! `tls/` are for these tests alone, and last a hundred years.

use std::path::PathBuf;
use std::process::Command;

use super::support::server::{BINARY, without_our_variables};
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::{Process, Server, Setup};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// One heartbeat to `url`, by an agent whose machine trusts `authority` beside nobody.
fn beat_once(url: &str, authority: Option<&str>) -> (bool, String) {
    let mut command = Command::new(BINARY);
    without_our_variables(&mut command);
    command
        .args(["agent", "--once", "--id", "agent", "--server", url, "--app-key", KEY_A.key])
        .env("AGENT_METRICS_APP_SECRET", KEY_A.secret)
        .env_remove("SSL_CERT_DIR")
        .env_remove("SSL_CERT_FILE");
    if let Some(authority) = authority {
        command.env("SSL_CERT_FILE", file(authority));
    }
    let mut agent = Process::start(&mut command);
    let ended_well = agent.wait().success();
    (ended_well, format!("{}{}", agent.stdout.text(), agent.stderr.text()))
}

#[test]
fn an_agent_trusts_whom_its_machine_trusts() {
    let server = Server::start(&Setup::open().toml());
    let node = Process::start(
        Command::new("node").arg(file("server.mjs")).arg(format!("http://{}", server.addr())),
    );
    let line = node.stdout.wait_for(" of TLS");
    let port: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
    let heartbeats = || Status::read(server.addr()).counter("heartbeats");

    let (is_received, said) = beat_once(&format!("https://localhost:{port}"), None);
    assert!(!is_received && said.contains("certificate"), "{said}");
    assert_eq!(heartbeats(), 0, "who is not trusted gets no secret");

    let (is_received, said) =
        beat_once(&format!("https://localhost:{port}"), Some("authority.pem"));
    assert!(is_received, "{said}");
    assert_eq!(heartbeats(), 1);

    // A certificate is for the names that it holds: this is the same machine by another.
    let (is_received, said) =
        beat_once(&format!("https://other.localhost:{port}"), Some("authority.pem"));
    assert!(!is_received, "{said}");
    assert_eq!(heartbeats(), 1);
}
