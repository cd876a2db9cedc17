//! SIGHUP, SIGINT and SIGTERM as messages on a channel. The first asks the process to stop in order; a
//! second SIGINT or SIGTERM exits at once. Owns the thread `signals`.
//!
//! SIGHUP is never the second: a terminal that closes may send two, and systemd may send it beside
//! SIGTERM. Where it is ignored at the start (nohup), it stays ignored.
//!
//! SIGPIPE stays ignored, as Rust's runtime leaves it: writing to a broken pipe is an error.

use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Deliveries};
use signal_hook::low_level::signal_name;

use crate::runtime::threads::STACK_BYTES;

/// A request to stop: SIGHUP (the terminal is gone), SIGINT (from a terminal, Ctrl-C) or SIGTERM (from a
/// service manager).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub i32);

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(signal_name(self.0).unwrap_or("an unknown signal"))
    }
}

/// The signal handlers and their thread, until [`Signals::close`].
#[derive(Debug)]
pub(crate) struct Signals {
    /// Receives the first signal, and later ones that do not exit the process, which mean nothing
    /// more. Disconnected only after [`Signals::close`].
    pub first: Receiver<Signal>,
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// Handles SIGHUP, SIGINT and SIGTERM from now on. The caller must receive the first; the second
    /// SIGINT or SIGTERM exits the process with 128 and its number, and cleans up nothing.
    pub(crate) fn start() -> io::Result<Self> {
        let hangup = Some(SIGHUP).filter(|&signal| !is_ignored(signal));
        let mut deliveries = Deliveries::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
        let handle = deliveries.handle();
        let (outbox, first) = bounded(1);
        let thread =
            Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES).spawn(move || {
                let mut is_second = false;
                for number in deliveries.forever() {
                    if number != SIGHUP && std::mem::replace(&mut is_second, true) {
                        // As shells report a process that a signal ended.
                        std::process::exit(128 + number);
                    }
                    // If it is full, a request to stop is in it already; the receiver may be gone.
                    let _ = outbox.try_send(Signal(number));
                }
            })?;
        Ok(Self { first, handle, thread })
    }

    /// Ends the thread; the signals are ignored from then on.
    pub(crate) fn close(self) {
        self.handle.close();
        // The panic hook has reported a panic there.
        let _ = self.thread.join();
    }
}

/// Whether this process ignores a signal (`SigIgn` of proc_pid_status(5)); `false` where there is
/// no such file.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use signal_hook::low_level::raise;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Runs the ignored test `name` in a process of its own: signals are the process's.
    fn exit_code_of(name: &str) -> Option<i32> {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--test-threads=1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap().code()
    }

    #[test]
    fn the_first_signal_is_a_message_and_close_ends_the_thread() {
        assert_eq!(exit_code_of("runtime::signals::tests::child_first"), Some(0));
    }

    #[test]
    fn a_second_signal_exits_at_once() {
        assert_eq!(exit_code_of("runtime::signals::tests::child_second"), Some(130));
    }

    #[test]
    fn a_hangup_is_a_message_and_never_the_second_signal() {
        assert_eq!(exit_code_of("runtime::signals::tests::child_hangup"), Some(130));
    }

    #[test]
    #[ignore = "a child process of another test"]
    fn child_hangup() {
        let signals = Signals::start().unwrap();
        for _ in 0..2 {
            raise(SIGHUP).unwrap();
            assert_eq!(signals.first.recv_timeout(DEADLINE), Ok(Signal(SIGHUP)));
        }
        raise(SIGTERM).unwrap();
        assert_eq!(signals.first.recv_timeout(DEADLINE), Ok(Signal(SIGTERM)));
        raise(SIGHUP).unwrap();
        assert_eq!(signals.first.recv_timeout(DEADLINE), Ok(Signal(SIGHUP)));
        raise(SIGINT).unwrap();
        assert!(signals.first.recv_timeout(DEADLINE).is_err(), "the process goes on");
        panic!("SIGINT after SIGTERM did nothing");
    }

    #[test]
    #[ignore = "a child process of another test"]
    fn child_first() {
        let signals = Signals::start().unwrap();
        raise(SIGTERM).unwrap();
        assert_eq!(signals.first.recv_timeout(DEADLINE), Ok(Signal(SIGTERM)));
        let first = signals.first.clone();
        signals.close();
        assert!(first.recv().is_err());
    }

    #[test]
    #[ignore = "a child process of another test"]
    fn child_second() {
        let signals = Signals::start().unwrap();
        raise(SIGTERM).unwrap();
        assert!(signals.first.recv_timeout(DEADLINE).is_ok());
        raise(SIGINT).unwrap();
        assert!(signals.first.recv_timeout(DEADLINE).is_err(), "the process goes on");
        panic!("a second signal did nothing");
    }
}
