//! Request heads (RFC 9112 sections 2, 3, 5, 6), read more strictly than the RFC demands: what
//! two parsers could read in two ways is refused. Pure: bytes in, a [`Head`] or a refusal out;
//! knows no socket, no route and no policy.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Error, Header, Request, Status};

use crate::server::limits::{MAX_HEAD_BYTES, MAX_HEADERS};

/// A head that is refused: the connection cannot be in sync afterwards and must close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// 400, 417, 431, 501 or 505.
    pub(super) status: u16,
    /// The sentence for the client; never the client's own bytes.
    pub(super) detail: Cow<'static, str>,
}

fn malformed(status: u16, detail: impl Into<Cow<'static, str>>) -> Malformed {
    Malformed { status, detail: detail.into() }
}

fn bad(detail: impl Into<Cow<'static, str>>) -> Malformed {
    malformed(400, detail)
}

/// How far the search for the end of one head has come, so that a head which trickles in is
/// looked at once and not once per byte.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Scan {
    seen: usize,
}

impl Scan {
    /// The length of the head that `data` begins with, its empty line included; `None` while
    /// it is not whole. `data` begins at the same byte in every call.
    ///
    /// Refuses on sight what can never become a head: a bare CR or LF, a control character, a
    /// folded line (RFC 9112 section 5.2), more than [`MAX_HEAD_BYTES`].
    pub(super) fn end(&mut self, data: &[u8]) -> Result<Option<usize>, Malformed> {
        let data = &data[..data.len().min(MAX_HEAD_BYTES)];
        loop {
            let rest = data.get(self.seen..).unwrap_or_default();
            let plain = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
            self.seen += plain;
            match rest[plain..] {
                [b'\t', ..] => self.seen += 1,
                [b'\r', b'\n', ..] if data[..self.seen].ends_with(b"\r\n") => {
                    return Ok(Some(self.seen + 2));
                }
                [b'\r', b'\n', b' ' | b'\t', ..] => return Err(bad("folded header line")),
                [b'\r', b'\n', _, ..] => self.seen += 2,
                // The next call begins here again, with the bytes that decide.
                [] | [b'\r'] | [b'\r', b'\n'] if data.len() < MAX_HEAD_BYTES => return Ok(None),
                [] | [b'\r'] | [b'\r', b'\n'] => {
                    return Err(malformed(431, "the request line and headers are too large"));
                }
                [b'\r' | b'\n', ..] => return Err(bad("lines must end with CR LF")),
                _ => return Err(bad("control character in the head")),
            }
        }
    }
}

/// A head, well-formed, with the fields that the door uses. Values are visible ASCII, spaces
/// and tabs, cookies aside.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    /// Begins with `/`; not decoded.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) keep_alive: bool,
    pub(super) fields: Fields<'a>,
}

/// The header fields that the door uses; all others are dropped.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// `Host`, or the authority of a target in absolute-form, which replaces it
    /// (RFC 9112 section 3.2.2).
    pub(super) host: Option<&'a str>,
    /// Saturates at [`u64::MAX`]: too large is a matter of limits, not of syntax.
    pub(super) content_length: Option<u64>,
    pub(super) content_type: Option<&'a str>,
    pub(super) expects_continue: bool,
    pub(super) app_key: Option<&'a str>,
    pub(super) app_secret: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    /// The one value that may hold what is not ASCII, replaced where it is not UTF-8: browsers
    /// send here what any other program on the same host has set, whatever its port.
    pub(super) cookie: Option<Cow<'a, str>>,
    pub(super) origin: Option<&'a str>,
    /// `Access-Control-Request-Method` is there: a preflight (the Fetch standard). What it names
    /// makes no difference to the answer.
    pub(super) asks_for_method: bool,
    /// `Accept` begins with HTML, as it does where a person's browser goes to an address.
    pub(super) prefers_html: bool,
    pub(super) if_none_match: Option<Cow<'a, str>>,
    /// All lines, in order, as one list: proxies append to it or add a line.
    pub(super) forwarded_for: Option<Cow<'a, str>>,
    /// All lines, as those of [`Fields::forwarded_for`].
    pub(super) forwarded_proto: Option<Cow<'a, str>>,
    /// `Connection` has the option `upgrade`, and `Upgrade` names `websocket`.
    pub(super) wants_websocket: bool,
    pub(super) websocket_version: Option<&'a str>,
    pub(super) websocket_key: Option<&'a str>,
    says_close: bool,
}

