//! What a dashboard may send, frame by frame (RFC 6455), to a pool where nothing else happens.

use std::io::Write as _;

use super::support::flood::{Holdings, connect_from, warm_up};
use super::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, Heard, PING, PONG, RawFeed, TEXT, frame,
};
use super::support::process::thread_names;
use super::support::{Request, Server, Setup, eventually};

/// Joins an empty pool and takes its snapshot.
fn join(server: &Server) -> RawFeed {
    let mut feed = RawFeed::join(server.addr(), "pool-b");
    assert_eq!(feed.json()["metrics"], serde_json::json!([]));
    feed
}

/// The server says this code and ends the connection.
fn assert_closed_with(feed: &mut RawFeed, code: u16, why: &str) {
    assert_eq!(feed.farewell(), Heard::Close(Some(code)), "{why}");
    feed.send(FIN | CLOSE, &code.to_be_bytes());
    assert_eq!(feed.farewell(), Heard::End, "{why}");
}

#[test]
fn a_ping_and_a_close_are_answered_while_nothing_happens() {
    let server = Server::start(&Setup::open().toml());
    let mut feed = join(&server);
    for payload in [&b"are you there"[..], b"", &[b'x'; 125]] {
        assert!(feed.send(FIN | PING, payload));
        assert_eq!(feed.hear(), Heard::Pong(payload.to_owned()));
    }
    assert!(feed.send(FIN | CLOSE, &[&1000_u16.to_be_bytes()[..], b"bye"].concat()));
    assert_eq!(feed.hear(), Heard::Close(Some(1000)));
    assert_eq!(feed.hear(), Heard::End);

    let mut feed = join(&server);
    assert!(feed.send(FIN | CLOSE, b""));
    assert!(matches!(feed.hear(), Heard::Close(None | Some(1000))));
    assert_eq!(feed.hear(), Heard::End);

    // Byte by byte, so that no frame comes whole.
    let mut feed = join(&server);
    for byte in frame(FIN | PING, b"slow") {
        assert!(feed.send_bytes(&[byte]));
    }
    assert_eq!(feed.hear(), Heard::Pong(b"slow".to_vec()));
    drop(feed);
    eventually("no dashboard's thread is left", || {
        let names = thread_names(server.pid());
        (!names.iter().any(|name| name.starts_with("subscriber-"))).then_some(())
    });
}

#[test]
fn what_follows_the_upgrade_request_in_one_piece_is_not_lost() {
    let server = Server::start(&Setup::open().toml());
    let mut stream = connect_from(1, server.addr()).unwrap();
    let request = Request::feed("pool-b").bytes();
    stream.write_all(&[request, frame(FIN | PING, b"early")].concat()).unwrap();
    let mut feed = RawFeed::upgraded(stream).unwrap();
    let heard = [feed.hear(), feed.hear()];
    assert!(heard.contains(&Heard::Pong(b"early".to_vec())), "{heard:?}");
}

#[test]
fn what_is_sent_is_ignored_up_to_the_limit() {
    let server = Server::start(&Setup::open().toml());
    let mut feed = join(&server);
    assert!(feed.send(FIN | TEXT, &[b'x'; 4 * 1024]));
    assert!(feed.send(FIN | BINARY, &[0xFF; 4 * 1024]));
    assert!(feed.send(TEXT, b"in \xC3"));
    assert!(feed.send(FIN | PING, b"between"));
    assert!(feed.send(FIN | CONTINUATION, b"\xA9 pieces"));
    assert_eq!(feed.hear(), Heard::Pong(b"between".to_vec()));
    assert!(feed.send(FIN | PING, b"after"));
    assert_eq!(feed.hear(), Heard::Pong(b"after".to_vec()));
}

