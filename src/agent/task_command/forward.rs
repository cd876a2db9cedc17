//! Forwards signals to the command, each exactly once, and waits for its end.
//!
//! What was sent to the process group (Ctrl-C, `kill -- -PGID`, timeout(1)) has reached the command
//! already; forwarded it would come twice, which many take for "at once, without cleaning up".
//! Whether it was sent to the group, [`Probe`] tells. A command that left the group has got none.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use crossbeam_channel::after;
use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::probe::Probe;
use crate::runtime::signals::is_ignored;

/// Forwarded to the command. Others stop, continue or kill us as they do anybody.
pub(super) const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Equal signals within this time count once: timeout(1) sends one to its child and one to the
/// group. So long, too, a signal to the group has to reach all of it.
const WINDOW: Duration = Duration::from_millis(30);

/// How often the probe is asked about one signal while equal ones keep coming.
const MAX_QUESTIONS: usize = 4;

pub(super) type Signals = SignalsInfo<WithOrigin>;

/// Listens to what is forwarded, but for what we were told to ignore (nohup): that stays
/// ignored, by us and by the command.
pub(super) fn listen() -> io::Result<Signals> {
    let wanted = FORWARDED.into_iter().filter(|&signal| !is_ignored(signal));
    SignalsInfo::new(wanted.chain([SIGCHLD]))
}

/// Waits for the end of the command, and forwards meanwhile.
pub(super) fn wait(command: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    let mut probe = Probe::start();
    let mut received = Received::new(command.id());
    received.add(signals.pending());
    // They came before there was a probe, perhaps before there was a command, so nothing tells
    // whether it got them. One that handles them this early may get one twice: better than never.
    while let Some((signal, _)) = received.signals.pop_first() {
        probe.reached_group(signal);
        send(command, signal)?;
    }
    // It may have ended before anyone waits.
    while command.try_wait()?.is_none() {
        let Some((signal, mut senders)) = received.signals.pop_first() else {
            received.add(signals.wait());
            continue;
        };
        let has_left = has_left_our_group(command);
        let mut reached_command =
            || if has_left { Some(false) } else { probe.reached_group(signal) };
        let _ = after(WINDOW).recv();
        let mut reached = reached_command();
        for _ in 1..MAX_QUESTIONS {
            received.add(signals.pending());
            let Some(more) = received.signals.remove(&signal) else { break };
            senders.add(more);
            // The probe may have got this one after it answered.
            reached = reached_command().max(reached);
        }
        if senders.want(reached) {
            send(command, signal)?;
        }
    }
    command.wait()
}

/// Whether what is sent to our process group passes the command: timeout(1), setsid(1) and
/// interactive shells have a group of their own.
fn has_left_our_group(command: &Child) -> bool {
    getpgid(Pid::from_raw(command.id() as i32)).is_ok_and(|group| group != getpgrp())
}

fn send(command: &mut Child, signal: i32) -> io::Result<()> {
    // Not to a process that has taken the command's place: only we take note of its end.
    if command.try_wait()?.is_none()
        && let Some(pid) = Pid::from_raw(command.id() as i32)
        && let Some(signal) = Signal::from_named_raw(signal)
    {
        let _ = kill_process(pid, signal);
    }
    Ok(())
}

/// Signals that are to be dealt with, each at most once.
struct Received {
    signals: BTreeMap<i32, Senders>,
    command: u32,
}

impl Received {
    fn new(command: u32) -> Self {
        Self { signals: BTreeMap::new(), command }
    }

    fn add(&mut self, origins: impl Iterator<Item = Origin>) {
        for origin in origins.filter(|origin| origin.signal != SIGCHLD) {
            let senders = Senders::of(&origin, self.command);
            self.signals.entry(origin.signal).or_default().add(senders);
        }
    }
}

/// Who sent a signal, beside the command, which does not get back what it sent itself.
#[derive(Debug, Clone, Copy, Default)]
struct Senders {
    /// The kernel: for a terminal, and then mostly to the group.
    kernel: bool,
    /// Another process.
    process: bool,
}

impl Senders {
    fn of(origin: &Origin, command: u32) -> Self {
        let kernel = matches!(origin.cause, Cause::Kernel);
        let sender = origin.process.as_ref().and_then(|process| u32::try_from(process.pid).ok());
        Self { kernel, process: !kernel && sender != Some(command) }
    }

    fn add(&mut self, more: Self) {
        self.kernel |= more.kernel;
        self.process |= more.process;
    }

    /// Whether the signal is to be forwarded, if it is known whether it has reached the group.
    fn want(self, reached: Option<bool>) -> bool {
        match reached {
            Some(true) => false,
            Some(false) => self.kernel || self.process,
            None => self.process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reached_the_group_or_came_from_the_command_is_not_forwarded() {
        let command = Senders::default();
        let kernel = Senders { kernel: true, process: false };
        let process = Senders { kernel: false, process: true };
        for (senders, reached, forwarded) in [
            (process, Some(true), false),
            (process, Some(false), true),
            (process, None, true),
            (kernel, Some(true), false),
            // A terminal that hangs up tells the leader of its session alone.
            (kernel, Some(false), true),
            (kernel, None, false),
            (command, Some(false), false),
            (command, None, false),
        ] {
            assert_eq!(senders.want(reached), forwarded, "{senders:?} {reached:?}");
        }
    }
}
