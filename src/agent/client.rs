//! The HTTP client: one request at a time on one kept-alive connection, each with a timeout. Turns
//! each response or failure into a [`HeartbeatResult`]; does not decide when to send or retry.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use ureq::config::Config;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use super::settings::ServerUrl;
use super::{AgentError, Settings, tls};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::logging::printable;
use crate::wire::response::problem_detail;

/// Of a response's body that is read; a problem has a few hundred.
const MAX_RESPONSE_BYTES: u64 = 64 * 1_024;

/// Less than the server's `idle_timeout` (75 s), so that we rarely write to a connection that it
/// is closing.
const MAX_IDLE: Duration = Duration::from_secs(70);

/// For each direction; ureq's default of 128 KiB is for downloads.
const BUFFER_BYTES: usize = 16 * 1_024;

/// Why the server did not receive a heartbeat. Safe to log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeartbeatError {
    #[error("the server does not accept app key {app_key} with this secret (401)")]
    Unauthorized { app_key: String },
    /// The same request would get the same response.
    #[error("the server rejects our heartbeats: {0}")]
    Rejected(String),
    /// No response, or one that may differ the next time (408, 429, 5xx).
    #[error("heartbeats don't get through ({reason})")]
    Unavailable { reason: String, retry_after: Option<Duration> },
}

pub(crate) type HeartbeatResult = Result<(), HeartbeatError>;

/// Sends the heartbeats of one agent.
pub(super) struct Client {
    settings: Settings,
    agent: Agent,
    clock: Clock,
}

impl Client {
    pub(super) fn new(settings: &Settings, clock: Clock) -> Result<Self, AgentError> {
        if settings.server.is_tls {
            tls::check_cert_file()?;
        }
        Ok(Self { agent: new_agent(&settings.server), settings: settings.clone(), clock })
    }

    pub(super) fn send(&mut self, json: &[u8], timeout: Duration) -> HeartbeatResult {
        let mut response = self.post(json, timeout);
        // The server may close an idle connection at any time (RFC 9112 section 9.3.1), which is
        // not a failure: try once more on a new one.
        if response.as_ref().is_err_and(is_closed_connection) {
            response = self.post(json, timeout);
        }
        match response {
            Ok(response) => self.result_of(response),
            Err(error) => {
                let reason = self.explain(&error);
                Err(HeartbeatError::Unavailable { reason, retry_after: None })
            }
        }
    }

    fn post(&mut self, json: &[u8], timeout: Duration) -> Result<Response<Body>, ureq::Error> {
        let Settings { server, app_key, secret, id, .. } = &self.settings;
        let post = self
            .agent
            .post(server.ping_url(id))
            .header("content-type", "application/json")
            .header("x-app-key", app_key)
            .header("x-app-secret", &secret.0);
        let response = post.config().timeout_global(Some(timeout)).build().send(json);
        if response.is_err() {
            self.agent = new_agent(server);
        }
        response
    }

    fn result_of(&self, mut response: Response<Body>) -> HeartbeatResult {
        let status = response.status();
        // A connection can be used again only if the body has been read.
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_vec();
        let body = body.unwrap_or_default();
        Err(match status.as_u16() {
            200..=299 => return Ok(()),
            401 => HeartbeatError::Unauthorized { app_key: self.settings.app_key.clone() },
            408 | 429 | 500..=599 => HeartbeatError::Unavailable {
                reason: describe(status, &body),
                retry_after: retry_after(response.headers(), self.clock.wall()),
            },
            300..=399 => HeartbeatError::Rejected(describe_redirect(status, response.headers())),
            _ => HeartbeatError::Rejected(describe(status, &body)),
        })
    }

    /// Why there is no response, safe to log.
    fn explain(&self, error: &ureq::Error) -> String {
        let text = error.to_string();
        if self.settings.server.is_tls {
            return tls::explain(&text);
        }
        // Some servers with TLS close the connection on a plain request; for others see `describe`.
        if is_closed_connection(error) {
            return printable(&text) + "; if the server speaks TLS there, write https://";
        }
        printable(&text)
    }
}

