//! One measurement: agents that send heartbeats, paced or in a closed loop, dashboards that get
//! the updates, and what the server spent meanwhile. One thread generates the whole load.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use agent_metrics::Clock;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::Result;
use crate::dashboard::{Dashboard, Tally};
use crate::http::{Agent, PATIENCE, Post};
use crate::server::{Kind, Server, heartbeat_body, stamp};

/// Load before the measurement, at least: caches are warm then, and buffers grown.
const WARM_UP: Duration = Duration::from_millis(500);

/// One read takes at most this; at these rates it is a few messages.
const SCRATCH_BYTES: usize = 64 * 1_024;

/// Connections whose number tells memory: it is the slope between the two.
const FEW: usize = 200;
const MANY: usize = 1_000;

/// Updates that a dashboard got before it counts as idle: its buffers have been used, as in life.
const UPDATES_BEFORE_IDLE: u64 = 10;

/// The token of the timer; agents and dashboards have the small ones.
const TIMER: Token = Token(usize::MAX);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject {
    /// CPU time of an operation under a load.
    Cpu(Load),
    /// Memory of an idle dashboard.
    DashboardMemory,
    /// Memory of an agent's idle connection that has sent a heartbeat.
    AgentMemory,
}

/// Heartbeats, and dashboards that get every one. An operation is a delivery to a dashboard or,
/// where there are none, a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) dashboards: usize,
    /// Connections that send heartbeats, each one at a time.
    pub(crate) connections: usize,
    /// Heartbeats a second, each sent when it is due and a connection is idle, whether or not
    /// earlier ones were answered. None: a closed loop, where an answer triggers the next.
    pub(crate) per_second: Option<u32>,
    /// Whether each heartbeat has a connection of its own.
    pub(crate) connection_each: bool,
    /// Tasks in a heartbeat.
    pub(crate) tasks: usize,
}

impl Load {
    /// So many ordinary heartbeats a second over 50 connections, nobody watching.
    pub(crate) fn paced(per_second: u32) -> Self {
        let per_second = Some(per_second);
        Self { dashboards: 0, connections: 50, per_second, connection_each: false, tasks: 2 }
    }

