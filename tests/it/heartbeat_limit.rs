//! One agent that sends far too many heartbeats: they are dropped, and nobody else notices.

use crate::support::http::heartbeat;
use crate::support::setup::KEY_A;
use crate::support::{Conn, Dashboard, Request, Server, Setup, eventually};

#[test]
fn one_agents_flood_is_dropped_and_others_are_served() {
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let mut dashboard = Dashboard::join(addr, "pool-a");
    dashboard.expect("initial_metrics");
    let (mut flood, mut quiet) = (Conn::open(addr), Conn::open(addr));
    let one = Request::ping("flood", KEY_A, &heartbeat(1.0)).bytes();
    // Sent at once, they take less than the seconds in which 1,000 would be too few.
    flood.send(&one.repeat(1_000));
    for cpu in 0..20 {
        assert_eq!(quiet.ping("quiet", &heartbeat(f64::from(cpu))).status, 200);
    }
    let statuses: Vec<_> = (0..1_000).map(|_| flood.response().status).collect();
    let taken = statuses.iter().filter(|status| **status == 200).count();
    let dropped = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(taken + dropped, 1_000);
    assert!(statuses[..50].iter().all(|status| *status == 200), "{taken} were taken");
    assert!(dropped > 0);

    let status = Request::get("/api/v1/status").send(addr).json();
    assert_eq!(status["counters"]["refused_flood"], dropped);
    // A goodbye is no heartbeat, and in the next second the agent is heard again.
    flood.send(&one.repeat(100));
    flood.send(&Request::delete("flood", KEY_A).bytes());
    let last = (0..101).map(|_| flood.response().status).last();
    assert_eq!(last, Some(200));
    eventually("the agent is heard again", || {
        (flood.ping("flood", &heartbeat(2.0)).status == 200).then_some(())
    });
    let said = dashboard.until(|message| {
        message["metrics"]["cpu_usage"] == 2.0 && message["metrics"]["agent_id"] == "flood"
    });
    assert_eq!(said["type"], "metrics_update");
    let log = server.log();
    eventually("the log says it", || {
        let text = log.text();
        let line = text.lines().find(|line| line.contains("too many heartbeats a second; "))?;
        line.contains("from 127.0.0.1, app key \"key-a\", agent \"flood\"").then_some(())
    });
}
