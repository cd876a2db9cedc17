//! One heartbeat, for who tries it out: sent and its answer told, or shown and not sent.

use std::time::Duration;

use crossbeam_channel::after;

use super::machine::{Machine, ThisMachine};
use super::pace::Outcome;
use super::post::{Job, Poster};
use super::{AgentError, Settings, report};
use crate::agent::task_files::TaskDirs;
use crate::runtime::clock::Clock;

/// What a server said to a single heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has the heartbeat.
    Received,
    /// It does not, for this reason, which a person can read.
    Not(String),
}

/// Measures this machine for a moment, sends one heartbeat, and says what became of it.
///
/// # Errors
/// [`AgentError::Machine`], [`AgentError::Thread`] and [`AgentError::PosterEnded`].
pub(crate) fn ask_once(settings: &Settings, clock: Clock) -> Result<Answer, AgentError> {
    let json = measure(
        settings.timing.first_window,
        TaskDirs::new(settings.task_dirs.clone()),
        settings.status.as_deref(),
        settings.name.as_deref(),
        clock,
    )?;
    let poster = Poster::start(settings, clock)?;
    if !poster.give(Job::Heartbeat(json)) {
        return Err(AgentError::PosterEnded);
    }
    let outcome = poster.outcomes().recv().map_err(|_| AgentError::PosterEnded)?;
    poster.join();
    Ok(match outcome {
        Outcome::Received => Answer::Received,
        Outcome::Unauthorized => Answer::Not(format!(
            "the server does not accept app key {} with this secret (401)",
            settings.app_key
        )),
        Outcome::Refused(why) => Answer::Not(format!("the server refuses it: {why}")),
        Outcome::Away { reason, .. } => Answer::Not(format!("it does not get through: {reason}")),
    })
}

/// The JSON of a heartbeat as it would be sent now.
///
/// # Errors
/// [`AgentError::Machine`]; [`AgentError::Status`] and [`AgentError::Name`].
pub(crate) fn show(
    task_dirs: TaskDirs,
    status: Option<&str>,
    name: Option<&str>,
    clock: Clock,
) -> Result<String, AgentError> {
    status.map_or(Ok(()), super::settings::check_status)?;
    name.map_or(Ok(()), super::settings::check_name)?;
    let json = measure(super::pace::FIRST_WINDOW, task_dirs, status, name, clock)?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

fn measure(
    window: Duration,
    mut task_dirs: TaskDirs,
    status: Option<&str>,
    name: Option<&str>,
    clock: Clock,
) -> Result<Vec<u8>, AgentError> {
    let mut machine = ThisMachine::new(clock.now())?;
    let _ = after(window).recv();
    let reading = machine.read(clock.now());
    report::heartbeat(reading, &task_dirs.read(), status, name)
        .map_err(|error| AgentError::Machine(error.to_string()))
}
