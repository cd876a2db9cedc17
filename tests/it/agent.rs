//! `agent-metrics agent`: correct measurements, a server that restarts, a wrong key, the goodbye,
//! `--once` and `--print`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::support::child::{agent, binary};
use super::support::feed::agent_ids;
use super::support::flood::heavy;
use super::support::machine::{CpuTimes, memory_percent};
use super::support::server::free_address;
use super::support::setup::{KEY_A, Key};
use super::support::status::Status;
use super::support::tools::left_out;
use super::support::wait::{DEADLINE, Deadline, eventually, eventually_within, pause, within};
use super::support::{Conn, Dashboard, Launch, Process, Server, Setup};

const POINTS_OF_CPU: f64 = 5.0;
const POINTS_OF_MEMORY: f64 = 2.0;

/// An empty task directory.
fn no_tasks() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Keeps a CPU busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let spin = move || while !stopped.load(Ordering::Relaxed) {};
        std::thread::Builder::new().name("busy".to_owned()).spawn(spin).unwrap();
        Self(stop)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The next update. With an interval of 10 s it may take longer than the usual deadline.
fn next_update(feed: &mut Dashboard) -> Value {
    let deadline = Deadline::after(Duration::from_secs(60));
    while let Some(left) = deadline.left() {
        if let Some(super::support::feed::Received::Message(message)) = feed.receive_within(left) {
            assert_eq!(message["type"], "metrics_update", "{message}");
            return message["metrics"].clone();
        }
    }
    panic!("no heartbeat in a minute");
}

/// Reads the same files at the same moments as the agent, with and without a load.
#[test]
fn cpu_and_memory_are_what_the_kernel_says() {
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let tasks = no_tasks();
    let mut feed = Dashboard::join(server.addr(), "pool-a");
    feed.expect("initial_metrics");
    let process =
        Process::start(agent(server.addr(), KEY_A, "a", tasks.path()).args(["--interval", "10s"]));
    if !process.stderr.wait_for("CPU and memory are of").contains("this machine") {
        left_out("this is a container with limits: there is nothing to compare with");
        return;
    }
    next_update(&mut feed);
    let mut load = None;
    for is_loaded in [true, false] {
        load = is_loaded.then(Busy::start);
        let before = CpuTimes::read();
        let metrics = next_update(&mut feed);
        let (low, high) = CpuTimes::read().percent_since(before);
        let cpu = metrics["cpu_usage"].as_f64().unwrap();
        let close = low - POINTS_OF_CPU..=high + POINTS_OF_CPU;
        assert!(close.contains(&cpu), "{cpu} % instead of {low} to {high} %");
        let cpus = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(!is_loaded || high > 60.0 / cpus, "a core should be busy: {high} %");
        let (memory, truth) = (metrics["memory_usage"].as_f64().unwrap(), memory_percent());
        assert!((memory - truth).abs() <= POINTS_OF_MEMORY, "{memory} % instead of {truth} %");
    }
    drop(load);
}

#[test]
fn twenty_agents_reconnect_after_a_restart_of_the_server() {
    const AGENTS: usize = 20;
    let _alone = heavy();
    let addr = free_address().to_string();
    let launch = || Launch::config(&Setup::open().toml()).listen(Some(&addr)).start();
    let server = launch();
    let tasks = no_tasks();
    let agents: Vec<Process> = (0..AGENTS)
        .map(|number| {
            let id = format!("agent-{number:02}");
            let mut command = agent(server.addr(), KEY_A, &id, tasks.path());
            Process::start(command.args(["--interval", "2s"]))
        })
        .collect();
    wait_for_agents(server.addr(), AGENTS);
    drop(server);
    for agent in &agents {
        agent.stderr.wait_for("don't get through");
    }
    // Further failures, which are not logged.
    let listener = TcpListener::bind(&addr).unwrap();
    listener.set_nonblocking(true).unwrap();
    for _ in 0..2 * AGENTS {
        drop(eventually("an agent tries again", || listener.accept().ok()));
    }
    drop(listener);
    let server = launch();
    wait_for_agents(server.addr(), AGENTS);
    for agent in &agents {
        agent.stderr.wait_for("receives our heartbeats again");
        let log = agent.stderr.text();
        for line in ["don't get through", "receives our heartbeats again"] {
            assert_eq!(log.matches(line).count(), 1, "{log}");
        }
    }
}

