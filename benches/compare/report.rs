//! Numbers to a Markdown page: medians with their ranges, ratios, and what is needed to judge
//! them: date, commit, machine, command. Measures nothing.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use agent_metrics::Clock;

use crate::server::Kind;
use crate::{beats, feed};

/// Something of both servers.
#[derive(Debug, Default)]
pub(crate) struct Pair<T> {
    ours: T,
    nginx: T,
}

impl<T> Pair<T> {
    /// Both, in the order of the table.
    pub(crate) const KINDS: [Kind; 2] = [Kind::AgentMetrics, Kind::Nginx];

    fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::AgentMetrics => &self.ours,
            Kind::Nginx => &self.nginx,
        }
    }
}

/// All measurements of one load, by server, a value a round.
#[derive(Debug)]
pub(crate) struct Row<T> {
    load: String,
    bar: &'static str,
    outcomes: Pair<Vec<T>>,
}

impl<T> Row<T> {
    /// A row for `load`; `bar` is the ratio to nginx that the prototype reached.
    pub(crate) fn new(load: String, bar: &'static str) -> Self {
        Self { load, bar, outcomes: Pair { ours: Vec::new(), nginx: Vec::new() } }
    }

    /// Adds a measurement.
    pub(crate) fn push(&mut self, kind: Kind, outcome: T) {
        match kind {
            Kind::AgentMetrics => self.outcomes.ours.push(outcome),
            Kind::Nginx => self.outcomes.nginx.push(outcome),
        }
    }

    /// `error` with where it happened.
    pub(crate) fn blame(&self, kind: Kind, error: &dyn std::error::Error) -> String {
        format!("{}, {}: {error}", kind.name(), self.load)
    }

    fn spread(&self, kind: Kind, value: impl Fn(&T) -> f64) -> Spread {
        Spread::of(self.outcomes.of(kind).iter().map(value).collect())
    }

    /// One line of a table of costs: both servers, their ratio, the bar.
    fn cost_line(&self, value: impl Fn(&T) -> f64 + Copy, decimals: usize) -> String {
        let ours = self.spread(Kind::AgentMetrics, value);
        let nginx = self.spread(Kind::Nginx, value);
        // Round by round, since what else the machine did fell on both of one round.
        let rounds = self.outcomes.ours.iter().zip(&self.outcomes.nginx);
        let ratio = Spread::of(rounds.map(|(ours, nginx)| value(ours) / value(nginx)).collect());
        let (ours, nginx, ratio) = (ours.text(decimals), nginx.text(decimals), ratio.text(2));
        format!("| {} | {ours} | {nginx} | {ratio} | {} |\n", self.load, self.bar)
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
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        Self {
            least: at(0),
            median: f64::midpoint(at(low), at(high)),
            most: at(values.len().saturating_sub(1)),
        }
    }

    /// "median (least-most)".
    fn text(self, decimals: usize) -> String {
        let Self { least, median, most } = self;
        if median.is_nan() {
            "-".to_owned()
        } else if least.total_cmp(&most).is_eq() {
            format!("{median:.decimals$}")
        } else {
            format!("{median:.decimals$} ({least:.decimals$}-{most:.decimals$})")
        }
    }
}

/// All that is reported.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// How often each pair was measured.
    pub(crate) rounds: usize,
    /// The size of a delivered message, in bytes.
    pub(crate) update_bytes: usize,
    /// The size of a heartbeat's body, in bytes.
    pub(crate) body_bytes: usize,
    /// By number of connections.
    pub(crate) beats: &'a [Row<beats::Outcome>],
    /// By dashboards and rate.
    pub(crate) deliveries: &'a [Row<feed::Outcome>],
    /// In bytes.
    pub(crate) memory: &'a [Row<f64>],
}

impl Page<'_> {
    /// The whole page.
    pub(crate) fn text(&self, clock: Clock) -> String {
        let ours = Kind::AgentMetrics.name();
        let nginx = Kind::Nginx.name();
        let head = |what: &str| {
            format!("\n| {what} | {ours} | {nginx} | ratio | prototype |\n|---|---|---|---|---|\n")
        };
        let mut page = self.preamble(clock);

        page += &head("CPU per heartbeat, µs");
        for row in self.beats {
            page += &row.cost_line(|outcome| outcome.cpu_us, 1);
        }
        page += &head("CPU per delivery, µs (dashboards × heartbeats)");
        for row in self.deliveries {
            page += &row.cost_line(|outcome| outcome.cpu_us, 2);
        }
        page += &head("memory each, KiB (VmRSS, slope from 200 to 1,000)");
        for row in self.memory {
            page += &row.cost_line(|bytes| bytes / 1_024.0, 1);
        }
        page += &self.information();
        page
    }

    fn preamble(&self, clock: Clock) -> String {
        let Self { rounds, body_bytes, update_bytes, .. } = self;
        format!(
            "# agent-metrics beside nginx + nchan\n\n\
             {} · commit {} · {}\n\n\
             `make bench`: {rounds} rounds, the servers in turn, each measurement on a freshly \
             started server, load and server on the same cores. CPU is of all threads and \
             workers, user and system. Median (least-most). Heartbeats have a body of \
             {body_bytes} bytes, deliveries are of {update_bytes}. Ratio: ours to nginx, round by \
             round, under 1 is better; beside it the prototype's.\n",
            clock.wall(),
            commit(),
            machine(),
        )
    }

    /// What was reached meanwhile: says under which load the costs hold, and is no promise.
    fn information(&self) -> String {
        let mut text = String::from(
            "\n| for information | server | a second | of those due | p50, ms | p99, ms |\n\
             |---|---|---|---|---|---|\n",
        );
        for kind in Pair::<()>::KINDS {
            for row in self.beats {
                let rate = row.spread(kind, |outcome| outcome.per_second).text(0);
                let _ = writeln!(text, "| {} | {} | {rate} | | | |", row.load, kind.name());
            }
            for row in self.deliveries {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {}% | {} | {} |",
                    row.load,
                    kind.name(),
                    row.spread(kind, |outcome| outcome.per_second).text(0),
                    row.spread(kind, |outcome| outcome.share * 100.0).text(1),
                    row.spread(kind, |outcome| outcome.p50_ms).text(1),
                    row.spread(kind, |outcome| outcome.p99_ms).text(1),
                );
            }
        }
        text
    }
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
