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

    /// Both servers' values, with `decimals`.
    fn both(&self, value: impl Fn(&Outcome) -> f64, decimals: usize) -> [String; 2] {
        [0, 1].map(|server| {
            let median = Spread::of(self.rounds.iter().map(|pair| value(&pair[server]))).median;
            if median.is_nan() { "-".to_owned() } else { grouped(median, decimals) }
        })
    }

    fn line(&self) -> String {
        let (unit, due) = match self.subject {
            Subject::Cpu(load) => ("µs", load.due_per_second()),
            _ => ("KiB", None),
        };
        let [ours, other] = self.both(|outcome| outcome.cost, 1);
        // Round by round, since what else the machine did fell on both of one round.
        let ratio = Spread::of(self.rounds.iter().map(|[ours, other]| ours.cost / other.cost));
        let rates = self.both(|outcome| outcome.per_second, 0);
        let rates = [0, 1].map(|server| {
            let median = Spread::of(self.rounds.iter().map(|pair| pair[server].per_second)).median;
            match due {
                Some(due) if median < due * ENOUGH => {
                    format!("**only {} of {}**", rates[server], grouped(due, 0))
                }
                _ => rates[server].clone(),
            }
        });
        format!(
            "| {} | {ours} {unit} | {other} {unit} | {:.2} ({:.2}-{:.2}) | {} | {} | {} |\n",
            self.name,
            ratio.median,
            ratio.least,
            ratio.most,
            rates.join(" / "),
            self.both(|outcome| outcome.p50_ms, 1).join(" / "),
            self.both(|outcome| outcome.p99_ms, 1).join(" / "),
        )
    }
}

/// The share of a paced load below which a row says that it was not reached.
const ENOUGH: f64 = 0.95;

fn load_name(load: Load) -> String {
    let Load { dashboards, connections, per_second, connection_each, tasks } = load;
    let rate = per_second.map_or(String::new(), |rate| grouped(rate.into(), 0));
    if dashboards > 0 {
        return format!("delivery to {} dashboards, {rate}/s", grouped(dashboards as f64, 0));
    }
    let size = if tasks > 2 { " of 2 KiB" } else { "" };
    match per_second {
        Some(_) => format!("heartbeat{size}, paced {rate}/s over {connections} connections"),
        None if connection_each => format!("heartbeat, a connection each, {connections} at once"),
        None => format!("heartbeat{size}, closed loop of {connections}"),
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

/// A number with commas between thousands.
fn grouped(number: f64, decimals: usize) -> String {
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
