//! What those who do nothing cost.

use super::support::flood::{
    Holdings, assert_alive, conn_from, heavy, raise_descriptor_limit, warm_up,
};
use super::support::frames::RawFeed;
use super::support::http::heartbeat;
use super::support::process::{resident_kib, threads};
use super::support::{Conn, Server, Setup, eventually};

#[test]
fn a_thousand_idle_agents_add_no_thread() {
    let _alone = heavy();
    raise_descriptor_limit(8_000);
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let _kept = warm_up(addr);
    let before = Holdings::of(server.pid());
    let mut agents: Vec<Conn> = Vec::new();
    for number in 0..1_000_u16 {
        let mut conn = conn_from(2 + u8::try_from(number / 500).unwrap(), addr);
        assert_eq!(conn.ping(&format!("agent-{number}"), &heartbeat(1.0)).status, 200);
        agents.push(conn);
    }
    let with_all = Holdings::of(server.pid());
    assert_eq!(with_all.threads, before.threads);
    assert_eq!(with_all.descriptors, before.descriptors + 1_000);
    // They are idle, not forgotten.
    for conn in [0, 499, 999] {
        assert_eq!(agents[conn].ping("agent-0", &heartbeat(2.0)).status, 200);
    }
    drop(agents);
    before.wait_for_return(server.pid());
}

#[test]
fn an_idle_dashboard_costs_one_thread_and_at_most_24_kib() {
    const FEW: u16 = 200;
    const MANY: u16 = 1_000;
    let _alone = heavy();
    raise_descriptor_limit(8_000);
    let server = Server::start(&Setup::open().toml());
    let (addr, pid) = (server.addr(), server.pid());
    let _kept = warm_up(addr);
    let before = Holdings::of(pid);
    let mut feeds = Vec::new();
    let mut join_up_to = |count: u16| {
        for number in u16::try_from(feeds.len()).unwrap()..count {
            let mut feed =
                RawFeed::join_from(2 + u8::try_from(number / 500).unwrap(), addr, "pool-a");
            assert_eq!(feed.json()["type"], "initial_metrics");
            feeds.push(feed);
        }
        eventually("one thread for each", || {
            (threads(pid) == before.threads + u64::from(count)).then_some(())
        });
        let held = Holdings::of(pid);
        assert_eq!(
            held.descriptors,
            before.descriptors + usize::from(count),
            "one descriptor each"
        );
        resident_kib(pid)
    };
    let (few_kib, many_kib) = (join_up_to(FEW), join_up_to(MANY));
    let bytes_each = many_kib.saturating_sub(few_kib) * 1024 / u64::from(MANY - FEW);
    assert!(bytes_each <= 24 * 1024, "{bytes_each} bytes for each dashboard");

    // They are idle, not forgotten.
    assert_alive(addr);
    for feed in &mut feeds {
        assert_eq!(feed.json()["type"], "metrics_update");
    }
    drop(feeds);
    before.wait_for_return(pid);
}
