//! A quiet feed shows that it lives: a message that browsers see, and a Ping that finds out who
//! is gone. These tests wait for real intervals, so they are among the slowest.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tungstenite::{Error, Message};

use crate::support::http::{heartbeat, is_timeout};
use crate::support::process;
use crate::support::wait::{Deadline, now};
use crate::support::{Conn, Dashboard, Server, Setup};

/// Twice the longest interval that is promised (a Ping every 25 s).
const PATIENCE: Duration = Duration::from_secs(50);

#[test]
fn a_quiet_feed_gets_a_keepalive_every_5_s_and_a_ping_after_25() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    let joined = now();
    let initial = dashboard.expect("initial_metrics");
    let cpu_before = process::cpu_ticks(server.pid());

    let (mut keepalives, mut last_time) = (0, server_time(&initial));
    let other = loop {
        let frame = next_frame(&mut dashboard);
        let Message::Text(text) = frame else { break frame };
        let keepalive: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(keepalive["type"], "keepalive");
        assert_eq!(keepalive["pool_id"], "pool-a");
        for member in ["epoch", "seq"] {
            assert_eq!(keepalive[member], initial[member], "nothing changed: {keepalive}");
        }
        let time = server_time(&keepalive);
        // Whole seconds, so that a timer's rounding is no failure.
        assert!(time.duration_since(last_time).unwrap() >= Duration::from_secs(4), "{keepalive}");
        (keepalives, last_time) = (keepalives + 1, time);
    };
    assert!(matches!(other, Message::Ping(_)), "{other}");
    // Four fit in before the Ping; a machine that stands still loses some.
    assert!(keepalives >= 2, "{keepalives} keepalives in {:?}", joined.elapsed());
    assert!(joined.elapsed() >= Duration::from_secs(24), "after {:?}", joined.elapsed());

    // A server with nothing to do does next to nothing: here at most 2 % of a core.
    let ticks = process::cpu_ticks(server.pid()) - cpu_before;
    assert!(ticks <= 50, "{ticks} hundredths of a second of CPU while all was quiet");

    // And it still is a feed.
    assert_eq!(conn.ping("agent", &heartbeat(2.0)).status, 200);
    assert_eq!(dashboard.expect("metrics_update")["metrics"]["cpu_usage"], 2.0);
}

fn server_time(message: &Value) -> SystemTime {
    humantime::parse_rfc3339(message["server_time"].as_str().unwrap()).unwrap()
}

/// The next message or control frame of any kind.
fn next_frame(dashboard: &mut Dashboard) -> Message {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let left = deadline.left().expect("something within the deadline");
        let socket = dashboard.socket();
        socket.get_ref().set_read_timeout(Some(left)).unwrap();
        match socket.read() {
            Ok(message) => return message,
            Err(Error::Io(error)) if is_timeout(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
