//! `make bench`: what a heartbeat and a delivery cost our server in CPU, beside nginx + nchan
//! under the same load in the same run, and what an idle connection costs in memory. Prints one
//! Markdown page. Owns the order of the measurements and the table; how each is made is in the
//! rooms beside it. Measures only: whether the server is right is for the tests.
//!
//! Everything is on loopback and bounded in count and time. `COMPARE_ROUNDS` (default 5) sets how
//! often each pair is measured, `COMPARE_ONLY` (`agent-metrics` or `nginx`) leaves one server
//! out, `COMPARE_EXTREME=1` adds the row of 500,000 deliveries a second.

#[path = "compare/beats.rs"]
mod beats;
#[path = "compare/dashboard.rs"]
mod dashboard;
#[path = "compare/feed.rs"]
mod feed;
#[path = "compare/http.rs"]
mod http;
#[path = "compare/process.rs"]
mod process;
#[path = "compare/report.rs"]
mod report;
#[path = "compare/resources.rs"]
mod resources;
#[path = "compare/server.rs"]
mod server;

use std::io::{self, Write};
use std::process::ExitCode;

use agent_metrics::Clock;

use crate::report::{Pair, Row};
use crate::server::Kind;

/// What can go wrong ends the bench with its reason.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Keep-alive connections that send heartbeats, and the prototype's ratio to nginx there.
const HEARTBEATS: [(usize, &str); 2] = [(32, "1.6-1.8"), (128, "1.6-1.8")];

/// Dashboards, heartbeats a second, and the prototype's ratio to nginx there.
const DELIVERIES: [(usize, u32, &str); 2] = [(200, 100, "0.7-0.9"), (1_000, 50, "0.7-0.9")];

/// The row that `COMPARE_EXTREME` adds.
const EXTREME: (usize, u32, &str) = (1_000, 500, "1.2-1.3");

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benches too, without this flag: nothing to do there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    resources::raise_descriptor_limit()?;
    let clock = Clock::start();
    let rounds = setting("COMPARE_ROUNDS").map_or(Ok(5), |text| text.parse::<usize>())?.max(1);
    let kinds = kinds()?;
    let mut deliveries = DELIVERIES.to_vec();
    if setting("COMPARE_EXTREME").is_some() {
        deliveries.push(EXTREME);
    }

    let mut beat_rows: Vec<Row<beats::Outcome>> = HEARTBEATS
        .iter()
        .map(|(connections, bar)| Row::new(format!("{connections} connections"), bar))
        .collect();
    let mut feed_rows: Vec<Row<feed::Outcome>> = deliveries
        .iter()
        .map(|(dashboards, rate, bar)| Row::new(format!("{dashboards} × {rate}/s"), bar))
        .collect();
    let update = feed::our_update(clock)?;
    // Round by round and server by server, so that what else the machine does falls on both.
    for round in 1..=rounds {
        progress(&format!("round {round} of {rounds}"));
        for ((connections, _), row) in HEARTBEATS.iter().zip(&mut beat_rows) {
            for &kind in &kinds {
                let outcome = beats::measure(kind, *connections, clock);
                row.push(kind, outcome.map_err(|error| row.blame(kind, &*error))?);
            }
        }
        for ((dashboards, rate, _), row) in deliveries.iter().zip(&mut feed_rows) {
            for &kind in &kinds {
                let outcome = feed::measure(kind, *dashboards, *rate, &update, clock);
                row.push(kind, outcome.map_err(|error| row.blame(kind, &*error))?);
            }
        }
    }
    progress("memory");
    let mut memory = [Row::new("idle dashboard".into(), "-"), Row::new("idle agent".into(), "-")];
    for &kind in &kinds {
        memory[0].push(kind, feed::memory_each(kind, &update, clock)?);
        memory[1].push(kind, beats::memory_each(kind, clock)?);
    }

    let page = report::Page {
        rounds,
        update_bytes: update.len(),
        body_bytes: server::heartbeat_body().len(),
        beats: beat_rows.as_slice(),
        deliveries: feed_rows.as_slice(),
        memory: &memory,
    };
    io::stdout().write_all(page.text(clock).as_bytes())?;
    Ok(())
}

/// The servers to measure, in the order in which each pair is measured.
fn kinds() -> Result<Vec<Kind>> {
    match setting("COMPARE_ONLY").as_deref() {
        None => Ok(Pair::<()>::KINDS.to_vec()),
        Some("agent-metrics") => Ok(vec![Kind::AgentMetrics]),
        Some("nginx") => Ok(vec![Kind::Nginx]),
        Some(other) => Err(format!("COMPARE_ONLY is agent-metrics or nginx, not {other}").into()),
    }
}

/// An environment variable that is set and not empty.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A word to who waits; standard output is the table's alone.
fn progress(what: &str) {
    let _ = writeln!(io::stderr(), "bench: {what}");
}
