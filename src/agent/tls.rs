//! TLS in plain words: which failure means what, and what to do about it; and that a file of
//! authorities, where one is named, is one.
//!
//! Failures are known by the words of rustls, whose types are no part of what ureq promises. What
//! has no entry here is shown as it is; `tests/it/agent_tls.rs` has a real server for the others.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use ureq::tls::{PemItem, parse_pem};

use super::AgentError;
use crate::runtime::logging::printable;

/// Names the file of the authorities to trust, instead of the machine's own; as OpenSSL has it.
const CERT_FILE_VARIABLE: &str = "SSL_CERT_FILE";

/// All authorities of the world are a quarter of a MiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1_024 * 1_024;

/// Has an empty `SSL_CERT_FILE` count as none, as curl and Go have it, where the library
/// looks for a file without a name and then trusts nobody. Only `unsafe` code can take a variable
/// out of a running process, so this one starts again, as the same process, without it. For the
/// start of `main`: what was read from pipes by then would be lost.
///
/// # Errors
/// Where the program cannot be started again.
pub(crate) fn forget_empty_cert_file() -> io::Result<()> {
    if env::var_os(CERT_FILE_VARIABLE).is_none_or(|name| !name.is_empty()) {
        return Ok(());
    }
    let mut words = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    again.env_remove(CERT_FILE_VARIABLE).arg0(words.next().unwrap_or_default()).args(words);
    Err(again.exec())
}

/// Checks the file that [`CERT_FILE_VARIABLE`] names, if it names one: the library would trust
/// nobody, and let each server look as if it were at fault.
pub(super) fn check_cert_file() -> Result<(), AgentError> {
    match env::var_os(CERT_FILE_VARIABLE) {
        None => Ok(()),
        Some(name) => read_certificate(&name).map_err(|why| {
            let shown = Path::new(&name).display();
            AgentError::CertFile(format!("{CERT_FILE_VARIABLE}={shown}: {why}"))
        }),
    }
}

fn read_certificate(name: &OsStr) -> Result<(), String> {
    let mut pem = Vec::new();
    File::open(name)
        .and_then(|file| file.take(MAX_CERT_FILE_BYTES).read_to_end(&mut pem))
        .map_err(|error| error.to_string())?;
    if parse_pem(&pem).any(|item| matches!(item, Ok(PemItem::Certificate(_)))) {
        return Ok(());
    }
    Err("it holds no certificate (PEM, -----BEGIN CERTIFICATE-----)".to_owned())
}

/// What an error of a request to an https address means, safe to log; as it is where that isn't
/// known.
pub(super) fn explain(error: &str) -> String {
    let known = KNOWN.iter().find(|(words, _)| error.contains(words));
    if let Some((_, meaning)) = known {
        return (*meaning).to_owned();
    }
    expired(error).or_else(|| misnamed(error)).unwrap_or_else(|| printable(error).to_string())
}

const KNOWN: [(&str, &str); 9] = [
    (
        "UnknownIssuer",
        "the server's certificate is signed by an authority that this machine does not trust: add \
         the authority to the machine's, or name a file with its certificate in SSL_CERT_FILE; or \
         have the server send its intermediate certificates, too",
    ),
    (
        "CaUsedAsEndEntity",
        "the server's certificate is that of an authority (CA:TRUE): make the server a certificate \
         of its own, signed by that authority",
    ),
    (
        "certificate not valid yet",
        "the server's certificate is not valid yet: is the clock of this machine right?",
    ),
    (
        "certificate had invalid extensions",
        "the server's certificate is not for servers: make it one with the extended key usage \
         serverAuth",
    ),
    (
        "UnsupportedCertVersion",
        "the server's certificate is of an old form: make it one of X.509 version 3, with its names \
         as subjectAltName",
    ),
    (
        "InvalidContentType",
        "the server speaks no TLS at this address: write http:// instead of https://, or give the \
         port of the proxy with TLS",
    ),
    (
        "tls handshake eof",
        "the server closed the connection instead of speaking TLS: is this the port of the proxy \
         with TLS?",
    ),
    (
        "peer is incompatible",
        "the server offers neither TLS 1.2 nor 1.3 in a way that the agent takes: bring its TLS up \
         to date",
    ),
    (
        "No CA certificates were loaded",
        "there is no authority to trust: install this machine's ca-certificates, or correct \
         SSL_CERT_FILE and SSL_CERT_DIR",
    ),
];

/// `certificate expired: ... but certificate is not valid after 1609459200 (...)`
fn expired(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("certificate expired")?;
    let seconds = rest
        .split_once("not valid after ")
        .and_then(|(_, rest)| rest.split(' ').next().and_then(|seconds| seconds.parse().ok()));
    let at = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let at = at.map(|at| format!(" at {}", humantime::format_rfc3339_seconds(at)));
    Some(format!(
        "the server's certificate expired{}: renew it, if the clock of this machine is right",
        at.unwrap_or_default()
    ))
}

/// `certificate not valid for name "b"; certificate is only valid for DnsName("a") or ...`
fn misnamed(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("certificate not valid for name \"")?;
    let (asked, rest) = rest.split_once('"')?;
    let names = match rest.split_once("only valid for ") {
        Some((_, names)) => plain_names(names),
        None => "no name at all".to_owned(),
    };
    Some(format!(
        "the server's certificate is for {}, and not for {asked}: give --server a name that it \
         holds, or make it one with subjectAltName {asked}",
        printable(&names)
    ))
}

/// `DnsName("a") or IpAddress(1.2.3.4)` without what is Rust about it.
fn plain_names(names: &str) -> String {
    ["DnsName(", "IpAddress(", "\"", ")"]
        .iter()
        .fold(names.to_owned(), |text, rust| text.replace(rust, ""))
}
