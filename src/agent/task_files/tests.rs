//! Task directories with whatever users and killed processes left there.

use super::*;

fn task(task_id: u64) -> Task {
    Task {
        task_id,
        task_type: "plan".to_owned(),
        workspace_id: "ws-1".to_owned(),
        started_at: "2025-01-07T10:30:00Z".to_owned(),
    }
}

fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

const GOOD: &str =
    r#"{"task_id":2,"task_type":"apply","workspace_id":"w","started_at":"","more":1}"#;

#[test]
fn a_file_is_a_task_while_it_exists() {
    let dir = tempfile::tempdir().unwrap();
    let mut dirs = TaskDirs::new(vec![dir.path().to_owned(), dir.path().join("missing")]);
    assert_eq!(dirs.read(), []);
    put(dir.path(), "b.json", GOOD);
    put(dir.path(), "a.json", &GOOD.replace('2', "1"));
    put(dir.path(), ".hidden.json", GOOD);
    put(dir.path(), "c.txt", GOOD);
    let ids = |tasks: Vec<Task>| tasks.iter().map(|task| task.task_id).collect::<Vec<_>>();
    assert_eq!(ids(dirs.read()), [1, 2]);
    fs::remove_file(dir.path().join("a.json")).unwrap();
    assert_eq!(ids(dirs.read()), [2]);
}

#[test]
fn a_locked_file_is_removed_with_its_task_or_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let tasks_dir = dir.path().join("created");
    let mut dirs = TaskDirs::new(vec![tasks_dir.clone()]);
    let file = TaskFile::create(&tasks_dir, &task(7)).unwrap();
    assert_eq!(dirs.read(), [task(7)]);
    let path = tasks_dir.join(file._file.path().file_name().unwrap());
    drop(file);
    assert!(!path.exists());
    assert_eq!(dirs.read(), []);

    // Killed: the lock is gone, the file is not.
    fs::write(&path, serde_json::to_vec(&task(8)).unwrap()).unwrap();
    assert_eq!(dirs.read(), []);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(&tasks_dir).unwrap().count(), 0, "nothing is left behind");

    // If no agent may remove it, the next task does, and keeps the files of running tasks.
    fs::write(&path, "").unwrap();
    let alive = TaskFile::create(&tasks_dir, &task(9)).unwrap();
    let _other = TaskFile::create(&tasks_dir, &task(10)).unwrap();
    assert!(!path.exists() && alive._file.path().exists());
}

/// Its process was killed before the rename. A draft that may be new is kept.
#[test]
fn an_old_draft_without_a_lock_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let draft = |name: &str, age: Duration| {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() - age).unwrap();
        file
    };
    draft(".1-0.draft", 2 * MAX_DRAFT_AGE);
    draft(".2-0.draft", Duration::ZERO);
    let held = draft(".3-0.draft", 2 * MAX_DRAFT_AGE);
    held.lock().unwrap();
    draft(".other", 2 * MAX_DRAFT_AGE);
    drop(TaskFile::create(dir.path(), &task(1)).unwrap());
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, [".2-0.draft", ".3-0.draft", ".other"]);
}

/// So that the command starts soon.
#[test]
fn a_task_examines_a_bounded_number_of_its_users_files() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..MAX_SWEPT + 3 {
        put(dir.path(), &format!("{number}{LOCKED_SUFFIX}"), "");
    }
    let left = |dir: &Path| fs::read_dir(dir).unwrap().count();
    drop(TaskFile::create(dir.path(), &task(1)).unwrap());
    assert_eq!(left(dir.path()), 3);
    drop(TaskFile::create(dir.path(), &task(1)).unwrap());
    assert_eq!(left(dir.path()), 0);
}