    /// Agent ids, used in rotation over all connections: so many that each sends 3 a second, below
    /// the flood limit of 4. A closed loop has enough for 80,000 a second, or 20,000 with one
    /// connection.
    fn agent_ids(self) -> u64 {
        let closed = (self.connections as u64 * 5_000).min(20_000);
        self.per_second.map_or(closed, |rate| u64::from(rate).div_ceil(3))
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// CPU time of all threads and workers, user and system, for each operation, in µs; or memory,
    /// in KiB, and then the rest is not a number.
    pub(crate) cost: f64,
    /// Heartbeats answered in a second.
    pub(crate) heartbeats_per_second: f64,
    /// Operations in a second.
    pub(crate) per_second: f64,
    /// From the moment when a heartbeat was due to its answer or, where there are dashboards, to
    /// the delivery: half of them took at most this, in ms. Time in which the load generator was
    /// late counts.
    pub(crate) p50_ms: f64,
    /// 99% took at most this, in ms.
    pub(crate) p99_ms: f64,
}

/// Measures `kind`, freshly started; CPU time for `time`.
pub(crate) fn measure(
    kind: &Kind,
    subject: Subject,
    update: &[u8],
    time: Duration,
    clock: Clock,
) -> Result<Outcome> {
    let server = Server::start(kind)?;
    let start = |plan: Load, delivered: bool| {
        let body = heartbeat_body(plan.tasks);
        let body = if delivered && !kind.is_ours() { update } else { &body };
        Generator::new(&server, plan, body, clock)
    };
    match subject {
        Subject::Cpu(load) => cpu_each(start(load, load.dashboards > 0)?, kind, time),
        Subject::DashboardMemory => memory_each(start(Load::paced(1), true)?, kind, true),
        Subject::AgentMemory => memory_each(start(Load::paced(300), false)?, kind, false),
    }
}

fn cpu_each(mut load: Generator<'_>, kind: &Kind, time: Duration) -> Result<Outcome> {
    load.add_dashboards(load.plan.dashboards, kind)?;
    load.add_agents(load.plan.connections)?;
    load.send_and_settle()?;
    // Each id is known before the measurement begins.
    let end = load.clock.now() + PATIENCE;
    while load.sent < load.agent_ids && load.clock.now() < end {
        load.run(WARM_UP)?;
    }
    load.delays_ns.clear();

    let (answered, before) = (load.answered, load.operations());
    let (cpu, start) = (load.server.cpu()?, load.clock.now());
    load.run(time)?;
    let (cpu, took) = (load.server.cpu()?.saturating_sub(cpu), load.clock.now() - start);
    let (answered, operations) = (load.answered - answered, load.operations() - before);
    if operations == 0 {
        return Err("no heartbeat was answered, or none delivered".into());
    }

    load.delays_ns.sort_unstable();
    Ok(Outcome {
        cost: cpu.as_secs_f64() * 1e6 / operations as f64,
        heartbeats_per_second: answered as f64 / took.as_secs_f64(),
        per_second: operations as f64 / took.as_secs_f64(),
        p50_ms: percentile_ms(&load.delays_ns, 50),
        p99_ms: percentile_ms(&load.delays_ns, 99),
    })
}

fn memory_each(mut load: Generator<'_>, kind: &Kind, dashboards: bool) -> Result<Outcome> {
    let mut resident = [0.0; 2];
    for (total, resident) in [FEW, MANY].into_iter().zip(&mut resident) {
        if dashboards {
            load.add_dashboards(total, kind)?;
            load.add_agents(1)?;
            for _ in 0..UPDATES_BEFORE_IDLE {
                load.send_and_settle()?;
            }
        } else {
            while load.agents.len() < total {
                load.add_agents(load.agents.len() + 1)?;
                // The new connection sends. By 200 connections all agents are known.
                load.idle.rotate_right(1);
                load.send_and_settle()?;
            }
        }
        *resident = load.server.resident_bytes()? as f64;
    }
    let cost = (resident[1] - resident[0]) / (MANY - FEW) as f64 / 1_024.0;
    let (heartbeats_per_second, per_second) = (f64::NAN, f64::NAN);
    Ok(Outcome { cost, heartbeats_per_second, per_second, p50_ms: f64::NAN, p99_ms: f64::NAN })
}

/// An update as our server sends it in answer to the heartbeat of this bench. nchan is given this
/// text to deliver, so that both deliver messages of one size.
pub(crate) fn our_update(kind: &Kind, clock: Clock) -> Result<Vec<u8>> {
    let server = Server::start(kind)?;
    let mut load = Generator::new(&server, Load::paced(1), &heartbeat_body(2), clock)?;
    load.add_dashboards(1, kind)?;
    load.add_agents(1)?;
    load.tally.keep_newest = true;
    // Several, because the first has no rhythm in it yet.
    for _ in 0..UPDATES_BEFORE_IDLE {
        load.send_and_settle()?;
    }
    load.tally.newest.ok_or_else(|| "no update came from our server".into())
}

/// `sorted` in nanoseconds.
fn percentile_ms(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&nanos| nanos as f64 / 1e6)
}

/// Agents, dashboards and what wakes us for them. Tokens: agents from 0, dashboards from
/// [`Generator::FIRST_DASHBOARD`].
struct Generator<'server> {
    server: &'server Server,
    poll: Poll,
    events: Events,
    /// Wakes us when a heartbeat is due: epoll rounds a time-out up to a whole millisecond.
    timer: OwnedFd,
    plan: Load,
    post: Post,
    agent_ids: u64,
    agents: Vec<Agent>,
    /// Agents' connections that wait for no answer, the longest idle first.
    idle: VecDeque<usize>,
    dashboards: Vec<Dashboard>,
    tally: Tally,
    sent: u64,
    answered: u64,
    delays_ns: Vec<u64>,
    scratch: Vec<u8>,
    clock: Clock,
}

/// When a run began, and how many heartbeats it sent.
struct Run {
    start: Instant,
    sent: u64,
}

impl<'server> Generator<'server> {
    const FIRST_DASHBOARD: usize = 10_000;

