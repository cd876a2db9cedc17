//! Processes: collects their output and kills them when the test ends. Also the command lines of
//! `agent-metrics agent` and `agent-metrics task`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::server::{BINARY, without_our_variables};
use super::setup::Key;
use super::wait::{DEADLINE, eventually};

/// A running process; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Log,
    pub(crate) stderr: Log,
}

impl Process {
    /// Starts it, with a pipe to each of its three standard streams.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts it with the streams that `command` has; collects those that are pipes.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(Log::collecting).unwrap_or_default();
        let stderr = child.stderr.take().map(Log::collecting).unwrap_or_default();
        Self { child, stdin, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        self.stdin.as_ref().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended and all of its output has been read.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.wait_alone();
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        status
    }

    /// Waits until it has ended; another process may keep its output open.
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

/// `agent-metrics` with a subcommand and without the variables that configure it.
pub(crate) fn binary(subcommand: &str) -> Command {
    let mut command = Command::new(BINARY);
    without_our_variables(&mut command);
    command.arg(subcommand);
    command
}

/// An agent that reads its tasks in `tasks`.
pub(crate) fn agent(addr: SocketAddr, key: Key, id: &str, tasks: &Path) -> Command {
    let mut command = binary("agent");
    command
        .args(["--server", &format!("http://{addr}"), "--app-key", key.key, "--id", id])
        .arg("--tasks-dir")
        .arg(tasks)
        .env("AGENT_METRICS_APP_SECRET", key.secret);
    command
}

/// Runs `command` as a task of type `plan` with its file in `tasks`.
pub(crate) fn task(tasks: &Path, command: &[&str]) -> Command {
    let mut wrapper = binary("task");
    wrapper.args(["--type", "plan", "--workspace", "ws-1", "--tasks-dir"]).arg(tasks);
    wrapper.arg("--").args(command);
    wrapper
}

/// The lines that a process has written to one of its streams so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    pub(crate) fn text(&self) -> String {
        // A wait that failed has poisoned it, and then the text is of interest.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// Waits until the stream has ended.
    pub(crate) fn wait_for_end(&self) {
        let (lines, changed) = &*self.0;
        let (guard, timeout) = changed
            .wait_timeout_while(lines.lock().unwrap(), DEADLINE, |lines| !lines.ended)
            .unwrap();
        drop(guard);
        assert!(!timeout.timed_out(), "the stream has not ended");
    }

    /// Waits for a line that contains `text`, and returns it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let (lines, changed) = &*self.0;
        let find = |lines: &Lines| lines.lines.iter().find(|line| line.contains(text)).cloned();
        let missing = |lines: &mut Lines| !lines.ended && find(lines).is_none();
        let lines = lines.lock().unwrap();
        let (lines, _) = changed.wait_timeout_while(lines, DEADLINE, missing).unwrap();
        find(&lines).unwrap_or_else(|| {
            let (ended, all) = (lines.ended, lines.lines.join("\n"));
            panic!("no line with {text:?} (the stream ended: {ended}) in:\n{all}")
        })
    }

    /// Collects on a thread of its own, until the pipe ends.
    pub(crate) fn collecting(pipe: impl std::io::Read + Send + 'static) -> Self {
        let log = Self::default();
        let shared = Arc::clone(&log.0);
        let read = move || {
            let (lines, changed) = &*shared;
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.lock().unwrap().lines.push(text);
                changed.notify_all();
                line.clear();
            }
            lines.lock().unwrap().ended = true;
            changed.notify_all();
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(read).unwrap();
        log
    }
}