#[test]
fn a_violation_is_answered_with_its_code() {
    let server = Server::start(&Setup::open().toml());
    let _kept = warm_up(server.addr());
    let before = Holdings::of(server.pid());
    let two = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let giant = [&[FIN | TEXT, 0xFF][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    let violations = [
        ("unmasked", vec![FIN | TEXT, 2, b'h', b'i'], 1002),
        ("a reserved opcode", frame(FIN | 0x3, b""), 1002),
        ("a reserved control opcode", frame(FIN | 0xB, b""), 1002),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, b"x"), 1002),
        ("a control frame in pieces", frame(PING, b"x"), 1002),
        ("a long control frame", frame(FIN | PING, &[b'x'; 126]), 1002),
        ("nothing to continue", frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message within a message", two(frame(TEXT, b"x"), frame(FIN | TEXT, b"y")), 1002),
        ("half a close code", frame(FIN | CLOSE, b"x"), 1002),
        ("bad UTF-8", frame(FIN | TEXT, b"\xC3("), 1007),
        ("bad UTF-8 at the seam", two(frame(TEXT, b"\xC3"), frame(FIN | CONTINUATION, b"(")), 1007),
        ("UTF-8 that stops short", frame(FIN | TEXT, b"caf\xC3"), 1007),
        ("too long", frame(FIN | TEXT, &[b'x'; 4 * 1024 + 1]), 1009),
        ("much too long", frame(FIN | BINARY, &[0; 60 * 1024]), 1009),
        (
            "too long in pieces",
            two(frame(TEXT, &[b'x'; 4 * 1024]), frame(FIN | CONTINUATION, b"x")),
            1009,
        ),
        ("a giant that never comes", giant, 1009),
    ];
    // All at once: the server grants each a moment to take its leave.
    let feeds = violations.map(|(why, bytes, code)| {
        let mut feed = join(&server);
        feed.send_bytes(&bytes);
        (why, feed, code)
    });
    for (why, mut feed, code) in feeds {
        assert_closed_with(&mut feed, code, why);
    }
    before.wait_for_return(server.pid());
}

#[test]
fn a_hundred_frames_a_minute_are_taken_and_pongs_are_not_counted() {
    let server = Server::start(&Setup::open().toml());
    let mut feed = join(&server);
    for _ in 0..1_000 {
        assert!(feed.send(FIN | PONG, b"unasked"));
    }
    for _ in 0..100 {
        assert!(feed.send(FIN | PING, b"x"));
        assert_eq!(feed.hear(), Heard::Pong(b"x".to_vec()));
    }
    feed.send(FIN | PING, b"one too many");
    assert_closed_with(&mut feed, 1008, "over 100 frames");
}

#[test]
fn floods_of_frames_end_their_thread() {
    let server = Server::start(&Setup::open().toml());
    let _kept = warm_up(server.addr());
    let before = Holdings::of(server.pid());
    let piece = |first| frame(first, b"").repeat(10_000);
    for (why, start, flood) in [
        ("empty continuations", frame(TEXT, b""), piece(CONTINUATION)),
        ("empty messages", Vec::new(), piece(FIN | TEXT)),
        ("pings", Vec::new(), piece(FIN | PING)),
    ] {
        let mut feed = join(&server);
        feed.send_bytes(&start);
        // Far more than a hundred; the server hangs up long before the last.
        let taken = (0..1_000).take_while(|_| feed.send_bytes(&flood)).count();
        assert!(taken < 1_000, "{why}: read on and on");
        // The Close may be lost in the reset that our own flood provokes.
        assert!(matches!(feed.farewell(), Heard::Close(Some(1008)) | Heard::End), "{why}");
        drop(feed);
        before.wait_for_return(server.pid());
    }
    // A hundred and one empty pieces, no more in flight: nothing to lose the Close in.
    let mut feed = join(&server);
    feed.send(TEXT, b"");
    feed.send_bytes(&frame(CONTINUATION, b"").repeat(100));
    assert_closed_with(&mut feed, 1008, "101 empty pieces");
}
