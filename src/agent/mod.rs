//! The reference agent: reports this machine's state at an interval until it is stopped, then says
//! goodbye. Owns the schedule and the newest state; has no queue, so a server that was unavailable
//! gets the state of now and nothing older.
//!
//! ```text
//!  stop ────────▶ ┌───────┐ ── Request (one at a time) ─▶ ┌────────────┐
//!                 │  run  │                               │ agent-http │ ──▶ server
//!  due, look_at ▶ └───────┘ ◀── HeartbeatResult ───────── └────────────┘
//! ```
//!
//! [`run`] blocks its caller's thread and waits for all of these at once, so a request that hangs
//! does not delay the stop. It reads the task directories twice a second and soon sends what has
//! changed there.
//!
//! [`settings`]: what the agent is told. `machine`, `cgroup`: what it measures. `heartbeat`: the
//! JSON. `schedule`: when to send, what to log. `client`, `tls`: HTTP, and its errors in plain
//! words. [`task_files`], [`task_command`]: running tasks as files, and the command that makes one.

mod cgroup;
mod client;
mod heartbeat;
mod machine;
mod schedule;
pub(crate) mod settings;
pub(crate) mod task_command;
pub(crate) mod task_files;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, at, never, select};

pub(crate) use self::client::HeartbeatResult;
pub(crate) use self::heartbeat::Profile;
pub(crate) use self::settings::{Secret, Settings};
pub(crate) use self::tls::ignore_empty_cert_file;

use self::client::{Client, ClientThread, Request};
use self::machine::{FIRST_WINDOW, Machine, Reading};
use self::schedule::Schedule;
use self::task_files::{Task, TaskDirs, ensure_dir, shown};
use crate::runtime::clock::Clock;

/// How often the task directories are read. Watching them would not do: no file system event tells
/// that a lock is gone. A directory full of other files is read less often, in proportion.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Between a heartbeat and the one that is sent because tasks have changed.
const MIN_GAP: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// Which setting, and what is wrong with it; never shows a secret.
    #[error("{0}: {1}")]
    Setting(&'static str, String),
    #[error("cannot measure this machine: {0}")]
    Machine(String),
    #[error("cannot start the thread agent-http: {0}")]
    Thread(#[source] io::Error),
    /// By a panic, which is in the log.
    #[error("the thread agent-http ended unexpectedly")]
    ThreadEnded,
}

/// Sends heartbeats until `stop` yields a message or is disconnected, then says goodbye and
/// returns, within about a second. Each failure is logged once, and the next heartbeat is the next
/// try.
pub(crate) fn run<T>(
    settings: Settings,
    stop: Receiver<T>,
    clock: Clock,
) -> Result<(), AgentError> {
    let mut machine = Machine::new(clock.now())?;
    log::info!("CPU and memory are of {}", machine.describe());
    run_with(&mut |now| machine.read(now), &settings, &stop, clock)
}

fn run_with<T>(
    measure: &mut dyn FnMut(Instant) -> Reading,
    settings: &Settings,
    stop: &Receiver<T>,
    clock: Clock,
) -> Result<(), AgentError> {
    let client = ClientThread::start(settings, clock)?;
    log::info!(
        "agent {} reports to {} every {}, with app key {}",
        settings.id,
        settings.server,
        humantime::format_duration(settings.timing.interval),
        settings.app_key,
    );
    // Creates missing ones, so that everyone can put tasks there.
    for dir in &settings.profile.task_dirs {
        match ensure_dir(dir) {
            Ok(_) => log::info!("tasks are the *.json files in {}", shown(dir)),
            Err(error) => log::warn!("cannot read tasks in {}: {error}", shown(dir)),
        }
    }
    let mut reporter = Reporter::new(settings, clock);
    loop {
        let due = if reporter.in_flight.is_some() { never() } else { at(reporter.due) };
        select! {
            recv(stop) -> _ => break,
            recv(due) -> _ => client.send(reporter.heartbeat(measure(clock.now())))?,
            recv(client.results) -> result => {
                reporter.finish(&result.map_err(|_| AgentError::ThreadEnded)?);
            }
            recv(at(reporter.look_at)) -> _ => reporter.look(),
        }
    }
    reporter.goodbye(client);
    Ok(())
}

/// Sends one heartbeat, after measuring for a moment.
pub(crate) fn send_once(settings: &Settings, clock: Clock) -> Result<HeartbeatResult, AgentError> {
    let json = measure_once(&settings.profile, clock)?;
    let timeout = settings.timing.request_timeout;
    Ok(Client::new(settings, clock)?.send(&Request { json, timeout }))
}

/// The heartbeat that would be sent now.
pub(crate) fn measure_once(profile: &Profile, clock: Clock) -> Result<Vec<u8>, AgentError> {
    let mut machine = Machine::new(clock.now())?;
    let _ = after(FIRST_WINDOW).recv();
    let tasks = TaskDirs::new(profile.task_dirs.clone()).read();
    Ok(profile.heartbeat(machine.read(clock.now()), &tasks))
}

/// The agent's state between two events.
struct Reporter<'a> {
    settings: &'a Settings,
    clock: Clock,
    schedule: Schedule,
    task_dirs: TaskDirs,
    /// The tasks of the last heartbeat.
    reported: Vec<Task>,
    sent_at: Option<Instant>,
    due: Instant,
    look_at: Instant,
    /// When the heartbeat was due that has no result yet.
    in_flight: Option<Instant>,
    /// Whether the last heartbeat was received: a server that is unavailable does not get more
    /// requests because tasks change.
    is_received: bool,
}

