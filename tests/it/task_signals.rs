//! `agent-metrics task`: a signal reaches the command exactly once, to whichever process it was
//! sent, and job control works as without the wrapper.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::support::child::task;
use super::support::process::{child_processes, state};
use super::support::server::BINARY;
use super::support::tools::needs;
use super::support::{Process, eventually};

/// Prints each signal that it receives, and ends when its input ends. It never blocks, so two equal
/// signals become one only if the kernel merges them.
const COUNTER: &str = r#"
    for (const name of ["SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2"])
        process.on(name, () => console.log("got " + name));
    process.stdin.on("end", () => process.exit(0)).resume();
    console.log("ready");"#;

/// A wrapped [`COUNTER`] in a process group of its own.
struct Counter {
    wrapper: Process,
    _tasks: tempfile::TempDir,
}

impl Counter {
    fn start() -> Self {
        Self::of(&["node", "-e", COUNTER])
    }

    fn of(command: &[&str]) -> Self {
        let tasks = tempfile::tempdir().unwrap();
        let wrapper = Process::start(task(tasks.path(), command).process_group(0));
        wrapper.stdout.wait_for("ready");
        Self { wrapper, _tasks: tasks }
    }

    fn signal_group(&self, signal: Signal) {
        kill_process_group(pid(self.wrapper.pid()), signal).unwrap();
    }

    fn count(&self, name: &str) -> usize {
        self.wrapper.stdout.text().lines().filter(|line| *line == format!("got {name}")).count()
    }

    /// Calls `send`, and lets the wrapper run only when the command has received SIGINT: the kernel
    /// merges two pending ones, which would hide a second.
    fn before_the_wrapper(&self, send: impl FnOnce()) {
        let before = self.count("SIGINT");
        self.wrapper.signal(Signal::STOP);
        eventually("the wrapper stops", || {
            (state(self.wrapper.pid()).as_deref() == Some("T")).then_some(())
        });
        send();
        eventually("SIGINT comes", || (self.count("SIGINT") > before).then_some(()));
        self.wrapper.signal(Signal::CONT);
    }

    /// How many SIGINT the command has received, of all that were sent so far. The wrapper forwards
    /// in order, and the kernel delivers SIGINT before SIGUSR2.
    fn interrupts(&self) -> usize {
        let before = self.count("SIGUSR2");
        self.wrapper.signal(Signal::USR2);
        eventually("the command gets SIGUSR2", || (self.count("SIGUSR2") > before).then_some(()));
        self.count("SIGINT")
    }

    fn probe(&self) -> u32 {
        eventually("there is a probe", || {
            let is_probe = |pid: &u32| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&words).contains("signal-probe")
            };
            child_processes(self.wrapper.pid()).into_iter().find(is_probe)
        })
    }

    fn end(mut self) {
        self.wrapper.close_stdin();
        assert_eq!(self.wrapper.wait().code(), Some(0));
        assert_eq!(self.wrapper.stderr.text(), "");
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

#[test]
fn a_signal_to_the_group_reaches_the_command_once() {
    needs!(Program("node"));
    let counter = Counter::start();
    for times in 1..=8 {
        counter.before_the_wrapper(|| counter.signal_group(Signal::INT));
        assert_eq!(counter.interrupts(), times, "{}", counter.wrapper.stdout.text());
    }
    counter.end();
}

#[test]
fn a_signal_to_the_wrapper_reaches_the_command_once() {
    needs!(Program("node"));
    let counter = Counter::start();
    for times in 1..=8 {
        counter.wrapper.signal(Signal::INT);
        assert_eq!(counter.interrupts(), times, "{}", counter.wrapper.stdout.text());
    }
    counter.end();
}

/// As timeout(1) does: first to its child, then to the group.
#[test]
fn a_signal_to_the_wrapper_and_its_group_reaches_the_command_once() {
    needs!(Program("node"));
    let counter = Counter::start();
    for times in 1..=8 {
        counter.before_the_wrapper(|| {
            counter.wrapper.signal(Signal::INT);
            counter.signal_group(Signal::INT);
        });
        assert_eq!(counter.interrupts(), times, "{}", counter.wrapper.stdout.text());
    }
    counter.end();
}

/// `kill 0` by a child of the command, so siginfo does not name the command itself.
#[test]
fn a_signal_from_a_descendant_to_the_group_reaches_the_command_once() {
    needs!(Program("node"));
    let child = r#"process.on("SIGHUP", () => require("child_process")
                       .spawn("sh", ["-c", "trap '' INT; kill -INT 0"]));"#;
    let counter = Counter::of(&["node", "-e", &format!("{child} {COUNTER}")]);
    let command = child_processes(counter.wrapper.pid()).into_iter().find(|&pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("node"))
    });
    counter.before_the_wrapper(|| kill_process(pid(command.unwrap()), Signal::HUP).unwrap());
    assert_eq!(counter.interrupts(), 1, "{}", counter.wrapper.stdout.text());
    counter.end();
}

