//! TLS errors in plain words: what is wrong, and what to do about it. Checks the file of trusted
//! certificates, if one is named.
//!
//! The errors are recognised by rustls' text, since ureq's API does not include rustls' types.
//! Other texts are shown as they are. `tests/it/agent_tls.rs` produces the errors with a real
//! server.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use ureq::tls::{PemItem, parse_pem};

use super::AgentError;
use crate::runtime::logging::printable;

/// Names the file of the certificates to trust instead of the machine's own, as for OpenSSL.
const CERT_FILE_VARIABLE: &str = "SSL_CERT_FILE";

/// All public authorities together have a quarter of a MiB.
const MAX_CERT_FILE_BYTES: u64 = 16 * 1_024 * 1_024;

/// Treats an empty `SSL_CERT_FILE` as unset, as curl and Go do; rustls would open a file without a
/// name and then trust no server. Removing a variable from a running process takes `unsafe`, so the
/// process executes its program again without it. To be called before anything else.
pub(crate) fn ignore_empty_cert_file() -> io::Result<()> {
    if env::var_os(CERT_FILE_VARIABLE).is_none_or(|name| !name.is_empty()) {
        return Ok(());
    }
    let mut words = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    again.env_remove(CERT_FILE_VARIABLE).arg0(words.next().unwrap_or_default()).args(words);
    Err(again.exec())
}

/// Checks that the file of [`CERT_FILE_VARIABLE`] contains a certificate. Without the check rustls
/// would trust no server, and its errors would blame the servers.
pub(super) fn check_cert_file() -> Result<(), AgentError> {
    let Some(path) = env::var_os(CERT_FILE_VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let mut pem = Vec::new();
    let is_wrong =
        |why| AgentError::Setting(CERT_FILE_VARIABLE, format!("{}: {why}", path.display()));
    File::open(&path)
        .and_then(|file| file.take(MAX_CERT_FILE_BYTES).read_to_end(&mut pem))
        .map_err(|error| is_wrong(error.to_string()))?;
    if !parse_pem(&pem).any(|item| matches!(item, Ok(PemItem::Certificate(_)))) {
        return Err(is_wrong("it holds no certificate (PEM, -----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(())
}

/// What an error of a request over https means, safe to log.
pub(super) fn explain(error: &str) -> String {
    let known = MEANINGS.iter().find(|(text, _)| error.contains(text));
    known
        .map(|(_, meaning)| (*meaning).to_owned())
        .or_else(|| explain_expired(error))
        .or_else(|| explain_wrong_name(error))
        .unwrap_or_else(|| printable(error))
}

const MEANINGS: [(&str, &str); 9] = [
    (
        "UnknownIssuer",
        "the server's certificate is signed by an authority that this machine does not trust: add \
         the authority to the machine's, or name a file with its certificate in SSL_CERT_FILE; or \
         configure the server to send its intermediate certificates",
    ),
    (
        "CaUsedAsEndEntity",
        "the server's certificate is that of an authority (CA:TRUE): give the server a certificate \
         of its own, signed by that authority",
    ),
    (
        "certificate not valid yet",
        "the server's certificate is not valid yet: is the clock of this machine right?",
    ),
    (
        "certificate had invalid extensions",
        "the server's certificate is not for servers: make one with the extended key usage \
         serverAuth",
    ),
    (
        "UnsupportedCertVersion",
        "the server's certificate has an old version: make one of X.509 version 3, with its names \
         as subjectAltName",
    ),
    (
        "InvalidContentType",
        "the server speaks no TLS at this address: write http:// instead of https://, or give the \
         port of the proxy with TLS",
    ),
    (
        "tls handshake eof",
        "the server closed the connection during the TLS handshake: is this the port of the proxy \
         with TLS?",
    ),
    (
        "peer is incompatible",
        "the server and the agent have no TLS version (1.2 or 1.3) and cipher suite in common: \
         update the server's TLS",
    ),
    (
        "No CA certificates were loaded",
        "this machine trusts no authority: install ca-certificates, or correct SSL_CERT_FILE and \
         SSL_CERT_DIR",
    ),
];

/// `certificate expired: ... but certificate is not valid after 1609459200 (...)`
fn explain_expired(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("certificate is not valid after ")?;
    let seconds = rest.split(' ').next()?.parse().ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let at = humantime::format_rfc3339_seconds(at);
    Some(format!(
        "the server's certificate expired at {at}: renew it, if the clock of this machine is right"
    ))
}

/// `certificate not valid for name "b"; certificate is only valid for DnsName("a") or ...`
fn explain_wrong_name(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("certificate not valid for name \"")?;
    let (asked, rest) = rest.split_once('"')?;
    let names = rest.split_once("only valid for ").map_or("no name at all", |(_, names)| names);
    let names = ["DnsName(", "IpAddress(", "\"", ")"]
        .iter()
        .fold(names.to_owned(), |names, syntax| names.replace(syntax, ""));
    Some(format!(
        "the server's certificate is for {}, and not for {asked}: give --server a name that it \
         contains, or make a certificate with subjectAltName {asked}",
        printable(&names)
    ))
}
