//! Runs a test in a network namespace of its own, where every port is free: the test binary starts
//! itself again with unshare(1), as root or in a user namespace.

use std::process::Command;

use super::child::Process;
use super::tools::left_out;

/// Set in the new namespace.
const MARK: &str = "AGENT_METRICS_TEST_OWN_NETWORK";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To be run in this process: in the namespace, or without one if none can be created.
    Here,
    /// It has passed in another process.
    Elsewhere,
}

/// `name` is the full path of the test.
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
        left_out("no network namespace can be created: other processes may use its port");
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
