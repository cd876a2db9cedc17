//! `agent-metrics task` does not change how a command runs. Needs no server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::support::child::{binary, task};
use super::support::server::BINARY;
use super::support::tools::needs;
use super::support::wait::pause;
use super::support::{Process, eventually};

/// Ends when its input ends.
const UNTIL_EOF: &[&str] = &["sh", "-c", "echo ready; read x"];

fn run(tasks: &Path, command: &[&str]) -> Output {
    let output = task(tasks, command).stdin(Stdio::null()).output().unwrap();
    assert_eq!(files(tasks), [] as [PathBuf; 0], "the file is removed when the command ends");
    output
}

fn run_sh(tasks: &Path, script: &str) -> Output {
    run(tasks, &["sh", "-c", script])
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|entries| entries.map(|e| e.unwrap().path()).collect())
        .unwrap_or_default()
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // Created by the first task.
    let tasks = dir.path().join("tasks");
    (dir, tasks)
}

#[test]
fn while_the_command_runs_its_file_has_the_seeds_format() {
    let (_dir, tasks) = place();
    let mut wrapper = Process::start(&mut task(&tasks, UNTIL_EOF));
    wrapper.stdout.wait_for("ready");
    let found = files(&tasks);
    assert_eq!(found.len(), 1, "{found:?}");
    let text = fs::read_to_string(&found[0]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["task_id"], wrapper.pid());
    assert_eq!((&value["task_type"], &value["workspace_id"]), (&"plan".into(), &"ws-1".into()));
    assert!(humantime::parse_rfc3339(value["started_at"].as_str().unwrap()).is_ok(), "{text}");
    let mode = fs::metadata(&found[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "other users can read it, and only its owner can write");
    wrapper.close_stdin();
    assert_eq!(wrapper.wait().code(), Some(1), "the exit code of read at the end of input");
    assert_eq!(files(&tasks), [] as [PathBuf; 0]);
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let (_dir, tasks) = place();
    for code in [0, 1, 7, 126, 127, 128, 255] {
        let output = run_sh(&tasks, &format!("exit {code}"));
        assert_eq!(output.status.code(), Some(code));
        assert_eq!((output.stdout, output.stderr), (vec![], vec![]), "no output of our own");
    }
}

#[test]
fn it_ends_by_the_same_signal_as_the_command() {
    let (_dir, tasks) = place();
    for signal in [1, 2, 3, 6, 9, 10, 11, 14, 15] {
        let output = run_sh(&tasks, &format!("kill -{signal} $$"));
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
    }
}

#[test]
fn a_command_that_cannot_run_gives_the_exit_code_of_a_shell() {
    let (dir, tasks) = place();
    let plain = dir.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    for (command, code) in [("no-such-command-anywhere", 127), (plain.to_str().unwrap(), 126)] {
        let output = run(&tasks, &[command]);
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(command), "{said}");
    }
    let output = binary("task").args(["--type", "plan"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "no command");
}

#[test]
fn the_command_runs_even_if_its_file_cannot_be_created() {
    let (dir, _) = place();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for tasks in [file.clone(), file.join("below"), dir.path().join("no/such/parent")] {
        let output = task(&tasks, &["sh", "-c", "echo done; exit 7"]).output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"done\n"[..]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("no agent will see") && said.lines().count() == 1, "{said}");
    }
}

/// The default directory is for all users.
#[test]
fn an_empty_variable_counts_as_unset() {
    let mut command = binary("task");
    command.args(["--type", "plan", "--", "sh", "-c", "exit 6"]);
    let output = command.env("AGENT_METRICS_TASKS_DIR", "").output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(6), vec![]));
    let mode = fs::metadata("/tmp/agent-metrics-tasks").unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

