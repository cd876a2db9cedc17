//! The posting thread: one HTTP request at a time on one kept-alive connection, each with a
//! deadline, and every answer turned into an [`Outcome`]. Decides nothing about when or again.
//!
//! A thread of its own, because no deadline of ours bounds a name lookup or a stuck
//! connection as closely as a stop must be answered.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use ureq::http::{HeaderMap, HeaderValue, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::pace::Outcome;
use super::report;
use super::resolve::Remembering;
use super::{AgentError, Settings, tls};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::logging::printable;

/// TLS and the system's name lookup want more stack than our other threads.
const STACK_BYTES: usize = 1_024 * 1_024;

/// What of an answer's body is read; a problem's is a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1_024;

/// Below the server's `idle_timeout` (75 s), so that we seldom write to a connection that it
/// is about to close.
const MAX_IDLE: Duration = Duration::from_secs(70);

/// ureq's buffers, per connection; its default of 128 KiB each is for downloads.
const BUFFER_BYTES: usize = 16 * 1_024;

/// What the posting thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Send this JSON.
    Heartbeat(Vec<u8>),
    /// Say goodbye, briefly.
    Goodbye,
}

/// The posting thread's handle. At most one job is out at a time: who sent one waits for its
/// outcome before the next, so that nothing ever queues.
pub(super) struct Poster {
    jobs: Sender<Job>,
    outcomes: Receiver<Outcome>,
    thread: JoinHandle<()>,
}

impl Poster {
    pub(super) fn start(settings: &Settings, clock: Clock) -> Result<Self, AgentError> {
        let (jobs, inbox) = bounded::<Job>(1);
        let (outbox, outcomes) = bounded(1);
        let mut client = Client::new(settings, clock)?;
        let thread = Builder::new()
            .name("agent-http".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                for job in inbox {
                    if outbox.send(client.carry_out(&job)).is_err() {
                        break;
                    }
                }
            })
            .map_err(AgentError::Thread)?;
        Ok(Self { jobs, outcomes, thread })
    }

    /// Gives the thread a job; `false` when the thread is gone.
    pub(super) fn give(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }

    /// One outcome per job; disconnected when the thread is gone.
    pub(super) fn outcomes(&self) -> &Receiver<Outcome> {
        &self.outcomes
    }

    /// Ends the thread, which must be idle, and waits for it.
    pub(super) fn join(self) {
        drop(self.jobs);
        drop(self.outcomes);
        // A panic has been reported by the hook, and there is nothing left to do for it here.
        let _ = self.thread.join();
    }
}

/// One server, one identity, one connection.
struct Client {
    agent: Agent,
    resolver: Remembering,
    url: String,
    is_tls: bool,
    headers: HeaderMap,
    goodbye_timeout: Duration,
    clock: Clock,
    /// Whether the last request may have left a connection to use again.
    warm: bool,
}