impl<'a> Reporter<'a> {
    fn new(settings: &'a Settings, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            schedule: Schedule::new(settings.timing.clone()),
            task_dirs: TaskDirs::new(settings.profile.task_dirs.clone()),
            reported: Vec::new(),
            sent_at: None,
            due: clock.now() + settings.timing.first_window,
            look_at: clock.now() + LOOK_INTERVAL,
            in_flight: None,
            is_received: false,
        }
    }

    fn heartbeat(&mut self, reading: Reading) -> Request {
        self.reported = self.task_dirs.read();
        self.in_flight = Some(self.due);
        self.sent_at = Some(self.clock.now());
        let json = self.settings.profile.heartbeat(reading, &self.reported);
        Request { json, timeout: self.settings.timing.request_timeout }
    }

    /// Makes a heartbeat due soon if tasks have changed since the last one.
    fn look(&mut self) {
        if let Some(sent_at) = self.sent_at
            && self.is_received
            && self.in_flight.is_none()
            && self.task_dirs.read() != self.reported
        {
            let earliest = (sent_at + MIN_GAP).max(self.clock.now());
            self.due = self.due.min(earliest);
        }
        let factor = self.task_dirs.excess().saturating_add(1);
        self.look_at = self.clock.now() + LOOK_INTERVAL.saturating_mul(factor);
    }

    fn finish(&mut self, result: &HeartbeatResult) {
        match self.schedule.log_line(result) {
            Some((level, text)) => log::log!(level, "{}: {text}", self.settings.server),
            None => log::debug!("heartbeat: {result:?}"),
        }
        self.is_received = result.is_ok();
        let wait = self.schedule.next(result, random_fraction());
        let now = self.clock.now();
        // After success the interval runs from when the heartbeat was due, so that slow responses
        // do not lengthen it. One that is overdue (the machine was suspended) is sent at once.
        self.due = match self.in_flight.take() {
            Some(was_due) if result.is_ok() => (was_due + wait).max(now),
            _ => now + wait,
        };
    }

    /// Waits for the request in flight, then says goodbye, all within `goodbye_timeout`; a request
    /// that takes longer ends with the process.
    fn goodbye(&mut self, client: ClientThread) {
        let timeout = self.settings.timing.goodbye_timeout;
        let deadline = self.clock.now() + timeout;
        let result = || client.results.recv_deadline(deadline).ok();
        if self.in_flight.is_some() && result().is_none() {
            log::debug!("no goodbye: the last heartbeat gets no response");
            return;
        }
        if self.sent_at.is_some() {
            let json = heartbeat::GOODBYE.to_vec();
            match client.send(Request { json, timeout }).ok().and_then(|()| result()) {
                Some(Ok(())) => log::info!("said goodbye to {}", self.settings.server),
                Some(Err(error)) => log::debug!("goodbye: {error}"),
                None => {
                    log::debug!("the goodbye gets no response");
                    return;
                }
            }
        }
        client.join();
    }
}

/// In 0..1; the middle if the system has no random numbers.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / (f64::from(u32::MAX) + 1.0))
}