fn wait_for_agents(addr: SocketAddr, count: usize) {
    let all = || {
        let initial = Dashboard::join(addr, "pool-a").expect("initial_metrics");
        (agent_ids(&initial).len() == count).then_some(())
    };
    eventually_within(Duration::from_secs(60), "all agents are there", all);
}

#[test]
fn a_wrong_key_is_logged_once_and_retried_slowly() {
    let server = Server::start(&Setup::open().toml());
    let tasks = no_tasks();
    let wrong = Key { key: "key-a", secret: "not-the-secret-0c1f" };
    let mut command = agent(server.addr(), wrong, "a", tasks.path());
    let mut process = Process::start(command.args(["--interval", "1s"]));
    let line = process.stderr.wait_for("401");
    assert!(line.contains("app key key-a") && line.contains("every 1m"), "{line}");
    // A new task does not cause another request.
    std::fs::write(tasks.path().join("t.json"), "{}").unwrap();
    pause(Duration::from_secs(3));
    assert!(process.is_running());
    let refused = Status::read(server.addr()).counter("refused_wrong_secret");
    assert_eq!(refused, 1, "no request at the interval");
    let log = process.stderr.text();
    assert_eq!(log.matches("401").count(), 1, "{log}");
    assert!(!log.contains(wrong.secret), "{log}");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

/// The test's own server counts the connections.
#[test]
fn a_wrong_key_is_retried_slowly() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tasks = no_tasks();
    let mut command = agent(listener.local_addr().unwrap(), KEY_A, "a", tasks.path());
    let process = Process::start(command.args(["--interval", "1s"]));
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 4_096]).unwrap() > 0);
    let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    drop(stream);
    process.stderr.wait_for("401");
    pause(Duration::from_secs(4));
    listener.set_nonblocking(true).unwrap();
    let next = listener.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(next, Err(ErrorKind::WouldBlock), "no request at the interval");
}

#[test]
fn a_signal_makes_it_say_goodbye() {
    let server = Server::start(&Setup::open().toml());
    let tasks = no_tasks();
    let mut feed = Dashboard::join(server.addr(), "pool-a");
    feed.expect("initial_metrics");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut process = Process::start(&mut agent(server.addr(), KEY_A, "a", tasks.path()));
        feed.expect("metrics_update");
        process.signal(signal);
        let message = feed.expect("agent_offline");
        assert_eq!(
            (&message["metrics"]["agent_id"], &message["reason"]),
            (&"a".into(), &"goodbye".into())
        );
        assert_eq!(process.wait().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn once_shows_the_response() {
    let server = Server::start(&Setup::open().toml());
    let tasks = no_tasks();
    let mut feed = Dashboard::join(server.addr(), "pool-a");
    feed.expect("initial_metrics");
    let once = |addr: &str, key: Key| {
        let mut command = agent(server.addr(), key, "tried", tasks.path());
        command.arg("--once").env("AGENT_METRICS_NAME", "A Name");
        let mut command = if addr.is_empty() {
            command
        } else {
            let mut other = binary("agent");
            other.args(["--server", addr, "--app-key", key.key, "--once", "--tasks-dir"]);
            other.arg(tasks.path()).env("AGENT_METRICS_APP_SECRET", key.secret);
            other
        };
        let mut process = Process::start(&mut command);
        let status = eventually_within(Duration::from_secs(60), "an answer", || {
            (!process.is_running()).then(|| process.wait())
        });
        let (out, err) = (process.stdout.text(), process.stderr.text());
        assert!(!err.contains(key.secret) && !out.contains(key.secret), "{err}");
        (status.code(), out, err)
    };
    let (code, out, err) = once("", KEY_A);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("received") && out.contains("tried"), "{out}");
    let update = feed.expect("metrics_update");
    assert_eq!(
        (&update["metrics"]["agent_id"], &update["metrics"]["agent_name"]),
        (&"tried".into(), &"A Name".into())
    );

    let nobody = format!("http://{}", free_address());
    let foreign = format!("http://{}/elsewhere", server.addr());
    for (addr, key, reason) in [
        ("", Key { key: "key-a", secret: "wrong-4d5e" }, "key-a"),
        ("", Key { key: "key-x", secret: KEY_A.secret }, "key-x"),
        (nobody.as_str(), KEY_A, "refused"),
        (foreign.as_str(), KEY_A, "404"),
        ("http://no-such-host.invalid", KEY_A, "no-such-host.invalid"),
    ] {
        let (code, out, err) = once(addr, key);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(reason) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn print_shows_a_valid_heartbeat() {
    let tasks = no_tasks();
    let task = r#"{"task_id":4,"task_type":"plan","workspace_id":"w","started_at":"2025-01-07T10:30:00Z"}"#;
    std::fs::write(tasks.path().join("one.json"), task).unwrap();
    let mut command = binary("agent");
    command.args(["--print", "--name", "Näme \"x\"", "--tasks-dir"]).arg(tasks.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["status"], &shown["agent_name"]), (&"busy".into(), &"Näme \"x\"".into()));
    assert_eq!(shown["running_tasks"][0], serde_json::from_str::<Value>(task).unwrap());
    for member in ["cpu_usage", "memory_usage"] {
        assert!((0.0..=100.0).contains(&shown[member].as_f64().unwrap()), "{shown}");
    }
    let server = Server::start(&Setup::open().toml());
    assert_eq!(Conn::open(server.addr()).ping("shown", &shown).status, 200);
}

/// A control group; dropping it kills its processes and removes it.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let _ = within(DEADLINE, || std::fs::remove_dir(&self.0).ok());
    }
}