    fn new(server: &'server Server, plan: Load, body: &[u8], clock: Clock) -> Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Self {
            server,
            poll,
            events: Events::with_capacity(1_024),
            timer,
            plan,
            post: Post::new(body),
            agent_ids: plan.agent_ids(),
            agents: Vec::new(),
            idle: VecDeque::new(),
            dashboards: Vec::new(),
            tally: Tally::default(),
            sent: 0,
            answered: 0,
            delays_ns: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            clock,
        })
    }

    /// Adds agents' connections until there are `total`. After the dashboards: an agent that
    /// connects and says nothing for seconds is rightly cut off.
    fn add_agents(&mut self, total: usize) -> Result<()> {
        for number in self.agents.len()..total {
            self.agents.push(self.connect(number)?);
            self.idle.push_back(number);
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> Result<Agent> {
        Agent::connect(self.server.address, self.poll.registry(), Token(number))
    }

    /// Adds dashboards until there are `total`, and waits until each has its first message if
    /// this server sends one.
    fn add_dashboards(&mut self, total: usize, kind: &Kind) -> Result<()> {
        let mut due = self.tally.messages;
        while self.dashboards.len() < total {
            let token = Token(Self::FIRST_DASHBOARD + self.dashboards.len());
            let registry = self.poll.registry();
            let dashboard =
                Dashboard::connect(self.server.address, registry, token, &mut self.tally)?;
            self.dashboards.push(dashboard);
            due += u64::from(kind.is_ours());
        }
        while self.tally.messages < due {
            if !self.turn(PATIENCE, None)? {
                return Err("a dashboard got no first message".into());
            }
        }
        Ok(())
    }

    /// What is counted: heartbeats answered, or updates delivered.
    fn operations(&self) -> u64 {
        if self.plan.dashboards == 0 { self.answered } else { self.tally.updates }
    }

    /// Sends heartbeats for `time`, and takes what comes back.
    fn run(&mut self, time: Duration) -> Result<()> {
        let mut run = Run { start: self.clock.now(), sent: 0 };
        // Set after the start was read, so that it never fires just before a heartbeat is due.
        self.set_timer()?;
        let end = run.start + time;
        loop {
            self.send_due(&mut run)?;
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            self.turn(end - now, Some(&mut run))?;
        }
    }

    fn set_timer(&self) -> Result<()> {
        let Some(rate) = self.plan.per_second else { return Ok(()) };
        let every = Timespec::try_from(Duration::from_secs(1) / rate)?;
        let timer = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }

    /// Sends the heartbeats that are due by now, as far as connections are idle.
    fn send_due(&mut self, run: &mut Run) -> Result<()> {
        while !self.idle.is_empty() {
            let now = self.clock.now();
            let due = match self.plan.per_second {
                Some(rate) => run.start + Duration::from_secs(1) / rate * u32::try_from(run.sent)?,
                None => now,
            };
            if due > now {
                break;
            }
            self.send(due)?;
            run.sent += 1;
        }
        Ok(())
    }

    /// Sends the next agent's heartbeat, which was due at `due`, on an idle connection.
    fn send(&mut self, due: Instant) -> Result<()> {
        let connection = self.idle.pop_front().ok_or("no connection is idle")?;
        if self.plan.connection_each {
            self.agents[connection] = self.connect(connection)?;
        }
        let stamp = stamp(self.clock, due);
        let bytes = self.post.bytes(self.sent % self.agent_ids, stamp)?;
        self.agents[connection].send(bytes, stamp)?;
        self.sent += 1;
        Ok(())
    }

    /// Sends one heartbeat, waits for its answer, and until every dashboard has it or no more come
    /// (nchan loses one now and then).
    fn send_and_settle(&mut self) -> Result<()> {
        const QUIET: Duration = Duration::from_secs(1);
        let answered = self.answered + 1;
        let updates = self.tally.updates + self.dashboards.len() as u64;
        self.send(self.clock.now())?;
        while self.answered < answered {
            if !self.turn(PATIENCE, None)? {
                return Err("the server does not answer".into());
            }
        }
        while self.tally.updates < updates && self.turn(QUIET, None)? {}
        Ok(())
    }

    /// Waits for at most `timeout` and serves who is ready; whether anyone was. With `run`, sends
    /// what became due meanwhile.
    fn turn(&mut self, timeout: Duration, mut run: Option<&mut Run>) -> Result<bool> {
        self.poll.poll(&mut self.events, Some(timeout))?;
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for &token in &ready {
            if Token(token) == TIMER {
                // The kernel starts the next interval when the last was read.
                rustix::io::read(&self.timer, &mut [0; size_of::<u64>()])?;
            } else if let Some(number) = token.checked_sub(Self::FIRST_DASHBOARD) {
                self.receive_updates(number)?;
            } else if let Some(sent) = self.agents[token].receive(&mut self.scratch)? {
                self.answered += 1;
                self.idle.push_back(token);
                if self.plan.dashboards == 0 {
                    self.delays_ns.push(stamp(self.clock, self.clock.now()).saturating_sub(sent));
                }
            }
            if let Some(run) = &mut run {
                self.send_due(run)?;
            }
        }
        Ok(!ready.is_empty())
    }

    fn receive_updates(&mut self, number: usize) -> Result<()> {
        self.dashboards[number].receive(&mut self.scratch, &mut self.tally)?;
        let now = stamp(self.clock, self.clock.now());
        let stamps = self.tally.stamps.drain(..);
        self.delays_ns.extend(stamps.map(|sent| now.saturating_sub(sent)));
        Ok(())
    }
}
