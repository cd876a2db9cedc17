//! `agent-metrics task`: runs a command as a task, and ends as the command ended.

use std::process::ExitCode;

use super::args::TaskArgs;
use super::fail;
use crate::agent::task_command::{exit_like, run as run_command};
use crate::agent::task_files::Task;
use crate::runtime::clock::Clock;

pub(super) fn run(args: TaskArgs) -> ExitCode {
    let task = Task {
        task_id: args.id.unwrap_or_else(|| u64::from(std::process::id())),
        task_type: args.task_type,
        workspace_id: args.workspace,
        started_at: Clock::start().wall().to_string(),
    };
    match run_command(&task, &args.tasks_dir, &args.command) {
        Ok(status) => exit_like(status),
        Err(error) => {
            fail(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
