//! What an update costs the page: time of the browser's main thread, by the browser's own
//! figures (Performance.getMetrics of the DevTools protocol), as a table. Measures only.
//!
//! The load comes from the same machine, so the time per update says more than the share.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on stops")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[expect(dead_code, unused_imports, unused_macros, reason = "the tests need more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::support::crowd::{Crowd, Stop};
use crate::support::status::Status;
use crate::support::wait::pause;
use crate::support::{Browser, Server, Setup};

/// Agents, heartbeats a second, and how they are looked at.
const CASES: [(usize, u64, &str); 5] = [
    (200, 40, ""),
    (2_000, 0, ""),
    (2_000, 500, ""),
    (2_000, 500, "?sort=cpu"),
    (2_000, 500, "?view=grid"),
];
/// The page has drawn everything once by then.
const WARM_UP: Duration = Duration::from_secs(8);
const TIME: Duration = Duration::from_secs(20);

fn main() {
    // `cargo test --all-targets` starts benches too, without this flag: nothing to do there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "| agents | heartbeats/s | view | main thread, µs per update | of it script | layout and style | share of a core |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (agents, per_second, view) in CASES {
        measure(Crowd { agents, per_second }, view);
    }
}

fn measure(crowd: Crowd, view: &str) {
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.ignore_network();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        crowd.start(scope, server.addr(), &stop);
        browser.go(&format!("http://{}/pools/pool-a{view}", server.addr()));
        let all = format!("document.querySelectorAll('.agent').length === {}", crowd.agents);
        browser.until("all agents are there", &all);
        pause(WARM_UP);
        let beats = || Status::read(server.addr()).counter("heartbeats");
        let (metrics, beaten) = (browser.metrics(), beats());
        pause(TIME);
        let (after, updates) = (browser.metrics(), beats() - beaten);
        let spent = |names: &[&str]| -> f64 {
            names.iter().map(|&name| after[name] - metrics[name]).sum::<f64>()
        };
        let all = spent(&["TaskDuration"]);
        let elapsed = spent(&["Timestamp"]);
        let each = |seconds: f64| match updates {
            0 => "-".to_owned(),
            _ => format!("{:.0}", seconds * 1e6 / updates as f64),
        };
        println!(
            "| {} | {:.0} | {} | {} | {} | {} | {:.1} % |",
            crowd.agents,
            updates as f64 / elapsed,
            if view.is_empty() { "by name" } else { view },
            each(all),
            each(spent(&["ScriptDuration"])),
            each(spent(&["LayoutDuration", "RecalcStyleDuration"])),
            all / elapsed * 100.0,
        );
        drop(ends);
    });
}
