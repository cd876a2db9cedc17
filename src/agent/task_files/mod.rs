//! Running tasks as files: one `*.json` per task, in a directory that agents read. Owns the format,
//! the file names and the rule that decides whether a task still runs; starts no process and sends
//! nothing.
//!
//! A script may write and remove such a file itself: the task runs as long as the file exists.
//! `agent-metrics task` holds a lock (flock(2)) on its file and gives it a name that says so: if
//! such a file is not locked, its process was killed, and the next reader removes the file.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use serde::{Deserialize, Deserializer, Serialize};
use tempfile::{Builder, NamedTempFile};

use crate::runtime::logging::printable;
use crate::wire::{MAX_TASKS, MAX_TEXT_CHARS, Object};

/// One directory for all users of a machine, with the sticky bit like `/tmp`, so that the system's
/// agent sees the tasks of all users.
pub(crate) const DEFAULT_DIR: &str = "/tmp/agent-metrics-tasks";

/// The environment variable that names another directory, for agents and tasks alike.
pub(crate) const DIR_VARIABLE: &str = "AGENT_METRICS_TASKS_DIR";

/// A file with this suffix is a task only while it is locked.
const LOCKED_SUFFIX: &str = ".locked.json";

/// A file with this suffix is not a task yet.
const DRAFT_SUFFIX: &str = ".draft";

/// Four short members need far less.
const MAX_FILE_BYTES: u64 = 8 * 1_024;

/// All tasks together, as JSON: most of a heartbeat's 64 KiB.
const MAX_TASKS_BYTES: usize = 60 * 1_024;

/// Directory entries that are examined, so that a large directory costs little.
const MAX_ENTRIES: usize = 4_096;

/// Files of its user that a new task examines, so that its command starts soon.
const MAX_SWEPT: usize = 256;

/// A draft is locked, then renamed within microseconds: if an older one is not locked, the process
/// that made it was killed.
const MAX_DRAFT_AGE: Duration = Duration::from_secs(60);

/// A running task (PROTOCOL.md section 1). The texts have at most 128 characters each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub task_id: u64,
    #[serde(deserialize_with = "deserialize_text")]
    pub task_type: String,
    #[serde(deserialize_with = "deserialize_text")]
    pub workspace_id: String,
    /// RFC 3339; kept as it is.
    #[serde(deserialize_with = "deserialize_text")]
    pub started_at: String,
}

fn deserialize_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse_text(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(crate) fn parse_text(text: &str) -> Result<String, String> {
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(format!("must have at most {MAX_TEXT_CHARS} characters"));
    }
    Ok(text.to_owned())
}

/// A task's locked file; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct TaskFile {
    /// Open, because that holds the lock.
    _file: NamedTempFile,
    /// The file's path leads through it.
    _dir: OwnedFd,
}

impl TaskFile {
    /// Creates the file of `task` in the directory `path`, and that if it is missing. The file
    /// appears complete and locked. Other users cannot open it before that, nor guess its name, so
    /// they can neither lock nor create it first; nothing here waits for a lock that they hold.
    pub(crate) fn create(path: &Path, task: &Task) -> io::Result<Self> {
        let dir = ensure_dir(path)?;
        remove_dead_files(path);
        // Leads to the directory even if it is renamed.
        let place = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let json = serde_json::to_vec(task)?;
        let private =
            |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let complete = |path: &Path| {
            let mut draft = Builder::new().suffix(DRAFT_SUFFIX).make_in(&place, private)?;
            draft.as_file().try_lock()?;
            draft.write_all(&json)?;
            // Whatever the umask is: the agent may run as another user.
            draft.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            Ok(draft.persist_noclobber(path)?)
        };
        // tempfile's own random letters can be guessed.
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let prefix = format!("{}-{random:016x}", std::process::id());
        let mut name = Builder::new();
        name.prefix(&prefix).rand_bytes(0).suffix(LOCKED_SUFFIX);
        let file = name.make_in(&place, complete)?;
        Ok(Self { _file: file, _dir: dir })
    }
}

