//! `agent-metrics task`: runs a command as a task, and ends as the command ended.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::args::TaskArgs;
use super::fail;
use crate::agent::task_command::{self, TaskError};
use crate::agent::task_files::Task;
use crate::runtime::clock::Clock;

pub(super) fn run(args: TaskArgs) -> ExitCode {
    let task = Task {
        task_id: args.id.unwrap_or_else(|| u64::from(std::process::id())),
        task_type: args.task_type,
        workspace_id: args.workspace,
        started_at: Clock::start().wall().to_string(),
    };
    match task_command::run(&task, &args.tasks_dir, &args.command) {
        Ok(status) => exit_like(status),
        Err(error) => {
            fail(&error);
            // As a shell: 127 for a command that does not exist, 126 for one that cannot be run.
            ExitCode::from(match error {
                TaskError::Start(_, error) if error.kind() == ErrorKind::NotFound => 127,
                TaskError::Start(..) => 126,
                TaskError::Signals(_) | TaskError::Wait(_) => 1,
            })
        }
    }
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
