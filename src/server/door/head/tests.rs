//! Heads at their edges.

use super::*;

/// Scans and parses `bytes`, which must be one whole head, or says how it is refused.
fn parse(bytes: &[u8]) -> Result<Head<'_>, u16> {
    let end = Scan::default().end(bytes).map_err(|malformed| malformed.status)?;
    assert_eq!(end, Some(bytes.len()), "{}", bytes.escape_ascii());
    Head::parse(bytes).map_err(|malformed| malformed.status)
}

fn with_line(line: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n").into_bytes()
}

fn refusal(bytes: &[u8]) -> u16 {
    parse(bytes).map(|_| ()).expect_err(&bytes.escape_ascii().to_string())
}

#[test]
fn the_seeds_request_is_read() {
    let head = parse(
        b"POST /api/v1/agents/a/ping?x=1?2 HTTP/1.1\r\nhost:localhost:8080\r\n\
          X-App-Key: k\t \r\nX-APP-SECRET:  s p\r\nContent-Length: 12\r\nX-Other: \xff\r\n\r\n",
    )
    .unwrap();
    assert_eq!((head.method, head.path), ("POST", "/api/v1/agents/a/ping"));
    assert_eq!((head.query, head.keep_alive), (Some("x=1?2"), true));
    assert_eq!(head.fields.host, Some("localhost:8080"));
    assert_eq!((head.fields.app_key, head.fields.app_secret), (Some("k"), Some("s p")));
    assert_eq!(head.fields.content_length, Some(12));
}

#[test]
fn a_head_that_comes_byte_by_byte_ends_where_the_whole_one_does() {
    let bytes = b"\r\nGET / HTTP/1.1\r\nHost: h\r\nA: b\tc\r\n\r\nleft over";
    let whole = Scan::default().end(bytes).unwrap();
    let end = bytes.len() - "left over".len();
    assert_eq!(whole, Some(end));
    let mut scan = Scan::default();
    for length in 0..end {
        assert_eq!(scan.end(&bytes[..length]), Ok(None), "{length}");
    }
    assert_eq!(scan.end(&bytes[..end]), Ok(Some(end)));
    assert!(Head::parse(&bytes[..end]).is_ok());
}

