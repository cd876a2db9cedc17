//! What an agent is told before it runs: where to send, as whom, how often. Checks every
//! value and names the one that is wrong; never shows a secret; opens no connection.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Uri;

use super::AgentError;
use super::pace::Timing;
use crate::agent::task_files::DEFAULT_DIR;
use crate::wire::MAX_TEXT_CHARS;
use crate::wire::id::{AgentId, MAX_ID_BYTES};
use crate::wire::{GOODBYE, is_valid_status};

/// The environment variable that holds the secret itself.
pub(crate) const SECRET_VARIABLE: &str = "AGENT_METRICS_APP_SECRET";

/// The environment variable that names a file which holds the secret.
pub(crate) const SECRET_FILE_VARIABLE: &str = "AGENT_METRICS_APP_SECRET_FILE";

/// Shortest interval: CPU is counted in hundredths of a second, so a shorter one measures noise.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Longest interval. Servers evict after minutes; far beyond that a setting is a slip.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest key or secret, in bytes. Both travel in one head of at most 8 KiB.
const MAX_CREDENTIAL_BYTES: usize = 1_024;

/// What an agent needs to know, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(super) server: Server,
    pub(super) app_key: String,
    pub(super) secret: Secret,
    pub(super) id: AgentId,
    pub(super) name: Option<String>,
    pub(super) status: Option<String>,
    pub(super) task_dirs: Vec<PathBuf>,
    pub(super) timing: Timing,
}

impl Settings {
    /// Checks the parts. `server` is an http or https address, with or without a path before
    /// `/api`; `interval` lies within [`MIN_INTERVAL`] and [`MAX_INTERVAL`]; `name` is what
    /// people see instead of the id.
    ///
    /// # Errors
    /// The variant names the part; its text says what is wrong with it.
    pub(crate) fn new(
        server: &str,
        app_key: &str,
        secret: Secret,
        interval: Duration,
        id: AgentId,
        name: Option<String>,
    ) -> Result<Self, AgentError> {
        let server = Server::parse(server).map_err(AgentError::Server)?;
        check_credential(app_key).map_err(AgentError::AppKey)?;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(AgentError::Interval(interval));
        }
        name.as_deref().map_or(Ok(()), check_name)?;
        let timing = Timing::new(interval);
        let task_dirs = vec![PathBuf::from(DEFAULT_DIR)];
        let app_key = app_key.to_owned();
        Ok(Self { server, app_key, secret, id, name, status: None, task_dirs, timing })
    }

    /// Says `status`, whatever runs: 1 to 32 of `a-z 0-9 _ -`, and not `offline`, which would be
    /// a goodbye.
    ///
    /// # Errors
    /// [`AgentError::Status`].
    pub(crate) fn with_status(mut self, status: Option<String>) -> Result<Self, AgentError> {
        if let Some(status) = &status {
            check_status(status)?;
        }
        self.status = status;
        Ok(self)
    }

    /// Reports the tasks in `dirs`, and not those in [`DEFAULT_DIR`].
    #[must_use]
    pub(crate) fn with_task_dirs(mut self, dirs: Vec<PathBuf>) -> Self {
        self.task_dirs = dirs;
        self
    }

    /// Where heartbeats go, as it was given.
    #[must_use]
    pub(crate) fn server(&self) -> &str {
        &self.server.text
    }

    /// The agent's id.
    #[must_use]
    pub(crate) fn id(&self) -> &AgentId {
        &self.id
    }
}

pub(super) fn check_name(name: &str) -> Result<(), AgentError> {
    let fits = (1..=MAX_TEXT_CHARS).contains(&name.chars().count());
    if fits { Ok(()) } else { Err(AgentError::Name) }
}

pub(super) fn check_status(status: &str) -> Result<(), AgentError> {
    let fits = is_valid_status(status) && status != GOODBYE;
    if fits { Ok(()) } else { Err(AgentError::Status) }
}

/// This machine's host name as an agent id: what an id may not hold becomes `-`, the rest
/// beyond 128 characters is cut, and a machine without a name is `agent`.
#[must_use]
pub(crate) fn default_id() -> AgentId {
    let host = sysinfo::System::host_name().unwrap_or_default();
    id_from(&host)
}

