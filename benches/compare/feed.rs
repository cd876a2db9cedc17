//! Deliveries: heartbeats at a steady rate, and dashboards that all get every one. One thread
//! does it all, on schedule and not in a closed loop: a slow server gets no fewer heartbeats.

use std::time::{Duration, Instant};

use agent_metrics::Clock;
use mio::{Events, Poll, Token};

use crate::Result;
use crate::dashboard::{Dashboard, Tally};
use crate::http::{Agent, PATIENCE};
use crate::server::{Kind, Server, stamp};

/// Load before the measurement.
const WARM_UP: Duration = Duration::from_millis(500);

/// The measurement: 40,000 deliveries in the smallest case.
const MEASURE: Duration = Duration::from_secs(2);

/// Agents that share the rate, in turn.
const AGENTS: usize = 50;

/// One read of a dashboard takes at most this; at these rates it is a few messages.
const SCRATCH_BYTES: usize = 64 * 1_024;

/// Idle dashboards between which memory is measured.
const FEW: usize = 200;
const MANY: usize = 1_000;

/// Updates that a dashboard has had before it counts as idle: as in life, buffers have been used.
const UPDATES_BEFORE_IDLE: u64 = 10;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// The server's CPU time for each delivered update, in µs.
    pub(crate) cpu_us: f64,
    /// Updates that dashboards got in a second.
    pub(crate) per_second: f64,
    /// Of the updates due, the share that came (a server may merge or drop under overload).
    pub(crate) share: f64,
    /// From just before the heartbeat is sent to when a dashboard has the update: half of the
    /// updates came within this, in ms.
    pub(crate) p50_ms: f64,
    /// 99% came within this, in ms.
    pub(crate) p99_ms: f64,
}

/// Measures `kind`, freshly started.
pub(crate) fn measure(
    kind: Kind,
    dashboards: usize,
    per_second: u32,
    update: &[u8],
    clock: Clock,
) -> Result<Outcome> {
    let server = Server::start(kind)?;
    let mut load = Load::new(AGENTS, clock)?;
    load.add_dashboards(kind, &server, dashboards)?;
    load.connect_agents(kind, &server, update)?;
    let every = Duration::from_secs(1) / per_second;
    load.run(clock.now() + WARM_UP, every)?;
    load.delays.clear();

    let before = load.tally.updates;
    let (cpu, start) = (server.cpu()?, clock.now());
    load.run(start + MEASURE, every)?;
    let (cpu, took) = (server.cpu()?.saturating_sub(cpu), clock.now() - start);
    let updates = load.tally.updates - before;

    let due = load.sent * dashboards as u64;
    load.settle(due)?;
    let mut delays = std::mem::take(&mut load.delays);
    delays.sort_unstable();
    Ok(Outcome {
        cpu_us: cpu.as_secs_f64() * 1e6 / updates as f64,
        per_second: updates as f64 / took.as_secs_f64(),
        share: load.tally.updates as f64 / due as f64,
        p50_ms: percentile_ms(&delays, 50),
        p99_ms: percentile_ms(&delays, 99),
    })
}

/// Memory that an idle dashboard costs the server, in bytes.
pub(crate) fn memory_each(kind: Kind, update: &[u8], clock: Clock) -> Result<f64> {
    let server = Server::start(kind)?;
    let mut load = Load::new(1, clock)?;
    let mut resident = [0.0; 2];
    for (total, resident) in [FEW, MANY].into_iter().zip(&mut resident) {
        load.add_dashboards(kind, &server, total)?;
        load.connect_agents(kind, &server, update)?;
        for _ in 0..UPDATES_BEFORE_IDLE {
            let due = load.tally.updates + total as u64;
            load.send()?;
            load.settle(due)?;
        }
        if load.tally.updates == 0 {
            return Err("no dashboard got an update".into());
        }
        *resident = server.resident_bytes()? as f64;
    }
    Ok((resident[1] - resident[0]) / (MANY - FEW) as f64)
}

/// An update as our server sends it in answer to the heartbeat of this bench. What nchan is
/// given to deliver is this very text, so that both deliver messages of one size.
pub(crate) fn our_update(clock: Clock) -> Result<Vec<u8>> {
    let kind = Kind::AgentMetrics;
    let server = Server::start(kind)?;
    let mut load = Load::new(1, clock)?;
    load.tally.keep_newest = true;
    load.add_dashboards(kind, &server, 1)?;
    load.connect_agents(kind, &server, &[])?;
    // Several, because the first has no rhythm in it yet.
    for due in 1..=UPDATES_BEFORE_IDLE {
        load.send()?;
        load.settle(due)?;
    }
    load.tally.newest.ok_or_else(|| "no update came from our server".into())
}

