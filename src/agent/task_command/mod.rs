//! `agent-metrics task`: runs a command, and keeps the task's file in place while it runs, so that
//! agents report it. The command keeps the terminal, its input and output, and its process group;
//! signals reach it, and its exit status becomes ours. Knows no server.
//!
//! One thread waits for signals only; SIGCHLD is one of them. Only this thread reaps the command, so
//! no signal can go to another process that got the command's number. [`probe`] is a second process
//! that finds out whether a signal has already reached the command.

mod forward;
pub(crate) mod probe;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::{Resource, Rlimit, setrlimit};

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

impl TaskError {
    /// The exit code that a shell uses: 127 for a command that does not exist, 126 for one that
    /// cannot be run.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Start(_, error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Start(..) => 126,
            Self::Signals(_) | Self::Wait(_) => 1,
        }
    }
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

/// Ends our process as the command ended: with the same code, or by the same signal.
pub(crate) fn exit_like(status: ExitStatus) -> ! {
    let Some(signal) = status.signal() else { std::process::exit(status.code().unwrap_or(1)) };
    // In a container our process may have the number 1, which its own signals do not end.
    if std::process::id() != 1 {
        // The command has dumped its core if core dumps are on; ours would be of no use.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    std::process::exit(128 + signal)
}
