//! `make bench`: what a heartbeat and a delivery cost our server in CPU, beside nginx + nchan
//! under the same load in the same run, and what an idle connection costs in memory. Prints a
//! Markdown table. Owns the rows and the order of the measurements; how each is made is in the
//! modules below. Measures only: whether the server is right is for the tests.
//!
//! `cargo bench --bench compare -- paced --rounds 1 --seconds 2` measures only the rows whose name
//! contains "paced". With `AGENT_METRICS_OTHER=/path/to/agent-metrics` that build is measured in
//! nginx's place: a change beside its parent. All load is on loopback, bounded in count and time.

#[path = "compare/dashboard.rs"]
mod dashboard;
#[path = "compare/http.rs"]
mod http;
#[path = "compare/load.rs"]
mod load;
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
use std::time::Duration;

use agent_metrics::Clock;
use clap::Parser;

use crate::load::{Load, Subject};
use crate::report::Row;
use crate::server::Kind;

/// Why a measurement, or the bench, ended.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
struct Options {
    /// Measure only the rows whose name contains one of these.
    rows: Vec<String>,
    /// How often each row is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes, apart from start and warm-up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Another build of the server to measure in nginx's place.
    #[arg(long, env = "AGENT_METRICS_OTHER")]
    other: Option<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` starts benches too, without this flag: nothing to do there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    resources::raise_descriptor_limit()?;
    let clock = Clock::start();
    let time = Duration::try_from_secs_f64(options.seconds)?;
    let other = options.other.clone().map_or(Kind::Nginx, Kind::AgentMetrics);
    let kinds = [Kind::this_build(), other];
    let update = load::our_update(&kinds[0], clock)?;
    let mut rows: Vec<Row> = subjects().into_iter().map(Row::new).collect();
    let wanted = |name: &str| options.rows.iter().any(|part| name.contains(part));
    rows.retain(|row| options.rows.is_empty() || wanted(&row.name));
    // Round by round and server by server, so that what else the machine does falls on both.
    for round in 1..=options.rounds {
        for row in &mut rows {
            progress(&format!("round {round} of {}: {}", options.rounds, row.name));
            let outcome = |kind: &Kind| {
                load::measure(kind, row.subject, &update, time, clock)
                    .inspect_err(|error| progress(&format!("{}: {error}", kind.name())))
            };
            if let (Ok(ours), Ok(other)) = (outcome(&kinds[0]), outcome(&kinds[1])) {
                row.rounds.push([ours, other]);
            }
        }
    }
    let table = report::table(&rows, &kinds, options.rounds, clock);
    io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

/// What is measured by default, a row each.
fn subjects() -> Vec<Subject> {
    let paced = |per_second, connections| Load { connections, ..Load::paced(per_second) };
    let closed = |connections| Load { connections, per_second: None, ..Load::paced(0) };
    let delivery = |dashboards, per_second| Load { dashboards, ..Load::paced(per_second) };
    let loads = [
        paced(300, 16),
        paced(3_000, 64),
        paced(10_000, 64),
        Load { tasks: 10, ..paced(3_000, 64) },
        closed(1),
        closed(4),
        closed(32),
        closed(128),
        Load { tasks: 10, ..closed(32) },
        Load { connection_each: true, ..closed(32) },
        delivery(200, 100),
        delivery(1_000, 50),
        delivery(20, 300),
        delivery(10, 2_000),
        delivery(200, 2_000),
        delivery(1_000, 500),
    ];
    let memory = [Subject::DashboardMemory, Subject::AgentMemory];
    loads.into_iter().map(Subject::Cpu).chain(memory).collect()
}

/// Says what happens; standard output is the table's alone.
fn progress(what: &str) {
    let _ = writeln!(io::stderr(), "bench: {what}");
}
