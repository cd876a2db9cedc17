//! Any other process of a test: its output collected, ended with the test. And `agent-metrics` as
//! an agent and as a task's wrapper.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;
use super::server::{BINARY, Log, without_our_variables};
use super::setup::Key;

/// A running process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its standard output, by line.
    pub(crate) stdout: Log,
    /// Its standard error, by line.
    pub(crate) stderr: Log,
}

impl Process {
    /// Starts it, with a pipe to each of its three standard streams.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = Log::collecting(child.stdout.take().unwrap());
        let stderr = Log::collecting(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, then until all of its output has been read.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.wait_alone();
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        status
    }

    /// Waits for its end, whoever else may hold its output open.
    pub(crate) fn wait_alone(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "its output explains a failure")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stdout ---\n{}", self.stdout.text());
            eprintln!("--- stderr ---\n{}", self.stderr.text());
        }
    }
}

/// `agent-metrics` with this subcommand, and nothing from our own environment.
pub(crate) fn binary(subcommand: &str) -> Command {
    let mut command = Command::new(BINARY);
    without_our_variables(&mut command);
    command.arg(subcommand);
    command
}

/// An agent with tasks in `tasks`, for whatever a test has to add.
pub(crate) fn agent(addr: SocketAddr, key: Key, id: &str, tasks: &Path) -> Command {
    let mut command = binary("agent");
    command
        .args(["--server", &format!("http://{addr}"), "--app-key", key.key, "--id", id])
        .arg("--tasks-dir")
        .arg(tasks)
        .env("AGENT_METRICS_APP_SECRET", key.secret);
    command
}

/// A wrapper that runs `command` as a task of type `plan` with its file in `tasks`.
pub(crate) fn task(tasks: &Path, command: &[&str]) -> Command {
    let mut wrapper = binary("task");
    wrapper.args(["--type", "plan", "--workspace", "ws-1", "--tasks-dir"]).arg(tasks);
    wrapper.arg("--").args(command);
    wrapper
}
