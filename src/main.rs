//! Arguments to exit code; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_metrics::cli::run()
}
