//! Answers to HTTP requests, and the problem bodies (RFC 9457) of those that say no. Shared by
//! the door, which answers some requests itself, and by the workers behind it. Values and their
//! wire form; no sockets.

use std::io::Write as _;

/// A status code (RFC 9110 section 15) with the phrase that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub u16);

impl Status {
    /// The reason phrase, also a problem's `title`.
    #[must_use]
    pub(crate) fn phrase(self) -> &'static str {
        match self.0 {
            200 => "OK",
            204 => "No Content",
            303 => "See Other",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            411 => "Length Required",
            413 => "Content Too Large",
            417 => "Expectation Failed",
            421 => "Misdirected Request",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "Unknown",
        }
    }
}

/// A body, owned or built in.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Made for this answer.
    Owned(Vec<u8>),
    /// Part of the binary.
    Static(&'static [u8]),
}

impl Body {
    /// The bytes.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

/// What a request gets: everything but the headers that belong to the connection (`Date`,
/// `Connection`), which the door adds.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The status code.
    pub status: Status,
    /// Headers beside `Content-Length`. Values are ours, never a client's bytes.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty where the status has none.
    pub body: Body,
}

impl Response {
    /// An answer of JSON that must not be stored.
    #[must_use]
    pub(crate) fn json(status: u16, body: Body) -> Self {
        Self {
            status: Status(status),
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("Cache-Control", "no-store".to_owned()),
            ],
            body,
        }
    }

    /// A problem body (RFC 9457) with `error` equal to `detail`, and `Retry-After` with 503. What
    /// other statuses call for (`WWW-Authenticate` with 401, `Allow` with 405) the caller adds.
    #[must_use]
    pub(crate) fn problem(status: u16, detail: &str) -> Self {
        let status = Status(status);
        let body = serde_json::json!({
            "type": "about:blank",
            "title": status.phrase(),
            "status": status.0,
            "detail": detail,
            "error": detail,
        });
        let mut answer = Self::json(status.0, Body::Owned(body.to_string().into_bytes()));
        answer.headers[0].1 = "application/problem+json".to_owned();
        if status.0 == 503 {
            answer.headers.push(("Retry-After", RETRY_AFTER_SECONDS.to_string()));
        }
        answer
    }

    /// The same answer with one header more.
    #[must_use]
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as HTTP/1.1 bytes, with `Content-Length` and without `Date` and `Connection`.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [self.head_bytes().as_slice(), self.body.as_bytes()].concat()
    }

    /// The part of [`Response::to_bytes`] before the body, empty line included.
    #[must_use]
    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        // Writing to a Vec cannot fail.
        let _ = write!(bytes, "HTTP/1.1 {} {}\r\n", self.status.0, self.status.phrase());
        for (name, value) in &self.headers {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        // 204 and 304 carry no Content-Length (RFC 9110 section 8.6).
        if !matches!(self.status.0, 204 | 304) {
            let _ = write!(bytes, "Content-Length: {}\r\n", self.body.as_bytes().len());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_the_same_in_detail_and_error() {
        let answer = Response::problem(503, "say \"please\"");
        let text = String::from_utf8(answer.to_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains("Content-Type: application/problem+json"));
        assert!(head.contains("Retry-After: "));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert_eq!(problem_detail(body.as_bytes()).as_deref(), Some("say \"please\""));
        assert_eq!(problem_detail(&body.as_bytes()[1..]), None);
        assert_eq!(problem_detail(br#"{"error":"e","detail":"d"}"#).as_deref(), Some("d"));
        assert_eq!(problem_detail(br#"{"error":"e"}"#).as_deref(), Some("e"));
        assert_eq!(problem_detail(b"<html>"), None);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["detail"], "say \"please\"");
        assert_eq!(body["error"], body["detail"]);
        assert_eq!(body["status"], 503);
        assert_eq!(body["type"], "about:blank");
    }
}
