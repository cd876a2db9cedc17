//! What `agent-metrics recipe` prints works unchanged: the loop in every installed sh, the unit as
//! systemd-analyze checks it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::support::child::binary;
use super::support::machine::{CpuTimes, memory_percent};
use super::support::server::{BINARY, without_our_variables};
use super::support::setup::{KEY_A, Key};
use super::support::tools::{Tool, left_out, needs};
use super::support::{Dashboard, Process, Server, Setup, eventually};

/// bash is optional.
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash", "--posix"]];

const SYSTEMD_AGENT: &str = "systemd-agent";

fn recipe(name: &str) -> String {
    let output = binary("recipe").arg(name).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// For each shell: the command that runs the loop against `server`.
fn loops(server: &str, key: Key) -> impl Iterator<Item = (tempfile::TempDir, Command)> {
    SHELLS.into_iter().filter_map(move |shell| {
        if shell[0] == "bash" && Tool::Program("bash").find().is_none() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heartbeat.sh");
        fs::write(&file, recipe("sh")).unwrap();
        let mut command = Command::new(shell[0]);
        without_our_variables(&mut command);
        command.args(&shell[1..]).arg(&file).current_dir(dir.path());
        command.env("AGENT_METRICS_SERVER", server).env("AGENT_METRICS_APP_KEY", key.key);
        command.env("AGENT_METRICS_APP_SECRET", key.secret).env("AGENT_METRICS_ID", "a loop/1");
        // The machine may have a proxy for all hosts.
        command.env("AGENT_METRICS_INTERVAL", "1s").env("no_proxy", "*");
        Some((dir, command))
    })
}

#[test]
fn the_loop_measures_correctly_and_says_goodbye_in_every_sh() {
    needs!(Program("curl"), Program("dash"), Program("busybox"));
    let server = Server::start(&Setup::open().toml());
    let url = format!("http://{}/", server.addr());
    for (_dir, mut command) in loops(&url, KEY_A) {
        let mut feed = Dashboard::join(server.addr(), "pool-a");
        feed.expect("initial_metrics");
        let mut process = Process::start(&mut command);
        feed.expect("metrics_update");
        // Over three readings, so that a late one has little effect.
        let before = CpuTimes::read();
        let mut cpu = Vec::new();
        for _ in 0..3 {
            let metrics = feed.expect("metrics_update")["metrics"].clone();
            assert_eq!(
                (&metrics["agent_id"], &metrics["status"]),
                (&"a-loop-1".into(), &"idle".into())
            );
            let (memory, truth) = (metrics["memory_usage"].as_f64().unwrap(), memory_percent());
            assert!((memory - truth).abs() <= 2.0, "{command:?}: {memory} % instead of {truth} %");
            cpu.push(metrics["cpu_usage"].as_f64().unwrap());
        }
        let (low, high) = CpuTimes::read().percent_since(before);
        assert!(cpu.iter().all(|cpu| (0.0..=100.0).contains(cpu)), "{cpu:?}");
        let mean = cpu.iter().sum::<f64>() / cpu.len() as f64;
        // With a tolerance, since the two windows differ slightly.
        assert!((low - 20.0..=high + 20.0).contains(&mean), "{cpu:?} instead of {low} to {high}");
        process.signal(Signal::TERM);
        let offline = feed.until(|message| message["type"] == "agent_offline");
        assert_eq!(offline["reason"], "goodbye", "{offline}");
        assert_eq!(process.wait().code(), Some(0), "{command:?}");
        assert_eq!(process.stderr.text(), "", "{command:?}");
    }
}

#[test]
fn a_wrong_secret_is_logged_once() {
    needs!(Program("curl"), Program("dash"), Program("busybox"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let wrong = Key { key: "key-a", secret: "wrong-9b8c" };
    for (_dir, mut command) in loops(&url, wrong) {
        let mut process = Process::start(&mut command);
        // The third request shows that the first two have ended.
        for _ in 0..3 {
            let stream = eventually("the loop tries", || listener.accept().ok()).0;
            stream.set_nonblocking(false).unwrap();
            let mut reader = BufReader::new(stream);
            let lines = reader.by_ref().lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
        }
        let line = process.stderr.wait_for("401");
        assert!(line.contains("don't get through"), "{line}");
        assert!(process.is_running());
        let said = process.stderr.text();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains(wrong.secret), "{said}");
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    }
}

/// The test's own server reads all command lines while curl waits for its response.
#[test]
fn the_secret_arrives_unchanged_and_is_in_no_command_line() {
    needs!(Program("curl"), Program("dash"), Program("busybox"));
    let odd = Key { key: "key\\n\"x\"", secret: "s3cr3t$(id)`\\t\"'%s&#{}" };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for (_dir, mut command) in loops(&url, odd) {
        let mut process = Process::start(&mut command);
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        let lines = reader.by_ref().lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        for (name, value) in [("X-App-Key", odd.key), ("X-App-Secret", odd.secret)] {
            assert!(head.contains(&format!("{name}: {value}")), "{head:?}");
        }
        let lines = command_lines();
        assert!(lines.iter().any(|line| line.contains("curl") && line.contains("--config")));
        let told = lines.iter().find(|line| line.contains("s3cr3t"));
        assert_eq!(told, None);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        process.signal(Signal::KILL);
        process.wait_alone();
    }
}

/// Of all processes.
fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

#[test]
fn a_wrong_setting_is_named() {
    needs!(Program("curl"), Program("dash"), Program("busybox"));
    let url = "http://127.0.0.1:1";
    for (variable, value) in [
        ("AGENT_METRICS_INTERVAL", "0"),
        ("AGENT_METRICS_INTERVAL", "00"),
        ("AGENT_METRICS_INTERVAL", "1m"),
        ("AGENT_METRICS_SERVER", ""),
        ("AGENT_METRICS_APP_KEY", ""),
        ("AGENT_METRICS_APP_SECRET", ""),
        ("AGENT_METRICS_APP_SECRET_FILE", "/no/such/file"),
    ] {
        for (_dir, mut command) in loops(url, KEY_A) {
            let output = command.env(variable, value).output().unwrap();
            assert_eq!(output.status.code().map(|code| code != 0), Some(true), "{command:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(variable) || said.contains(value), "{said}");
        }
    }
}

#[test]
fn the_secret_may_be_in_a_file() {
    needs!(Program("curl"), Program("dash"), Program("busybox"));
    let server = Server::start(&Setup::open().toml());
    let url = format!("http://{}", server.addr());
    for (dir, mut command) in loops(&url, KEY_A) {
        let file = dir.path().join("secret");
        fs::write(&file, format!("{}\n", KEY_A.secret)).unwrap();
        command.env_remove("AGENT_METRICS_APP_SECRET").env("AGENT_METRICS_APP_SECRET_FILE", &file);
        let mut feed = Dashboard::join(server.addr(), "pool-a");
        feed.expect("initial_metrics");
        let mut process = Process::start(&mut command);
        feed.expect("metrics_update");
        // As when a terminal is closed.
        process.signal(Signal::HUP);
        let offline = feed.until(|message| message["type"] == "agent_offline");
        assert_eq!(offline["reason"], "goodbye", "{offline}");
        assert_eq!(process.wait().code(), Some(0), "{command:?}");
    }
}

#[test]
fn systemd_analyze_accepts_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent-metrics-agent.service");
    // systemd-analyze checks that the program exists.
    let unit = recipe(SYSTEMD_AGENT);
    fs::write(&file, unit.replace("/usr/local/bin/agent-metrics", BINARY)).unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
        left_out("no systemd-analyze: only the form of the unit is checked");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("agent-metrics"), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_unit_is_well_formed_and_its_command_works() {
    let unit = recipe(SYSTEMD_AGENT);
    let mut section = "";
    let mut start = None;
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            assert!(["[Unit]", "[Service]", "[Install]"].contains(&line), "{line}");
            section = line;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        assert!(!section.is_empty() && !key.is_empty() && !value.is_empty(), "{line}");
        if key == "ExecStart" {
            start = Some(value.to_owned());
        }
    }
    // The agent's percentages would be of a limit of the unit.
    for limit in ["MemoryMax", "MemoryHigh", "CPUQuota", "AllowedCPUs"] {
        assert!(!unit.lines().any(|line| line.starts_with(limit)), "{limit}");
    }
    let start = start.expect("ExecStart");
    let mut words = start.split_whitespace();
    assert_eq!(Path::new(words.next().unwrap()).file_name().unwrap(), "agent-metrics");
    let mut command = binary(words.next().unwrap());
    let server = Server::start(&Setup::open().toml());
    command
        .args(words)
        .arg("--once")
        .env("AGENT_METRICS_SERVER", format!("http://{}", server.addr()));
    command.env("AGENT_METRICS_APP_KEY", KEY_A.key).env("AGENT_METRICS_APP_SECRET", KEY_A.secret);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
