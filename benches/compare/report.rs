//! Numbers to a Markdown table: medians with their ranges, ratios, and what is needed to judge
//! them: date, commit, machine. Measures nothing.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use agent_metrics::Clock;

use crate::load::{Load, Outcome, Subject};
use crate::server::Kind;

/// All measurements of one subject.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) subject: Subject,
    /// Both servers' outcomes, a pair for each round in which neither failed.
    pub(crate) rounds: Vec<[Outcome; 2]>,
}

impl Row {
    pub(crate) fn new(subject: Subject) -> Self {
        let name = match subject {
            Subject::Cpu(load) => load_name(load),
            Subject::DashboardMemory => "memory of an idle dashboard".to_owned(),
            Subject::AgentMemory => "memory of an idle agent's connection".to_owned(),
        };
        Self { name, subject, rounds: Vec::new() }
    }

    /// Of one server, by its place in a pair.
    fn median(&self, server: usize, value: impl Fn(&Outcome) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(|pair| value(&pair[server]))).median
    }

    fn line(&self) -> String {
        let unit = if matches!(self.subject, Subject::Cpu(_)) { "µs" } else { "KiB" };
        let cost = |server| text(self.median(server, |outcome| outcome.cost), 1);
        let rate = |server| {
            text(self.median(server, |outcome| outcome.per_second), 0) + &self.shortfall(server)
        };
        let p50 = |server| text(self.median(server, |outcome| outcome.p50_ms), 2);
        let p99 = |server| text(self.median(server, |outcome| outcome.p99_ms), 2);
        // Round by round, since what else the machine did fell on both of one round.
        let ratio = Spread::of(self.rounds.iter().map(|[ours, other]| ours.cost / other.cost));
        format!(
            "| {} | {} {unit} | {} {unit} | {:.2} ({:.2}-{:.2}) | {} / {} | {} / {} | {} / {} |\n",
            self.name,
            cost(0),
            cost(1),
            ratio.median,
            ratio.least,
            ratio.most,
            rate(0),
            rate(1),
            p50(0),
            p50(1),
            p99(0),
            p99(1),
        )
    }

    /// What is to be said of a server that got or delivered less than [`ENOUGH`] of the load.
    fn shortfall(&self, server: usize) -> String {
        let Subject::Cpu(load) = self.subject else { return String::new() };
        let sent = self.median(server, |outcome| outcome.heartbeats_per_second);
        let delivered = self.median(server, |outcome| outcome.per_second);
        let due = sent * load.dashboards as f64;
        match load.per_second {
            Some(rate) if sent < f64::from(rate) * ENOUGH => {
                format!(" (**only {} heartbeats/s**)", text(sent, 0))
            }
            _ if delivered < due * ENOUGH => {
                format!(" (**only {:.0} % delivered**)", delivered / due * 100.0)
            }
            _ => String::new(),
        }
    }
}

/// The share of a load below which its row says so.
const ENOUGH: f64 = 0.95;

fn load_name(load: Load) -> String {
    let Load { dashboards, connections, per_second, connection_each, tasks } = load;
    let rate = per_second.map_or(String::new(), |rate| text(rate.into(), 0));
    if dashboards > 0 {
        return format!("delivery to {} dashboards, {rate}/s", text(dashboards as f64, 0));
    }
    let size = if tasks > 2 { " of 2 KiB" } else { "" };
    match per_second {
        Some(_) => format!("heartbeat{size}, paced {rate}/s over {connections} connections"),
        None if connection_each => format!("heartbeat, a connection each, {connections} at once"),
        None if connections == 1 => "heartbeat, closed loop of 1 connection".to_owned(),
        None => format!("heartbeat{size}, closed loop of {connections} connections"),
    }
}

/// Middle and ends of a few values.
#[derive(Debug, Clone, Copy)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        Self {
            least: at(0),
            median: f64::midpoint(at(low), at(high)),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

/// A number with commas between thousands, or a dash for what was not measured.
fn text(number: f64, decimals: usize) -> String {
    if number.is_nan() {
        return "-".to_owned();
    }
    let mut text = format!("{number:.decimals$}");
    let mut at = text.find('.').unwrap_or(text.len());
    while at > 3 {
        at -= 3;
        text.insert(at, ',');
    }
    text
}

/// All rows, and how to read them.
pub(crate) fn table(rows: &[Row], kinds: &[Kind; 2], rounds: usize, clock: Clock) -> String {
    let [ours, other] = kinds.each_ref().map(Kind::name);
    let mut table = format!(
        "| {}, commit {}, {}, load on the same cores | {ours} | {other} | ratio | a second | \
         p50, ms | p99, ms |\n|---|---|---|---|---|---|---|\n",
        &clock.wall().to_string()[..10],
        commit(),
        machine(),
    );
    for row in rows {
        table += &row.line();
    }
    let _ = writeln!(
        table,
        "\nCPU of all threads and workers for each heartbeat or delivery; medians of {rounds} \
         rounds in turn, ratios round by round (least-most), rates and delays as {ours} / {other}. \
         Delays run from when the heartbeat was due to its answer or delivery."
    );
    for row in rows.iter().filter(|row| row.rounds.len() < rounds) {
        let failed = rounds - row.rounds.len();
        let _ = writeln!(table, "\n{failed} rounds failed: {}", row.name);
    }
    table
}

/// The commit that was measured, and whether there was more than it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if clean { commit } else { format!("{commit} and uncommitted changes") }
}

/// Cores, CPU and kernel.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map_or("?", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}