#[test]
fn input_and_output_are_those_of_the_command() {
    const BYTES: usize = 8 * 1024 * 1024;
    let (_dir, tasks) = place();
    let bytes: Vec<u8> = (0..BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (script, to_stderr) in [("exec cat", false), ("exec cat >&2", true)] {
        let mut child = task(&tasks, &["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (written, to_write) = (bytes.len(), bytes.clone());
        let writer = std::thread::Builder::new()
            .spawn(move || stdin.write_all(&to_write).map(|()| written))
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(writer.join().unwrap().unwrap(), BYTES);
        let (full, empty) =
            if to_stderr { (output.stderr, output.stdout) } else { (output.stdout, output.stderr) };
        assert!(full == bytes, "{} bytes of {BYTES}", full.len());
        assert!(empty.is_empty());
    }
}

/// The command is ended by SIGPIPE, and so is the wrapper.
#[test]
fn a_broken_pipe_ends_the_command() {
    let (_dir, tasks) = place();
    let mut child = task(&tasks, &["cat", "/dev/zero"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 64]).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::PIPE.as_raw()));
}

#[test]
fn closed_streams_stay_closed() {
    let (_dir, tasks) = place();
    let script = r#"exec "$0" task --type t --tasks-dir "$1" -- sh -c 'cat; exit 5' <&- >&- 2>&-"#;
    let mut command = Command::new("sh");
    let status = command.args(["-c", script, BINARY]).arg(&tasks).status().unwrap();
    assert_eq!(status.code(), Some(5));
    assert_eq!(
        files(&tasks),
        [] as [PathBuf; 0],
        "the file was removed, and nothing else was written"
    );
}

/// Signal masks, environment, working directory and descriptors, as the kernel shows them.
#[test]
fn a_command_inherits_the_same_as_without_the_wrapper() {
    const LOOK: &str = "grep -E '^(SigBlk|SigIgn|SigCgt)' /proc/self/status; pwd; env | sort | \
                        grep -v ^_=; ls /proc/self/fd; umask; ulimit -c";
    let (dir, tasks) = place();
    for (ignore, fd) in
        [("", ""), ("trap '' HUP;", ""), ("trap '' INT QUIT TERM USR1;", "3</dev/null")]
    {
        let outer = |wrapped: &str| {
            let script = format!(r#"{ignore} exec {wrapped} sh -c "$0" {fd}"#);
            let mut command = Command::new("sh");
            command.args(["-c", &script, LOOK, BINARY]).arg(&tasks).current_dir(dir.path());
            let output = command.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(outer(r#""$1" task --type t --tasks-dir "$2" --"#), outer(""), "{ignore}");
    }
}

/// Rust's runtime overwrites the inherited action, so the command gets the default.
#[test]
fn sigpipe_has_its_default_action_in_the_command() {
    let (_dir, tasks) = place();
    let script = r#"trap '' PIPE; exec "$0" task --type t --tasks-dir "$1" -- grep SigIgn /proc/self/status"#;
    let output = Command::new("sh").args(["-c", script, BINARY]).arg(&tasks).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mask = u64::from_str_radix(said.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask & (1 << (Signal::PIPE.as_raw() - 1)), 0, "{said}");
}

/// Prints each signal that it receives, and ends on TERM only.
const LISTENER: &str = "for s in HUP INT QUIT USR1 USR2; do trap \"echo got $s\" $s; done; \
                        trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn signals_sent_to_the_wrapper_reach_the_command() {
    let (_dir, tasks) = place();
    let mut wrapper = Process::start(&mut task(&tasks, &["sh", "-c", LISTENER]));
    wrapper.stdout.wait_for("ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::TERM, "TERM"),
    ] {
        wrapper.signal(signal);
        wrapper.stdout.wait_for(&format!("got {name}"));
    }
    assert_eq!(wrapper.wait().code(), Some(9));
    let said = wrapper.stdout.text();
    assert_eq!(said.lines().count(), 7, "each once: {said}");
    assert_eq!(files(&tasks), [] as [PathBuf; 0]);
}

/// An early signal ends either the wrapper before it has started the command, or the command.
#[test]
fn a_signal_during_the_start_ends_both() {
    let (_dir, tasks) = place();
    for round in 0..40_u64 {
        let wrapper = Process::start(&mut task(&tasks, &["sleep", "600.125"]));
        pause(Duration::from_micros(round * 100));
        wrapper.signal(Signal::TERM);
        let mut wrapper = wrapper;
        assert_eq!(wrapper.wait().signal(), Some(Signal::TERM.as_raw()), "round {round}");
        assert_eq!(files(&tasks), [] as [PathBuf; 0], "round {round}");
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let (_dir, tasks) = place();
    let script = r#"trap '' HUP; exec "$0" task --type t --tasks-dir "$1" -- sh -c 'echo ready; read x; exit 4'"#;
    let mut command = Command::new("sh");
    let mut wrapper = Process::start(command.args(["-c", script, BINARY]).arg(&tasks));
    wrapper.stdout.wait_for("ready");
    for _ in 0..3 {
        wrapper.signal(Signal::HUP);
    }
    wrapper.write(b"\n");
    assert_eq!(wrapper.wait().code(), Some(4));
}

/// `kill 0` sends to the whole process group, and the wrapper must not send the signal back.
#[test]
fn a_signal_from_the_command_is_not_forwarded_to_it() {
    needs!(Program("node"));
    let (_dir, tasks) = place();
    let script = r#"exec setsid "$0" task --type t --tasks-dir "$1" -- node -e '
        let times = 0;
        process.on("SIGUSR1", () => console.log("got", ++times));
        process.on("SIGUSR2", () => process.exit(times));
        process.kill(0, "SIGUSR1");
        setInterval(() => {}, 1000);'"#;
    let mut command = Command::new("sh");
    let mut wrapper = Process::start(command.args(["-c", script, BINARY]).arg(&tasks));
    wrapper.stdout.wait_for("got 1");
    // A forwarded signal would arrive before the next one.
    pause(Duration::from_millis(200));
    wrapper.signal(Signal::USR2);
    assert_eq!(wrapper.wait().code(), Some(1), "{}", wrapper.stdout.text());
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    needs!(Program("node"), Program("script"));
    const TIMES: usize = 5;
    let (_dir, tasks) = place();
    let counter = "let n = 0; process.on(\"SIGINT\", () => console.log(\"got \" + ++n)); \
                   process.stdin.on(\"data\", () => process.exit(n)); console.log(\"ready\");";
    let line = format!(
        "exec '{BINARY}' task --type t --tasks-dir '{}' -- node -e '{counter}'",
        tasks.display()
    );
    let mut terminal = Process::start(Command::new("script").args(["-qec", &line, "/dev/null"]));
    terminal.stdout.wait_for("ready");
    for time in 1..=TIMES {
        terminal.write(b"\x03");
        terminal.stdout.wait_for(&format!("got {time}"));
        // A second one would follow at once.
        pause(Duration::from_millis(200));
    }
    terminal.write(b"\n");
    let status: ExitStatus = terminal.wait();
    let said = terminal.stdout.text();
    assert_eq!(status.code(), Some(TIMES as i32), "each once: {said}");
    eventually("the file is removed", || files(&tasks).is_empty().then_some(()));
}