#[test]
fn a_file_that_is_not_a_task_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for (name, text) in [
        ("broken.json", "{"),
        ("no-id.json", &GOOD.replace("task_id", "id")),
        ("negative.json", &GOOD.replace('2', "-2")),
        ("long.json", &GOOD.replace("apply", &"x".repeat(MAX_TEXT_CHARS + 1))),
        ("array.json", r#"[123,"plan","ws","2025-01-07T10:30:00Z"]"#),
        ("huge.json", &" ".repeat(MAX_FILE_BYTES as usize + 1)),
        ("good.json", GOOD),
    ] {
        put(path, name, text);
    }
    fs::create_dir(path.join("folder.json")).unwrap();
    std::os::unix::fs::symlink(path.join("good.json"), path.join("link.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let mut dirs = TaskDirs::new(vec![path.to_owned()]);
    for _ in 0..3 {
        assert_eq!(dirs.read().len(), 1);
    }
    assert_eq!(dirs.problems.len(), 9);
    assert!(dirs.problems.values().all(|&reads| reads == 3));
    fs::remove_file(path.join("broken.json")).unwrap();
    dirs.read();
    assert_eq!(dirs.problems.len(), 8, "a solved problem is forgotten");
}

#[test]
fn a_heartbeat_holds_a_bounded_number_of_tasks() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..MAX_TASKS {
        put(dir.path(), &format!("{number:04}.json"), GOOD);
    }
    let mut dirs = TaskDirs::new(vec![dir.path().to_owned()]);
    assert_eq!(dirs.read().len(), MAX_TASKS);
    assert!(dirs.problems.is_empty());
    for number in 0..3 {
        put(dir.path(), &format!("x{number}.json"), GOOD);
    }
    assert_eq!(dirs.read().len(), MAX_TASKS);
    assert!(dirs.problems.keys().any(|problem| problem.contains("the heartbeat is full")));
    assert_eq!(dirs.excess(), 0, "files that are not sent are not opened");
}

#[test]
fn a_heartbeat_holds_a_bounded_number_of_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = task(1);
    long.workspace_id = "中".repeat(MAX_TEXT_CHARS);
    let json = serde_json::to_string(&long).unwrap();
    for number in 0..MAX_TASKS {
        put(dir.path(), &format!("{number}.json"), &json);
    }
    let some = TaskDirs::new(vec![dir.path().to_owned()]).read();
    assert!((100..MAX_TASKS).contains(&some.len()), "{}", some.len());
    assert!(serde_json::to_vec(&some).unwrap().len() <= MAX_TASKS_BYTES + 1);
}

#[test]
fn a_large_directory_is_read_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut dirs = TaskDirs::new(vec![dir.path().to_owned()]);
    let is_reported = |dirs: &TaskDirs| {
        dirs.problems.keys().any(|text| text.contains("files: some are not read"))
    };
    for number in 0..MAX_ENTRIES {
        put(dir.path(), &format!("{number}.json"), "");
    }
    assert_eq!(dirs.read(), []);
    assert!(!is_reported(&dirs));
    put(dir.path(), "one-more.json", "");
    assert_eq!(dirs.read(), []);
    assert!(is_reported(&dirs));
    assert!(dirs.problems.len() <= MAX_ENTRIES + 1);
    assert_eq!(dirs.excess(), 15);
}

#[test]
fn a_symlink_to_a_shared_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(open_dir(&link, false).is_ok());
    assert_eq!(open_dir(&link, true).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert!(open_dir(dir.path(), true).is_ok());
}

#[test]
fn a_text_has_at_most_128_characters() {
    let mut long = task(1);
    long.workspace_id = "中".repeat(MAX_TEXT_CHARS);
    let reread = |task: &Task| serde_json::from_str::<Task>(&serde_json::to_string(task).unwrap());
    assert_eq!(reread(&long).unwrap(), long);
    long.workspace_id.push('x');
    assert!(reread(&long).unwrap_err().to_string().starts_with("must have at most 128 char"));
}

#[test]
fn a_path_that_is_not_a_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = TaskFile::create(file.path(), &task(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}