/// In a new group with half a CPU and 64 MiB, if the test may create one.
#[test]
fn in_a_control_group_percentages_are_of_its_limits() {
    const LIMIT_BYTES: u64 = 64 * 1024 * 1024;
    let group =
        Path::new("/sys/fs/cgroup").join(format!("agent-metrics-it-{}", std::process::id()));
    let limits = [("cpu.max", "50000 100000".to_owned()), ("memory.max", LIMIT_BYTES.to_string())];
    // On version 1 the same path is a plain directory.
    let made = std::fs::metadata("/sys/fs/cgroup/cgroup.controllers")
        .and_then(|_| std::fs::create_dir(&group))
        .and_then(|()| {
            limits.iter().try_for_each(|(name, text)| std::fs::write(group.join(name), text))
        });
    if let Err(error) = made {
        let _ = std::fs::remove_dir(&group);
        left_out(&format!("no control group (version 2) can be created here: {error}"));
        return;
    }
    let _group = Group(group.clone());
    let tasks = no_tasks();
    let server = Server::start(&Setup::open().toml());
    let mut feed = Dashboard::join(server.addr(), "pool-a");
    feed.expect("initial_metrics");
    let inner = agent(server.addr(), KEY_A, "a", tasks.path());
    let mut command = Command::new("sh");
    // A busy loop in the group uses all of its half CPU.
    let script = r#"echo $$ > "$0/cgroup.procs" && { timeout 60 sh -c 'while :; do :; done' & "$@" --interval 2s; }"#;
    command.args(["-c", script]).arg(&group).arg(inner.get_program()).args(inner.get_args());
    command.env("AGENT_METRICS_APP_SECRET", KEY_A.secret);
    let process = Process::start(&mut command);
    process.stderr.wait_for("0.5 CPUs, 64 MiB");
    feed.until(|message| message["metrics"]["cpu_usage"].as_f64().is_some_and(|cpu| cpu > 80.0));
    let memory = feed.next()["metrics"]["memory_usage"].as_f64().unwrap();
    let current = std::fs::read_to_string(group.join("memory.current")).unwrap();
    let most = current.trim().parse::<f64>().unwrap() / LIMIT_BYTES as f64 * 100.0;
    assert!(memory > 0.0 && memory <= most + POINTS_OF_MEMORY, "{memory} % of {most} %");
}