/// A signal to the wrapper's group does not reach a command in a group of its own. setsid(1) execs
/// its command; timeout(1) remains, and forwards signals to its child and its group.
#[test]
fn signals_to_the_group_are_forwarded_to_a_command_that_left_it() {
    needs!(Program("node"));
    let counter = Counter::of(&["setsid", "-w", "node", "-e", COUNTER]);
    for times in 1..=3 {
        counter.signal_group(Signal::INT);
        assert_eq!(counter.interrupts(), times, "{}", counter.wrapper.stdout.text());
    }
    counter.end();

    let counter = Counter::of(&["timeout", "600", "node", "-e", COUNTER]);
    counter.signal_group(Signal::INT);
    eventually("SIGINT comes", || (counter.count("SIGINT") > 0).then_some(()));
    counter.end();
}

#[test]
fn without_its_probe_a_wrapper_forwards_every_signal() {
    needs!(Program("node"));
    let counter = Counter::start();
    for (times, signal) in [(1, Signal::KILL), (2, Signal::STOP)] {
        kill_process(pid(counter.probe()), signal).unwrap();
        counter.wrapper.signal(Signal::INT);
        assert_eq!(counter.interrupts(), times, "{signal:?}");
    }
    // It has started a new probe.
    counter.signal_group(Signal::INT);
    eventually("SIGINT comes", || (counter.count("SIGINT") >= 3).then_some(()));
    assert_eq!(counter.interrupts(), 3);
    counter.end();
}

#[test]
fn the_probe_ends_with_the_wrapper() {
    needs!(Program("node"));
    for signal in [Signal::KILL, Signal::TERM] {
        let mut counter = Counter::of(&["sh", "-c", "echo ready; exec cat"]);
        let probe = counter.probe();
        counter.wrapper.signal(signal);
        counter.wrapper.wait_alone();
        // It may remain a zombie until its new parent reaps it.
        eventually("the probe ends", || state(probe).is_none_or(|it| it == "Z").then_some(()));
        counter.wrapper.close_stdin();
    }
}

/// With a group of its own the command would outlive `kill -9 -- -PGID`.
#[test]
fn a_kill_of_the_group_leaves_no_process() {
    needs!(Program("node"));
    let mut counter = Counter::start();
    counter.probe();
    let children = child_processes(counter.wrapper.pid());
    assert_eq!(children.len(), 2, "the command and the probe");
    counter.signal_group(Signal::KILL);
    counter.wrapper.wait_alone();
    for child in children {
        // One that has ended may wait for whoever inherits it.
        eventually("it ends too", || state(child).is_none_or(|it| it == "Z").then_some(()));
    }
}

/// timeout(1) passes a signal on to its child and then to the group; cat holds the output open.
#[test]
fn timeout_in_a_pipeline_interrupts_the_command_once() {
    needs!(Program("node"), Program("timeout"));
    let tasks = tempfile::tempdir().unwrap();
    let wrapper = task(tasks.path(), &["node", "-e", COUNTER]);
    let mut pipeline = Command::new("sh");
    pipeline.args(["-c", "timeout 600 \"$@\" | cat", "sh"]).arg(wrapper.get_program());
    let mut pipeline = Process::start(pipeline.args(wrapper.get_args()));
    pipeline.stdout.wait_for("ready");
    let named = |parent: u32, name: &str| {
        let is_named = |it: &u32| fs::read_to_string(format!("/proc/{it}/comm")).unwrap() == name;
        child_processes(parent).into_iter().find(is_named).unwrap()
    };
    let timeout = named(pipeline.pid(), "timeout\n");
    let wrapper = named(timeout, "agent-metrics\n");
    kill_process(pid(timeout), Signal::INT).unwrap();
    pipeline.stdout.wait_for("got SIGINT");
    // It comes behind whatever was forwarded before.
    kill_process(pid(wrapper), Signal::USR2).unwrap();
    pipeline.stdout.wait_for("got SIGUSR2");
    assert_eq!(pipeline.stdout.text().matches("got SIGINT").count(), 1);
    pipeline.close_stdin();
    assert_eq!(pipeline.wait().code(), Some(0));
}

/// Ctrl-Z, `fg` and Ctrl-C in a shell with job control. The expected output differs from the input,
/// which the terminal echoes. Without line editing: the editor, as it starts, drops what was typed.
#[test]
fn job_control_works_as_without_the_wrapper() {
    needs!(Program("script"), Program("bash"));
    let tasks = tempfile::tempdir().unwrap();
    let mut shell = Command::new("script");
    shell.args(["-qec", "bash --norc --noprofile --noediting -i", "/dev/null"]).env("TERM", "dumb");
    let terminal = Process::start(&mut shell);
    let line = format!(
        "'{BINARY}' task --type t --tasks-dir '{}' -- sh -c 'trap \"echo back-\\$((1+1))\" CONT; \
         echo ready-$((1+1)),$$; while :; do read x && echo got-$x; done'\n",
        tasks.path().display()
    );
    terminal.write(line.as_bytes());
    let ready = terminal.stdout.wait_for("ready-2,");
    let command: u32 = ready.rsplit(',').next().unwrap().trim().parse().unwrap();
    for (typed, answer) in [
        ("one\n", "got-one"),
        ("\x1a", "Stopped"),
        ("fg\n", "back-2"),
        ("two\n", "got-two"),
        ("\x03", "^C"),
        ("echo rc=$?\n", "rc=130"),
    ] {
        terminal.write(typed.as_bytes());
        terminal.stdout.wait_for(answer);
        if answer == "Stopped" {
            // That is the wrapper; the command may still read what is typed.
            eventually("the command stops", || {
                (state(command).as_deref() == Some("T")).then_some(())
            });
        }
    }
}
