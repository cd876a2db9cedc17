//! `agent-metrics task`: runs a command as a task, and ends as the command ended.

use std::process::ExitCode;

use super::args::TaskArgs;
use super::fail;
use crate::agent::task_command::{self, Job};
use crate::runtime::clock::Clock;

pub(super) fn run(args: TaskArgs) -> ExitCode {
    let TaskArgs { task_type, workspace, id, tasks_dir: dir, command } = args;
    match task_command::run(&Job { task_type, workspace, id, dir, command }, Clock::start().wall())
    {
        Ok(ended) => ended.imitate(),
        Err(error) => {
            fail(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
