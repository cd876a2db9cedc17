//! What an attacker may send to the public port: none of it stops the server, an honest agent
//! is answered in the midst of each, and afterwards nothing of it is left.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::support::flood::{
    Holdings, assert_alive, conn_from, connect_from, heavy, raise_descriptor_limit, warm_up,
};
use super::support::http::{heartbeat, is_timeout};
use super::support::process::resident_kib;
use super::support::setup::{KEY_A, KEY_B};
use super::support::status::Status;
use super::support::wait::{DEADLINE, Deadline, now, pause};
use super::support::{Conn, Request, Server, Setup, eventually};

/// What memory may differ by between rounds of the same attack: the allocator's rounding, not
/// the attack's size times the rounds.
const MEMORY_SLACK_KIB: u64 = 4 * 1024;

/// What may be left of all rounds together: tables that have grown to their bounds, buffers in the
/// allocator's caches. Far below what any of the attacks makes the server hold for a moment.
const MEMORY_LEFT_KIB: u64 = 8 * 1024;

/// Attacks again and again; threads and descriptors must come back each time, and memory must
/// come back too and not rise with the rounds.
fn withstands(server: &mut Server, rounds: usize, attack: impl Fn(SocketAddr)) {
    let (addr, pid) = (server.addr(), server.pid());
    let _kept = warm_up(addr);
    let before = Holdings::of(pid);
    let at_first = resident_kib(pid);
    let mut resident = Vec::new();
    for _ in 0..rounds {
        attack(addr);
        assert!(server.is_running());
        assert_alive(addr);
        before.wait_for_return(pid);
        resident.push(resident_kib(pid));
    }
    // The allocator keeps what the first rounds made it take from the system.
    let settled = resident[resident.len() / 2];
    let grown = resident.last().unwrap().saturating_sub(settled);
    assert!(grown <= MEMORY_SLACK_KIB, "memory rises with the rounds, KiB: {resident:?}");
    let left = resident.last().unwrap().saturating_sub(at_first);
    assert!(left <= MEMORY_LEFT_KIB, "memory stays, KiB: {at_first}, then {resident:?}");
}

/// A heartbeat's head that announces a body of so many bytes.
fn announcing(length: &str, secret: &str) -> Vec<u8> {
    Request::new("POST", "/api/v1/agents/a/ping")
        .header("X-App-Key", KEY_A.key)
        .header("X-App-Secret", secret)
        .header("Content-Length", length)
        .head_bytes()
}

#[test]
fn a_giant_content_length_is_refused_before_anything_is_allocated() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 3, |addr| {
        let mut conns: Vec<Conn> = (0..100).map(|_| Conn::open(addr)).collect();
        for conn in &mut conns {
            conn.send(&announcing("70368744177664", "wrong"));
        }
        assert_alive(addr);
        for conn in &mut conns {
            assert_eq!(conn.response().status, 401);
        }
        for length in ["70368744177664", "18446744073709551615", "99999999999999999999999999"] {
            let mut conn = Conn::open(addr);
            conn.send(&announcing(length, KEY_A.secret));
            let status = conn.response().status;
            assert!(matches!(status, 400 | 413), "{length}: {status}");
        }
    });
}

#[test]
fn http_2_prefaces_leave_nothing_behind() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 3, |addr| {
        let mut conns: Vec<Conn> = (0..600).map(|_| conn_from(2, addr)).collect();
        for conn in &mut conns {
            conn.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        assert_alive(addr);
        // Half of them hang up without a look at the answer.
        for conn in &mut conns[..300] {
            assert_eq!(conn.response().status, 505);
        }
    });
}

