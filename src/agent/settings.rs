//! What an agent is told before it runs: where to send, as whom, how often. Checks each value,
//! without a connection, and says which one is wrong; never shows a secret.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderValue, Uri};

use super::schedule::Timing;
use super::task_files::parse_text;
use super::{AgentError, Profile};
use crate::wire::id::{AgentId, InvalidId, MAX_ID_BYTES};
use crate::wire::{GOODBYE, is_valid_status};

const SECRET_VARIABLE: &str = "AGENT_METRICS_APP_SECRET";
const SECRET_FILE_VARIABLE: &str = "AGENT_METRICS_APP_SECRET_FILE";

/// The kernel counts CPU time in hundredths of a second, so shorter intervals measure noise.
/// Servers evict after minutes, so a longer one is a mistake.
pub(crate) const INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Of a key or a secret; the server takes a head of at most 8 KiB.
const MAX_CREDENTIAL_BYTES: usize = 1_024;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) server: ServerUrl,
    pub(super) app_key: String,
    pub(super) secret: Secret,
    pub(crate) id: AgentId,
    pub(super) profile: Profile,
    pub(super) timing: Timing,
}

impl Settings {
    /// `server` is an http or https URL, with or without a path before `/api`; `interval` is one of
    /// [`INTERVALS`].
    pub(crate) fn new(
        server: &str,
        app_key: &str,
        secret: Secret,
        id: AgentId,
        interval: Duration,
        profile: Profile,
    ) -> Result<Self, AgentError> {
        let server = ServerUrl::parse(server)
            .map_err(|why| AgentError::Setting("server address", why.into()))?;
        check_credential(app_key).map_err(|why| AgentError::Setting("app key", why.into()))?;
        let (app_key, timing) = (app_key.to_owned(), Timing::new(interval));
        Ok(Self { server, app_key, secret, id, profile, timing })
    }
}

/// Checks a name to show instead of the id.
pub(crate) fn parse_name(name: &str) -> Result<String, String> {
    if name.is_empty() { Err("must not be empty".to_owned()) } else { parse_text(name) }
}

/// Checks a status to report instead of `busy` and `idle`.
pub(crate) fn parse_status(status: &str) -> Result<String, String> {
    if is_valid_status(status) && status != GOODBYE {
        return Ok(status.to_owned());
    }
    Err(format!("must be 1 to 32 of a-z 0-9 _ -, and not {GOODBYE:?}, which is a goodbye"))
}

/// This machine's host name as an agent id: other characters become `-`, and the rest after 128
/// characters is cut. A machine without a host name is `agent`.
pub(crate) fn default_id() -> Result<AgentId, InvalidId> {
    id_from(&sysinfo::System::host_name().unwrap_or_default())
}

fn id_from(host: &str) -> Result<AgentId, InvalidId> {
    let id: String = host
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(MAX_ID_BYTES)
        .collect();
    AgentId::parse(&id).or_else(|_| AgentId::parse("agent"))
}

/// `Debug` does not show it.
#[derive(Debug, Clone)]
pub(crate) struct Secret(pub(super) HeaderValue);

impl Secret {
    /// White space around `text` is ignored.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        check_credential(text)?;
        let mut value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// From `file`, the command line's, else from one of the environment variables
    /// `AGENT_METRICS_APP_SECRET` and `AGENT_METRICS_APP_SECRET_FILE`.
    pub(crate) fn from_env_or_file(file: Option<&Path>) -> Result<Self, AgentError> {
        Self::choose(file, env::var_os(SECRET_VARIABLE), env::var_os(SECRET_FILE_VARIABLE))
            .map_err(|why| AgentError::Setting("app secret", why))
    }

    fn choose(
        flag: Option<&Path>,
        text: Option<OsString>,
        file: Option<OsString>,
    ) -> Result<Self, String> {
        match (flag, text, file) {
            (Some(file), _, _) => Self::from_file(file),
            (None, Some(_), Some(_)) => {
                Err(format!("{SECRET_VARIABLE} and {SECRET_FILE_VARIABLE} are both set: unset one"))
            }
            (None, Some(text), None) => Self::new(&text.to_string_lossy()),
            (None, None, Some(file)) => Self::from_file(file.as_ref()),
            (None, None, None) => Err(format!(
                "there is none: set {SECRET_VARIABLE}, or name a file in {SECRET_FILE_VARIABLE}"
            )),
        }
    }

    fn from_file(path: &Path) -> Result<Self, String> {
        // More than a secret may have, but not all of a large file that was named by mistake.
        let limit = 2 * MAX_CREDENTIAL_BYTES as u64;
        File::open(path)
            .and_then(|file| io::read_to_string(file.take(limit)))
            .map_err(|error| error.to_string())
            .and_then(|text| Self::new(&text))
            .map_err(|why| format!("file {}: {why}", path.display()))
    }
}

