//! The reference agent: says what this machine is doing, at a rhythm, until it is stopped, and
//! then says goodbye. Owns the rhythm and the newest state; holds no queue, so a server that
//! comes back gets what is true then and nothing older.
//!
//! ```text
//!  stop ──▶ ┌───────┐ ── Job (one at a time) ──▶ ┌────────────┐
//!           │  run  │                            │ agent-http │ ──▶ server
//!  due  ──▶ └───────┘ ◀── Outcome ────────────── └────────────┘
//! ```
//!
//! [`run`] blocks its caller's thread and waits on three things at once: the stop, the next
//! heartbeat's time, the outcome of the last one. A request that hangs therefore delays neither
//! the stop nor the end.
//!
//! It also looks at its tasks' directories, twice a second: a change there is sent at once.
//!
//! Rooms: [`settings`] what it is told, `machine` and `cgroup` what it measures, `report` the
//! JSON, `pace` when and what to log, `post` the HTTP, `tls` what its failures mean, `resolve` the
//! names, `once` a single heartbeat for who tries it out.

mod cgroup;
mod machine;
mod once;
mod pace;
mod post;
mod report;
mod resolve;
pub(crate) mod settings;
pub(crate) mod task_command;
pub(crate) mod task_files;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, at, never, select};

pub(crate) use self::once::{Answer, ask_once, show};
pub(crate) use self::settings::{Secret, Settings};
pub(crate) use self::tls::forget_empty_cert_file;

use self::machine::{Machine, ThisMachine};
use self::pace::{Outcome, Pace};
use self::post::{Job, Poster};
use crate::agent::task_files::{Task, TaskDirs, ensure_dir};
use crate::runtime::clock::Clock;
use crate::runtime::logging::printable;

/// How often tasks are looked for. A poll, and no watch of the directory: that a lock is gone
/// is no event of a file system. A directory that is full of other things is looked at less
/// often, by as much as it costs more.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Changed tasks are sent this often at most.
const SOONEST: Duration = Duration::from_secs(1);

/// Why an agent cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("server address: {0}")]
    Server(&'static str),
    #[error("app key: {0}")]
    AppKey(&'static str),
    /// Never shows the secret.
    #[error("app secret: {0}")]
    Secret(String),
    /// The file of trusted certificates; which one, and what is wrong with it.
    #[error("{0}")]
    CertFile(String),
    #[error(
        "interval: {} is not within {} and {}",
        humantime::format_duration(*.0),
        humantime::format_duration(settings::MIN_INTERVAL),
        humantime::format_duration(settings::MAX_INTERVAL)
    )]
    Interval(Duration),
    #[error("name: it must have 1 to 128 characters")]
    Name,
    #[error("status: it must be 1 to 32 of a-z 0-9 _ -, and not \"offline\", a goodbye")]
    Status,
    #[error("cannot measure this machine: {0}")]
    Machine(String),
    #[error("cannot start the thread agent-http: {0}")]
    Thread(#[source] io::Error),
    /// By a panic, which is in the log.
    #[error("the thread agent-http ended unexpectedly")]
    PosterEnded,
}

/// Sends heartbeats until `stop` yields a message or is disconnected, then says goodbye and
/// returns, within about a second of the stop. The first heartbeat goes out a quarter of a
/// second after the start, so that its CPU figure is measured.
///
/// A server that is away, or refuses, is no error: it is logged once and tried again.
///
/// # Errors
/// [`AgentError::Machine`], [`AgentError::Thread`] and [`AgentError::PosterEnded`].
pub(crate) fn run(settings: Settings, stop: Receiver<()>, clock: Clock) -> Result<(), AgentError> {
    let mut machine = ThisMachine::new(clock.now())?;
    log::info!("CPU and memory are of {}", machine.describe());
    run_on(&mut machine, &settings, &stop, clock)
}

fn run_on(
    machine: &mut dyn Machine,
    settings: &Settings,
    stop: &Receiver<()>,
    clock: Clock,
) -> Result<(), AgentError> {
    let poster = Poster::start(settings, clock)?;
    log::info!(
        "agent {} reports to {} every {}, with app key {}",
        settings.id,
        settings.server,
        humantime::format_duration(settings.timing.interval),
        printable(&settings.app_key),
    );
    introduce_tasks(settings);
    let mut beat = Beat::new(settings, clock);
    loop {
        // Only one of the two is wanted at any time.
        let (due, outcomes) = match beat.in_flight {
            Some(_) => (never(), poster.outcomes().clone()),
            None => (at(beat.due), never()),
        };
        select! {
            recv(stop) -> _ => break,
            recv(due) -> _ => {
                if !beat.send(machine, &poster) {
                    return Err(AgentError::PosterEnded);
                }
            }
            recv(outcomes) -> outcome => match outcome {
                Ok(outcome) => beat.settle(&outcome),
                Err(_) => return Err(AgentError::PosterEnded),
            },
            recv(at(beat.look_at)) -> _ => beat.look(),
        }
    }
    beat.goodbye(poster);
    Ok(())
}

