//! The client module that the server serves, run by Node against that server: what it holds is what
//! the server holds, through updates and departures, a restart, and a lag.

use std::cell::Cell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Map, Value, json};

use super::support::child::Log;
use super::support::flood::{bulky_heartbeat, heavy};
use super::support::http::heartbeat;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::tools::{Tool, needs};
use super::support::{Conn, Launch, Request, Server, Setup, eventually};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/client_module.mjs");
/// Nobody connects from here, so that the port stays free while a server is being started again.
const ADDRESS_OF_ITS_OWN: &str = "127.0.0.77:0";
const UPDATE_BYTES: usize = 32 * 1024;

/// A Node process with the module watching `pool-a`. Ends when dropped.
struct Watcher {
    child: Child,
    commands: ChildStdin,
    output: Log,
    asked: Cell<usize>,
}

impl Watcher {
    /// Connects, and waits for the first snapshot.
    fn start(addr: SocketAddr) -> Self {
        let mut child = Command::new("node")
            .arg(SCRIPT)
            .args([format!("http://{addr}"), "pool-a".to_owned()])
            .arg(Tool::Package("ws").path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let output = Log::collecting(child.stdout.take().unwrap());
        let commands = child.stdin.take().unwrap();
        let watcher = Self { child, commands, output, asked: Cell::new(0) };
        watcher.output.wait_for("connection live");
        watcher
    }

    /// What the script answers to `command`.
    fn ask(&self, command: &str) -> Value {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        writeln!(&self.commands, "{command} {number}").unwrap();
        let line = self.output.wait_for(&format!("answer {number} "));
        serde_json::from_str(line.splitn(3, ' ').nth(2).unwrap()).unwrap()
    }

    /// Waits until it is live and holds what the server says that the pool is; returns that.
    fn wait_for_truth(&self, addr: SocketAddr) -> Value {
        let truth = truth(addr);
        eventually("the module holds what the server holds", || {
            (comparable(self.ask("tell")) == truth).then_some(())
        });
        truth
    }

    /// How many lines it has written that begin with `start`.
    fn count(&self, start: &str) -> usize {
        self.output.text().lines().filter(|line| line.starts_with(start)).count()
    }
}

impl Drop for Watcher {
    #[expect(clippy::print_stderr, reason = "what it held explains a failure")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- last words of the module ---");
            let text = self.output.text();
            text.lines().rev().take(5).for_each(|line| eprintln!("{line:.4000}"));
        }
    }
}

/// The pool as the server has it now, in the form in which the script tells it.
fn truth(addr: SocketAddr) -> Value {
    let mut said = Request::get("/api/v1/agent-pools/pool-a/metrics").send(addr).json();
    let by_id = |list: Value| -> Map<String, Value> {
        let Value::Array(list) = list else { panic!("no list: {list}") };
        list.into_iter().map(|one| (one["agent_id"].as_str().unwrap().to_owned(), one)).collect()
    };
    comparable(json!({
        "agents": by_id(said["metrics"].take()),
        "departed": by_id(said["departed"].take()),
        "epoch": said["epoch"].take(),
        "state": "live",
    }))
}

/// Without the moments of departures: who heard of one as it happened goes by the message's
/// `server_time`, which is some milliseconds later than what the server keeps.
fn comparable(mut told: Value) -> Value {
    for departure in told["departed"].as_object_mut().unwrap().values_mut() {
        assert!(departure["at"].take().is_string(), "{departure}");
    }
    with_equal_numbers(told)
}

/// JavaScript writes 50.0 as 50.
fn with_equal_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.into_iter().map(with_equal_numbers).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, with_equal_numbers(value))).collect()
        }
        other => other,
    }
}

fn beat(addr: SocketAddr, agents: &[&str], body: &Value) {
    let mut conn = Conn::open(addr);
    for agent in agents {
        assert_eq!(conn.ping(agent, body).status, 200);
    }
}

#[test]
fn through_updates_departures_and_a_restart_it_holds_what_the_server_holds() {
    needs!(Program("node"), Package("ws"));
    let toml = Setup::open().toml();
    let mut server = Launch::config(&toml).listen(Some(ADDRESS_OF_ITS_OWN)).start();
    let addr = server.addr();
    beat(addr, &["early", "leaver"], &bulky_heartbeat(12.5, 300));
    let watcher = Watcher::start(addr);
    assert_eq!(watcher.wait_for_truth(addr)["agents"].as_object().unwrap().len(), 2);
    beat(addr, &["early", "late", "constructor"], &heartbeat(99.9));
    assert_eq!(Request::delete("leaver", KEY_A).send(addr).status, 200);
    let before = watcher.wait_for_truth(addr);
    assert_eq!(before["agents"].as_object().unwrap().len(), 3);
    assert_eq!(before["departed"]["leaver"]["running_tasks"].as_array().unwrap().len(), 3);

    server.signal(rustix::process::Signal::KILL);
    server.wait();
    // At least one attempt is in vain.
    watcher.output.wait_for("connection waiting no answer");
    let held = comparable(watcher.ask("tell"));
    assert_eq!(held["agents"], before["agents"], "what was known stays until it is known better");
    let server = Launch::config(&toml).listen(Some(&addr.to_string())).start();
    beat(addr, &["early", "new"], &heartbeat(1.5));
    watcher.output.wait_for("snapshot of a new server");
    let after = watcher.wait_for_truth(server.addr());
    assert_eq!(after["agents"].as_object().unwrap().len(), 2);
    assert_eq!(after["departed"], json!({}), "memory only");
    beat(addr, &["new"], &heartbeat(2.5));
    watcher.wait_for_truth(addr);
}

#[test]
fn who_lags_is_given_newest_states_and_holds_what_the_server_holds() {
    needs!(Program("node"), Package("ws"));
    let _alone = heavy();
    let setup = Setup::open().busy_agents().limit(r#"lag_timeout = "10m""#);
    let server = Server::start(&setup.toml());
    let addr = server.addr();
    beat(addr, &["leaver"], &heartbeat(1.0));
    let watcher = Watcher::start(addr);
    watcher.ask("pause");
    let mut cpu_usage = 0.0;
    eventually("it falls behind", || {
        cpu_usage += 0.01;
        beat(addr, &["a", "b", "c"], &bulky_heartbeat(cpu_usage, UPDATE_BYTES));
        (Status::read(addr).counter("lags") >= 1).then_some(())
    });
    assert_eq!(Request::delete("leaver", KEY_A).send(addr).status, 200);
    beat(addr, &["c"], &heartbeat(77.7));
    watcher.ask("resume");
    let held = watcher.wait_for_truth(addr);
    assert_eq!(held["agents"]["c"]["cpu_usage"], 77.7);
    assert_eq!(held["departed"].as_object().unwrap().len(), 1);
    let (changes, heartbeats) =
        (watcher.ask("count").as_u64().unwrap(), Status::read(addr).counter("heartbeats"));
    assert!(changes < heartbeats, "{changes} of {heartbeats}: it took the whole backlog");
    assert_eq!(watcher.count("connection live"), 1, "it lost its connection");

    // From there on it is a dashboard like any other.
    beat(addr, &["a", "new"], &heartbeat(5.5));
    watcher.wait_for_truth(addr);
}
