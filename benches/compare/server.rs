//! The two servers under comparison: how each is started and what is said to it. The same client
//! sends both the same bytes but for the path.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use agent_metrics::Clock;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::process::Process;
use crate::{Result, resources};

const AGENT_METRICS: &str = env!("CARGO_BIN_EXE_agent-metrics");
const NGINX_CONF: &str = include_str!("../nginx.conf");
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Debian keeps nginx here, which is not on every user's PATH.
const NGINX: &str = "/usr/sbin/nginx";

pub(crate) const APP_KEY: &str = "bench-key";
pub(crate) const APP_SECRET: &str = "4f6d1c0b9a8e7d6c5b4a39281706f5e4";

/// What an agent's heartbeats go to, up to its id's [`ID_DIGITS`] digits.
pub(crate) const HEARTBEAT_PATH: &str = "/api/v1/agents/agent-";
pub(crate) const ID_DIGITS: usize = 5;
/// Where a dashboard connects.
pub(crate) const FEED_PATH: &str = "/ws/agent-pools/bench/metrics";

/// Digits of a stamp, which is written and found in place: it has as many in every message.
pub(crate) const STAMP_DIGITS: usize = 16;
/// The smallest number of [`STAMP_DIGITS`] digits; a stamp counts nanoseconds from here.
const STAMP_BASE: u64 = 1_000_000_000_000_000;
/// What stands before a stamp: of a task's members one that does not make it another task.
pub(crate) const STAMP_MEMBER: &[u8] = b"\"workspace_id\":\"";

/// Which server.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Ours, or another build of it: the program.
    AgentMetrics(String),
    /// nginx with the nchan module.
    Nginx,
}

impl Kind {
    /// The build that this bench belongs to.
    pub(crate) fn this_build() -> Self {
        Self::AgentMetrics(AGENT_METRICS.to_owned())
    }

    /// Its name in the table.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::AgentMetrics(program) if program == AGENT_METRICS => "agent-metrics",
            Self::AgentMetrics(program) => program,
            Self::Nginx => "nginx + nchan",
        }
    }

    /// Whether it makes updates of heartbeats. nchan passes on what it gets, and a dashboard gets
    /// nothing from it before the first.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::AgentMetrics(_))
    }
}

/// A heartbeat with so many tasks, the stamp in the first: about 300 bytes with two, 2 KiB with
/// ten, which also have what is optional.
pub(crate) fn heartbeat_body(tasks: usize) -> Vec<u8> {
    let optional = if tasks > 2 {
        r#","title":"apply network and cluster","url":"https://ci.example.org/runs/7f3a9c21e4/1""#
    } else {
        ""
    };
    let tasks: Vec<String> = (0..tasks)
        .map(|task| {
            format!(
                "{{\"task_id\":{},\"task_type\":\"plan\",\"workspace_id\":\"{}\",\
                 \"started_at\":\"2025-01-07T10:30:00Z\"{optional}}}",
                123 + task,
                STAMP_BASE
            )
        })
        .collect();
    format!(
        "{{\"status\":\"busy\",\"cpu_usage\":45.5,\"memory_usage\":62.3,\"running_tasks\":[{}]}}",
        tasks.join(",")
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
    pub(crate) fn start(kind: &Kind) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("agent-metrics-bench-").tempdir()?;
        let (process, address) = match kind {
            Kind::AgentMetrics(program) => start_ours(program, &dir)?,
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

fn start_ours(program: &str, dir: &TempDir) -> Result<(Process, SocketAddr)> {
    let secret = hex::encode(Sha256::digest(APP_SECRET));
    let config = dir.path().join("agent-metrics.toml");
    // All clients share one address here, and one pool, as they do not in life.
    let text = format!(
        "[viewers]\nopen = true\n\n\
         [[pools]]\nid = \"bench\"\nname = \"Bench\"\n\
         keys = [{{ app_key = \"{APP_KEY}\", app_secret_sha256 = \"{secret}\" }}]\n\n\
         [limits]\nmax_connections_per_address = 4000\nmax_dashboards_per_address = 4000\n\
         max_agents_per_pool = 50000\nmax_pool_bytes = \"1 GiB\"\n"
    );
    fs::write(&config, text)?;
    let arguments = ["serve", "--config", &path_text(&config)?, "--listen", "127.0.0.1:0"];
    Process::start(program, &arguments.map(str::to_owned), |line| {
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

/// The stamp for `instant`: nanoseconds since the clock's start, as a number of
/// [`STAMP_DIGITS`] digits.
pub(crate) fn stamp(clock: Clock, instant: std::time::Instant) -> u64 {
    let nanos = clock.since_base(instant).as_nanos();
    STAMP_BASE + u64::try_from(nanos).unwrap_or_default()
}
