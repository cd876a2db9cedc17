//! The agent over https: it trusts only the certificates that its machine trusts. Those in `tls/`
//! are for these tests only and are valid for a hundred years.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::support::child::binary;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::tools::needs;
use super::support::{Process, Server, Setup};

/// This machine, under an address that `server.pem` does not contain.
const OTHER_ADDRESS: &str = "127.0.0.2";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// Sends one heartbeat to `url`, trusting only `authority`; whether it was received, and the
/// output.
fn beat_once(url: &str, authority: Option<&str>) -> (bool, String) {
    beat_once_with(url, authority.map(file))
}

fn beat_once_with(url: &str, cert_file: Option<PathBuf>) -> (bool, String) {
    let mut command = binary("agent");
    command
        .args(["--once", "--id", "agent", "--server", url, "--app-key", KEY_A.key])
        .env("AGENT_METRICS_APP_SECRET", KEY_A.secret)
        .env_remove("SSL_CERT_DIR")
        .env_remove("SSL_CERT_FILE");
    if let Some(cert_file) = cert_file {
        command.env("SSL_CERT_FILE", cert_file);
    }
    let mut agent = Process::start(&mut command);
    let ended_well = agent.wait().success();
    (ended_well, format!("{}{}", agent.stdout.text(), agent.stderr.text()))
}

/// Starts a proxy with TLS on `address`, in front of `backend`; also returns its port.
fn tls_proxy(backend: SocketAddr, certificate: &str, address: &str) -> (Process, u16) {
    let mut node = Command::new("node");
    node.arg(file("server.mjs")).args([&format!("http://{backend}"), certificate, address]);
    let node = Process::start(&mut node);
    let line = node.stdout.wait_for(" of TLS");
    let port = line.split(' ').nth(1).unwrap().parse().unwrap();
    (node, port)
}

#[test]
fn an_agent_trusts_the_certificates_of_its_machine() {
    needs!(Program("node"));
    let server = Server::start(&Setup::open().toml());
    let (_proxy, port) = tls_proxy(server.addr(), "server.pem", "127.0.0.1");
    let heartbeats = || Status::read(server.addr()).counter("heartbeats");

    let (is_received, said) = beat_once(&format!("https://localhost:{port}"), None);
    assert!(!is_received && said.contains("certificate"), "{said}");
    assert_eq!(heartbeats(), 0, "an untrusted server gets no secret");

    let (is_received, said) =
        beat_once(&format!("https://localhost:{port}"), Some("authority.pem"));
    assert!(is_received, "{said}");
    assert_eq!(heartbeats(), 1);

    // The certificate does not contain this address of the same machine.
    let (_other, port) = tls_proxy(server.addr(), "server.pem", OTHER_ADDRESS);
    let (is_received, said) =
        beat_once(&format!("https://{OTHER_ADDRESS}:{port}"), Some("authority.pem"));
    assert!(!is_received && said.contains("the server's certificate is for"), "{said}");
    assert_eq!(heartbeats(), 1);
}

/// The messages say what is wrong and what to do about it, without the library's texts.
#[test]
fn tls_errors_are_explained() {
    needs!(Program("node"));
    let server = Server::start(&Setup::open().toml());
    let plain = server.addr();
    let (_good, good) = tls_proxy(plain, "server.pem", "127.0.0.1");
    let (_other, other) = tls_proxy(plain, "server.pem", OTHER_ADDRESS);
    let (_expired, expired) = tls_proxy(plain, "expired.pem", "127.0.0.1");
    let (_authority, authority) = tls_proxy(plain, "authority-as-server.pem", "127.0.0.1");
    for (url, trusted, words) in [
        (
            format!("https://localhost:{good}"),
            "expired.pem",
            ["signed by an authority that this machine does not trust", "SSL_CERT_FILE"],
        ),
        (
            format!("https://localhost:{authority}"),
            "authority-as-server.pem",
            ["is that of an authority (CA:TRUE)", "a certificate of its own"],
        ),
        (
            format!("https://localhost:{expired}"),
            "authority.pem",
            ["expired at 2021-01-01T00:00:00Z", "renew it"],
        ),
        (
            format!("https://{OTHER_ADDRESS}:{other}"),
            "authority.pem",
            ["is for localhost or 127.0.0.1, and not for 127.0.0.2", "give --server"],
        ),
        (format!("https://{plain}"), "authority.pem", ["speaks no TLS", "write http://"]),
        (
            format!("http://localhost:{good}"),
            "authority.pem",
            ["speaks TLS there", "write https://"],
        ),
    ] {
        let (is_received, said) = beat_once(&url, Some(trusted));
        assert!(!is_received, "{url}: {said}");
        for words in words {
            assert!(said.contains(words), "{url}: {said}");
        }
        for raw in
            ["Other(", "UnknownIssuer", "InvalidContentType", "corrupt", "rustls", "UNIX", "\\"]
        {
            assert!(!said.contains(raw), "{url}: {raw}: {said}");
        }
    }
}

/// As with `docker run -e SSL_CERT_FILE=`.
#[test]
fn an_empty_ssl_cert_file_counts_as_unset() {
    needs!(Program("node"));
    let server = Server::start(&Setup::open().toml());
    let (_proxy, port) = tls_proxy(server.addr(), "server.pem", "127.0.0.1");
    let url = format!("https://localhost:{port}");
    let (without, empty) = (beat_once(&url, None), beat_once_with(&url, Some(PathBuf::new())));
    assert_eq!(empty, without);
}

/// Otherwise no server would be trusted, and each would be blamed.
#[test]
fn a_file_without_certificates_is_refused_at_the_start() {
    for (name, why) in [
        ("no-such-file.pem", "No such file"),
        ("server.mjs", "holds no certificate"),
        ("server.key", "holds no certificate"),
        ("../tls", "directory"),
    ] {
        let (is_received, said) = beat_once("https://localhost:1", Some(name));
        let path = file(name).display().to_string();
        assert!(!is_received && said.contains(&path) && said.contains(why), "{name}: {said}");
        assert!(said.contains("SSL_CERT_FILE") && !said.contains("get through"), "{name}: {said}");
    }
    // It is not needed over http.
    let server = Server::start(&Setup::open().toml());
    let (is_received, said) = beat_once(&format!("http://{}", server.addr()), Some("no-such-file"));
    assert!(is_received, "{said}");
}