/// A key or secret, which is sent in a header (RFC 9110 section 5.5).
fn check_credential(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it is empty"),
        _ if text.len() > MAX_CREDENTIAL_BYTES => Err("it is longer than 1,024 bytes"),
        _ if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(()),
        _ => Err("it contains other characters than visible ASCII"),
    }
}

/// Scheme, authority, and an optional path before `/api`.
#[derive(Debug, Clone)]
pub(crate) struct ServerUrl {
    text: String,
    pub(super) is_tls: bool,
    /// Whether the host is this machine, so that no proxy is used.
    pub(super) is_loopback: bool,
}

impl ServerUrl {
    fn parse(text: &str) -> Result<Self, &'static str> {
        // Checked here because `Uri` drops a fragment silently.
        if text.contains(['?', '#']) {
            return Err("it has a query (?) or a fragment (#)");
        }
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err("its scheme is neither http nor https"),
            None => return Err("it has no scheme: write http://... or https://..."),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("it has no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("it contains credentials (user@): key and secret have their own settings");
        }
        let text = text.trim_end_matches('/').to_owned();
        Ok(Self { text, is_tls, is_loopback: is_loopback(host) })
    }

    /// An id needs no escaping in a path.
    pub(super) fn ping_url(&self, id: &AgentId) -> String {
        format!("{}/api/v1/agents/{id}/ping", self.text)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address.is_loopback();
    }
    // RFC 6761 section 6.3: names under localhost are this machine.
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str) -> Result<Settings, AgentError> {
        let secret = Secret::new("hush-hush").unwrap();
        let id = AgentId::parse("a").unwrap();
        Settings::new(server, "key", secret, id, Duration::from_secs(30), Profile::default())
    }

    #[test]
    fn a_server_is_http_or_https_without_credentials_query_or_fragment() {
        for good in ["http://localhost:8080", "https://metrics.example.org/live/", "http://[::1]:1"]
        {
            assert!(settings(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("localhost:8080", "scheme"),
            ("ftp://host", "scheme"),
            ("http://", "URL"),
            ("metrics.example.org", "scheme"),
            ("http://user:pass@host", "credentials"),
            ("http://host/?token=x", "query"),
            ("http://host/#x", "fragment"),
        ] {
            let error = settings(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
            assert!(!error.contains("pass") && !error.contains("token="), "{error}");
        }
    }

    #[test]
    fn the_path_before_api_is_kept() {
        let settings = settings("https://metrics.example.org/live/").unwrap();
        assert_eq!(
            settings.server.ping_url(&settings.id),
            "https://metrics.example.org/live/api/v1/agents/a/ping"
        );
    }

    #[test]
    fn loopback_addresses_and_names_are_recognised() {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "LOCALHOST", "x.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["128.0.0.1", "[::2]", "localhost.example.org", "notlocalhost"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_status_follows_the_rule_and_is_not_a_goodbye() {
        for good in ["draining", "a", "x_9-z", &"s".repeat(32)] {
            assert_eq!(parse_status(good).as_deref(), Ok(good));
        }
        for bad in ["", "offline", "Busy", "two words", "é", &"s".repeat(33)] {
            assert!(parse_status(bad).unwrap_err().starts_with("must be 1 to 32 of"), "{bad}");
        }
    }

    #[test]
    fn a_name_has_1_to_128_characters() {
        for (name, is_valid) in [("", false), ("中", true)] {
            assert_eq!(parse_name(name).is_ok(), is_valid, "{name}");
        }
        assert!(parse_name(&"中".repeat(128)).is_ok());
        assert!(parse_name(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_host_name_becomes_a_valid_id() {
        for (host, id) in [
            ("runner-7.example.org", "runner-7.example.org"),
            ("Anna's Büro", "Anna-s-B-ro"),
            ("", "agent"),
            ("..", "agent"),
        ] {
            assert_eq!(id_from(host).unwrap().as_str(), id);
        }
        assert_eq!(id_from(&"x".repeat(200)).unwrap().as_str().len(), MAX_ID_BYTES);
        assert!(default_id().is_ok());
    }

    #[test]
    fn a_secret_is_not_shown_and_comes_from_the_first_place_that_has_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file\n").unwrap();
        let named = || Some(file.path().into());
        let pick = |flag, variable: Option<&str>, file| {
            Secret::choose(flag, variable.map(OsString::from), file)
        };
        assert_eq!(pick(Some(file.path()), Some("v"), None).unwrap().0, "from-file");
        assert_eq!(pick(None, Some(" v\n"), None).unwrap().0, "v");
        assert_eq!(pick(None, None, named()).unwrap().0, "from-file");
        assert!(pick(None, Some("v"), named()).is_err());
        let none = pick(None, None, None).unwrap_err().to_string();
        assert!(none.contains(SECRET_VARIABLE), "{none}");
        let bad = Secret::new("line\nbreak-hush").unwrap_err().to_string();
        assert!(!bad.contains("hush"), "{bad}");
        let shown = format!("{:?}", settings("http://h").unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }
}
