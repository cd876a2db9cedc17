//! Running tasks on the live feed: when they start, end or are killed, and with other files in
//! their directory.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::child::{agent, task};
use super::support::feed::Received;
use super::support::process::{cpu_ticks, resident_kib};
use super::support::setup::KEY_A;
use super::support::wait::{Deadline, now};
use super::support::{Dashboard, Process, Server, Setup, eventually};

/// Far longer than any deadline, so that no update comes from the interval.
const NO_INTERVAL: &str = "1h";

const SCRIPTS_OWN: &str = r#"{"task_id":9,"task_type":"apply","workspace_id":"ws-9","started_at":"2025-01-07T10:30:00Z"}"#;

/// A server, a dashboard, and an agent with its own task directory.
struct Scene {
    server: Server,
    feed: Dashboard,
    agent: Process,
    tasks: PathBuf,
    _dir: TempDir,
}

impl Scene {
    fn start(setup: &Setup, interval: &str) -> Self {
        let server = Server::start(&setup.toml());
        let dir = tempfile::tempdir().unwrap();
        let tasks = dir.path().join("tasks");
        let mut feed = Dashboard::join(server.addr(), "pool-a");
        feed.expect("initial_metrics");
        let agent = start_agent(&server, &tasks, interval);
        let first = feed.expect("metrics_update");
        assert_eq!(first["metrics"]["status"], "idle", "{first}");
        Self { server, feed, agent, tasks, _dir: dir }
    }

    /// The tasks of the next update that has `count` of them.
    fn until_tasks(&mut self, count: usize) -> Value {
        let update = self.feed.until(|message| tasks_of(message) == count);
        let status = if count == 0 { "idle" } else { "busy" };
        assert_eq!(update["metrics"]["status"], status, "{update}");
        update["metrics"]["running_tasks"].clone()
    }

    fn start_task(&self) -> Process {
        let wrapper = Process::start(&mut task(&self.tasks, &["sh", "-c", "echo ready; read x"]));
        wrapper.stdout.wait_for("ready");
        wrapper
    }
}

fn start_agent(server: &Server, tasks: &Path, interval: &str) -> Process {
    Process::start(agent(server.addr(), KEY_A, "a", tasks).args(["--interval", interval]))
}

fn tasks_of(message: &Value) -> usize {
    message["metrics"]["running_tasks"].as_array().map_or(usize::MAX, Vec::len)
}

#[test]
fn a_tasks_start_and_end_are_reported_at_once() {
    let mut scene = Scene::start(&Setup::open(), NO_INTERVAL);
    let mut wrapper = scene.start_task();
    let tasks = scene.until_tasks(1);
    assert_eq!(tasks[0]["task_id"], wrapper.pid());
    assert_eq!(
        (&tasks[0]["task_type"], &tasks[0]["workspace_id"]),
        (&json!("plan"), &json!("ws-1"))
    );
    wrapper.close_stdin();
    scene.until_tasks(0);

    // A script that writes the file itself.
    let file = scene.tasks.join("own.json");
    fs::write(&file, SCRIPTS_OWN).unwrap();
    assert_eq!(scene.until_tasks(1)[0], serde_json::from_str::<Value>(SCRIPTS_OWN).unwrap());
    fs::write(&file, SCRIPTS_OWN.replace("apply", "destroy")).unwrap();
    let changed = scene.feed.until(|m| m["metrics"]["running_tasks"][0]["task_type"] == "destroy");
    assert_eq!(tasks_of(&changed), 1);
    fs::remove_file(&file).unwrap();
    scene.until_tasks(0);
}

#[test]
fn changes_are_sent_once_a_second_at_most() {
    let mut scene = Scene::start(&Setup::open(), NO_INTERVAL);
    let file = scene.tasks.join("own.json");
    let from = now();
    for _ in 0..4 {
        if fs::remove_file(&file).is_err() {
            fs::write(&file, SCRIPTS_OWN).unwrap();
        }
        scene.feed.expect("metrics_update");
    }
    // The first may be sent at once.
    let took = from.elapsed();
    assert!(took >= Duration::from_secs(3), "four updates in {took:?}");
    let _ = fs::remove_file(&file);
}

#[test]
fn a_killed_wrappers_task_ends_and_its_file_is_removed() {
    let mut scene = Scene::start(&Setup::open(), NO_INTERVAL);
    // The command inherits the streams and goes on, so its end is not what is reported.
    let mut wrapper = scene.start_task();
    scene.until_tasks(1);
    wrapper.signal(Signal::KILL);
    wrapper.wait_alone();
    scene.until_tasks(0);
    assert_eq!(fs::read_dir(&scene.tasks).unwrap().count(), 0);
    wrapper.close_stdin();
}

