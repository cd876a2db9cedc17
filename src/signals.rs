//! SIGINT and SIGTERM as messages on a channel. The first asks the process to end in good
//! order; a second one ends it at once, whatever it is doing. Owns the thread `signals`.
//!
//! SIGPIPE stays as Rust's runtime leaves it, ignored: a broken pipe is an error of the write
//! that met it.

use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Deliveries};

use crate::limits::THREAD_STACK_BYTES;

/// A request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: from a terminal, Ctrl-C.
    Interrupt,
    /// SIGTERM: from a service manager.
    Terminate,
}

impl Signal {
    /// 128 and the signal's number, as a shell has it for a process that a signal ended.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        128 + match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
        }
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The signals of this process, until [`Signals::close`].
#[derive(Debug)]
pub struct Signals {
    first: Receiver<Signal>,
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// Takes SIGINT and SIGTERM over. From here on the second of them exits the process with
    /// [`Signal::exit_code`], and nothing is cleaned up; until the first was taken note of
    /// that is the only way out, so whoever starts this must listen.
    ///
    /// # Errors
    /// Where the handlers or the thread cannot be set up.
    pub fn start() -> io::Result<Self> {
        let mut deliveries = Deliveries::new([SIGINT, SIGTERM])?;
        let handle = deliveries.handle();
        let (outbox, first) = bounded(1);
        let thread = Builder::new()
            .name("signals".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || {
                let mut is_second = false;
                for number in deliveries.forever() {
                    let signal =
                        if number == SIGINT { Signal::Interrupt } else { Signal::Terminate };
                    if std::mem::replace(&mut is_second, true) {
                        std::process::exit(signal.exit_code());
                    }
                    // Has room for the one message that it ever gets; nobody may be listening
                    // any more.
                    let _ = outbox.try_send(signal);
                }
            })?;
        Ok(Self { first, handle, thread })
    }

    /// Yields the first signal, once. Disconnected only after [`Signals::close`].
    #[must_use]
    pub fn first(&self) -> &Receiver<Signal> {
        &self.first
    }

    /// Lets go of the signals, which are ignored from then on, and ends the thread.
    pub fn close(self) {
        self.handle.close();
        // A panic there has been reported by the hook.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use signal_hook::low_level::raise;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

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
        assert_eq!(exit_code_of("signals::tests::child_first"), Some(0));
    }

    #[test]
    fn a_second_signal_exits_at_once() {
        assert_eq!(exit_code_of("signals::tests::child_second"), Some(130));
    }

    #[test]
    #[ignore = "a child process of another test"]
    fn child_first() {
        let signals = Signals::start().unwrap();
        raise(SIGTERM).unwrap();
        assert_eq!(signals.first().recv_timeout(PATIENCE), Ok(Signal::Terminate));
        let first = signals.first().clone();
        signals.close();
        assert!(first.recv().is_err());
    }

    #[test]
    #[ignore = "a child process of another test"]
    fn child_second() {
        let signals = Signals::start().unwrap();
        raise(SIGTERM).unwrap();
        assert!(signals.first().recv_timeout(PATIENCE).is_ok());
        raise(SIGINT).unwrap();
        assert!(signals.first().recv_timeout(PATIENCE).is_err(), "the process goes on");
        panic!("a second signal did nothing");
    }
}