/// Opens `count` connections that begin with `start` and go on with a byte of `dribble` now and
/// then. The server tells each 408 and closes it, not before `limit` and whatever still comes.
fn assert_cut_off(
    addr: SocketAddr,
    count: usize,
    start: &[u8],
    dribble: (u8, Duration),
    limit: Duration,
) {
    let opened = now();
    let deadline = Deadline::after(limit + DEADLINE);
    let mut open: Vec<(TcpStream, Vec<u8>)> =
        open_with(addr, count, start).into_iter().map(|stream| (stream, Vec::new())).collect();
    while !open.is_empty() {
        assert!(deadline.left().is_some(), "{} still open", open.len());
        open.retain_mut(|(stream, answer)| {
            // What has been answered gets no further byte: a reset could eat the rest.
            let over = read_what_is_there(stream, answer);
            if !over && answer.is_empty() {
                let _ = stream.write(&[dribble.0]);
            }
            if over {
                let after = opened.elapsed();
                assert!(after >= limit, "cut off after {after:?}, {limit:?} is the limit");
                let answer = String::from_utf8_lossy(answer);
                assert!(answer.starts_with("HTTP/1.1 408 "), "closed after {answer:?}");
            }
            !over
        });
        assert_alive(addr);
        pause(dribble.1);
    }
}

/// Takes what has come without waiting; whether that was the end.
fn read_what_is_there(stream: &mut TcpStream, answer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    stream.set_nonblocking(true).unwrap();
    let over = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break true,
        }
    };
    stream.set_nonblocking(false).unwrap();
    over
}

fn open_with(addr: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect_from(2, addr).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

const SLOW_HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";

#[test]
fn heads_and_bodies_that_trickle_are_cut_at_the_deadline_whatever_still_comes() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 1, |addr| {
        let limit = Duration::from_secs(10);
        let body = announcing("60000", KEY_A.secret);
        std::thread::scope(|scope| {
            for (count, pace_ms) in [(100, 1_000), (50, 100)] {
                let (pace, body) = (Duration::from_millis(pace_ms), &body);
                scope.spawn(move || assert_cut_off(addr, count, SLOW_HEAD, (b'x', pace), limit));
                scope.spawn(move || assert_cut_off(addr, count, body, (b' ', pace), limit));
            }
        });
    });
}

#[test]
fn a_head_without_end_is_refused_and_not_read_on() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 3, |addr| {
        let unending: [(&[u8], &[u8]); 3] = [
            (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ", &[b'x'; 4096]),
            (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", &b"A: b\r\n".repeat(700)),
            (b"GET /", &[b'a'; 4096]),
        ];
        for (start, more) in unending {
            let mut conn = Conn::open(addr);
            conn.send(start);
            // 64 MiB would take any head: the server has hung up long before.
            let taken = (0..16 * 1024).take_while(|_| conn.try_send(more)).count();
            assert!(taken < 16 * 1024, "the server reads on and on");
            assert_alive(addr);
        }
        let mut conn = Conn::open(addr);
        conn.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ");
        conn.send(&[b'x'; 8 * 1024]);
        assert_eq!(conn.response().status, 431);
        assert!(conn.is_ended());
    });
}

#[test]
fn keep_alive_connections_opened_at_once_are_all_answered() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 3, |addr| {
        let mut conns: Vec<Conn> = (0..64).map(|_| Conn::open(addr)).collect();
        for turn in 0..3 {
            for (agent, conn) in conns.iter_mut().enumerate() {
                let ping = Request::ping(&format!("agent-{agent}"), KEY_A, &heartbeat(2.0));
                conn.send(&ping.bytes());
            }
            assert_alive(addr);
            for (agent, conn) in conns.iter_mut().enumerate() {
                assert_eq!(conn.response().status, 200, "agent {agent}, turn {turn}");
            }
        }
    });
}

