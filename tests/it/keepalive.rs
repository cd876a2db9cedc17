//! A quiet feed sends a message that browsers see. The Ping that comes later, and both intervals,
//! are tested in `fanout`, where they are given.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tungstenite::{Error, Message};

use crate::support::http::{heartbeat, is_timeout};
use crate::support::process;
use crate::support::wait::Deadline;
use crate::support::{Conn, Dashboard, Server, Setup};

/// Six times the interval that is promised.
const PATIENCE: Duration = Duration::from_secs(30);

/// Intervals over which the server's CPU time is looked at.
const KEEPALIVES: u32 = 2;

#[test]
fn a_quiet_feed_gets_a_keepalive_every_5_s_and_costs_next_to_nothing() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    let initial = dashboard.expect("initial_metrics");
    let cpu_before = process::cpu_ticks(server.pid());

    let mut last_time = server_time(&initial);
    for _ in 0..KEEPALIVES {
        let keepalive = next_message(&mut dashboard);
        assert_eq!(keepalive["type"], "keepalive");
        assert_eq!(keepalive["pool_id"], "pool-a");
        for member in ["epoch", "seq"] {
            assert_eq!(keepalive[member], initial[member], "nothing changed: {keepalive}");
        }
        let time = server_time(&keepalive);
        // Whole seconds, so that a timer's rounding is no failure.
        assert!(time.duration_since(last_time).unwrap() >= Duration::from_secs(4), "{keepalive}");
        last_time = time;
    }
    // A server with nothing to do does next to nothing: here at most 2 % of a core.
    let ticks = process::cpu_ticks(server.pid()) - cpu_before;
    assert!(ticks <= 20, "{ticks} hundredths of a second of CPU while all was quiet");

    // And it still is a feed.
    assert_eq!(conn.ping("agent", &heartbeat(2.0)).status, 200);
    assert_eq!(dashboard.expect("metrics_update")["metrics"]["cpu_usage"], 2.0);
}

fn server_time(message: &Value) -> SystemTime {
    humantime::parse_rfc3339(message["server_time"].as_str().unwrap()).unwrap()
}

/// The next message; longer than other tests wait for one.
fn next_message(dashboard: &mut Dashboard) -> Value {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let left = deadline.left().expect("a message within the deadline");
        let socket = dashboard.socket();
        socket.get_ref().set_read_timeout(Some(left)).unwrap();
        match socket.read() {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
            Err(Error::Io(error)) if is_timeout(&error) => {}
            other => panic!("{other:?}"),
        }
    }
}
