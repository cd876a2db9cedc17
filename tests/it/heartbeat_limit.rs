//! One agent that sends far too many heartbeats: they are dropped, and nobody else notices.

use crate::support::http::heartbeat;
use crate::support::setup::KEY_A;
use crate::support::{Conn, Dashboard, Request, Server, Setup, eventually};

#[test]
fn one_agents_flood_is_dropped_and_others_are_served() {
    // Few, so that the machine may be slow: the server takes pipelined heartbeats one by one.
    let setup = Setup::open().limit("max_agent_heartbeats_per_second = 5");
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    let mut dashboard = Dashboard::join(addr, "pool-a");
    dashboard.expect("initial_metrics");
    let (mut flood, mut quiet) = (Conn::open(addr), Conn::open(addr));
    let one = Request::ping("flood", KEY_A, &heartbeat(1.0)).bytes();
    flood.send(&one.repeat(500));
    for number in 0..20 {
        let agent = format!("quiet-{number}");
        assert_eq!(quiet.ping(&agent, &heartbeat(1.0)).status, 200);
    }
    let statuses: Vec<_> = (0..500).map(|_| flood.response().status).collect();
    let taken = statuses.iter().filter(|status| **status == 200).count();
    let dropped = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(taken + dropped, 500);
    assert!(statuses[..5].iter().all(|status| *status == 200), "{taken} were taken");
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
