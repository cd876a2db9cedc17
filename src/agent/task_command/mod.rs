//! `agent-metrics task`: runs a command as a task that agents report. The file of the task is
//! there while the command runs; the command itself notices nothing: its input, output, signals
//! and exit code are its own. Knows no server.
//!
//! One thread, which waits for signals alone: the end of the command is one of them. So a signal
//! can never be forwarded to a process that has taken the command's place. `forward` is that
//! wait, [`probe`] a second process, which tells what the command has got already.

mod forward;
pub(crate) mod probe;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::agent::task_files::{Task, TaskFile};
use crate::runtime::clock::UnixMillis;

/// What a shell exits with for a command that is not there, and for one that cannot run.
const NOT_FOUND: u8 = 127;
/// See [`NOT_FOUND`].
const CANNOT_RUN: u8 = 126;

/// What to run, and as which task.
#[derive(Debug)]
pub(crate) struct Job {
    /// The task's `task_type`.
    pub task_type: String,
    /// The task's `workspace_id`.
    pub workspace: String,
    /// The task's `task_id`; without one, the number of our process.
    pub id: Option<u64>,
    /// Where the task's file goes.
    pub dir: PathBuf,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Why a command did not run, or was not waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("{0}: it may have 128 characters")]
    TooLong(&'static str),
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot run {0}: {1}")]
    Start(String, #[source] io::Error),
    #[error("cannot wait for the command: {0}")]
    Wait(#[source] io::Error),
}

impl TaskError {
    /// The exit code that says so, as shells have it.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Start(_, error) if error.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Start(..) => CANNOT_RUN,
            Self::TooLong(_) => 2,
            Self::Signals(_) | Self::Wait(_) => 1,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// Ends our process in the same way.
    pub(crate) fn imitate(self) -> ! {
        let code = match self {
            Self::Code(code) => code,
            // The first process of a container dies of no signal of its own.
            Self::Signal(signal) if std::process::id() == 1 => 128 + signal,
            Self::Signal(signal) => {
                // The command has left its core, if anyone wants one; ours says nothing.
                let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                // Not reached, unless the signal is one that ends nobody.
                128 + signal
            }
        };
        std::process::exit(code)
    }
}

/// Runs the command, with the task's file there from before it starts until after it ended.
/// That the file cannot be made is said on standard error and stops no command: whoever wraps
/// a job wants the job. `now` is when the task starts.
///
/// # Errors
/// [`TaskError`]; the file is gone then, too.
pub(crate) fn run(job: &Job, now: UnixMillis) -> Result<Ended, TaskError> {
    let task = Task {
        task_id: job.id.unwrap_or_else(|| u64::from(std::process::id())),
        task_type: job.task_type.clone(),
        workspace_id: job.workspace.clone(),
        started_at: now.to_string(),
    };
    task.check().map_err(TaskError::TooLong)?;
    let mut signals = forward::listen().map_err(TaskError::Signals)?;
    let file = TaskFile::create(&job.dir, &task);
    if let Err(error) = &file {
        let shown = job.dir.display();
        let _ = writeln!(
            io::stderr(),
            "agent-metrics task: no agent will see this task: {shown}: {error}"
        );
    }
    let mut words = job.command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let child = Command::new(&program).args(words).spawn();
    let mut child =
        child.map_err(|error| TaskError::Start(program.to_string_lossy().into_owned(), error))?;
    forward::wait(&mut child, &mut signals).map(ended).map_err(TaskError::Wait)
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Code(1),
    }
}
