//! Server processes: starts them with a configuration, reads their log, kills them with the test.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::child::{Log, Process};
use super::http::{Conn, Request};
use super::wait::eventually;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_agent-metrics");

/// The server's standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stderr {
    /// Collected; it tells the server's port.
    Collected,
    /// A pipe without a reader: every write fails.
    Broken,
    /// A full pipe that is not read: every write blocks.
    Full,
}

/// How to start a server.
#[derive(Debug)]
pub(crate) struct Launch {
    toml: Option<String>,
    wrapper: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    listen: Option<String>,
    stderr: Stderr,
}

impl Launch {
    /// `serve --config` with this file, on a free port of 127.0.0.1.
    pub(crate) fn config(toml: &str) -> Self {
        Self { toml: Some(toml.to_owned()), ..Self::dev() }
    }

    /// `serve --dev`, on a free port of 127.0.0.1.
    pub(crate) fn dev() -> Self {
        Self {
            toml: None,
            wrapper: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            listen: Some("127.0.0.1:0".to_owned()),
            stderr: Stderr::Collected,
        }
    }

    /// Another `--listen`, or none.
    pub(crate) fn listen(mut self, listen: Option<&str>) -> Self {
        self.listen = listen.map(str::to_owned);
        self
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the server with a command that executes it, such as `prlimit --nofile=128`.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Unless it is collected, the port is chosen here, and the server has started when `/readyz`
    /// answers 200.
    pub(crate) fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn start(mut self) -> Server {
        if self.stderr != Stderr::Collected && self.listen.as_deref() == Some("127.0.0.1:0") {
            self.listen = Some(free_address().to_string());
        }
        let mut server = self.spawn();
        if self.stderr == Stderr::Collected {
            server.log().wait_for("listening on http://");
            server.addr = server.addresses()[0];
        } else {
            server.addr = self.listen.as_deref().unwrap().parse().unwrap();
            eventually("the server is ready", || ready(server.addr).then_some(()));
        }
        server
    }

    /// Starts a process that is expected to fail. Its address is not valid.
    pub(crate) fn spawn(&self) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut words = self.wrapper.clone();
        words.extend([BINARY.to_owned(), "serve".to_owned()]);
        match &self.toml {
            Some(toml) => {
                let file = dir.path().join("agent-metrics.toml");
                std::fs::write(&file, toml).unwrap();
                words.extend(["--config".to_owned(), file.to_str().unwrap().to_owned()]);
            }
            None => words.push("--dev".to_owned()),
        }
        if let Some(listen) = &self.listen {
            words.extend(["--listen".to_owned(), listen.clone()]);
        }
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(dir.path()).stdin(Stdio::null());
        // So that files of a killed server are removed with the test.
        command.env("TMPDIR", dir.path());
        without_our_variables(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Server::spawn(command, self.stderr, dir)
    }
}

/// Removes the variables that would configure the binary.
pub(crate) fn without_our_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AGENT_METRICS_") {
            command.env_remove(name);
        }
    }
}

/// An address of 127.0.0.1 that is free now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    addr: SocketAddr,
    /// Keeps its standard error full instead of broken.
    _full_pipe: Option<std::io::PipeReader>,
    /// Its working directory, with its configuration.
    _dir: TempDir,
}

impl Server {
    /// With this configuration, on a free port.
    pub(crate) fn start(toml: &str) -> Self {
        Launch::config(toml).start()
    }

    /// `serve --dev` on a free port.
    pub(crate) fn dev() -> Self {
        Launch::dev().start()
    }

    /// The first address that it listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All addresses that it has logged so far as `listening on http://ADDRESS`.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.log().text().lines().filter_map(listening_on).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Empty unless standard error is collected.
    pub(crate) fn log(&self) -> &Log {
        &self.process.stderr
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait_alone()
    }

    /// Waits until it has ended and all of its log has been read.
    pub(crate) fn wait_with_log(&mut self) -> (ExitStatus, String) {
        let status = self.wait();
        self.log().wait_for_end();
        (status, self.log().text())
    }

    fn spawn(mut command: Command, stderr: Stderr, dir: TempDir) -> Self {
        let mut full_pipe = None;
        match stderr {
            Stderr::Collected => command.stderr(Stdio::piped()),
            Stderr::Broken => command.stderr(std::io::pipe().unwrap().1),
            Stderr::Full => {
                let (reader, writer) = full_stderr();
                full_pipe = Some(reader);
                command.stderr(writer)
            }
        };
        let process = Process::spawn(&mut command);
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { process, addr, _full_pipe: full_pipe, _dir: dir }
    }
}

/// A full pipe. Writing to it blocks, as to any other standard error.
fn full_stderr() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // Whole pages while they fit, then single bytes to fill the rest.
    for chunk in [4096, 1] {
        while writer.write(&vec![b'.'; chunk]).is_ok() {}
    }
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

fn ready(addr: SocketAddr) -> bool {
    let Ok(mut conn) = Conn::try_open(addr) else { return false };
    conn.send(&Request::get("/readyz").bytes());
    conn.try_response().is_some_and(|response| response.status == 200)
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http://")?;
    let end = rest.find(|c: char| !c.is_ascii_hexdigit() && !".:[]".contains(c));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
