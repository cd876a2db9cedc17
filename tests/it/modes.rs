//! Who else may use what the commands make: the modes of every file, directory and socket, under
//! umasks that leave others much, little, and as usual; and another user who tries.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::support::child::{agent, task};
use super::support::server::{BINARY, without_our_variables};
use super::support::setup::KEY_A;
use super::support::tools::left_out;
use super::support::{Launch, Process, Server, Setup, eventually};

const UMASKS: [&str; 3] = ["000", "002", "022"];

/// `nobody` on most systems; any user but us.
const STRANGER: u32 = 65_534;

/// A directory that other users may look into and not write to.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Whether `test FLAG PATH` holds for another user; `None` where we may not become one.
fn stranger_finds(flag: &str, path: &Path) -> Option<bool> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut test = Command::new("/bin/sh");
    test.args(["-c", "test \"$0\" \"$1\"", flag]).arg(path).current_dir("/");
    Some(test.uid(STRANGER).gid(STRANGER).status().unwrap().success())
}

fn say_what_is_left_out() {
    if !rustix::process::geteuid().is_root() {
        left_out("not root: only modes are checked, not what another user can do");
    }
}

/// `command` after `umask`.
fn under(umask: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    without_our_variables(&mut shell);
    shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

fn launch(umask: &str, tmp: &Path) -> Server {
    let umask = format!("umask {umask}; exec \"$@\"");
    let tmp = tmp.to_str().unwrap();
    Launch::dev().under(&["/bin/sh", "-c", &umask, "sh"]).env("TMPDIR", tmp).start()
}

/// Whoever reaches a worker's socket is believed to be the door.
#[test]
fn nobody_else_reaches_the_private_sockets() {
    say_what_is_left_out();
    for umask in UMASKS {
        let tmp = place();
        let _server = launch(umask, tmp.path());
        let made = entries(tmp.path());
        let [directory] = made.as_slice() else { panic!("one directory: {made:?}") };
        assert_eq!(mode(directory), 0o700, "umask {umask}");
        let sockets = entries(directory);
        assert_eq!(sockets.len(), 2, "{sockets:?}");
        assert_ne!(stranger_finds("-x", tmp.path()), Some(false), "a stranger gets this far");
        for socket in sockets {
            assert_ne!(stranger_finds("-e", &socket), Some(true), "umask {umask}: {socket:?}");
        }
    }
}

#[test]
fn nobody_else_reads_what_init_writes() {
    say_what_is_left_out();
    for umask in UMASKS {
        let place = place();
        let file = place.path().join("made.toml");
        let mut init = Command::new(BINARY);
        init.args(["init", "--output"]).arg(&file);
        let output = under(umask, &init).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(entries(place.path()), std::slice::from_ref(&file));
        assert_eq!(mode(&file), 0o600, "umask {umask}");
        assert_ne!(stranger_finds("-r", &file), Some(true), "umask {umask}");
    }
}

/// The agent may be another user than the task: it reads, and nobody else writes. A directory
/// that is not the default one is as its maker's umask has it.
#[test]
fn tasks_are_for_others_to_read_and_not_to_write() {
    say_what_is_left_out();
    let server = Server::start(&Setup::open().toml());
    for umask in UMASKS {
        let place = place();
        let tasks = place.path().join("tasks");
        let mut agent = under(umask, &agent(server.addr(), KEY_A, "agent", &tasks));
        let _agent = Process::start(&mut agent);
        eventually("the agent has made the directory", || tasks.exists().then_some(()));
        let umask_bits = u32::from_str_radix(umask, 8).unwrap();
        assert_eq!(mode(&tasks), 0o777 & !umask_bits, "umask {umask}");
        let mut task = under(umask, &task(&tasks, &["sh", "-c", "echo ready; read x; true"]));
        let mut task = Process::start(&mut task);
        task.stdout.wait_for("ready");
        let made = entries(&tasks);
        let [file] = made.as_slice() else { panic!("one file: {made:?}") };
        assert_eq!(mode(file), 0o644, "umask {umask}");
        assert_ne!(stranger_finds("-r", file), Some(false), "umask {umask}");
        assert_ne!(stranger_finds("-w", file), Some(true), "umask {umask}");
        task.close_stdin();
        assert!(task.wait().success());
        assert_eq!(entries(&tasks), [] as [PathBuf; 0]);
        assert_eq!(entries(place.path()), [tasks], "the agent makes nothing else");
    }
}

#[test]
fn a_start_removes_what_a_killed_server_left_and_nothing_of_a_running_one() {
    let tmp = place();
    let mut killed = launch("022", tmp.path());
    killed.signal(Signal::KILL);
    killed.wait();
    let left = entries(tmp.path());
    assert_eq!(left.len(), 1, "nobody could clean up");
    let _first = launch("022", tmp.path());
    let first = entries(tmp.path());
    assert!(first.len() == 1 && first != left, "{first:?} after {left:?}");
    let _second = launch("022", tmp.path());
    let both = entries(tmp.path());
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    assert_eq!(entries(&first[0]).len(), 2, "the sockets of the one that runs");
}
