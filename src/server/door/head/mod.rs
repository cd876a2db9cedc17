//! Request heads (RFC 9112 sections 2, 3, 5, 6), read more strictly than the RFC demands: what
//! two parsers could read in two ways is refused. Pure: bytes in, a [`Head`] or a refusal out;
//! knows no socket, no route and no policy.

use std::borrow::Cow;

/// A head that is refused: the connection cannot be in sync afterwards and must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    /// 400, 417, 431, 501 or 505.
    pub(super) status: u16,
    /// The sentence for the client; never the client's own bytes.
    pub(super) detail: &'static str,
}

const fn bad(detail: &'static str) -> Malformed {
    Malformed { status: 400, detail }
}

const TOO_LARGE: Malformed =
    Malformed { status: 431, detail: "the request line and headers are too large" };

/// Bytes that end a run of plain ones: control characters other than HTAB, and DEL.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = byte != b'\t' as usize;
        byte += 1;
    }
    table[0x7f] = true;
    table
};

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
    /// folded line (RFC 9112 section 5.2), more than `max` bytes.
    pub(super) fn end(&mut self, data: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
        let limit = data.len().min(max);
        while let Some(plain) =
            data.get(self.seen..limit).and_then(|rest| rest.iter().position(is_special))
        {
            // What follows needs up to two bytes behind this one: without them, the next call
            // begins here again.
            self.seen += plain;
            let at = self.seen;
            match (data[at], data.get(at + 1)) {
                (b'\r', None) => return Self::unfinished(data, max),
                (b'\r', Some(b'\n')) => {}
                (b'\r' | b'\n', _) => return Err(bad("lines must end with CR LF")),
                _ => return Err(bad("control character in the head")),
            }
            if data[..at].ends_with(b"\r\n") {
                return if at + 2 <= max { Ok(Some(at + 2)) } else { Err(TOO_LARGE) };
            }
            match data.get(at + 2) {
                None => return Self::unfinished(data, max),
                Some(b' ' | b'\t') => return Err(bad("folded header line")),
                Some(_) => self.seen = at + 2,
            }
        }
        self.seen = self.seen.max(limit);
        Self::unfinished(data, max)
    }

    fn unfinished(data: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
        if data.len() >= max { Err(TOO_LARGE) } else { Ok(None) }
    }
}

fn is_special(byte: &u8) -> bool {
    SPECIAL[usize::from(*byte)]
}

/// The versions that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Answered and closed.
    Http10,
    /// Kept alive unless the client says otherwise.
    Http11,
}

/// A head, well-formed, with the fields that the door uses. Values are visible ASCII, spaces
/// and tabs, cookies aside.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    /// Begins with `/`; not decoded.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) fields: Fields<'a>,
}

/// The header fields that the door uses; all others are dropped.
#[derive(Debug, Default)]
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
    pub(super) if_none_match: Option<Cow<'a, str>>,
    /// All lines, in order, as one list: proxies append to it or add a line.
    pub(super) forwarded_for: Option<Cow<'a, str>>,
    /// The last line: that of the proxy nearest to us.
    pub(super) forwarded_proto: Option<&'a str>,
    /// `Connection` has the option `upgrade`.
    pub(super) wants_upgrade: bool,
    /// `Upgrade` names `websocket`.
    pub(super) wants_websocket: bool,
    pub(super) websocket_version: Option<&'a str>,
    pub(super) websocket_key: Option<&'a str>,
    says_close: bool,
}

impl<'a> Head<'a> {
    /// Reads a head that [`Scan::end`] has found whole.
    pub(super) fn parse(head: &'a [u8], max_headers: usize) -> Result<Self, Malformed> {
        // RFC 9112 section 2.2: one empty line before the request line is forgiven.
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let line_end = head.windows(2).position(|pair| pair == b"\r\n").unwrap_or(head.len());
        let (line, fields) = head.split_at(line_end);
        let (method, target, version) = request_line(line)?;
        let mut fields = Fields::parse(fields.get(2..).unwrap_or_default(), max_headers)?;
        if version == Version::Http11 && fields.host.is_none() {
            return Err(bad("Host is missing"));
        }
        let (authority, target) = split_target(target)?;
        if authority.is_some() {
            fields.host = authority;
        }
        if version == Version::Http10 {
            // RFC 9110 section 10.1.1.
            fields.expects_continue = false;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let keep_alive = version == Version::Http11 && !fields.says_close;
        Ok(Self { method, path, query, version, keep_alive, fields })
    }
}

fn request_line(line: &[u8]) -> Result<(&str, &str, Version), Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line must be: method SP target SP version"));
    };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Malformed { status: 505, detail: "HTTP/1.1 and HTTP/1.0 are served" });
        }
        _ => return Err(bad("no HTTP version in the request line")),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(bad("the method is not a token"));
    }
    let target = ascii(target).filter(|target| {
        !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
    });
    match (ascii(method), target) {
        (Some(method), Some(target)) => Ok((method, target, version)),
        _ => Err(bad("the target must be visible ASCII")),
    }
}

