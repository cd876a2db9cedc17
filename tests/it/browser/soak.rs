//! Ten minutes of an ordinary day: 200 agents, one heartbeat each in five seconds. Neither the
//! server nor the page grows. For `make soak`.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::hooks::{IS_LIVE, has_agents, pool_url};
use crate::support::crowd::{Crowd, Stop};
use crate::support::process::resident_kib;
use crate::support::tools::needs;
use crate::support::wait::pause;
use crate::support::{Browser, Server, Setup};

const CROWD: Crowd = Crowd { agents: 200, per_second: 40 };
const MINUTES: u32 = 10;
/// The server may have this much more at the end than after the first minute.
const SERVER_GROWTH_KIB: u64 = 2 * 1_024;
/// The page may have this many times the heap, and the nodes, at the end.
const PAGE_GROWTH: f64 = 1.2;

#[test]
#[ignore = "takes ten minutes: make soak"]
fn ten_minutes_leave_server_and_page_as_they_were() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.ignore_network();
    browser.go(&pool_url(server.addr()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        CROWD.start(scope, server.addr(), &stop);
        browser.until("all agents are there", &has_agents(CROWD.agents));
        let mut first = None;
        for minute in 1..=MINUTES {
            pause(Duration::from_secs(60));
            let metrics = browser.metrics();
            let (heap, nodes) = (metrics["JSHeapUsedSize"], metrics["Nodes"]);
            let kib = resident_kib(server.pid());
            println!("minute {minute}: server {kib} KiB, page {:.2} MB, {nodes} nodes", heap / 1e6);
            let (first_kib, first_heap, first_nodes) = *first.get_or_insert((kib, heap, nodes));
            assert!(kib <= first_kib + SERVER_GROWTH_KIB, "{first_kib} KiB, then {kib} KiB");
            assert!(heap <= first_heap * PAGE_GROWTH, "{first_heap}, then {heap}");
            assert!(nodes <= first_nodes * PAGE_GROWTH, "{first_nodes}, then {nodes}");
        }
        drop(ends);
    });
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.faults(), []);
}