impl Client {
    fn new(settings: &Settings, clock: Clock) -> Result<Self, AgentError> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(settings.timing.request_timeout))
            .http_status_as_error(false)
            // A redirect would carry key and secret to whom it names.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("agent-metrics/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .max_idle_age(MAX_IDLE)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            // What this machine trusts, so that a company's own authority counts here, too.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
        if settings.server.is_tls {
            tls::check_cert_file()?;
        }
        if settings.server.is_loopback {
            config = config.proxy(None);
        }
        let resolver = Remembering::default();
        let connector = DefaultConnector::default();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert(
            "x-app-key",
            header(&settings.app_key).map_err(|()| AgentError::AppKey(NOT_A_HEADER))?,
        );
        headers.insert(
            "x-app-secret",
            header(settings.secret.expose())
                .map_err(|()| AgentError::Secret(NOT_A_HEADER.to_owned()))?,
        );
        Ok(Self {
            agent: Agent::with_parts(config.build(), connector, resolver.clone()),
            resolver,
            url: settings.server.ping(&settings.id),
            is_tls: settings.server.is_tls,
            headers,
            goodbye_timeout: settings.timing.goodbye_timeout,
            clock,
            warm: false,
        })
    }

    fn carry_out(&mut self, job: &Job) -> Outcome {
        let (body, timeout) = match job {
            Job::Heartbeat(json) => (json.as_slice(), None),
            Job::Goodbye => (report::GOODBYE, Some(self.goodbye_timeout)),
        };
        let mut answer = self.send(body, timeout);
        // A kept connection may have been closed under us, by the server's right (RFC 9112
        // section 9.3.1), which says nothing about the server: one try on a fresh one.
        if let Err(error) = &answer
            && self.warm
            && is_closed_connection(error)
        {
            self.resolver.forget();
            answer = self.send(body, timeout);
        }
        let was_warm = std::mem::replace(&mut self.warm, answer.is_ok());
        match answer {
            Ok(answer) => self.outcome(answer),
            Err(error) => {
                self.resolver.forget();
                let reason = self.reason(&error, was_warm);
                Outcome::Away { reason, retry_after: None }
            }
        }
    }

    fn send(
        &self,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let mut request = self.agent.post(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match timeout {
            Some(timeout) => request.config().timeout_global(Some(timeout)).build().send(body),
            None => request.send(body),
        }
    }

    /// Why there is no answer, safe to log; `was_warm` when the server has answered on this connection.
    fn reason(&self, error: &ureq::Error, was_warm: bool) -> String {
        let text = error.to_string();
        match self.is_tls {
            true => tls::explain(&text),
            // Some servers with TLS say nothing to a request without; others do, see `describe`.
            false if is_closed_connection(error) && !was_warm => {
                format!("{}; if the server speaks TLS there, write https://", printable(&text))
            }
            false => printable(&text).to_string(),
        }
    }

    fn outcome(&self, mut answer: ureq::http::Response<Body>) -> Outcome {
        let status = answer.status();
        // Read also where nothing is wanted of it: only then can the connection serve again.
        let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = body.unwrap_or_default();
        match status.as_u16() {
            200..=299 => Outcome::Received,
            401 => Outcome::Unauthorized,
            408 | 429 | 500..=599 => Outcome::Away {
                reason: describe(status, &body),
                retry_after: retry_after(answer.headers(), self.clock.wall()),
            },
            300..=399 => Outcome::Refused(redirect(status, answer.headers())),
            _ => Outcome::Refused(describe(status, &body)),
        }
    }
}

const NOT_A_HEADER: &str = "it cannot travel in a header";

/// A header value that ureq's own debug output leaves out.
fn header(text: &str) -> Result<HeaderValue, ()> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_closed_connection(error: &ureq::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(error, ureq::Error::Io(error) if matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    ))
}

/// `503 Service Unavailable: the pool is full`, made safe to log.
fn describe(status: StatusCode, body: &[u8]) -> String {
    match report::detail(body) {
        Some(detail) => format!("{status}: {}", printable(&detail)),
        // As nginx, Apache and Go answer a request without TLS where they expect it.
        None if status == StatusCode::BAD_REQUEST && mentions_https(body) => {
            format!("{status}: the server speaks TLS at this address, write https://")
        }
        None => status.to_string(),
    }
}

fn mentions_https(body: &[u8]) -> bool {
    body.windows(5).any(|word| word == b"HTTPS")
}

/// Names the target without what a query or an authority may hold of secrets.
fn redirect(status: StatusCode, headers: &HeaderMap) -> String {
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
        assert_eq!(read(date, 1_736_246_200_000), Some(Duration::ZERO), "a date gone by");
        assert_eq!(read("soon", 0), None);
    }

    #[test]
    fn a_redirect_is_named_without_what_may_be_secret() {
        let say = |to| redirect(StatusCode::MOVED_PERMANENTLY, &headers("location", to));
        assert!(say("https://h/p?token=t").contains("https://h/p,"));
        assert!(!say("https://h/p?token=t").contains("token"));
        assert!(!say("https://user:pass@h/").contains("pass"));
    }

    /// The bodies of nginx, Go and Apache.
    #[test]
    fn a_server_that_wants_tls_is_told_from_other_refusals() {
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
    fn what_a_server_says_cannot_break_a_log_line() {
        let said = describe(StatusCode::NOT_FOUND, br#"{"detail":"a\nb"}"#);
        assert_eq!(said, r"404 Not Found: a\nb");
    }
}
