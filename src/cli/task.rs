//! `agent-metrics task`: runs a command as a task, and ends as the command ended.

use std::io::{self, ErrorKind, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::args::TaskArgs;
use super::{Failure, fail};
use crate::agent::task_command::forward;
use crate::agent::task_files::{Task, TaskFile};
use crate::runtime::clock::Clock;

pub(super) fn run(args: TaskArgs) -> ExitCode {
    match run_command(args) {
        Ok(status) => exit_like(status),
        Err((code, why)) => {
            fail(&*Failure::from(why));
            ExitCode::from(code)
        }
    }
}

/// The task's file is there from before the command starts until after it has ended. If it cannot
/// be created, standard error says so and the command runs all the same. An error is our exit code
/// and why.
fn run_command(args: TaskArgs) -> Result<ExitStatus, (u8, String)> {
    let mut signals = forward::listen()
        .map_err(|error| (1, format!("cannot install signal handlers: {error}")))?;
    let task = Task {
        task_id: args.id.unwrap_or_else(|| u64::from(std::process::id())),
        task_type: args.task_type,
        workspace_id: args.workspace,
        started_at: Clock::start().wall().to_string(),
    };
    let file = TaskFile::create(&args.tasks_dir, &task);
    if let Err(error) = &file {
        let dir = args.tasks_dir.display();
        let _ = writeln!(
            io::stderr(),
            "agent-metrics task: no agent will see this task: {dir}: {error}"
        );
    }
    let mut words = args.command.iter();
    let program = words.next().cloned().unwrap_or_default();
    let mut child = Command::new(&program).args(words).spawn().map_err(|error| {
        // As a shell: 127 for a command that does not exist, 126 for one that cannot be run.
        let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
        (code, format!("cannot run {}: {error}", program.to_string_lossy()))
    })?;
    forward::wait(&mut child, &mut signals)
        .map_err(|error| (1, format!("cannot wait for the command: {error}")))
}

/// Ends our process as the command ended: with the same code, or by the same signal.
fn exit_like(status: ExitStatus) -> ! {
    let Some(signal) = status.signal() else { std::process::exit(status.code().unwrap_or(1)) };
    // In a container our process may have the number 1, which its own signals do not end.
    if std::process::id() != 1 {
        // The command has dumped its core if core dumps are on; ours would be of no use.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    std::process::exit(128 + signal)
}