fn new_agent(server: &ServerUrl) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would send key and secret to another address.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("agent-metrics/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(1)
        .max_idle_age(MAX_IDLE)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        // The certificates that this machine trusts, a company's own authority among them.
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
    if server.is_loopback {
        config = config.proxy(None);
    }
    Agent::with_parts(config.build(), DefaultConnector::default(), CachingResolver::default())
}

/// Looks up the server's name once. ureq asks before each request, and its own resolver would query
/// the name servers, on a new thread, even when the connection is kept alive.
#[derive(Debug, Default)]
struct CachingResolver(OnceLock<ResolvedSocketAddrs>);

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        if let Some(addresses) = self.0.get() {
            return Ok(addresses.clone());
        }
        let addresses = DefaultResolver::default().resolve(uri, config, timeout)?;
        Ok(self.0.get_or_init(|| addresses).clone())
    }
}

fn is_closed_connection(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(error)
        if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

/// Such as `503 Service Unavailable: the pool is full`, safe to log.
fn describe(status: StatusCode, body: &[u8]) -> String {
    match problem_detail(body) {
        Some(detail) => format!("{status}: {}", printable(&detail)),
        // What nginx, Apache and Go answer to a plain request on a port for TLS.
        None if status == 400 && body.windows(5).any(|word| word == b"HTTPS") => {
            format!("{status}: the server speaks TLS at this address, write https://")
        }
        None => status.to_string(),
    }
}

/// Shows the target without parts that may contain secrets.
fn describe_redirect(status: StatusCode, headers: &HeaderMap) -> String {
    let target = headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or("");
    let target = target.split(['?', '#']).next().unwrap_or("");
    if target.is_empty() || target.contains('@') {
        return format!("{status}: give the address that it redirects to");
    }
    format!("{status}: it redirects to {}, give that address", printable(target))
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(Duration::from_millis(now.0)))
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |value, now| retry_after(&headers("retry-after", value), UnixMillis(now));
        assert_eq!(read("120", 0), Some(Duration::from_secs(120)));
        let date = "Tue, 07 Jan 2025 10:35:00 GMT";
        assert_eq!(read(date, 1_736_246_095_000), Some(Duration::from_secs(5)));
        assert_eq!(read(date, 1_736_246_200_000), Some(Duration::ZERO), "a date in the past");
        assert_eq!(read("soon", 0), None);
    }

    #[test]
    fn a_redirect_is_shown_without_its_secrets() {
        let say = |to| describe_redirect(StatusCode::MOVED_PERMANENTLY, &headers("location", to));
        assert!(say("https://h/p?token=t").contains("https://h/p,"));
        assert!(!say("https://h/p?token=t").contains("token"));
        assert!(!say("https://user:pass@h/").contains("pass"));
    }

    /// The bodies of nginx, Go and Apache.
    #[test]
    fn a_plain_request_to_a_tls_port_is_recognised() {
        for body in [
            "<center>The plain HTTP request was sent to HTTPS port</center>",
            "Client sent an HTTP request to an HTTPS server.\n",
            "speaking plain HTTP to an SSL-enabled server port.<br /> use the HTTPS scheme",
        ] {
            let said = describe(StatusCode::BAD_REQUEST, body.as_bytes());
            assert_eq!(
                said,
                "400 Bad Request: the server speaks TLS at this address, write https://"
            );
        }
        assert_eq!(describe(StatusCode::BAD_REQUEST, b"no"), "400 Bad Request");
        assert_eq!(describe(StatusCode::NOT_FOUND, b"HTTPS"), "404 Not Found");
    }

    #[test]
    fn a_response_cannot_break_a_log_line() {
        let said = describe(StatusCode::NOT_FOUND, br#"{"detail":"a\nb"}"#);
        assert_eq!(said, r"404 Not Found: a\nb");
    }

    #[test]
    fn addresses_are_looked_up_once() {
        let config = Agent::config_builder().build();
        let resolver = CachingResolver::default();
        let resolve = |uri: &str| {
            let uri = uri.parse().unwrap();
            resolver.resolve(&uri, &config, NextTimeout::default()).unwrap().to_vec()
        };
        let found = ["[::1]:81".parse().unwrap()];
        assert_eq!(resolve("http://[::1]:81/path"), found);
        // What a second lookup would find.
        assert_eq!(resolve("http://[::1]:82/path"), found);
    }
}