#[test]
fn what_can_never_become_a_head_is_refused_however_it_is_cut() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: h\n\n"[..],
        b"GET / HTTP/1.1\rHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n",
        b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\tfolded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\0\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ] {
        assert_eq!(Scan::default().end(bytes).unwrap_err().status, 400);
        let mut scan = Scan::default();
        let refused = (0..=bytes.len()).any(|length| scan.end(&bytes[..length]).is_err());
        assert!(refused, "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_limit_of_a_head_is_exact() {
    let end = |data: &[u8]| Scan::default().end(data).map_err(|refused| refused.status);
    let (line, empty_line) = ("GET / HTTP/1.1\r\nHost: h\r\nA: ", "\r\n\r\n");
    let plain = MAX_HEAD_BYTES - line.len() - empty_line.len();
    for more in ["", "body"] {
        let of_length =
            |beyond| format!("{line}{}{empty_line}{more}", "a".repeat(plain + beyond)).into_bytes();
        assert_eq!(end(&of_length(0)), Ok(Some(MAX_HEAD_BYTES)));
        for beyond in 1..=5 {
            let data = of_length(beyond);
            assert_eq!(end(&data), Err(431), "{beyond}");
            let mut scan = Scan::default();
            for length in 0..MAX_HEAD_BYTES {
                assert_eq!(scan.end(&data[..length]), Ok(None), "{beyond}, {length}");
            }
            assert!(scan.end(&data[..MAX_HEAD_BYTES]).is_err(), "{beyond}");
        }
    }
    assert_eq!(end(&[b'a'; MAX_HEAD_BYTES - 1]), Ok(None));
    assert_eq!(end(&[b'a'; MAX_HEAD_BYTES]), Err(431));
}

#[test]
fn the_limit_of_headers_is_exact() {
    for (extra, expected) in [(0, Ok(())), (1, Err(431))] {
        let lines = "A: b\r\n".repeat(MAX_HEADERS - 1 + extra);
        let bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes();
        assert_eq!(parse(&bytes).map(|_| ()), expected);
    }
}

#[test]
fn request_lines_at_their_edges() {
    let line = |line: &str| format!("{line}\r\nHost: h\r\n\r\n").into_bytes();
    for (text, status) in [
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET /", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/x.1", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
        ("G(T / HTTP/1.1", 400),
        ("GET /é HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("CONNECT h:80 HTTP/1.1", 400),
        ("GET ftp://h/ HTTP/1.1", 400),
        ("GET http:///a HTTP/1.1", 400),
        ("GET http://u@h/a HTTP/1.1", 400),
        ("GET http://h?a HTTP/1.1", 400),
    ] {
        assert_eq!(refusal(&line(text)), status, "{text}");
    }
    assert_eq!(refusal(b"\r\n\r\n"), 400);
}

#[test]
fn an_absolute_targets_authority_replaces_host() {
    let bytes = b"GET HTTP://other:81/a?b HTTP/1.1\r\nHost: h\r\n\r\n";
    let head = parse(bytes).unwrap();
    assert_eq!((head.path, head.query), ("/a", Some("b")));
    assert_eq!(head.fields.host, Some("other:81"));
    assert_eq!(parse(b"GET http://o HTTP/1.0\r\n\r\n").unwrap().path, "/");
    assert_eq!(refusal(b"GET http://other/ HTTP/1.1\r\n\r\n"), 400);
}

#[test]
fn field_lines_at_their_edges() {
    for (line, status) in [
        ("Host: i", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length:", 400),
        ("Content-Length : 5", 400),
        ("Content Length: 5", 400),
        (": 5", 400),
        ("no colon", 400),
        ("Transfer-Encoding: chunked", 501),
        ("transfer-encoding: identity", 501),
        ("Expect: 200-ok", 417),
        ("X-App-Key: a\r\nx-app-key: a", 400),
        ("X-App-Key: é", 400),
        ("Cookie: a\r\ncookie: a", 400),
        ("If-None-Match: é", 400),
    ] {
        assert_eq!(refusal(&with_line(line)), status, "{line}");
    }
    assert!(parse(&with_line("X-Né: a")).is_err());
    assert!(parse(&with_line("User-Agent: é")).is_ok());
    assert!(parse(&with_line("Cookie: é")).is_ok());
    assert_eq!(refusal(b"GET / HTTP/1.1\r\nA: b\r\n\r\n"), 400);
    assert!(parse(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    assert_eq!(refusal(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn lengths_beyond_all_numbers_are_numbers_still() {
    for (digits, length) in [
        ("0", 0),
        ("007", 7),
        ("18446744073709551615", u64::MAX),
        ("18446744073709551616", u64::MAX),
        ("99999999999999999999999999", u64::MAX),
    ] {
        let bytes = with_line(&format!("Content-Length: {digits}"));
        assert_eq!(parse(&bytes).unwrap().fields.content_length, Some(length));
    }
}

#[test]
fn connection_expect_and_lists() {
    assert!(!parse(&with_line("Connection: keep-alive, Close")).unwrap().keep_alive);
    let old = b"GET / HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\
        Expect: 100-continue\r\n\r\n";
    let old = parse(old).unwrap();
    assert!(!old.keep_alive && !old.fields.expects_continue && !old.fields.wants_websocket);
    assert!(parse(&with_line("Expect: 100-Continue")).unwrap().fields.expects_continue);
    for (accept, prefers_html) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", true),
        ("Text/HTML ; charset=utf-8", true),
        ("application/json, text/html", false),
        ("text/htmlx", false),
        ("*/*", false),
        ("", false),
        ("\u{e9}", false),
    ] {
        let head = with_line(&format!("Accept: {accept}"));
        assert_eq!(parse(&head).unwrap().fields.prefers_html, prefers_html, "{accept}");
    }
    let bytes =
        with_line("Connection: keep-alive\r\nConnection: x ,\tUpgrade\r\nUpgrade: h2c, WebSocket");
    assert!(parse(&bytes).unwrap().fields.wants_websocket);
    for lines in [
        "Connection: upgrade",
        "Upgrade: websocket",
        "Connection: upgrad\r\nUpgrade: websocket",
        "Connection: up grade\r\nUpgrade: websocket",
        "Connection: upgrade\r\nUpgrade: websocket/1",
        "Connection: upgrade\r\nUpgrade: w",
    ] {
        assert!(!parse(&with_line(lines)).unwrap().fields.wants_websocket, "{lines}");
    }
    assert!(parse(&with_line("Expect: 100-continue\r\nExpect: 100-continue")).is_ok());
    assert_eq!(refusal(&with_line("Expect: 100-continue\r\nExpect: 200-ok")), 417);
    let bytes = with_line("If-None-Match: \"a\"\r\nX-Other: b\r\nif-none-match: W/\"c\"");
    let tags = parse(&bytes).unwrap().fields.if_none_match;
    assert_eq!(tags.as_deref(), Some("\"a\", W/\"c\""));
    let bytes = with_line(
        "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Proto: https",
    );
    let fields = parse(&bytes).unwrap().fields;
    assert_eq!(fields.forwarded_for.as_deref(), Some("1.1.1.1, 2.2.2.2"));
    assert_eq!(fields.forwarded_proto.as_deref(), Some("http, https"));
}

/// The head that this pattern gives with `byte` in place of its `@`, and its status: 0 is none.
fn status_with(pattern: &str, byte: u8) -> u16 {
    let (before, after) = pattern.split_once('@').unwrap();
    let bytes = [before.as_bytes(), &[byte], after.as_bytes()].concat();
    match Scan::default().end(&bytes) {
        // A CR LF more may end it early; what is behind is another matter.
        Ok(Some(end)) => Head::parse(&bytes[..end]).map_or_else(|bad| bad.status, |_| 0),
        Ok(None) => panic!("{} has no end", bytes.escape_ascii()),
        Err(malformed) => malformed.status,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[test]
fn each_byte_in_each_place() {
    let is_text = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    let is_any = |byte: u8| is_text(byte) || byte >= 0x80;
    let is_target = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let is_name = |byte: u8| is_token(byte) || byte == b':';
    let places: [(&str, &dyn Fn(u8) -> bool); 13] = [
        ("@ / HTTP/1.1\r\nHost: h\r\n\r\n", &is_token),
        ("G@T / HTTP/1.1\r\nHost: h\r\n\r\n", &is_token),
        ("GET /@ HTTP/1.1\r\nHost: h\r\n\r\n", &is_target),
        ("GET /?@b HTTP/1.1\r\nHost: h\r\n\r\n", &is_target),
        ("GET@/ HTTP/1.1\r\nHost: h\r\n\r\n", &|byte| byte == b' '),
        ("GET /@HTTP/1.1\r\nHost: h\r\n\r\n", &|byte| byte == b' '),
        ("GET / HTTP/1.1@\r\nHost: h\r\n\r\n", &|_| false),
        ("GET / HTTP/1.1\r\nHost: h\r\nX@Y: v\r\n\r\n", &is_name),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Other: a@b\r\n\r\n", &is_any),
        ("GET / HTTP/1.1\r\nHost: h\r\nCookie: @\r\n\r\n", &is_any),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-App-Key: a@b\r\n\r\n", &is_text),
        ("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: @\r\n\r\n", &is_text),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1@2\r\n\r\n", &|byte| byte.is_ascii_digit()),
    ];
    for (pattern, is_allowed) in places {
        for byte in 0..=u8::MAX {
            let expected = if is_allowed(byte) { 0 } else { 400 };
            assert_eq!(status_with(pattern, byte), expected, "{pattern:?} {byte:#04x}");
        }
    }
    for (pattern, served) in [
        ("GET / HTTP/@.1\r\nHost: h\r\n\r\n", &b"1"[..]),
        ("GET / HTTP/1.@\r\nHost: h\r\n\r\n", b"01"),
    ] {
        for byte in 0..=u8::MAX {
            let expected = match byte {
                _ if served.contains(&byte) => 0,
                b'0'..=b'9' => 505,
                _ => 400,
            };
            assert_eq!(status_with(pattern, byte), expected, "{pattern:?} {byte:#04x}");
        }
    }
}

#[test]
fn each_line_ends_with_cr_lf() {
    let lines = ["GET / HTTP/1.1", "Host: h", "X-Other:", "Content-Length: 0", ""];
    for place in 0..lines.len() {
        for end in
            ["\n", "\r", "\r\r\n", "\n\r", "\n\n", "\r\n ", "\r\n\t", " \n", "\r \n", "\0\r\n"]
        {
            if place == lines.len() - 1 && end.starts_with("\r\n") {
                continue; // The head is whole before the blank.
            }
            let with_end = |(n, line)| format!("{line}{}", if n == place { end } else { "\r\n" });
            // A byte of what follows tells a bare CR from the beginning of a CR LF.
            let bytes = lines.iter().enumerate().map(with_end).collect::<String>() + "X";
            let refused = Scan::default().end(bytes.as_bytes()).map_err(|bad| bad.status);
            assert_eq!(refused, Err(400), "{bytes:?}");
        }
    }
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(parse(format!("\r\n{request}").as_bytes()).is_ok());
    for start in ["\n", "\r", "\n\r\n", " \r\n", "\r\n\n", "\r\n\r", "\r\n ", " ", "\t"] {
        let bytes = format!("{start}{request}");
        let end = Scan::default().end(bytes.as_bytes()).map_err(|bad| bad.status);
        let refused = end.and_then(|end| {
            Head::parse(&bytes.as_bytes()[..end.unwrap()]).map_err(|bad| bad.status)
        });
        assert_eq!(refused.map(|_| ()), Err(400), "{bytes:?}");
    }
}

#[test]
fn a_field_that_may_come_once_is_named_when_it_comes_twice() {
    for name in [
        "Host",
        "Origin",
        "X-App-Key",
        "X-App-Secret",
        "Content-Type",
        "Content-Length",
        "Authorization",
        "Cookie",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
    ] {
        let line = format!("{name}: 1\r\n");
        let host = if name == "Host" { "" } else { "Host: h\r\n" };
        let head = |lines: &str| format!("GET / HTTP/1.1\r\n{host}{lines}\r\n");
        assert!(parse(head(&line).as_bytes()).is_ok(), "{name}");
        for second in [line.clone(), line.to_uppercase(), format!("{name}:\r\n")] {
            let head = head(&format!("{line}X-Other: 1\r\n{second}"));
            let refused = Head::parse(head.as_bytes()).unwrap_err();
            assert_eq!(refused.status, 400, "{name}");
            if name != "Content-Length" || second != "Content-Length:\r\n" {
                assert_eq!(refused.detail, format!("{name} is there twice"));
            }
        }
    }
}

#[test]
fn blanks_around_a_value_are_not_part_of_it() {
    for value in ["v w", " v w", "\tv w\t ", " \t v w \t"] {
        let bytes = with_line(&format!("Origin:{value}\r\nIf-None-Match:{value}"));
        let fields = parse(&bytes).unwrap().fields;
        assert_eq!((fields.origin, fields.if_none_match.as_deref()), (Some("v w"), Some("v w")));
    }
    for value in ["", " ", "\t \t"] {
        let bytes = with_line(&format!("Origin:{value}\r\nCookie:{value}"));
        let fields = parse(&bytes).unwrap().fields;
        assert_eq!((fields.origin, fields.cookie.as_deref()), (Some(""), Some("")));
        assert_eq!(refusal(&with_line(&format!("Content-Length:{value}"))), 400);
        assert_eq!(refusal(&with_line(&format!("Expect:{value}"))), 417);
        assert_eq!(refusal(&with_line(&format!("Transfer-Encoding:{value}"))), 501);
    }
    assert_eq!(parse(&with_line("Content-Length: \t7\t ")).unwrap().fields.content_length, Some(7));
}

#[test]
fn no_bytes_at_all_make_the_parser_fall_over() {
    // A cheap generator: what matters is that every run tries the same odd mixtures.
    let pieces: [&[u8]; 12] = [
        b"GET ",
        b"/",
        b" HTTP/1.1",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host",
        b":",
        b" ",
        b"\x00",
        b"\xff",
        b"a",
    ];
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(pieces[(state >> 33) as usize % pieces.len()]);
        }
        let mut scan = Scan::default();
        for length in 0..=bytes.len() {
            if let Ok(Some(end)) = scan.end(&bytes[..length]) {
                let _ = Head::parse(&bytes[..end]);
                break;
            }
        }
        let _ = Head::parse(&bytes);
    }
}
