//! What the agent costs its machine at the default interval, as a table: memory, and CPU time as
//! the kernel counts it for each thread (schedstat, in nanoseconds).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first error")]
#![expect(clippy::print_stdout, reason = "it prints a table")]

#[expect(dead_code, unused_imports, unused_macros, reason = "the tests use more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::time::Duration;

use tempfile::TempDir;

use crate::support::child::agent;
use crate::support::process::resident_kib;
use crate::support::wait::pause;
use crate::support::{Process, Server, Setup, eventually, setup, status::Status};

/// Tasks in the agent's directory.
const TASKS: [usize; 3] = [0, 10, 100];
/// Two intervals of 30 s, so two heartbeats.
const TIME: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --all-targets` starts benches without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = Server::start(&Setup::open().toml());
    let agents: Vec<Agent> = TASKS.iter().map(|&tasks| Agent::start(&server, tasks)).collect();
    eventually("all agents have reported", || {
        (Status::read(server.addr()).counter("heartbeats") >= TASKS.len() as u64).then_some(())
    });
    let before: Vec<f64> = agents.iter().map(Agent::cpu_seconds).collect();
    pause(TIME);
    println!("| tasks | resident | CPU in {} s | of a core |", TIME.as_secs());
    println!("|---|---|---|---|");
    for ((agent, tasks), before) in agents.iter().zip(TASKS).zip(before) {
        let spent = agent.cpu_seconds() - before;
        println!(
            "| {tasks} | {:.1} MiB | {:.1} ms | {:.3} % |",
            resident_kib(agent.process.pid()) as f64 / 1024.0,
            spent * 1e3,
            spent / TIME.as_secs_f64() * 100.0,
        );
    }
}

/// An agent with the default interval; dropping it kills it.
struct Agent {
    process: Process,
    _dir: TempDir,
}

impl Agent {
    fn start(server: &Server, tasks: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for id in 0..tasks {
            let task = format!(
                r#"{{"task_id":{id},"task_type":"plan","workspace_id":"ws-{id}","started_at":"2025-01-07T10:30:00Z"}}"#
            );
            std::fs::write(dir.path().join(format!("{id}.json")), task).unwrap();
        }
        let mut command = agent(server.addr(), setup::KEY_A, &format!("agent-{tasks}"), dir.path());
        Self { process: Process::start(&mut command), _dir: dir }
    }

    fn cpu_seconds(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.pid())).unwrap();
        let nanos = threads.map(|thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanos.sum::<f64>() / 1e9
    }
}
