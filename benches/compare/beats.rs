//! Heartbeats from agents on kept-alive connections: as many as the server takes, each agent
//! sending its next when it has the answer to its last. One thread does it all.

use std::time::{Duration, Instant};

use agent_metrics::Clock;
use mio::{Events, Poll, Token};

use crate::Result;
use crate::http::{Agent, PATIENCE};
use crate::server::{Kind, Server, stamp};

/// Load before the measurement, until caches are warm and buffers grown.
const WARM_UP: Duration = Duration::from_millis(400);

/// The measurement: at 50,000 a second long enough for 1% of noise.
const MEASURE: Duration = Duration::from_millis(1_500);

/// Larger than any answer.
const SCRATCH_BYTES: usize = 16 * 1_024;

/// Idle connections between which memory is measured.
const FEW: usize = 200;
const MANY: usize = 1_000;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// The server's CPU time for each heartbeat, in µs.
    pub(crate) cpu_us: f64,
    /// Heartbeats answered in a second.
    pub(crate) per_second: f64,
}

/// Measures `kind`, freshly started, under `connections` agents.
pub(crate) fn measure(kind: Kind, connections: usize, clock: Clock) -> Result<Outcome> {
    let server = Server::start(kind)?;
    let mut load = Load::connect(kind, &server, connections, clock)?;
    load.run(clock.now() + WARM_UP)?;
    let (cpu, start) = (server.cpu()?, clock.now());
    let answered = load.run(start + MEASURE)?;
    let (cpu, took) = (server.cpu()?.saturating_sub(cpu), clock.now() - start);
    Ok(Outcome {
        cpu_us: cpu.as_secs_f64() * 1e6 / answered as f64,
        per_second: answered as f64 / took.as_secs_f64(),
    })
}

/// Memory that an idle agent's connection costs the server, in bytes. Each has sent one
/// heartbeat, all in the same agent's name, so that connections are counted and not agents.
pub(crate) fn memory_each(kind: Kind, clock: Clock) -> Result<f64> {
    let server = Server::start(kind)?;
    let mut load = Load::connect(kind, &server, 0, clock)?;
    load.add_idle(kind, &server, FEW)?;
    let few = server.resident_bytes()?;
    load.add_idle(kind, &server, MANY)?;
    let many = server.resident_bytes()?;
    Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
}

/// The agents and what wakes us for them.
struct Load {
    poll: Poll,
    events: Events,
    agents: Vec<Agent>,
    scratch: Vec<u8>,
    clock: Clock,
}

impl Load {
    fn connect(kind: Kind, server: &Server, connections: usize, clock: Clock) -> Result<Self> {
        let poll = Poll::new()?;
        let agents = (0..connections)
            .map(|number| {
                let post = kind.heartbeat(number);
                Agent::connect(server.address, poll.registry(), Token(number), post)
            })
            .collect::<Result<_>>()?;
        let (events, scratch) = (Events::with_capacity(256), vec![0; SCRATCH_BYTES]);
        Ok(Self { poll, events, agents, scratch, clock })
    }

    /// Keeps every agent busy until `end`; how many heartbeats were answered.
    fn run(&mut self, end: Instant) -> Result<u64> {
        for agent in self.agents.iter_mut().filter(|agent| !agent.waiting) {
            agent.send(stamp(self.clock))?;
        }
        let mut answered = 0;
        while self.clock.now() < end {
            for token in self.wait()? {
                let agent = &mut self.agents[token];
                if agent.receive(&mut self.scratch)? {
                    answered += 1;
                    agent.send(stamp(self.clock))?;
                }
            }
        }
        Ok(answered)
    }

    /// Adds agents, one after the other and each with one heartbeat, until there are `total`.
    fn add_idle(&mut self, kind: Kind, server: &Server, total: usize) -> Result<()> {
        while self.agents.len() < total {
            let number = self.agents.len();
            let registry = self.poll.registry();
            let post = kind.heartbeat(0);
            let mut agent = Agent::connect(server.address, registry, Token(number), post)?;
            agent.send(stamp(self.clock))?;
            self.agents.push(agent);
            while self.agents[number].waiting {
                for token in self.wait()? {
                    self.agents[token].receive(&mut self.scratch)?;
                }
            }
        }
        Ok(())
    }

    /// Who has something to read; an error when that is nobody for [`PATIENCE`].
    fn wait(&mut self) -> Result<Vec<usize>> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() {
            return Err("the server stopped answering heartbeats".into());
        }
        Ok(self.events.iter().map(|event| event.token().0).collect())
    }
}
