//! The command line: one file per subcommand. Reads arguments and files, runs the subcommand, and
//! returns the exit code.

mod agent;
mod args;
mod check;
mod init;
mod recipe;
mod serve;
mod task;

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use crossbeam_channel::Receiver;

use self::args::{Cli, Command};
use crate::agent::task_command::probe;
use crate::runtime::counters::Counters;
use crate::runtime::logging;
use crate::runtime::signals::{Signal, Signals};
use crate::server::STOP_WITHIN;

/// For the last log lines to be written.
const LOG_GRACE: Duration = Duration::from_millis(150);

// A process supervisor may count on a stop within two seconds.
const _: () = assert!(STOP_WITHIN.as_millis() + LOG_GRACE.as_millis() < 2_000);

type Failure = Box<dyn std::error::Error>;

/// Runs the subcommand that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Agent(args) => agent::run(args),
        Command::Task(args) => return task::run(args),
        Command::Recipe { recipe } => print(recipe.text()).map_err(Failure::from),
        Command::Init { output } => init::run(&output, print),
        Command::Check(file) => check::run(&file),
        Command::SignalProbe => probe::serve().map_err(Failure::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

/// Prints the error. It may be that nobody reads standard error any more.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "agent-metrics: {error}");
    ExitCode::FAILURE
}

/// Runs `work` with the log started, until it ends by itself or on a signal that it receives. Logs
/// its error: while the log's thread may be blocked on standard error, no other thread should write
/// there.
fn logged(
    counters: &Arc<Counters>,
    work: impl FnOnce(&Receiver<Signal>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let logging = logging::start(Arc::clone(counters))?;
    let work = || -> Result<(), Failure> {
        let signals = Signals::start()?;
        work(&signals.first)?;
        signals.close();
        Ok(())
    };
    // A panic is reported through the log, which has to be written before the process ends.
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked".into()));
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging.finish(LOG_GRACE);
    // The error is logged, so `fail` must not print it again.
    result.or_else(|_| std::process::exit(1))
}

/// Writes `text` to standard output. [`io::ErrorKind::BrokenPipe`] means that the reader has closed it.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
