//! The command line: one file a subcommand. Reads arguments and files, starts what they ask for,
//! and makes the exit code.

mod agent;
mod args;
mod check;
mod init;
mod recipe;
mod serve;
mod task;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use self::args::{Cli, Command};
use crate::agent::task_command::probe;
use crate::runtime::counters::Counters;
use crate::runtime::logging::{self, Logging};
use crate::server::STOP_WITHIN;

/// How long the last log lines may take to get out.
const LOG_GRACE: Duration = Duration::from_millis(150);

// What a supervisor of processes can be promised.
const _: () = assert!(STOP_WITHIN.as_millis() + LOG_GRACE.as_millis() < 2_000);

type Failure = Box<dyn std::error::Error>;

/// Runs what the process's arguments ask for.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Agent(args) => agent::run(args),
        Command::Task(args) => return task::run(args),
        Command::Recipe(args) => print(args.recipe.text()).map_err(Failure::from),
        Command::Init(args) => init::run(&args).map_err(Failure::from),
        Command::Check(args) => check::run(&args),
        Command::SignalProbe => probe::serve().map_err(Failure::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

/// Says why, where standard error is still there to hear it.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "agent-metrics: {error}");
    ExitCode::FAILURE
}

/// Runs `work` with the log on, and logs its failure: while the log's thread may be stuck on
/// standard error, nobody else should write there.
fn logged(
    counters: &Arc<Counters>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let logging: Logging = logging::start(logging::level_from_env()?, Arc::clone(counters))?;
    let result = work();
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging.finish(LOG_GRACE);
    // It has been said, and there may be nobody left to say it to.
    result.or_else(|_| std::process::exit(1))
}

/// Writes `text` to standard output in one go.
///
/// # Errors
/// Whatever the system says; [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
