//! Signals to a server with many dashboards, incomplete requests, or a dashboard that does not read;
//! a second signal.

use std::time::Duration;

use rustix::process::Signal;

use super::support::flood::{
    assert_alive, bulky_heartbeat, connect_with, heavy, raise_descriptor_limit,
};
use super::support::frames::{CLOSE, FIN, Heard, RawFeed};
use super::support::http::heartbeat;
use super::support::process::ignored_signals;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::wait::now;
use super::support::{Conn, Launch, Request, Server, Setup, eventually};

/// The server promises 2 s; this allows for a loaded machine.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

fn assert_ends_well(server: &mut Server, signal: Signal) {
    let from = now();
    server.signal(signal);
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(from.elapsed() < SHUTDOWN_DEADLINE, "{:?}", from.elapsed());
}

#[test]
fn sigterm_closes_a_thousand_dashboards() {
    let _alone = heavy();
    raise_descriptor_limit(8_000);
    let mut server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut feeds: Vec<RawFeed> = (0..1_000_u16)
        .map(|number| RawFeed::join_from(2 + u8::try_from(number / 500).unwrap(), addr, "pool-a"))
        .collect();
    assert_alive(addr);
    for feed in &mut feeds {
        assert_eq!(feed.json()["type"], "initial_metrics");
    }
    let from = now();
    server.signal(Signal::TERM);
    for feed in &mut feeds {
        assert_eq!(feed.farewell(), Heard::Close(Some(1001)));
        feed.send(FIN | CLOSE, &1001_u16.to_be_bytes());
    }
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(from.elapsed() < SHUTDOWN_DEADLINE, "{:?}", from.elapsed());
}

#[test]
fn incomplete_requests_do_not_delay_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&Setup::open().toml());
        let addr = server.addr();
        let ping = Request::ping("a", KEY_A, &heartbeat(1.0)).bytes();
        let unfinished: Vec<Conn> = (1..ping.len())
            .map(|length| {
                let mut conn = Conn::open(addr);
                conn.send(&ping[..length]);
                conn
            })
            .collect();
        let idle = Conn::open(addr);
        assert_alive(addr);
        assert_ends_well(&mut server, signal);
        drop((unfinished, idle));
    }
}

/// A dashboard that is behind and reads nothing: shutdown waits a moment for it.
fn fallen_behind(server: &Server) -> RawFeed {
    let addr = server.addr();
    let stream = connect_with(1, addr, Some(4 * 1024)).unwrap();
    let feed = RawFeed::join_over(stream, "pool-a");
    let mut agent = Conn::open(addr);
    let body = bulky_heartbeat(50.0, 30 * 1024);
    eventually("the dashboard falls behind", || {
        assert_eq!(agent.ping("bulky", &body).status, 200);
        (Status::read(addr).counter("lags") > 0).then_some(())
    });
    feed
}

#[test]
fn a_dashboard_that_does_not_read_delays_the_end_only_briefly() {
    let _alone = heavy();
    let mut server = Server::start(&Setup::open().busy_agents().toml());
    let _stalled = fallen_behind(&server);
    assert_ends_well(&mut server, Signal::TERM);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let _alone = heavy();
    for second in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&Setup::open().busy_agents().toml());
        let _stalled = fallen_behind(&server);
        let mut reader = RawFeed::join(server.addr(), "pool-a");
        let from = now();
        server.signal(Signal::TERM);
        // The shutdown has begun, and the dashboard that does not read delays its end.
        assert_eq!(reader.farewell(), Heard::Close(Some(1001)));
        server.signal(second);
        let status = server.wait();
        // On a slow machine the orderly shutdown may have ended before the second signal.
        let too_late = from.elapsed() >= Duration::from_millis(900);
        assert!(status.code() != Some(0) || too_late, "{status}: the second signal did nothing");
    }
}

/// A closing terminal may send several SIGHUP; a second one does not end the server at once.
#[test]
fn a_second_hangup_does_not_end_it_at_once() {
    let _alone = heavy();
    let mut server = Server::start(&Setup::open().toml());
    let mut reader = RawFeed::join(server.addr(), "pool-a");
    server.signal(Signal::HUP);
    assert_eq!(reader.farewell(), Heard::Close(Some(1001)));
    server.signal(Signal::HUP);
    reader.send(FIN | CLOSE, &1001_u16.to_be_bytes());
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let nohup = ["sh", "-c", r#"trap '' HUP; exec "$0" "$@""#];
    let mut server = Launch::config(&Setup::open().toml()).under(&nohup).start();
    let mask = ignored_signals(server.pid());
    assert_eq!(mask & 1, 1, "SIGHUP is signal 1: {mask:x}");
    server.signal(Signal::HUP);
    assert_alive(server.addr());
    assert_ends_well(&mut server, Signal::TERM);
}