#[test]
fn who_pipelines_without_reading_is_closed_and_holds_nobody_up() {
    let _alone = heavy();
    let mut server = Server::start(&Setup::open().limit(r#"lag_timeout = "1s""#).toml());
    for request in [
        Request::ping("a", KEY_A, &heartbeat(3.0)),
        Request::get("/livez"),
        Request::get("/api/v1/agent-pools/pool-a/metrics"),
    ] {
        // 100,000 requests; more than socket buffers can hold.
        let thousand = &request.bytes().repeat(1_000);
        withstands(&mut server, 2, |addr| {
            let mut stream = connect_from(2, addr).unwrap();
            std::thread::scope(|scope| {
                let pipeline = scope.spawn(move || {
                    let closed = (0..100).any(|_| is_closed_after(&mut stream, thousand));
                    // All of it may fit into the buffers between us; the end comes all the same.
                    if !closed {
                        eventually("who never reads is closed", || {
                            is_closed_after(&mut stream, b"G").then_some(())
                        });
                    }
                });
                while !pipeline.is_finished() {
                    assert_alive(addr);
                    pause(Duration::from_millis(50));
                }
            });
        });
    }
}

/// Sends; whether the peer turns out to have closed the connection. Panics when it does neither
/// that nor read.
fn is_closed_after(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    match stream.write_all(bytes) {
        Ok(()) => false,
        Err(error) if is_timeout(&error) => panic!("neither read nor closed"),
        Err(_) => true,
    }
}

#[test]
fn bodies_that_stop_one_byte_short_stay_within_the_budget() {
    const BUDGET_KIB: u64 = 64 * 1024;
    let _alone = heavy();
    raise_descriptor_limit(8_000);
    let mut server = Server::start(&Setup::open().toml());
    let pid = server.pid();
    let mut request = announcing(&(64 * 1024).to_string(), KEY_A.secret);
    request.extend_from_slice(&[b' '; 64 * 1024 - 1]);
    let start_kib = resident_kib(pid);
    withstands(&mut server, 4, |addr| {
        let mut conns = Vec::new();
        for number in 0..2_000_u16 {
            let from = 2 + u8::try_from(number / 700).unwrap();
            let mut conn = conn_from(from, addr);
            // Refused or closed in the midst is an answer too.
            conn.try_send(&request);
            conns.push(conn);
            if number % 250 == 0 {
                assert_alive(addr);
            }
        }
        assert_alive(addr);
        let held_kib = resident_kib(pid).saturating_sub(start_kib);
        assert!(held_kib < BUDGET_KIB * 3 / 2, "{held_kib} KiB held, the budget is {BUDGET_KIB}");
    });
    let kept_kib = resident_kib(pid).saturating_sub(start_kib);
    assert!(kept_kib < BUDGET_KIB * 3 / 2, "{kept_kib} KiB kept, the budget is {BUDGET_KIB}");
    assert!(
        Status::read(server.addr()).counter("buffer_evictions") > 0,
        "the budget was never met"
    );
}

/// A request that another parser might read as two: after the one answer the connection ends.
fn refused_and_closed(addr: SocketAddr, name: &str, request: &[u8], permitted: &[u16]) {
    const SMUGGLED: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut conn = Conn::open(addr);
    conn.try_send(&[request, SMUGGLED].concat());
    let status = conn.response().status;
    assert!(permitted.contains(&status), "{name}: {status} instead of {permitted:?}");
    assert!(conn.is_ended(), "{name}: the connection goes on");
}

fn with_head(lines: &str) -> Vec<u8> {
    let head = format!(
        "POST /api/v1/agents/a/ping HTTP/1.1\r\nHost: localhost\r\n\
         X-App-Key: {}\r\nX-App-Secret: {}\r\n{lines}\r\n\r\n",
        KEY_A.key, KEY_A.secret
    );
    head.into_bytes()
}

#[test]
fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 3, |addr| {
        for (name, lines, permitted) in [
            ("two Content-Lengths", "Content-Length: 5\r\nContent-Length: 6", &[400][..]),
            ("two equal Content-Lengths", "Content-Length: 5\r\nContent-Length: 5", &[400]),
            ("a list", "Content-Length: 5, 5", &[400]),
            ("a sign", "Content-Length: +5", &[400]),
            ("a negative", "Content-Length: -5", &[400]),
            ("hexadecimal", "Content-Length: 0x5", &[400]),
            ("no digits", "Content-Length: ", &[400]),
            ("a space within", "Content-Length: 5 5", &[400]),
            ("Transfer-Encoding", "Transfer-Encoding: chunked", &[501]),
            ("both", "Transfer-Encoding: chunked\r\nContent-Length: 5", &[400, 501]),
            ("identity", "Transfer-Encoding: identity", &[501]),
            ("obs-fold", "X-Long: a\r\n b\r\nContent-Length: 5", &[400]),
            ("obs-fold of a length", "Content-Length:\r\n 5", &[400]),
            ("a space before the colon", "Content-Length : 5", &[400]),
            ("a lone CR", "X-A: b\rContent-Length: 5", &[400]),
            ("a NUL in a value", "X-A: b\0c\r\nContent-Length: 5", &[400]),
            ("a NUL in a name", "X-\0: b\r\nContent-Length: 5", &[400]),
        ] {
            refused_and_closed(addr, name, &with_head(lines), permitted);
        }
        assert_alive(addr);
        for (name, request) in [
            ("bare LF", &b"GET /livez HTTP/1.1\nHost: localhost\n\n"[..]),
            ("bare LF at one line", b"GET /livez HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n"),
            ("a NUL in the target", b"GET /liv\0ez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ("a space in the target", b"GET /liv ez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ("a high byte in the target", b"GET /liv\xe9ez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ("a high byte in a name", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\xe9: b\r\n\r\n"),
            ("a control byte in the method", b"G\x01T /livez HTTP/1.1\r\nHost: l\r\n\r\n"),
            ("nothing like HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ] {
            refused_and_closed(addr, name, request, &[400]);
        }
    });
}

#[test]
fn high_bytes_in_header_values_reach_no_worker() {
    let mut server = Server::start(&Setup::open().toml());
    withstands(&mut server, 2, |addr| {
        for header in ["User-Agent", "X-App-Key", "X-App-Secret", "Cookie", "Content-Type"] {
            for byte in [0x80_u8, 0xA0, 0xC3, 0xFF] {
                let body = heartbeat(4.0).to_string();
                let request = Request::new("POST", "/api/v1/agents/a/ping").key(KEY_B);
                let request = request.without(header).body(body.as_bytes());
                let head = request.head_bytes();
                let head = head.strip_suffix(b"\r\n").unwrap();
                let extra = [format!("{header}: a").as_bytes(), &[byte], b"\r\n\r\n"].concat();
                let mut conn = Conn::open(addr);
                conn.send(&[head, &extra, body.as_bytes()].concat());
                // RFC 9110 section 5.5 leaves such a byte in a header that nobody reads alone.
                let status = conn.response().status;
                let permitted: &[u16] =
                    if header.starts_with("X-App") { &[400, 401] } else { &[200, 400] };
                assert!(permitted.contains(&status), "{header} with {byte:#x}: {status}");
            }
        }
        assert_alive(addr);
    });
    assert_eq!(Status::read(server.addr()).counter("pipe_breaks"), 0);
}

#[test]
fn connections_that_say_nothing_end_and_make_room_meanwhile() {
    let limits = Setup::open().limit("max_connections_per_address = 50");
    let mut server = Server::start(&limits.toml());
    withstands(&mut server, 2, |addr| {
        // Idle keep-alive connections beyond the cap: the longest idle make room.
        let mut idle = Vec::new();
        for number in 0..150 {
            let mut conn = conn_from(2, addr);
            let status = conn.ping(&format!("a-{number}"), &heartbeat(5.0)).status;
            assert_eq!(status, 200, "no idle one made room for number {number}");
            idle.push(conn);
        }
        assert!(idle[0].is_ended() && idle[99].is_ended(), "it was not the longest idle that went");
        assert_eq!(idle[149].ping("a-149", &heartbeat(6.0)).status, 200);
        drop(idle);
        // Silent from the start: the deadline of the head ends them.
        let silent: Vec<TcpStream> = (0..100).map(|_| connect_from(3, addr).unwrap()).collect();
        assert_alive(addr);
        for mut stream in silent {
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Err(error) if is_timeout(&error) => panic!("a silent connection stays"),
                _ => {}
            }
        }
    });
}
