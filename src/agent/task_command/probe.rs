//! Tells whether a signal was sent to the whole process group. The process that receives a signal
//! cannot know that: siginfo names the sender, not the addressee. So a second process in the same
//! group records its signals, and answers whether it has received one, too.
//!
//! It runs this program with a hidden subcommand and holds nothing but one end of a socket pair: it
//! ends when the other end is closed, even if its parent was killed. Its name differs from the
//! program's, so that `pkill agent-metrics` selects only its parent. What selects by executable,
//! such as pidof(1) with a path, selects both: a signal to each of them looks like one to the
//! group.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::getegid;
use signal_hook::iterator::Signals;

use super::forward::FORWARDED;

pub(crate) const SUBCOMMAND: &str = "signal-probe";

/// Far longer than an answer takes on a busy machine; a signal is delayed by this if somebody has
/// stopped the probe alone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The probe's own process: records signals, and answers questions on standard input, a socket,
/// until it is closed.
pub(crate) fn serve() -> io::Result<()> {
    let mut signals = Signals::new(FORWARDED)?;
    let mut received = BTreeSet::new();
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut question = [0];
    while line.read_exact(&mut question).is_ok() {
        received.extend(signals.pending());
        let was_received = received.remove(&i32::from(question[0]));
        line.write_all(&[u8::from(was_received)])?;
    }
    Ok(())
}

/// Dropping it ends the process.
pub(super) struct Probe {
    process: Child,
    line: UnixStream,
}

impl Probe {
    pub(super) fn start() -> io::Result<Self> {
        let (line, probes_end) = UnixStream::pair()?;
        line.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // This very program, even if its file has been replaced.
        let process = Command::new("/proc/self/exe")
            .arg0("task-signal-probe")
            .arg(SUBCOMMAND)
            // Unchanged, but it makes std use fork instead of vfork: if Ctrl-Z stopped a vfork
            // child before its exec, it would block us, and the shell that waits for us.
            .gid(getegid().as_raw())
            .stdin(Stdio::from(OwnedFd::from(probes_end)))
            // Must not keep the command's output open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, line })
    }

    /// Whether it has received `signal` since the last question about it.
    pub(super) fn has_received(&mut self, signal: i32) -> io::Result<bool> {
        let question = u8::try_from(signal).map_err(io::Error::other)?;
        let mut answer = [0];
        self.line.write_all(&[question])?;
        self.line.read_exact(&mut answer)?;
        Ok(answer == [1])
    }

    /// Kills it if it still runs, and returns the signal that ended it.
    pub(super) fn stop(&mut self) -> Option<i32> {
        let _ = self.process.kill();
        self.process.wait().ok()?.signal()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop();
    }
}