impl<'a> Head<'a> {
    /// Reads a head that [`Scan::end`] has found whole. httparse alone would accept bare LF, and
    /// in the target what is not ASCII.
    pub(super) fn parse(head: &'a [u8]) -> Result<Self, Malformed> {
        let mut slots = [MaybeUninit::uninit(); MAX_HEADERS];
        let mut request = Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, &mut slots);
        let (Ok(Status::Complete(_)), Some(method), Some(target), Some(minor_version)) =
            (parsed, request.method, request.path, request.version)
        else {
            return Err(match parsed {
                Err(Error::HeaderName | Error::HeaderValue) => bad("malformed header line"),
                Err(Error::TooManyHeaders) => malformed(431, "too many headers"),
                Err(Error::Version) if has_version(head) => {
                    malformed(505, "HTTP/1.1 and HTTP/1.0 are served")
                }
                Err(Error::Version) => bad("no HTTP version in the request line"),
                _ => bad(
                    "the request line must be: method (a token) SP target (visible ASCII) SP version",
                ),
            });
        };
        if !target.is_ascii() || target.contains('#') {
            return Err(bad("the target must be visible ASCII without #"));
        }
        let mut fields = Fields::read(request.headers)?;
        let is_http11 = minor_version == 1;
        if is_http11 && fields.host.is_none() {
            return Err(bad("Host is missing"));
        }
        // RFC 9110 sections 7.8 and 10.1.1.
        fields.wants_websocket &= is_http11;
        fields.expects_continue &= is_http11;
        let (authority, target) = split_target(target)?;
        if authority.is_some() {
            fields.host = authority;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Ok(Self { method, path, query, keep_alive: is_http11 && !fields.says_close, fields })
    }
}

/// Whether the request line ends, behind method and target, with a version, served or not.
fn has_version(head: &[u8]) -> bool {
    let last = head.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let number = last.strip_prefix(b"HTTP/").unwrap_or_default();
    matches!(number, [b'0'..=b'9', b'.', b'0'..=b'9', b'\r', ..])
}

/// Splits origin-form and absolute-form (RFC 9112 section 3.2) into authority and the rest.
fn split_target(target: &str) -> Result<(Option<&str>, &str), Malformed> {
    let refused = || bad("the target must be a path or an absolute URI");
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(refused());
    }
    let (authority, path) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    // No user information (RFC 9110 section 4.2.4), and `http://host?query` has no path.
    if authority.is_empty() || authority.contains('@') || !path.starts_with('/') {
        return Err(refused());
    }
    Ok((Some(authority), path))
}

impl<'a> Fields<'a> {
    fn read(headers: &[Header<'a>]) -> Result<Self, Malformed> {
        let lines = |name: &'static str| {
            let lines = headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
            lines.map(|line| line.value)
        };
        let once = |name| {
            let mut lines = lines(name);
            match (lines.next(), lines.next()) {
                (value, None) => Ok(value),
                _ => Err(bad(format!("{name} is there twice"))),
            }
        };
        let text = |name| once(name)?.map(ascii).transpose();
        // Several lines of a list are one list (RFC 9110 section 5.3).
        let list = |name| -> Result<_, Malformed> {
            let mut list: Option<Cow<'a, str>> = None;
            for line in lines(name) {
                let line = ascii(line)?;
                list = Some(list.map_or(line.into(), |before| format!("{before}, {line}").into()));
            }
            Ok(list)
        };
        let has = |name| lines(name).next().is_some();
        if has("Transfer-Encoding") {
            return Err(malformed(501, "no Transfer-Encoding is served"));
        }
        if lines("Expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Err(malformed(417, "only 100-continue can be expected"));
        }
        let (connection, upgrade) = (list("Connection")?, list("Upgrade")?);
        Ok(Self {
            host: text("Host")?,
            content_length: once("Content-Length")?.map(content_length).transpose()?,
            content_type: text("Content-Type")?,
            expects_continue: has("Expect"),
            app_key: text("X-App-Key")?,
            app_secret: text("X-App-Secret")?,
            authorization: text("Authorization")?,
            cookie: once("Cookie")?.map(String::from_utf8_lossy),
            origin: text("Origin")?,
            asks_for_method: has("Access-Control-Request-Method"),
            prefers_html: lines("Accept").next().is_some_and(begins_with_html),
            if_none_match: list("If-None-Match")?,
            forwarded_for: list("X-Forwarded-For")?,
            forwarded_proto: list("X-Forwarded-Proto")?,
            wants_websocket: has_item(connection.as_deref(), "upgrade")
                && has_item(upgrade.as_deref(), "websocket"),
            websocket_version: text("Sec-WebSocket-Version")?,
            websocket_key: text("Sec-WebSocket-Key")?,
            says_close: has_item(connection.as_deref(), "close"),
        })
    }
}

/// Digits and nothing else (RFC 9112 section 6.3 lets a server refuse a list).
fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    match std::str::from_utf8(value) {
        Ok(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Only too many of them are no number.
            Ok(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Err(bad("Content-Length must be digits")),
    }
}

/// Whether a comma-separated list has `item`, in any case.
fn has_item(list: Option<&str>, item: &str) -> bool {
    let is_it = |listed: &str| listed.trim_matches([' ', '\t']).eq_ignore_ascii_case(item);
    list.is_some_and(|list| list.split(',').any(is_it))
}

/// Whether the first media type of an `Accept` (RFC 9110 section 12.5.1) is HTML. Weights are not
/// read: browsers put it first with all of it, and clients of the API ask for JSON or for anything.
fn begins_with_html(value: &[u8]) -> bool {
    let first = value.split(|byte| matches!(byte, b',' | b';')).next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(b"text/html")
}

/// A value that is used or forwarded: visible ASCII, spaces, tabs.
fn ascii(value: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
    text.ok_or_else(|| bad("a header that is used here must be ASCII"))
}

#[cfg(test)]
mod tests;
