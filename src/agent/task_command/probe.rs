//! Tells whether a signal was sent to the whole process group. A process cannot tell that of a
//! signal that it got: siginfo names the sender, not whom it meant. So a second process of the
//! same group takes note of its signals, and says when asked whether it got one, too.
//!
//! It is this program again, with a hidden subcommand, and holds nothing but one end of a socket:
//! when the other end is closed, however its maker ended, it ends. Its name is not the program's,
//! so that `pkill agent-metrics` means the wrapper alone. What goes by the executable (pidof(1) with
//! a path) finds both: a signal to each of them looks like one to the group.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::getegid;

use super::forward::FORWARDED;

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "signal-probe";

/// How long an answer may take: far more than a busy machine needs, and what a signal waits for
/// if someone has stopped the probe alone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes note of signals, and answers on standard input, a socket, until that is closed.
///
/// # Errors
/// Where the handlers cannot be set up, or standard input is no socket.
pub(crate) fn serve() -> io::Result<()> {
    let mut flags = Vec::new();
    for signal in FORWARDED {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        flags.push((signal, flag));
    }
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut question = [0];
    loop {
        match line.read_exact(&mut question) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let asked = i32::from(question[0]);
        let flag = flags.iter().find(|(signal, _)| *signal == asked);
        let got = flag.is_some_and(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        line.write_all(&[u8::from(got)])?;
    }
}

/// A probe, as far as there is one. Without one nothing is known.
pub(super) struct Probe(Option<Running>);

impl Probe {
    pub(super) fn start() -> Self {
        Self(Running::start().ok())
    }

    /// Whether `signal` has reached the group since it was asked for last.
    pub(super) fn reached_group(&mut self, signal: i32) -> Option<bool> {
        let answer = self.0.as_mut().map(|running| running.ask(signal));
        if let Some(Ok(answer)) = answer {
            return Some(answer);
        }
        // A probe that did not listen yet has died of what the group got.
        let died_of = self.0.take().and_then(Running::stop);
        *self = Self::start();
        (died_of == Some(signal)).then_some(true)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.take().map(Running::stop);
    }
}

struct Running {
    process: Child,
    line: UnixStream,
}

impl Running {
    fn start() -> io::Result<Self> {
        let (line, its_end) = UnixStream::pair()?;
        line.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // This very program, also when another was installed in its place meanwhile.
        let process = Command::new("/proc/self/exe")
            .arg0("task-signal-probe")
            .arg(SUBCOMMAND)
            // Our own, which has std use fork instead of vfork: a child of vfork that Ctrl-Z stops
            // before its exec would keep us, and the shell that waits for us, until it goes on.
            .gid(getegid().as_raw())
            .stdin(Stdio::from(OwnedFd::from(its_end)))
            // Nobody waits for the end of the command's output because of it.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, line })
    }

    fn ask(&mut self, signal: i32) -> io::Result<bool> {
        let question = u8::try_from(signal).map_err(io::Error::other)?;
        let mut answer = [0];
        self.line.write_all(&[question])?;
        self.line.read_exact(&mut answer)?;
        Ok(answer == [1])
    }

    /// Ends it; the signal that it died of.
    fn stop(mut self) -> Option<i32> {
        let _ = self.process.kill();
        self.process.wait().ok()?.signal()
    }
}
