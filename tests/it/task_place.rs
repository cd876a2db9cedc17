//! Nothing that other users do in the task directory delays or changes a command. The other user is
//! 65534, so these tests need root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::support::Process;
use super::support::child::task;
use super::support::tools::{left_out, needs};

const OTHER_USER: u32 = 65_534;

/// A task directory for all users; `None` if the test cannot act as another user.
fn shared_place() -> Option<(TempDir, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        left_out("only root can act as another user");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let tasks = dir.path().join("tasks");
    fs::create_dir(&tasks).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&tasks, fs::Permissions::from_mode(0o1777)).unwrap();
    as_other_user(&tasks, "echo > mine && rm mine");
    Some((dir, tasks))
}

fn as_other_user(dir: &Path, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).uid(OTHER_USER).gid(OTHER_USER);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    fs::read_dir(dir).unwrap().map(|entry| name(entry).into_string().unwrap()).collect()
}

/// Compiles `intruder.c`.
fn intruder(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("intruder.c"), dir.join("intruder.so"));
    fs::write(&source, include_str!("intruder.c")).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    library
}

#[test]
fn another_user_cannot_lock_a_tasks_file_first() {
    needs!(Program("cc"));
    let Some((dir, tasks)) = shared_place() else { return };
    let mut command = task(&tasks, &["sh", "-c", "echo ready; read x; exit 7"]);
    command.env("LD_PRELOAD", intruder(dir.path())).env("INTRUDER_UID", OTHER_USER.to_string());
    let mut wrapper = Process::start(&mut command);
    wrapper.stdout.wait_for("ready");
    assert_eq!(names(&tasks).len(), 1, "agents see it");
    wrapper.close_stdin();
    assert_eq!(wrapper.wait().code(), Some(7));
    assert_eq!(wrapper.stderr.text(), "intruder: refused");
}

/// More files than a task examines, of several kinds.
#[test]
fn files_of_another_user_stop_no_command() {
    let Some((_dir, tasks)) = shared_place() else { return };
    as_other_user(
        &tasks,
        "mkfifo pipe.locked.json; ln -s /dev/zero zero.locked.json; ln -s . self.locked.json; \
         mkdir folder.locked.json; touch shut.locked.json; chmod 0 shut.locked.json; \
         seq -f %g.locked.json 5000 | xargs touch; seq -f .%g.draft 5000 | xargs touch",
    );
    let before = names(&tasks).len();
    let mut wrapper =
        Process::start(&mut task(&tasks, &["sh", "-c", "echo ready; read x; exit 7"]));
    wrapper.stdout.wait_for("ready");
    wrapper.close_stdin();
    assert_eq!(wrapper.wait().code(), Some(7));
    assert_eq!(wrapper.stderr.text(), "");
    assert!(names(&tasks).len() <= before, "its own file is removed");
}

/// More files than a task examines of its own user, before and after those that it has to remove.
#[test]
fn files_of_another_user_do_not_hide_those_of_killed_tasks() {
    let Some((_dir, tasks)) = shared_place() else { return };
    as_other_user(&tasks, "seq -f 1%g.locked.json 1000 | xargs touch");
    for name in ["a.locked.json", "b.locked.json", "c.locked.json"] {
        fs::write(tasks.join(name), "").unwrap();
    }
    as_other_user(&tasks, "seq -f 2%g.locked.json 1000 | xargs touch");
    assert!(task(&tasks, &["true"]).status().unwrap().success());
    let left = names(&tasks);
    let dead: Vec<&String> = left.iter().filter(|name| name.as_str() >= "a").collect();
    assert_eq!((dead, left.len()), (vec![], 2_000), "theirs are kept");
}

/// The owner of the directory can remove or replace the task's file; the command goes on.
#[test]
fn the_owner_of_the_directory_can_only_hide_a_task() {
    let Some((_dir, tasks)) = shared_place() else { return };
    std::os::unix::fs::chown(&tasks, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    fs::set_permissions(&tasks, fs::Permissions::from_mode(0o777)).unwrap();
    let run = || Process::start(&mut task(&tasks, &["sh", "-c", "echo ready; read x; exit 7"]));
    let mut wrapper = run();
    wrapper.stdout.wait_for("ready");
    as_other_user(&tasks, "for f in *.locked.json; do rm -f $f; mkdir $f; touch $f/full; done");
    wrapper.close_stdin();
    assert_eq!((wrapper.wait().code(), wrapper.stderr.text()), (Some(7), String::new()));

    let mut wrapper = run();
    wrapper.stdout.wait_for("ready");
    let moved = tasks.with_extension("moved");
    fs::rename(&tasks, &moved).unwrap();
    std::os::unix::fs::symlink(moved.join("nowhere"), &tasks).unwrap();
    wrapper.close_stdin();
    assert_eq!((wrapper.wait().code(), wrapper.stderr.text()), (Some(7), String::new()));
    assert_eq!(
        names(&moved).len(),
        1,
        "its file is removed from the renamed directory: only the folder is left"
    );
    // If no file can be created, one line says so.
    let mut wrapper = run();
    wrapper.stdout.wait_for("ready");
    wrapper.close_stdin();
    assert_eq!(wrapper.wait().code(), Some(7));
    let said = wrapper.stderr.text();
    assert!(said.contains("no agent will see") && said.lines().count() == 1, "{said}");
}
