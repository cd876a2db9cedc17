//! The browser's process and its profile.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::child::Log;
use crate::support::tools::Tool;
use crate::support::wait::within;

/// No window; no sandbox, which does not work in containers and as root; no requests of its own; no
/// `/dev/shm`, which is small in containers.
const FLAGS: [&str; 16] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--lang=en-US",
    "--remote-debugging-port=0",
];

/// For the browser to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Dropping it ends the process and removes the profile.
pub(super) struct Process {
    child: Child,
    url: String,
    profile: Option<TempDir>,
}

impl Process {
    pub(super) fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("agent-metrics-browser-").tempdir().unwrap();
        let mut child = Command::new(Tool::Chromium.path())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            // It leaves files there.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::collecting(child.stderr.take().unwrap());
        let mut process = Self { child, url: String::new(), profile: Some(profile) };
        let line = log.wait_for("DevTools listening on ");
        line.split_once("listening on ").unwrap().1.trim().clone_into(&mut process.url);
        process
    }

    /// The DevTools URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // On SIGTERM it ends its children, too; if it is killed, they end by themselves later.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let has_ended = || (!matches!(self.child.try_wait(), Ok(None))).then_some(());
        if !asked || within(GRACE, has_ended).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Children may still write to the profile.
        let Some(profile) = self.profile.take() else { return };
        let path = profile.keep();
        let is_gone = || (std::fs::remove_dir_all(&path).is_ok() || !path.exists()).then_some(());
        let _ = within(GRACE, is_gone);
    }
}
