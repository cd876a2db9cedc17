//! `agent-metrics task`: runs a command, and keeps the task's file in place while it runs, so that
//! agents report it. The command keeps the terminal, its input and output, and its process group;
//! signals reach it. Knows no server.
//!
//! One thread waits for signals only; SIGCHLD is one of them. Only this thread reaps the command,
//! so no signal can go to another process that got the command's number. [`probe`] is a second
//! process that finds out whether a signal has already reached the command.

mod forward;
pub(crate) mod probe;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::agent::task_files::{Task, TaskFile};

/// Why a command did not run, or was not waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot run {0}: {1}")]
    Start(String, #[source] io::Error),
    #[error("cannot wait for the command: {0}")]
    Wait(#[source] io::Error),
}

/// Runs `command`, a program and its arguments. The file of `task` is in `dir` from before it
/// starts until after it has ended. If the file cannot be created, standard error says so and the
/// command runs all the same.
pub(crate) fn run(task: &Task, dir: &Path, command: &[OsString]) -> Result<ExitStatus, TaskError> {
    let mut signals = forward::listen().map_err(TaskError::Signals)?;
    let file = TaskFile::create(dir, task);
    if let Err(error) = &file {
        let dir = dir.display();
        let _ = writeln!(
            io::stderr(),
            "agent-metrics task: no agent will see this task: {dir}: {error}"
        );
    }
    let mut words = command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut child = Command::new(&program)
        .args(words)
        .spawn()
        .map_err(|error| TaskError::Start(program.to_string_lossy().into_owned(), error))?;
    forward::wait(&mut child, &mut signals).map_err(TaskError::Wait)
}