/// Opens `dir`, and creates it if it is missing; [`DEFAULT_DIR`] with write permission for all
/// users and the sticky bit.
pub(crate) fn ensure_dir(dir: &Path) -> io::Result<OwnedFd> {
    match fs::create_dir(dir) {
        Ok(()) if is_shared(dir) => fs::set_permissions(dir, fs::Permissions::from_mode(0o1777))?,
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    open_dir(dir, is_shared(dir))
}

/// Whether any user may have created `dir` under this name, in `/tmp`.
fn is_shared(dir: &Path) -> bool {
    dir == Path::new(DEFAULT_DIR)
}

/// Opens a directory as the place of its files, for no other use.
fn open_dir(dir: &Path, refuse_symlink: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, refuse_symlink);
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// Reads the running tasks from directories, and logs what is wrong there.
#[derive(Debug)]
pub(crate) struct TaskDirs {
    dirs: Vec<PathBuf>,
    /// The problems of the last read, each with the number of consecutive reads that found it.
    problems: HashMap<String, u32>,
    /// Files that the last read opened.
    opened: usize,
}

impl TaskDirs {
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, problems: HashMap::new(), opened: 0 }
    }

    /// The tasks that run now, ordered by file name, at most as many as fit into a heartbeat; files
    /// after those are not opened.
    pub(crate) fn read(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut bytes = 0;
        let mut problems = Vec::new();
        let (files, large_dirs) = self.list();
        self.opened = 0;
        for path in files {
            self.opened += 1;
            match read_task(&path) {
                Ok(Some(task)) => {
                    bytes += serde_json::to_vec(&task).map_or(0, |json| json.len() + 1);
                    if tasks.len() == MAX_TASKS || bytes > MAX_TASKS_BYTES {
                        problems.push("some tasks are not sent: the heartbeat is full".to_owned());
                        break;
                    }
                    tasks.push(task);
                }
                Ok(None) => {}
                Err(error) => {
                    let error = printable(&error.to_string());
                    problems.push(format!("{} is not a task: {error}", shown(&path)));
                }
            }
        }
        problems.extend(large_dirs);
        self.log_new(problems);
        tasks
    }

    /// How many times a heartbeat's full number of tasks the last read had to open: 0 unless a
    /// directory is full of other files.
    pub(crate) fn excess(&self) -> u32 {
        u32::try_from(self.opened / (MAX_TASKS + 2)).unwrap_or(u32::MAX)
    }

    /// The files that may be tasks, in order, and which directories have too many entries.
    fn list(&self) -> (Vec<PathBuf>, Vec<String>) {
        let (mut files, mut large_dirs) = (Vec::new(), Vec::new());
        for dir in &self.dirs {
            // Checked each time: another user may have put something else there. The first task
            // creates a missing directory.
            if open_dir(dir, is_shared(dir)).is_err() {
                continue;
            }
            let mut entries = fs::read_dir(dir).into_iter().flatten();
            let examined = entries.by_ref().take(MAX_ENTRIES).filter_map(Result::ok);
            files.extend(examined.map(|entry| entry.path()).filter(|path| {
                let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
                name.ends_with(b".json") && !name.starts_with(b".")
            }));
            if entries.next().is_some() {
                let dir = shown(dir);
                large_dirs.push(format!("{dir} has over {MAX_ENTRIES} files: some are not read"));
            }
        }
        files.sort();
        (files, large_dirs)
    }

    /// Logs the problems that two consecutive reads found: during the first a script may have been
    /// writing the file. Anyone may fill such a directory, so each read logs at most one line.
    fn log_new(&mut self, problems: Vec<String>) {
        let reads = |problem| self.problems.get(problem).copied().unwrap_or(0);
        let new: Vec<_> = problems.iter().filter(|problem| reads(*problem) == 1).collect();
        match &new[..] {
            [] => {}
            [first] => log::warn!("{first}"),
            [first, others @ ..] => {
                log::warn!("{first}; {} other files or directories have problems", others.len());
            }
        }
        let counted = problems.iter().map(|problem| reads(problem).saturating_add(1));
        self.problems = problems.iter().cloned().zip(counted).collect();
    }
}

/// The task in a file; `None` if it has ended.
fn read_task(path: &Path) -> io::Result<Option<Task>> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    if has_suffix(path, LOCKED_SUFFIX) && is_unlocked(&file) {
        // If this user may not, the next task of the file's owner does.
        let _ = fs::remove_file(path);
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    let Object(task): Object<Task> = serde_json::from_slice(&text)?;
    Ok(Some(task))
}

/// Opens a file that any user may have created: follows no symbolic link, waits for no pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Removes this user's files of killed tasks, which an agent of another user may not. Files of
/// others do not count towards [`MAX_SWEPT`], so they cannot hide ours; they do count towards
/// [`MAX_ENTRIES`].
fn remove_dead_files(dir: &Path) {
    let our_uid = geteuid().as_raw();
    let is_old = |at: SystemTime| at.elapsed().is_ok_and(|age| age > MAX_DRAFT_AGE);
    let should_be_locked = |path: &Path, metadata: &Metadata| {
        metadata.is_file()
            && metadata.uid() == our_uid
            && (has_suffix(path, LOCKED_SUFFIX)
                || has_suffix(path, DRAFT_SUFFIX) && metadata.modified().is_ok_and(is_old))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().take(MAX_ENTRIES).filter_map(Result::ok);
    let ours = entries.filter(|entry| {
        entry.metadata().is_ok_and(|metadata| should_be_locked(&entry.path(), &metadata))
    });
    for path in ours.map(|entry| entry.path()).take(MAX_SWEPT) {
        if open(&path).is_ok_and(|file| is_unlocked(&file)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A path as it may stand in a log line.
pub(super) fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes())
}

/// `false` also where the file system has no locks: nothing is known there.
fn is_unlocked(file: &File) -> bool {
    file.try_lock_shared().is_ok()
}
