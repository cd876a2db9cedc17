//! Forwards signals to the command, each exactly once, and waits for the command's end.
//!
//! A signal to the process group (Ctrl-C, `kill -- -PGID`, timeout(1)) has already reached the
//! command. Forwarded, it would arrive twice, and many programs take a second one as a request to
//! end at once, without cleaning up. [`Probe`] tells whether a signal was sent to the group. A
//! command that has left the group gets none of those, and each signal is forwarded to it.

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

/// Other signals have their usual effect on our own process.
pub(super) const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Equal signals within this time count as one: timeout(1) sends one to its child and one to the
/// group. It is also the time that a signal to the group has to reach all its processes.
const WINDOW: Duration = Duration::from_millis(30);

/// How often the probe is asked about one signal while equal ones keep coming.
const MAX_QUESTIONS: usize = 4;

pub(crate) type Signals = SignalsInfo<WithOrigin>;

/// Installs the handlers; a signal that is ignored (nohup) stays ignored, by the command too.
pub(crate) fn listen() -> io::Result<Signals> {
    let forwarded = FORWARDED.into_iter().filter(|&signal| !is_ignored(signal));
    SignalsInfo::new(forwarded.chain([SIGCHLD]))
}

/// Waits for the end of the command, and forwards signals until then.
pub(crate) fn wait(command: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    let mut probe = Probe::start().ok();
    let mut received = BTreeMap::new();
    // Before each wait: its SIGCHLD may have been among those that `pending` took.
    while command.try_wait()?.is_none() {
        let Some((signal, mut sender)) = received.pop_first() else {
            add(&mut received, signals.wait(), command.id());
            continue;
        };
        let pid = Pid::from_child(command);
        // timeout(1), setsid(1) and interactive shells have a process group of their own.
        let has_left = getpgid(Some(pid)).is_ok_and(|group| group != getpgrp());
        let mut reached_command =
            || if has_left { Some(false) } else { reached_group(&mut probe, signal) };
        let _ = after(WINDOW).recv();
        let mut reached = reached_command();
        for _ in 1..MAX_QUESTIONS {
            add(&mut received, signals.pending(), command.id());
            let Some(more) = received.remove(&signal) else { break };
            sender = sender.max(more);
            // The probe may have received this one after its answer.
            reached = reached_command().max(reached);
        }
        // Only we reap the command: until then no other process can have its number.
        if sender.must_forward(reached)
            && command.try_wait()?.is_none()
            && let Some(signal) = Signal::from_named_raw(signal)
        {
            let _ = kill_process(pid, signal);
        }
    }
    command.wait()
}

/// Whether `signal` was sent to our group since the last question about it; `None` if the probe
/// cannot tell, and then it is started anew.
fn reached_group(probe: &mut Option<Probe>, signal: i32) -> Option<bool> {
    let answer = probe.as_mut().and_then(|probe| probe.has_received(signal).ok());
    if answer.is_some() {
        return answer;
    }
    // A probe without handlers yet was killed by the signal to its group.
    let killed_by = probe.as_mut().and_then(Probe::stop);
    *probe = Probe::start().ok();
    (killed_by == Some(signal)).then_some(true)
}

/// Who sent a signal. Of several senders the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    /// It does not get back what it sent itself.
    Command,
    /// For a terminal, so usually to the whole group.
    Kernel,
    /// Any other process.
    Process,
}

impl Sender {
    fn of(origin: &Origin, command: u32) -> Self {
        let pid = origin.process.and_then(|process| u32::try_from(process.pid).ok());
        match origin.cause {
            Cause::Kernel => Self::Kernel,
            _ if pid == Some(command) => Self::Command,
            _ => Self::Process,
        }
    }

    /// `reached` says whether the signal reached the group, if that is known.
    fn must_forward(self, reached: Option<bool>) -> bool {
        match reached {
            Some(true) => false,
            Some(false) => self != Self::Command,
            None => self == Self::Process,
        }
    }
}

/// Adds received signals to those that are to be forwarded, equal ones as one.
fn add(received: &mut BTreeMap<i32, Sender>, origins: impl Iterator<Item = Origin>, command: u32) {
    for origin in origins.filter(|origin| origin.signal != SIGCHLD) {
        let sender = Sender::of(&origin, command);
        let known = received.entry(origin.signal).or_insert(sender);
        *known = sender.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_senders_a_process_counts_most_and_the_command_least() {
        assert!(Sender::Command < Sender::Kernel && Sender::Kernel < Sender::Process);
    }

    #[test]
    fn what_reached_the_group_or_came_from_the_command_is_not_forwarded() {
        for (sender, reached, forwarded) in [
            (Sender::Process, Some(true), false),
            (Sender::Process, Some(false), true),
            (Sender::Process, None, true),
            (Sender::Kernel, Some(true), false),
            // A terminal that hangs up signals only the leader of its session.
            (Sender::Kernel, Some(false), true),
            (Sender::Kernel, None, false),
            (Sender::Command, Some(false), false),
            (Sender::Command, None, false),
        ] {
            assert_eq!(sender.must_forward(reached), forwarded, "{sender:?} {reached:?}");
        }
    }
}
