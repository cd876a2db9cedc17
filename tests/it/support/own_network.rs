//! A test in a network of its own, where every port is free: the test binary starts itself again
//! in a new network namespace (unshare(1)), as root or in a user namespace.

use std::process::Command;

use super::child::Process;
use super::tools::left_out;

/// Set where we are in that namespace already.
const MARK: &str = "AGENT_METRICS_TEST_OWN_NETWORK";

/// Where a test that wants a network of its own runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this process: its network is its own, or the best there is.
    Here,
    /// It has run elsewhere, and passed.
    Elsewhere,
}

/// Runs the test `name` (its full path) in a network of its own, if there can be one.
pub(crate) fn run(name: &str) -> Place {
    if std::env::var_os(MARK).is_some() {
        return Place::Here;
    }
    let up = "ip link set lo up";
    let Some(flags) = ["-n", "-rn"].into_iter().find(|flags| {
        Command::new("unshare")
            .args([flags, "sh", "-c", up])
            .output()
            .is_ok_and(|output| output.status.success())
    }) else {
        left_out("no network namespace can be made here: its port is shared with all that runs");
        return Place::Here;
    };
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-c", &format!(r#"{up} && exec "$0" "$@""#)]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let mut inner = Process::start(command.env(MARK, "yes"));
    let status = inner.wait();
    let said = format!("{}\n{}", inner.stdout.text(), inner.stderr.text());
    assert!(status.success() && said.contains("1 passed"), "{said}");
    Place::Elsewhere
}
