//! The reference agent: reports this machine's state at an interval until it is stopped, then says
//! goodbye. Owns the schedule and the newest state; has no queue, so a server that was unavailable
//! gets the state of now and nothing older.
//!
//! [`run`] blocks its caller's thread until the stop. The rest happens on the thread `agent-http`, one
//! thing after the other: a heartbeat when it is due, until then the task directories twice a
//! second, whose changes are sent soon, and at last the goodbye. It is a thread of its own because
//! the stop must not wait for a request that hangs.
//!
//! [`settings`]: what the agent is told. `machine`, `cgroup`: what it measures. `heartbeat`: the
//! JSON. `schedule`: when to send, what to log. `client`, `tls`: HTTP, and its errors in plain
//! words. [`task_files`]: running tasks as files. [`task_command`]: signals for a task's command.

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
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, TryRecvError, after, at, bounded, select, select_biased,
};

pub(crate) use self::client::HeartbeatResult;
pub(crate) use self::heartbeat::Profile;
pub(crate) use self::settings::{Secret, Settings};
pub(crate) use self::tls::ignore_empty_cert_file;

use self::client::Client;
use self::machine::{FIRST_WINDOW, Machine, Reading};
use self::schedule::Schedule;
use self::task_files::{Task, TaskDirs, ensure_dir, shown};
use crate::runtime::clock::Clock;

/// How often the task directories are read. Watching them would not do: no file system event tells
/// that a lock is gone. A directory full of other files is read less often, in proportion.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// TLS and the system's name lookup need more than our other threads.
const STACK_BYTES: usize = 1_024 * 1_024;

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
    stop: &Receiver<T>,
    clock: Clock,
) -> Result<(), AgentError> {
    let mut machine = Machine::new(clock.now())?;
    log::info!("CPU and memory are of {}", machine.describe());
    run_with(move |now| machine.read(now), settings, stop, clock)
}

fn run_with<T>(
    measure: impl FnMut(Instant) -> Reading + Send + 'static,
    settings: Settings,
    stop: &Receiver<T>,
    clock: Clock,
) -> Result<(), AgentError> {
    let goodbye_timeout = settings.timing.goodbye_timeout;
    let reporter = Reporter::new(settings, clock)?;
    let (running, stopped) = bounded::<()>(0);
    let (working, ended) = bounded::<()>(0);
    let thread = Builder::new()
        .name("agent-http".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            reporter.run(measure, &stopped);
            drop(working);
        })
        .map_err(AgentError::Thread)?;
    select! {
        recv(stop) -> _ => {}
        recv(ended) -> _ => {}
    }
    drop(running);
    if ended.recv_timeout(goodbye_timeout) == Err(RecvTimeoutError::Timeout) {
        // The thread ends with the process.
        log::debug!("the last request gets no response");
        return Ok(());
    }
    thread.join().map_err(|_| AgentError::ThreadEnded)
}

/// Sends one heartbeat, after measuring for a moment.
pub(crate) fn send_once(settings: &Settings, clock: Clock) -> Result<HeartbeatResult, AgentError> {
    let json = measure_once(&settings.profile, clock)?;
    Ok(Client::new(settings, clock)?.send(&json, settings.timing.request_timeout))
}

/// The heartbeat that would be sent now.
pub(crate) fn measure_once(profile: &Profile, clock: Clock) -> Result<Vec<u8>, AgentError> {
    let mut machine = Machine::new(clock.now())?;
    let _ = after(FIRST_WINDOW).recv();
    let tasks = TaskDirs::new(profile.task_dirs.clone()).read();
    Ok(profile.heartbeat(machine.read(clock.now()), &tasks))
}

/// The agent's state between two events.
struct Reporter {
    settings: Settings,
    clock: Clock,
    client: Client,
    schedule: Schedule,
    task_dirs: TaskDirs,
    /// The tasks of the last heartbeat.
    reported: Vec<Task>,
    sent_at: Option<Instant>,
    due: Instant,
    look_at: Instant,
}

impl Reporter {
    /// Creates missing task directories, so that everyone can put tasks there.
    fn new(settings: Settings, clock: Clock) -> Result<Self, AgentError> {
        let client = Client::new(&settings, clock)?;
        log::info!(
            "agent {} reports to {} every {}, with app key {}",
            settings.id,
            settings.server,
            humantime::format_duration(settings.timing.interval),
            settings.app_key,
        );
        for dir in &settings.profile.task_dirs {
            match ensure_dir(dir) {
                Ok(_) => log::info!("tasks are the *.json files in {}", shown(dir)),
                Err(error) => log::warn!("cannot read tasks in {}: {error}", shown(dir)),
            }
        }
        Ok(Self {
            schedule: Schedule::new(settings.timing.clone()),
            task_dirs: TaskDirs::new(settings.profile.task_dirs.clone()),
            reported: Vec::new(),
            sent_at: None,
            due: clock.now() + settings.timing.first_window,
            look_at: clock.now() + LOOK_INTERVAL,
            settings,
            clock,
            client,
        })
    }

    /// Reports until `stopped` is disconnected.
    fn run(mut self, mut measure: impl FnMut(Instant) -> Reading, stopped: &Receiver<()>) {
        loop {
            select_biased! {
                recv(stopped) -> _ => break,
                recv(at(self.due)) -> _ => {
                    let json = self.heartbeat(measure(self.clock.now()));
                    let result = self.client.send(&json, self.settings.timing.request_timeout);
                    // Nothing is tried again after the stop.
                    if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                        break;
                    }
                    self.finish(&result);
                }
                recv(at(self.look_at)) -> _ => self.look(),
            }
        }
        if self.sent_at.is_some() {
            match self.client.send(heartbeat::GOODBYE, self.settings.timing.goodbye_timeout) {
                Ok(()) => log::info!("said goodbye to {}", self.settings.server),
                Err(error) => log::debug!("goodbye: {error}"),
            }
        }
    }

    fn heartbeat(&mut self, reading: Reading) -> Vec<u8> {
        self.reported = self.task_dirs.read();
        self.sent_at = Some(self.clock.now());
        self.settings.profile.heartbeat(reading, &self.reported)
    }

    fn finish(&mut self, result: &HeartbeatResult) {
        match self.schedule.log_line(result) {
            Some((level, text)) => log::log!(level, "{}: {text}", self.settings.server),
            None => log::debug!("heartbeat: {result:?}"),
        }
        let wait = self.schedule.next(result, random_fraction());
        let now = self.clock.now();
        // After success the interval runs from when the heartbeat was due, so that slow responses
        // do not lengthen it. One that is overdue (the machine was suspended) is sent at once.
        self.due = if result.is_ok() { (self.due + wait).max(now) } else { now + wait };
    }

    /// Makes a heartbeat due soon if tasks have changed since the last one. A server that is
    /// unavailable does not get more requests because tasks change.
    fn look(&mut self) {
        if let Some(sent_at) = self.sent_at
            && !self.schedule.is_failing()
            && self.task_dirs.read() != self.reported
        {
            let earliest = (sent_at + MIN_GAP).max(self.clock.now());
            self.due = self.due.min(earliest);
        }
        let factor = self.task_dirs.excess().saturating_add(1);
        self.look_at = self.clock.now() + LOOK_INTERVAL.saturating_mul(factor);
    }
}

/// In 0..1; the middle if the system has no random numbers.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / (f64::from(u32::MAX) + 1.0))
}
