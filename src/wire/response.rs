//! Responses to HTTP requests, and the problem bodies (RFC 9457) of those that refuse. Shared by
//! the door, which answers some requests itself, and by the workers behind it. Values and their
//! wire form; no sockets.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::StatusCode;

/// A status code's reason phrase, also a problem's `title` (RFC 9110 section 15).
#[must_use]
pub(crate) fn phrase(status: u16) -> &'static str {
    if status == 413 {
        return "Content Too Large"; // RFC 9110 section 15.5.14; the crate has RFC 7231's.
    }
    StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("")
}

/// A body, never copied: several responses may share one.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Made for this response, or for all who ask for the same at the same time.
    Shared(Arc<SharedBody>),
    /// Part of the binary.
    Static(&'static [u8]),
}

/// Counts once in a sum of memory, from [`SharedBody::count_in`] to the end of the last response.
#[derive(Debug)]
pub(crate) struct SharedBody {
    pub bytes: Vec<u8>,
    sum: OnceLock<Arc<AtomicUsize>>,
}

impl SharedBody {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, sum: OnceLock::new() })
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.sum.get().is_some()
    }

    pub(crate) fn count_in(&self, sum: &Arc<AtomicUsize>) {
        self.sum.get_or_init(|| {
            sum.fetch_add(self.bytes.len(), Ordering::Relaxed);
            Arc::clone(sum)
        });
    }
}

impl Drop for SharedBody {
    fn drop(&mut self) {
        if let Some(sum) = self.sum.get() {
            sum.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(SharedBody::new(bytes))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Static(b"")
    }
}

impl Body {
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared(body) => &body.bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// A header of a response. Values are ours, never a client's bytes.
pub(crate) type Header = (&'static str, Cow<'static, str>);

/// What a request gets: everything but the headers that belong to the connection (`Date`,
/// `Connection`), which the door adds.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub status: u16,
    /// Headers beside `Content-Length`. Those of an ordinary response are constants.
    pub headers: Cow<'static, [Header]>,
    /// The body; empty where the status has none.
    pub body: Body,
}

impl Response {
    /// A response without headers and body.
    #[must_use]
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Cow::Borrowed(&[]), body: Body::default() }
    }

    /// A response of JSON that must not be stored.
    #[must_use]
    pub(crate) fn json(status: u16, body: impl Into<Body>) -> Self {
        static HEADERS: [Header; 2] = not_stored("application/json");
        Self { status, headers: Cow::Borrowed(&HEADERS), body: body.into() }
    }

    /// A problem body (RFC 9457) with `error` equal to `detail`, and `Retry-After` with 503. What
    /// other statuses call for (`WWW-Authenticate` with 401, `Allow` with 405) the caller adds.
    #[must_use]
    pub(crate) fn problem(status: u16, detail: &str) -> Self {
        static HEADERS: [Header; 2] = not_stored("application/problem+json");
        let body = serde_json::json!({
            "type": "about:blank",
            "title": phrase(status),
            "status": status,
            "detail": detail,
            "error": detail,
        });
        let body = body.to_string().into_bytes().into();
        let response = Self { status, headers: Cow::Borrowed(&HEADERS), body };
        if status != 503 {
            return response;
        }
        response.with_header("Retry-After", RETRY_AFTER_SECONDS.to_string())
    }

    /// The same response with one header more.
    #[must_use]
    pub(crate) fn with_header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.headers.to_mut().push((name, value.into()));
        self
    }

    /// The status line and the headers, `Content-Length` included, each with its CR LF; no empty
    /// line. With `omits_empty_length` a `Content-Length` of 0 is left out: for HEAD where no body
    /// was made.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, omits_empty_length: bool) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        for (name, value) in &*self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        let length = self.body.as_bytes().len();
        // 204 and 304 carry no Content-Length (RFC 9110 section 8.6).
        let has_no_length = matches!(self.status, 204 | 304) || omits_empty_length && length == 0;
        if !has_no_length {
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
    }
}

/// The `detail` of a problem body, or the `error` of the original system's.
#[must_use]
pub(crate) fn problem_detail(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let detail = problem.get("detail").or_else(|| problem.get("error"))?;
    detail.as_str().map(str::to_owned)
}

/// `Retry-After` of every 503, in seconds: overload here passes in moments.
const RETRY_AFTER_SECONDS: u32 = 2;

const fn not_stored(media_type: &'static str) -> [Header; 2] {
    [("Content-Type", Cow::Borrowed(media_type)), ("Cache-Control", Cow::Borrowed("no-store"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(response: &Response, omits_empty_length: bool) -> String {
        let mut head = Vec::new();
        response.write_head(&mut head, omits_empty_length);
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn a_problem_says_the_same_in_detail_and_error() {
        let response = Response::problem(503, "say \"please\"");
        let (head, body) = (head(&response, false), response.body.as_bytes());
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains("Content-Type: application/problem+json\r\n"));
        assert!(head.contains("Retry-After: "));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(problem_detail(body).as_deref(), Some("say \"please\""));
        assert_eq!(problem_detail(&body[1..]), None);
        assert_eq!(problem_detail(br#"{"error":"e","detail":"d"}"#).as_deref(), Some("d"));
        assert_eq!(problem_detail(br#"{"error":"e"}"#).as_deref(), Some("e"));
        assert_eq!(problem_detail(b"<html>"), None);
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["detail"], "say \"please\"");
        assert_eq!(body["error"], body["detail"]);
        assert_eq!(body["status"], 503);
        assert_eq!(body["type"], "about:blank");
    }

    /// However many share a body, it counts once, and as long as one of them holds it.
    #[test]
    fn a_shared_body_counts_once() {
        let (sum, other) = (Arc::new(AtomicUsize::new(0)), SharedBody::new(vec![0; 9]));
        let body = SharedBody::new(vec![0; 1_000]);
        assert!(!body.is_counted());
        let shared = Arc::clone(&body);
        for body in [&body, &shared, &other] {
            body.count_in(&sum);
            assert!(body.is_counted() && shared.is_counted());
        }
        assert_eq!(sum.load(Ordering::Relaxed), 1_009);
        drop((body, other));
        assert_eq!(sum.load(Ordering::Relaxed), 1_000);
        drop(shared);
        assert_eq!(sum.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn phrases_are_those_of_rfc_9110() {
        assert_eq!(phrase(413), "Content Too Large");
        assert_eq!(phrase(404), "Not Found");
    }

    #[test]
    fn a_length_is_left_out_where_there_is_none_to_say() {
        let with = |status, body: &'static [u8]| Response {
            body: Body::Static(body),
            ..Response::empty(status)
        };
        assert_eq!(head(&with(204, b""), false), "HTTP/1.1 204 No Content\r\n");
        assert_eq!(head(&with(304, b""), false), "HTTP/1.1 304 Not Modified\r\n");
        assert_eq!(head(&with(200, b""), true), "HTTP/1.1 200 OK\r\n");
        assert_eq!(head(&with(200, b""), false), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
        assert_eq!(head(&with(200, b"x"), true), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n");
    }
}
