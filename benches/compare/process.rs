//! A child process that is up when we have it and gone when we drop it. Knows nothing of what
//! runs in it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Result, resources};

/// How long a server may take to be up.
const START: Duration = Duration::from_secs(10);

/// How long it may take to go after SIGTERM.
const STOP: Duration = Duration::from_secs(5);

/// Lines that the pump may be ahead of who reads them; later ones are dropped.
const LINES: usize = 256;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `program` and waits until a line of its stderr satisfies `ready`.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not up within [`START`]; with its last words.
    pub(crate) fn start<T>(
        program: &str,
        arguments: &[String],
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> Result<(Self, T)> {
        // setpriv asks the kernel to end the child when the bench dies, however that happens.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start setpriv (package util-linux): {error}"))?;
        let (to_us, lines) = sync_channel(LINES);
        let stderr = child.stderr.take();
        let process = Self { child, lines };
        let pump = thread::Builder::new().name("stderr".to_owned());
        pump.spawn(move || pump_lines(stderr, &to_us))?;

        let mut said = Vec::new();
        while let Ok(line) = process.lines.recv_timeout(START) {
            if let Some(found) = ready(&line) {
                return Ok((process, found));
            }
            said.push(line);
        }
        Err(format!("{program} did not start; it said:\n{}", said.join("\n")).into())
    }

    /// The process and its children.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        resources::family(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: a master that is killed outright leaves its workers behind.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        // The end of stderr is the end of the process and of its workers.
        while self.lines.recv_timeout(STOP).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes lines on, and goes on reading when nobody takes them: a full pipe would stop the child.
fn pump_lines(stderr: Option<ChildStderr>, lines: &SyncSender<String>) {
    let Some(stderr) = stderr else { return };
    for line in BufReader::new(stderr).split(b'\n').map_while(std::result::Result::ok) {
        let _ = lines.try_send(String::from_utf8_lossy(&line).into_owned());
    }
}
