//! What it costs the server that many dashboards join a large pool.

use std::net::SocketAddr;

use crate::support::flood::{bulky_heartbeat, heavy};
use crate::support::frames::RawFeed;
use crate::support::process::cpu_ticks;
use crate::support::setup::KEY_A;
use crate::support::{Conn, Request, Server, Setup};

const AGENTS: usize = 10_000;
const JOINERS: u64 = 50;

/// A clock tick in milliseconds.
const TICK_MS: u64 = 10;

/// On average, in a debug build: 2 ms where they share one, of which the kernel takes most to pass on
/// the bytes, and 8 ms where each has its own.
const MAX_MS_EACH: u64 = 5;

/// Heartbeats of all agents, each with one task.
fn beat(addr: SocketAddr) {
    const PIPELINED: usize = 100;
    let body = bulky_heartbeat(50.0, 100);
    let mut conn = Conn::open(addr);
    for first in (0..AGENTS).step_by(PIPELINED) {
        let ping = |n| Request::ping(&format!("agent-{n:05}"), KEY_A, &body).bytes();
        conn.send(&(first..first + PIPELINED).flat_map(ping).collect::<Vec<_>>());
        for _ in 0..PIPELINED {
            assert_eq!(conn.response().status, 200);
        }
    }
}

#[test]
fn who_joins_a_large_pool_shares_its_snapshot() {
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    beat(server.addr());
    let before = cpu_ticks(server.pid());
    let mut bytes = 0;
    for _ in 0..JOINERS {
        let text = RawFeed::join(server.addr(), "pool-a").text();
        assert!(text.starts_with(r#"{"type":"initial_metrics""#));
        bytes = text.len();
    }
    let ms = (cpu_ticks(server.pid()) - before) * TICK_MS;
    println!("{JOINERS} joiners of {bytes} bytes: {ms} ms of CPU");
    assert!(ms < JOINERS * MAX_MS_EACH, "{ms} ms for {JOINERS} joiners");
}
