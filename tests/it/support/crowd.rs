//! Many agents that send heartbeats at a steady rate, over a few connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use serde_json::json;

use super::Conn;
use super::wait::{now, pause};

/// Threads, each with a connection and an equal share of the agents.
const SENDERS: usize = 4;

/// `agent-0000` and so on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) agents: usize,
    /// Heartbeats of all agents together.
    pub(crate) per_second: u64,
}

impl Crowd {
    /// First one heartbeat of each agent at once, then in turn until `stop`.
    pub(crate) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        addr: SocketAddr,
        stop: &'scope AtomicBool,
    ) {
        for sender in 0..SENDERS {
            scope.spawn(move || self.send(addr, sender, stop));
        }
    }

    fn send(self, addr: SocketAddr, sender: usize, stop: &AtomicBool) {
        let mut conn = Conn::open(addr);
        let mine: Vec<String> = (sender..self.agents)
            .step_by(SENDERS)
            .map(|index| format!("agent-{index:04}"))
            .collect();
        for (index, agent) in mine.iter().enumerate() {
            beat(&mut conn, agent, index, 0.0);
        }
        if self.per_second == 0 {
            return;
        }
        paced(self.per_second as f64 / SENDERS as f64, stop, |turn| {
            // Below the page's warning level, so that its counts do not change.
            beat(&mut conn, &mine[turn % mine.len()], turn, (turn * 7 % 800) as f64 / 10.0);
        });
    }
}

/// Stops the agents when dropped, also if the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a heartbeat with one task, `number`.
pub(crate) fn beat(conn: &mut Conn, agent: &str, number: usize, load: f64) {
    let body = json!({
        "status": "busy", "cpu_usage": load, "memory_usage": 80.0 - load,
        "running_tasks": [{
            "task_id": number, "task_type": "compile", "workspace_id": "shop",
            "started_at": "2025-01-07T10:30:00Z",
        }],
    });
    assert_eq!(conn.ping(agent, &body).status, 200);
}

/// Calls `action` this often, or as often as possible, until `stop`.
pub(crate) fn paced(per_second: f64, stop: &AtomicBool, mut action: impl FnMut(usize)) {
    let begun = now();
    for turn in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        action(turn as usize);
        let due = Duration::from_secs_f64(f64::from(turn) / per_second);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            pause(early);
        }
    }
}