/// Says where tasks are looked for, and makes the places that are missing, so that whoever
/// wants to put a task there can.
fn introduce_tasks(settings: &Settings) {
    for dir in &settings.task_dirs {
        let shown = dir.display().to_string();
        match ensure_dir(dir) {
            Ok(()) => log::info!("tasks are the *.json files in {}", printable(&shown)),
            Err(error) => log::warn!("no tasks can be seen in {}: {error}", printable(&shown)),
        }
    }
}

/// The agent between two events.
struct Beat<'a> {
    settings: &'a Settings,
    clock: Clock,
    pace: Pace,
    task_dirs: TaskDirs,
    /// The tasks of the last heartbeat.
    reported: Vec<Task>,
    /// When the last heartbeat went out.
    sent_at: Option<Instant>,
    /// When the next heartbeat goes out.
    due: Instant,
    /// When tasks are looked for next.
    look_at: Instant,
    /// When the heartbeat was due whose outcome is awaited.
    in_flight: Option<Instant>,
    /// Whether the server took the last heartbeat: one that is away is not asked more often
    /// because tasks come and go.
    is_received: bool,
}

impl<'a> Beat<'a> {
    fn new(settings: &'a Settings, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            pace: Pace::new(settings.timing.clone()),
            task_dirs: TaskDirs::new(settings.task_dirs.clone()),
            reported: Vec::new(),
            sent_at: None,
            due: clock.now() + settings.timing.first_window,
            look_at: clock.now() + LOOK_EVERY,
            in_flight: None,
            is_received: false,
        }
    }

    /// Reads the machine and hands the state to the posting thread; `false` when that is gone.
    fn send(&mut self, machine: &mut dyn Machine, poster: &Poster) -> bool {
        let now = self.clock.now();
        let reading = machine.read(now);
        self.reported = self.task_dirs.read();
        let status = self.settings.status.as_deref();
        let name = self.settings.name.as_deref();
        let Ok(json) = report::heartbeat(reading, &self.reported, status, name) else {
            // Cannot be; if it were, the next reading may do better.
            self.due = now + self.settings.timing.interval;
            return true;
        };
        self.in_flight = Some(self.due);
        self.sent_at = Some(now);
        poster.give(Job::Heartbeat(json))
    }

    /// Has a heartbeat sent soon if tasks have come or gone since the last.
    fn look(&mut self) {
        if let Some(sent_at) = self.sent_at
            && self.is_received
            && self.in_flight.is_none()
            && self.task_dirs.read() != self.reported
        {
            let soonest = (sent_at + SOONEST).max(self.clock.now());
            self.due = self.due.min(soonest);
        }
        let rest = LOOK_EVERY.saturating_mul(self.task_dirs.excess().saturating_add(1));
        self.look_at = self.clock.now() + rest;
    }

    fn settle(&mut self, outcome: &Outcome) {
        if let Some(note) = self.pace.note(outcome) {
            match outcome {
                Outcome::Unauthorized => log::log!(
                    note.level,
                    "app key {}: {}",
                    printable(&self.settings.app_key),
                    note.text
                ),
                _ => log::log!(note.level, "{}: {}", self.settings.server, note.text),
            }
        } else {
            log::debug!("heartbeat: {outcome:?}");
        }
        self.is_received = matches!(outcome, Outcome::Received);
        let wait = self.pace.next(outcome, chance());
        let now = self.clock.now();
        // Received heartbeats keep to a grid, so that slow answers don't stretch the rhythm; one
        // that we are late for (a machine that slept) is sent at once, and only one.
        self.due = match (outcome, self.in_flight.take()) {
            (Outcome::Received, Some(was_due)) => (was_due + wait).max(now),
            _ => now + wait,
        };
    }

    /// Waits for what is in flight, then says goodbye, all within the goodbye's time; what is
    /// not done then is left to the end of the process.
    fn goodbye(&mut self, poster: Poster) {
        let patience = after(self.settings.timing.goodbye_timeout);
        if self.in_flight.is_some() && wait_for(poster.outcomes(), &patience).is_none() {
            log::debug!("stopped while a request hangs: no goodbye");
            return;
        }
        if self.sent_at.is_some() && poster.give(Job::Goodbye) {
            match wait_for(poster.outcomes(), &patience) {
                Some(Outcome::Received) => log::info!("said goodbye to {}", self.settings.server),
                Some(outcome) => log::debug!("goodbye: {outcome:?}"),
                None => {
                    log::debug!("the server takes too long over our goodbye");
                    return;
                }
            }
        }
        poster.join();
    }
}

fn wait_for(outcomes: &Receiver<Outcome>, patience: &Receiver<Instant>) -> Option<Outcome> {
    select! {
        recv(outcomes) -> outcome => outcome.ok(),
        recv(patience) -> _ => None,
    }
}

/// Anything in 0..1, evenly; the middle where the system has no random numbers to give.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |draw| f64::from(draw) / (f64::from(u32::MAX) + 1.0))
}
