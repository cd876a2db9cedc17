//! The browser's process, with a profile of its own, both gone when dropped.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::child::Log;
use crate::support::tools::Tool;
use crate::support::wait::within;

/// No window, no sandbox (containers and root have none, and the pages are our own), nothing
/// asked of the network unasked, and memory where containers have some.
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

/// How long the browser may take to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// A running browser.
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
            // It leaves things there.
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

    /// Of its DevTools.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends its own children when it is asked; those of one that is killed end by themselves.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let has_ended = || (!matches!(self.child.try_wait(), Ok(None))).then_some(());
        if !asked || within(GRACE, has_ended).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Until then they may still write.
        let Some(profile) = self.profile.take() else { return };
        let path = profile.keep();
        let is_gone = || (std::fs::remove_dir_all(&path).is_ok() || !path.exists()).then_some(());
        let _ = within(GRACE, is_gone);
    }
}