fn id_from(host: &str) -> AgentId {
    let id: String = host
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(MAX_ID_BYTES)
        .collect();
    AgentId::parse(&id).unwrap_or_else(|_| {
        #[expect(clippy::expect_used, reason = "the literal keeps the rule, as a test shows")]
        AgentId::parse("agent").expect("a valid id")
    })
}

/// A shared secret. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Checks `text`: 1 to 1,024 bytes of visible ASCII, since it travels in a header
    /// (RFC 9110 section 5.5).
    ///
    /// # Errors
    /// [`AgentError::Secret`], without the text.
    pub(crate) fn new(text: &str) -> Result<Self, AgentError> {
        check_credential(text).map_err(|why| AgentError::Secret(why.to_owned()))?;
        Ok(Self(text.to_owned()))
    }

    /// The secret from `file` (the command line's word counts first), else from the variable
    /// [`SECRET_VARIABLE`], else from the file that [`SECRET_FILE_VARIABLE`] names. White
    /// space around it is not part of it.
    ///
    /// # Errors
    /// [`AgentError::Secret`] when none is set, when both variables are, or when a file
    /// cannot be read.
    pub(crate) fn from_env_or_file(file: Option<&Path>) -> Result<Self, AgentError> {
        Self::choose(
            file,
            std::env::var_os(SECRET_VARIABLE),
            std::env::var_os(SECRET_FILE_VARIABLE).map(PathBuf::from),
        )
    }

    fn choose(
        flag: Option<&Path>,
        variable: Option<OsString>,
        variable_file: Option<PathBuf>,
    ) -> Result<Self, AgentError> {
        match (flag, variable, variable_file) {
            (Some(file), _, _) => Self::from_file(file),
            (None, Some(_), Some(_)) => Err(AgentError::Secret(format!(
                "{SECRET_VARIABLE} and {SECRET_FILE_VARIABLE} are both set: unset one"
            ))),
            (None, Some(text), None) => match text.to_str() {
                Some(text) => Self::new(text.trim()),
                None => Err(AgentError::Secret(format!("{SECRET_VARIABLE} is not UTF-8"))),
            },
            (None, None, Some(file)) => Self::from_file(&file),
            (None, None, None) => Err(AgentError::Secret(format!(
                "there is none: set {SECRET_VARIABLE}, or name a file in {SECRET_FILE_VARIABLE}"
            ))),
        }
    }

    fn from_file(path: &Path) -> Result<Self, AgentError> {
        let mut text = String::new();
        // A little more than a secret may be, so that a wrong file is told from a long secret
        // without reading all of it.
        let most = 2 * MAX_CREDENTIAL_BYTES as u64;
        File::open(path)
            .and_then(|file| file.take(most).read_to_string(&mut text))
            .map_err(|error| AgentError::Secret(format!("file {}: {error}", path.display())))?;
        check_credential(text.trim())
            .map_err(|why| AgentError::Secret(format!("file {}: {why}", path.display())))?;
        Ok(Self(text.trim().to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// A key or secret as a header carries it without a change.
fn check_credential(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_CREDENTIAL_BYTES {
        return Err("it is longer than 1,024 bytes");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it holds something other than visible ASCII characters");
    }
    Ok(())
}

/// A server's address: scheme, authority, and an optional path before `/api`.
#[derive(Debug, Clone)]
pub(super) struct Server {
    text: String,
    /// Whether the scheme is https.
    pub(super) is_tls: bool,
    /// Whether the host is this machine, which no proxy is asked for.
    pub(super) is_loopback: bool,
}

impl Server {
    fn parse(text: &str) -> Result<Self, &'static str> {
        // `Uri` drops a fragment without a word, and a query would swallow the path put behind it.
        if text.contains('#') {
            return Err("it has a fragment (#)");
        }
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err("its scheme is neither http nor https"),
            None => return Err("it has no scheme: write http://... or https://..."),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds credentials (user@): give key and secret by their own settings");
        }
        if authority.host().is_empty() {
            return Err("it has no host");
        }
        if uri.query().is_some() {
            return Err("it has a query (?)");
        }
        let text = text.trim_end_matches('/').to_owned();
        Ok(Self { text, is_tls, is_loopback: is_loopback(authority.host()) })
    }

    /// Where heartbeats of `id` go; an id needs no escaping in a path.
    pub(super) fn ping(&self, id: &AgentId) -> String {
        format!("{}/api/v1/agents/{id}/ping", self.text)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        // RFC 6761 section 6.3: names under localhost are this machine.
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: &str, interval: Duration) -> Result<Settings, AgentError> {
        let secret = Secret::new("hush-hush").unwrap();
        Settings::new(server, "key", secret, interval, AgentId::parse("a").unwrap(), None)
    }

    #[test]
    fn a_server_is_http_or_https_without_credentials_query_or_fragment() {
        for good in ["http://localhost:8080", "https://metrics.example.org/live/", "http://[::1]:1"]
        {
            assert!(settings(good, Duration::from_secs(30)).is_ok(), "{good}");
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
            let error = settings(bad, Duration::from_secs(30)).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
            assert!(!error.contains("pass") && !error.contains("token="), "{error}");
        }
    }

    #[test]
    fn the_path_before_api_is_kept() {
        let settings =
            settings("https://metrics.example.org/live/", Duration::from_secs(30)).unwrap();
        assert_eq!(
            settings.server.ping(&settings.id),
            "https://metrics.example.org/live/api/v1/agents/a/ping"
        );
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "LOCALHOST", "x.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["128.0.0.1", "[::2]", "localhost.example.org", "notlocalhost"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_interval_below_a_second_is_refused_by_name() {
        let refused = settings("http://h", Duration::from_millis(999)).unwrap_err().to_string();
        assert!(refused.contains("interval") && refused.contains("1s"), "{refused}");
        assert!(settings("http://h", MIN_INTERVAL).is_ok());
        assert!(settings("http://h", MAX_INTERVAL + Duration::from_nanos(1)).is_err());
    }

    #[test]
    fn a_status_of_ones_own_keeps_the_rule_and_is_no_goodbye() {
        let with = |status: &str| {
            settings("http://h", MIN_INTERVAL).unwrap().with_status(Some(status.to_owned()))
        };
        for good in ["draining", "a", "x_9-z", &"s".repeat(32)] {
            assert_eq!(with(good).unwrap().status.as_deref(), Some(good));
        }
        for bad in ["", "offline", "Busy", "two words", "é", &"s".repeat(33)] {
            assert!(with(bad).unwrap_err().to_string().starts_with("status: "), "{bad}");
        }
    }

    #[test]
    fn a_host_name_becomes_a_valid_id() {
        for (host, id) in [
            ("runner-7.example.org", "runner-7.example.org"),
            ("Anna's Büro", "Anna-s-B-ro"),
            ("", "agent"),
            ("..", "agent"),
        ] {
            assert_eq!(id_from(host).as_str(), id);
        }
        assert_eq!(id_from(&"x".repeat(200)).as_str().len(), MAX_ID_BYTES);
        assert!(!default_id().as_str().is_empty());
    }

    #[test]
    fn a_secret_shows_nothing_and_comes_from_the_first_place_that_has_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file\n").unwrap();
        let named = || Some(file.path().to_owned());
        let pick = |flag, variable: Option<&str>, file| {
            Secret::choose(flag, variable.map(OsString::from), file)
        };
        assert_eq!(pick(Some(file.path()), Some("v"), None).unwrap().expose(), "from-file");
        assert_eq!(pick(None, Some(" v\n"), None).unwrap().expose(), "v");
        assert_eq!(pick(None, None, named()).unwrap().expose(), "from-file");
        assert!(pick(None, Some("v"), named()).is_err());
        let none = pick(None, None, None).unwrap_err().to_string();
        assert!(none.contains(SECRET_VARIABLE), "{none}");
        let bad = Secret::new("line\nbreak-hush").unwrap_err().to_string();
        assert!(!bad.contains("hush"), "{bad}");
        let shown = format!("{:?}", settings("http://h", MIN_INTERVAL).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }
}
