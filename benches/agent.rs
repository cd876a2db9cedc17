//! What the agent costs the machine that it runs on, at its usual interval: memory, and CPU time
//! as the kernel counts it for each thread (schedstat, in nanoseconds), as a table. Measures only.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on stops")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[expect(dead_code, unused_imports, unused_macros, reason = "the tests need more of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::process::resident_kib;
use crate::support::server::{BINARY, without_our_variables};
use crate::support::wait::pause;
use crate::support::{Server, Setup, eventually, setup, status::Status};

/// Tasks in the agent's directory.
const TASKS: [usize; 3] = [0, 10, 100];
/// Two intervals of 30 s, so two heartbeats.
const TIME: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --all-targets` starts benches too, without this flag: nothing to do there.
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
            resident_kib(agent.child.id()) as f64 / 1024.0,
            spent * 1e3,
            spent / TIME.as_secs_f64() * 100.0,
        );
    }
}

/// An agent with the usual interval, ended when dropped.
struct Agent {
    child: Child,
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
        let mut command = Command::new(BINARY);
        without_our_variables(&mut command);
        command
            .args(["agent", "--server", &format!("http://{}", server.addr())])
            .args(["--app-key", setup::KEY_A.key, "--id", &format!("agent-{tasks}")])
            .arg("--tasks-dir")
            .arg(dir.path())
            .env("AGENT_METRICS_APP_SECRET", setup::KEY_A.secret)
            .stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), _dir: dir }
    }

    fn cpu_seconds(&self) -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = threads.map(|thread| {
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanos.sum::<f64>() / 1e9
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