/// `sorted` in nanoseconds.
fn percentile_ms(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&nanos| nanos as f64 / 1e6)
}

/// Agents, dashboards and what wakes us for them. Tokens: agents first, then dashboards.
struct Load {
    poll: Poll,
    events: Events,
    agents: Vec<Agent>,
    agents_planned: usize,
    dashboards: Vec<Dashboard>,
    tally: Tally,
    /// Heartbeats sent so far; the next agent in turn follows from it.
    sent: u64,
    /// From sent to received, in nanoseconds, one for each read of a dashboard.
    delays: Vec<u64>,
    scratch: Vec<u8>,
    clock: Clock,
}

impl Load {
    fn new(agents_planned: usize, clock: Clock) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            agents: Vec::new(),
            agents_planned,
            dashboards: Vec::new(),
            tally: Tally::default(),
            sent: 0,
            delays: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            clock,
        })
    }

    /// Connects the agents that are not there yet. After the dashboards: an agent that connects
    /// and says nothing for seconds is rightly cut off.
    fn connect_agents(&mut self, kind: Kind, server: &Server, update: &[u8]) -> Result<()> {
        while self.agents.len() < self.agents_planned {
            let number = self.agents.len();
            let post = kind.trigger(number, update);
            let registry = self.poll.registry();
            self.agents.push(Agent::connect(server.address, registry, Token(number), post)?);
        }
        Ok(())
    }

    /// Adds dashboards until there are `total`, and waits until each has its first message if
    /// this server sends one.
    fn add_dashboards(&mut self, kind: Kind, server: &Server, total: usize) -> Result<()> {
        let mut due = self.tally.messages;
        while self.dashboards.len() < total {
            let token = Token(self.agents_planned + self.dashboards.len());
            let registry = self.poll.registry();
            let path = kind.feed_path();
            let dashboard =
                Dashboard::connect(server.address, path, registry, token, &mut self.tally)?;
            self.dashboards.push(dashboard);
            due += u64::from(kind.greets());
        }
        while self.tally.messages < due {
            if !self.turn(PATIENCE)? {
                return Err("a dashboard got no first message".into());
            }
        }
        Ok(())
    }

    /// Sends a heartbeat each `every` until `end`, and takes what the dashboards get.
    fn run(&mut self, end: Instant, every: Duration) -> Result<()> {
        let mut next = self.clock.now();
        loop {
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            // An agent whose answer is late holds up the ones after it; they follow at once.
            if now >= next && self.send()? {
                next += every;
                continue;
            }
            let until = if next > now { next.min(end) } else { end };
            self.turn(until - now)?;
        }
    }

    /// Sends one heartbeat; false when the agent in turn still waits for its last answer.
    fn send(&mut self) -> Result<bool> {
        let turn = usize::try_from(self.sent)? % self.agents.len();
        if self.agents[turn].waiting {
            return Ok(false);
        }
        self.agents[turn].send(stamp(self.clock))?;
        self.sent += 1;
        Ok(true)
    }

    /// Takes what still comes, until `due` updates were received or nothing came for a while.
    fn settle(&mut self, due: u64) -> Result<()> {
        const QUIET: Duration = Duration::from_secs(1);
        while self.tally.updates < due || self.agents.iter().any(|agent| agent.waiting) {
            if !self.turn(QUIET)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for at most `timeout` and serves who is ready; whether anyone was.
    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        self.poll.poll(&mut self.events, Some(timeout))?;
        for event in &self.events {
            let Token(token) = event.token();
            if token < self.agents_planned {
                self.agents[token].receive(&mut self.scratch)?;
                continue;
            }
            self.tally.stamp = None;
            let dashboard = &mut self.dashboards[token - self.agents_planned];
            dashboard.receive(&mut self.scratch, &mut self.tally)?;
            if let Some(sent) = self.tally.stamp {
                self.delays.push(stamp(self.clock).saturating_sub(sent));
            }
        }
        Ok(!self.events.is_empty())
    }
}