/// Splits origin-form and absolute-form (RFC 9112 section 3.2) into authority and the rest.
fn split_target(target: &str) -> Result<(Option<&str>, &str), Malformed> {
    const REFUSED: Malformed = bad("the target must be a path or an absolute URI");
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(REFUSED)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(REFUSED);
    }
    let (authority, path) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    // No user information (RFC 9110 section 4.2.4), and `http://host?query` has no path.
    if authority.is_empty() || authority.contains('@') || !path.starts_with('/') {
        return Err(REFUSED);
    }
    Ok((Some(authority), path))
}

impl<'a> Fields<'a> {
    fn parse(lines: &'a [u8], max_headers: usize) -> Result<Self, Malformed> {
        let mut slots = vec![httparse::EMPTY_HEADER; max_headers];
        let headers = match httparse::parse_headers(lines, &mut slots) {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Malformed { status: 431, detail: "too many headers" });
            }
            Ok(httparse::Status::Partial) | Err(_) => return Err(bad("malformed header line")),
        };
        let mut fields = Self::default();
        for header in headers {
            fields.take(header.name, header.value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Malformed> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        for (known, field, twice) in [
            ("Host", &mut self.host, "Host is there twice"),
            ("Origin", &mut self.origin, "Origin is there twice"),
            ("X-App-Key", &mut self.app_key, "X-App-Key is there twice"),
            ("X-App-Secret", &mut self.app_secret, "X-App-Secret is there twice"),
            ("Content-Type", &mut self.content_type, "Content-Type is there twice"),
            ("Authorization", &mut self.authorization, "Authorization is there twice"),
            ("Sec-WebSocket-Key", &mut self.websocket_key, "Sec-WebSocket-Key is there twice"),
            (
                "Sec-WebSocket-Version",
                &mut self.websocket_version,
                "Sec-WebSocket-Version is there twice",
            ),
        ] {
            if is(known) {
                return if field.replace(text(value)?).is_some() {
                    Err(bad(twice))
                } else {
                    Ok(())
                };
            }
        }
        if is("Content-Length") {
            return self.take_content_length(value);
        } else if is("Expect") {
            if !trim(value).eq_ignore_ascii_case(b"100-continue") {
                return Err(Malformed { status: 417, detail: "only 100-continue can be expected" });
            }
            self.expects_continue = true;
        } else if is("Cookie") {
            if self.cookie.replace(String::from_utf8_lossy(value)).is_some() {
                return Err(bad("Cookie is there twice"));
            }
        } else if is("Upgrade") {
            self.wants_websocket |= lists(text(value)?, "websocket");
        } else if is("Connection") {
            let options = text(value)?;
            self.says_close |= lists(options, "close");
            self.wants_upgrade |= lists(options, "upgrade");
        } else if is("If-None-Match") {
            append(&mut self.if_none_match, value)?;
        } else if is("X-Forwarded-For") {
            append(&mut self.forwarded_for, value)?;
        } else if is("X-Forwarded-Proto") {
            self.forwarded_proto = Some(text(value)?);
        } else if is("Transfer-Encoding") {
            return Err(Malformed { status: 501, detail: "no Transfer-Encoding is served" });
        } else if is("Access-Control-Request-Method") {
            self.asks_for_method = true;
        }
        Ok(())
    }

    /// Digits and nothing else (RFC 9112 section 6.3 lets a server refuse a list).
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let digits = trim(value);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(bad("Content-Length must be digits"));
        }
        let length = digits.iter().fold(0_u64, |length, digit| {
            length.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        });
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(bad("Content-Length is there twice")),
        }
    }
}

/// Several lines of a list are one list (RFC 9110 section 5.3).
fn append<'a>(field: &mut Option<Cow<'a, str>>, value: &'a [u8]) -> Result<(), Malformed> {
    let value = text(value)?;
    *field = Some(match field.take() {
        None => Cow::Borrowed(value),
        Some(before) => Cow::Owned(format!("{before}, {value}")),
    });
    Ok(())
}

/// Whether a comma-separated list has `token`, in any case.
fn lists(list: &str, token: &str) -> bool {
    list.split(',').any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
}

/// A value that is used or forwarded: visible ASCII, spaces, tabs.
fn text(value: &[u8]) -> Result<&str, Malformed> {
    ascii(trim(value)).ok_or(bad("a header that is used here must be ASCII"))
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    if bytes.is_ascii() { std::str::from_utf8(bytes).ok() } else { None }
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
