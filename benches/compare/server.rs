//! The two servers under comparison: how each is started and what is said to it. The same client
//! sends both the same bytes but for the path.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use agent_metrics::Clock;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::process::Process;
use crate::{Result, http, resources};

const AGENT_METRICS: &str = env!("CARGO_BIN_EXE_agent-metrics");
const NGINX_CONF: &str = include_str!("../nginx.conf");
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Debian keeps nginx here, which is not on every user's PATH.
const NGINX: &str = "/usr/sbin/nginx";

const APP_KEY: &str = "bench-key";
const APP_SECRET: &str = "4f6d1c0b9a8e7d6c5b4a39281706f5e4";

/// Digits of a stamp: a task id of as many digits in every message, so that it can be written in
/// place and found in place.
pub(crate) const STAMP_DIGITS: usize = 16;
/// The smallest number of [`STAMP_DIGITS`] digits; a stamp counts nanoseconds from here.
pub(crate) const STAMP_BASE: u64 = 1_000_000_000_000_000;
/// What stands before a stamp.
pub(crate) const STAMP_MEMBER: &[u8] = b"\"task_id\":";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    AgentMetrics,
    /// nginx with the nchan module.
    Nginx,
}

impl Kind {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AgentMetrics => "agent-metrics",
            Self::Nginx => "nginx + nchan",
        }
    }

    /// A heartbeat of agent number `agent`, as an agent sends it.
    pub(crate) fn heartbeat(self, agent: usize) -> http::Post {
        self.post(agent, &heartbeat_body())
    }

    /// What makes this server deliver an update: to ours a heartbeat, to nchan the whole
    /// `update`, since it passes on what it gets.
    pub(crate) fn trigger(self, agent: usize, update: &[u8]) -> http::Post {
        match self {
            Self::AgentMetrics => self.heartbeat(agent),
            Self::Nginx => self.post(agent, update),
        }
    }

    fn post(self, agent: usize, body: &[u8]) -> http::Post {
        let path = match self {
            Self::AgentMetrics => format!("/api/v1/agents/agent-{agent:04}/ping"),
            Self::Nginx => "/pub".to_owned(),
        };
        let headers = [("X-App-Key", APP_KEY), ("X-App-Secret", APP_SECRET)];
        http::Post::new(&path, &headers, body)
    }

    /// Where a dashboard connects.
    pub(crate) fn feed_path(self) -> &'static str {
        match self {
            Self::AgentMetrics => "/ws/agent-pools/bench/metrics",
            Self::Nginx => "/sub",
        }
    }

    /// Whether a dashboard gets a message as soon as it is there.
    pub(crate) fn greets(self) -> bool {
        self == Self::AgentMetrics
    }
}

/// About 300 bytes, with the stamp in the first task.
pub(crate) fn heartbeat_body() -> Vec<u8> {
    format!(
        concat!(
            r#"{{"status":"busy","cpu_usage":45.5,"memory_usage":62.3,"running_tasks":["#,
            r#"{{"task_id":{},"task_type":"plan","workspace_id":"ws-7f3a9c21e4","#,
            r#""started_at":"2025-01-07T10:30:00Z"}},"#,
            r#"{{"task_id":124,"task_type":"apply","workspace_id":"ws-09bd55a1c7","#,
            r#""started_at":"2025-01-07T10:31:12Z"}}]}}"#
        ),
        STAMP_BASE
    )
    .into_bytes()
}

/// A server that runs, with its files; both are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    process: Process,
    // After the process: it must not lose its directory while it runs.
    _dir: TempDir,
}

impl Server {
    /// Starts a fresh one, with nothing in its memory from earlier measurements.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("agent-metrics-bench-").tempdir()?;
        let (process, address) = match kind {
            Kind::AgentMetrics => start_ours(&dir)?,
            Kind::Nginx => start_nginx(&dir)?,
        };
        Ok(Self { address, process, _dir: dir })
    }

    /// The CPU time that the server had so far.
    pub(crate) fn cpu(&self) -> Result<std::time::Duration> {
        resources::cpu_time(&self.process.pids()?)
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        resources::resident_bytes(&self.process.pids()?)
    }
}

fn start_ours(dir: &TempDir) -> Result<(Process, SocketAddr)> {
    let secret = hex::encode(Sha256::digest(APP_SECRET));
    let config = dir.path().join("agent-metrics.toml");
    // All clients share one address here, as they do not in life.
    let text = format!(
        "[viewers]\nopen = true\n\n\
         [[pools]]\nid = \"bench\"\nname = \"Bench\"\n\
         keys = [{{ app_key = \"{APP_KEY}\", app_secret_sha256 = \"{secret}\" }}]\n\n\
         [limits]\nmax_connections_per_address = 4000\nmax_dashboards_per_address = 4000\n"
    );
    fs::write(&config, text)?;
    let arguments = ["serve", "--config", &path_text(&config)?, "--listen", "127.0.0.1:0"];
    Process::start(AGENT_METRICS, &arguments.map(str::to_owned), |line| {
        let rest = line.split_once("listening on http://")?.1;
        rest.split(|c: char| c.is_whitespace() || c == '/').next()?.parse().ok()
    })
}

fn start_nginx(dir: &TempDir) -> Result<(Process, SocketAddr)> {
    // nginx cannot say which port it was given, so the kernel chooses a free one beforehand.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let workers = std::thread::available_parallelism()?.get();
    // Started as root it would drop to an account that may not write to our directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let conf = NGINX_CONF
        .replace("@MODULE@", NCHAN_MODULE)
        .replace("@DIR@", &path_text(dir.path())?)
        .replace("@WORKERS@", &workers.to_string())
        .replace("@USER@", user)
        .replace("@ADDRESS@", &address.to_string());
    let file = dir.path().join("nginx.conf");
    fs::write(&file, conf)?;
    let arguments = ["-p", &path_text(dir.path())?, "-e", "stderr", "-c", &path_text(&file)?];
    let mut started = 0;
    let up = |line: &str| {
        started += usize::from(line.contains("start worker process "));
        (started == workers).then_some(address)
    };
    Process::start(NGINX, &arguments.map(str::to_owned), up)
        .map_err(|error| format!("{error}\n(benches/setup.sh installs nginx and nchan)").into())
}

fn path_text(path: &std::path::Path) -> Result<String> {
    Ok(path.to_str().ok_or("the temporary directory's name is not UTF-8")?.to_owned())
}

/// The stamp for this moment: nanoseconds since the clock's start, as a number of
/// [`STAMP_DIGITS`] digits.
pub(crate) fn stamp(clock: Clock) -> u64 {
    let nanos = clock.since_base(clock.now()).as_nanos();
    STAMP_BASE + u64::try_from(nanos).unwrap_or_default()
}
