//! Directories of tasks as anybody may leave them.

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
fn a_file_is_a_task_as_long_as_it_is_there() {
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
fn a_locked_file_goes_with_its_task_and_with_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("made");
    let mut dirs = TaskDirs::new(vec![place.clone()]);
    let file = TaskFile::create(&place, &task(7)).unwrap();
    assert_eq!(dirs.read(), [task(7)]);
    let path = place.join(&file.name);
    drop(file);
    assert!(!path.exists());
    assert_eq!(dirs.read(), []);

    // Killed: the lock is gone, the file is not.
    fs::write(&path, serde_json::to_vec(&task(8)).unwrap()).unwrap();
    assert_eq!(dirs.read(), []);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is left behind");

    // Without an agent that may remove it, the next task does; the living are let be.
    fs::write(&path, "").unwrap();
    let alive = TaskFile::create(&place, &task(9)).unwrap();
    let _other = TaskFile::create(&place, &task(10)).unwrap();
    assert!(!path.exists() && place.join(&alive.name).exists());
}

/// Killed before its file had its name. One that is being made now is let be.
#[test]
fn a_draft_goes_with_its_lock_once_it_is_old() {
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

/// Whatever lies there, the command starts soon.
#[test]
fn a_task_looks_at_so_many_files_of_its_user_and_no_more() {
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
fn what_is_no_task_is_left_out_and_harms_no_other() {
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
    assert_eq!(dirs.wrong.len(), 9);
    assert!(dirs.wrong.values().all(|&times| times == 3));
    fs::remove_file(path.join("broken.json")).unwrap();
    dirs.read();
    assert_eq!(dirs.wrong.len(), 8, "what is mended or gone is forgotten");
}

#[test]
fn a_heartbeat_holds_so_many_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..MAX_TASKS + 3 {
        put(dir.path(), &format!("{number:04}.json"), GOOD);
    }
    let mut dirs = TaskDirs::new(vec![dir.path().to_owned()]);
    assert_eq!(dirs.read().len(), MAX_TASKS);
    assert!(dirs.said_too_many);
    assert_eq!(dirs.excess(), 0, "what does not go is not opened");
    let mut long = task(1);
    long.workspace_id = "中".repeat(MAX_TEXT_CHARS);
    let mut room = Room::default();
    let some: Vec<Task> =
        std::iter::repeat_n(long, MAX_TASKS).take_while(|task| room.takes(task)).collect();
    assert!((100..MAX_TASKS).contains(&some.len()), "{}", some.len());
    assert!(serde_json::to_vec(&some).unwrap().len() <= MAX_TASKS_BYTES + 1);
}

#[test]
fn a_crowd_costs_so_much_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut dirs = TaskDirs::new(vec![dir.path().to_owned()]);
    for number in 0..MAX_ENTRIES {
        put(dir.path(), &format!("{number}.json"), "");
    }
    assert_eq!(dirs.read(), []);
    assert!(!dirs.said_crowded);
    put(dir.path(), "one-more.json", "");
    assert_eq!(dirs.read(), []);
    assert!(dirs.said_crowded);
    assert!(dirs.wrong.len() <= MAX_ENTRIES);
    assert_eq!(dirs.excess(), 15);
}

#[test]
fn many_that_are_wrong_are_one_line() {
    let mut news = News::default();
    for name in ["a.json", "b.json", "c.json"] {
        news.add(Path::new(name), "line\nbreak");
    }
    assert_eq!(news.first.as_deref(), Some(r"a.json is not a task: line\nbreak"));
    assert_eq!(news.others, 2);
}

#[test]
fn a_link_is_no_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(is_directory(&link, false).unwrap());
    assert!(!is_directory(&link, true).unwrap());
    assert!(is_directory(dir.path(), true).unwrap());
}

#[test]
fn texts_are_as_long_as_the_contract_has_it() {
    let mut long = task(1);
    long.workspace_id = "中".repeat(MAX_TEXT_CHARS);
    assert_eq!(long.check(), Ok(()));
    long.workspace_id.push('x');
    assert_eq!(long.check(), Err("workspace_id"));
}

#[test]
fn a_place_that_is_no_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = TaskFile::create(file.path(), &task(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
