//! What an update costs the page: time of the processor on the browser's main thread, by the browser's
//! own figures (Performance.getMetrics of the DevTools protocol), as a table. Measures only.
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
const CASES: [(usize, u64, &str, &str); 8] = [
    (200, 40, "?sort=name", "by name"),
    (2_000, 0, "?sort=name", "by name"),
    (2_000, 500, "?sort=name", "by name"),
    (2_000, 500, "", "by trouble"),
    (2_000, 500, "?sort=cpu", "by CPU"),
    (2_000, 500, "?view=grid", "grid"),
    (2_000, 500, "?view=wall", "wall"),
    (10_000, 500, "?sort=name", "by name"),
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
    for (agents, per_second, view, name) in CASES {
        measure(Crowd { agents, per_second }, view, name);
    }
    println!();
    println!("| agents | longest frame while scrolling | heap | rows in the document |");
    println!("|---|---|---|---|");
    for agents in [2_000, 10_000] {
        scroll(Crowd { agents, per_second: 500 });
    }
}

/// Scrolls to the end and back, and to places far apart, with a frame for each: the longest, in ms.
const SCROLL: &str = "new Promise(done => {
    const height = document.documentElement.scrollHeight;
    let [frame, longest, last] = [0, 0, performance.now()];
    const step = () => {
        const now = performance.now();
        if (frame > 2) longest = Math.max(longest, now - last);
        last = now;
        if (frame === 300) return done(longest);
        frame += 1;
        scrollTo(0, frame <= 200 ? height * (100 - Math.abs(100 - frame)) / 100 : frame * 7919 * 300 % height);
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})";

fn scroll(crowd: Crowd) {
    with_crowd(crowd, "?sort=name", |browser, _| {
        let longest: f64 = browser.get(SCROLL);
        let heap = browser.metrics()["JSHeapUsedSize"] / 1e6;
        let rows: usize = browser.get("document.querySelectorAll('.agent').length");
        println!("| {} | {longest:.0} ms | {heap:.1} MB | {rows} |", crowd.agents);
    });
}

fn measure(crowd: Crowd, view: &str, name: &str) {
    with_crowd(crowd, view, |browser, server| {
        let beats = || Status::read(server.addr()).counter("heartbeats");
        let (metrics, beaten) = (browser.metrics_as_they_are(), beats());
        pause(TIME);
        let (after, updates) = (browser.metrics_as_they_are(), beats() - beaten);
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
            "| {} | {:.0} | {name} | {} | {} | {} | {:.1} % |",
            crowd.agents,
            updates as f64 / elapsed,
            each(all),
            each(spent(&["ScriptDuration"])),
            each(spent(&["LayoutDuration", "RecalcStyleDuration"])),
            all / elapsed * 100.0,
        );
    });
}

/// Runs `look` with a browser that shows the pool of `crowd` as `view`, and has settled.
fn with_crowd(crowd: Crowd, view: &str, look: impl FnOnce(&Browser, &Server)) {
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.ignore_network();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        crowd.start(scope, server.addr(), &stop);
        let pool = "/api/v1/agent-pools";
        let all = format!(
            "fetch({pool:?}).then(answer => answer.json())
                 .then(({{ pools }}) => pools[0].agents.total === {})",
            crowd.agents
        );
        browser.go(&format!("http://{}/pools/pool-a{view}", server.addr()));
        browser.until("all agents are there", &all);
        pause(WARM_UP);
        look(&browser, &server);
        drop(ends);
    });
}