#[test]
fn a_killed_agent_times_out_with_its_tasks_and_reports_them_again() {
    let mut scene = Scene::start(&Setup::open().line("evict_after = \"4s\""), "1s");
    let mut wrapper = scene.start_task();
    let running = scene.until_tasks(1);
    scene.agent.signal(Signal::KILL);
    let offline = scene.feed.until(|message| message["type"] == "agent_offline");
    assert_eq!(
        (&offline["reason"], &offline["metrics"]["agent_id"]),
        (&json!("timeout"), &json!("a"))
    );
    let initial = Dashboard::join(scene.server.addr(), "pool-a").expect("initial_metrics");
    assert_eq!(initial["departed"][0]["running_tasks"], running, "{initial}");
    scene.agent = start_agent(&scene.server, &scene.tasks, "1s");
    assert_eq!(scene.until_tasks(1), running);
    wrapper.close_stdin();
    scene.until_tasks(0);
}

#[test]
fn other_files_in_the_directory_stop_no_heartbeat() {
    const FILES: usize = 10_000;
    let mut scene = Scene::start(&Setup::open(), "1s");
    let dir = scene.tasks.clone();
    // Filled elsewhere, so that the agent finds all of them at once, however slow the machine is.
    let filled = dir.with_extension("filled");
    fs::create_dir(&filled).unwrap();
    for number in 0..FILES {
        fs::write(filled.join(format!("{number}.txt.json")), "not JSON").unwrap();
    }
    let pipe = filled.join("pipe.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink(dir.join("b.locked.json"), filled.join("a.locked.json")).unwrap();
    symlink(dir.join("a.locked.json"), filled.join("b.locked.json")).unwrap();
    symlink("/dev/zero", filled.join("zero.json")).unwrap();
    symlink(&dir, filled.join("loop.json")).unwrap();
    fs::File::create(filled.join("sparse.json")).unwrap().set_len(1 << 30).unwrap();
    fs::write(filled.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.json")), "{").unwrap();
    fs::write(filled.join("foreign.json"), SCRIPTS_OWN.replace("ws-9", "")).unwrap();
    // Only root can change the owner; otherwise it is one more file.
    let _ = std::os::unix::fs::chown(filled.join("foreign.json"), Some(65_534), Some(65_534));
    let unreadable = fs::Permissions::from_mode(0o000);
    fs::write(filled.join("closed.json"), "{}").unwrap();
    fs::set_permissions(filled.join("closed.json"), unreadable).unwrap();
    fs::rename(&filled, &dir).unwrap();

    let pid = scene.agent.pid();
    let beats = |scene: &mut Scene, count: usize| (0..count).for_each(|_| drop(scene.feed.next()));
    drain(&mut scene.feed);
    beats(&mut scene, 3);
    let (before_kib, before_ticks, from) = (resident_kib(pid), cpu_ticks(pid), now());
    beats(&mut scene, 8);
    let (after_kib, ticks) = (resident_kib(pid), cpu_ticks(pid) - before_ticks);
    eprintln!("{ticks} ticks in {:?}, {before_kib} to {after_kib} KiB", from.elapsed());
    assert!(after_kib < before_kib + 1_024, "{before_kib} to {after_kib} KiB");
    let log = scene.agent.stderr.text();
    assert!(log.lines().count() < 20, "{log}");
    assert!(log.contains("is not a task") && log.contains("other files"), "{log}");

    // Without those files tasks are reported again.
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("own.json"), SCRIPTS_OWN).unwrap();
    scene.until_tasks(1);
    assert!(scene.agent.is_running());
}

/// Reads the messages that have arrived.
fn drain(feed: &mut Dashboard) {
    let deadline = Deadline::after(Duration::from_millis(500));
    while let Some(left) = deadline.left() {
        if let Some(Received::Closed(_) | Received::Cut) = feed.receive_within(left) {
            panic!("the feed ended");
        }
    }
}

#[test]
fn tasks_of_two_directories_are_reported() {
    let server = Server::start(&Setup::open().toml());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut feed = Dashboard::join(server.addr(), "pool-a");
    feed.expect("initial_metrics");
    let mut command = agent(server.addr(), KEY_A, "a", one.path());
    let process = Process::start(command.arg("--tasks-dir").arg(two.path()));
    for dir in [&one, &two] {
        process.stderr.wait_for(&format!("tasks are the *.json files in {}", dir.path().display()));
        fs::write(dir.path().join("t.json"), SCRIPTS_OWN).unwrap();
    }
    feed.until(|message| tasks_of(message) == 2);
    let mut wrapper = Process::start(&mut task(two.path(), &["true"]));
    assert_eq!(wrapper.wait().code(), Some(0));
    eventually("only the script's file is left", || {
        (fs::read_dir(two.path()).unwrap().count() == 1).then_some(())
    });
}
