//! Running tasks as files: one `*.json` a task, in the seed's shape, in a directory that agents
//! watch. Owns the shape, the names, and the rule of who is alive; starts nothing and sends
//! nothing (`task` and `agent` do).
//!
//! A script writes and removes such a file by itself, and the task counts as long as the file is
//! there. `agent-metrics task` holds a lock (flock(2)) on its file, whose name says so: when the
//! lock is gone without the file, its holder was killed, and the file is removed by whoever
//! looks next.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::runtime::logging::printable;
use crate::wire::MAX_TEXT_CHARS;
use crate::wire::Object;

/// Where tasks are without a word of anyone. One place for all users of a machine, with the
/// sticky bit as `/tmp` itself has it, so that an agent of the system sees the jobs of its users.
pub(crate) const DEFAULT_DIR: &str = "/tmp/agent-metrics-tasks";

/// The environment variable that names another place, for agents and tasks alike.
pub(crate) const DIR_VARIABLE: &str = "AGENT_METRICS_TASKS_DIR";

/// Whose name ends in this counts only as long as it is locked.
const LOCKED_SUFFIX: &str = ".locked.json";

/// Whose name ends in this is not yet a task.
const DRAFT_SUFFIX: &str = ".draft";

/// A task has four short members; more is not a task.
const MAX_FILE_BYTES: u64 = 8 * 1_024;

/// As many as a server takes in one heartbeat by its own default (`max_tasks_per_heartbeat`).
const MAX_TASKS: usize = 256;

/// What they may take of the heartbeat's 64 KiB as JSON, together.
const MAX_TASKS_BYTES: usize = 60 * 1_024;

/// Entries of a directory that are looked at, so that a crowded one costs little.
const MAX_ENTRIES: usize = 4_096;

/// Files of its user that a new task opens before its command starts, to remove those of the dead.
/// More running tasks than that no heartbeat holds.
const MAX_SWEPT: usize = MAX_TASKS;

/// A draft is renamed within microseconds, and locked first: one that is older than this without
/// a lock has lost its maker.
const MAX_DRAFT_AGE: Duration = Duration::from_secs(60);

/// One running task (PROTOCOL.md section 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Any number that is the task's own.
    pub task_id: u64,
    /// What it does, at most 128 characters.
    pub task_type: String,
    /// For whom, at most 128 characters.
    pub workspace_id: String,
    /// RFC 3339; kept as it is, at most 128 characters.
    pub started_at: String,
}

impl Task {
    /// Whether a server would take it.
    ///
    /// # Errors
    /// The name of the first member that is too long.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let texts = [
            ("task_type", &self.task_type),
            ("workspace_id", &self.workspace_id),
            ("started_at", &self.started_at),
        ];
        match texts.iter().find(|(_, text)| text.chars().count() > MAX_TEXT_CHARS) {
            Some((name, _)) => Err(name),
            None => Ok(()),
        }
    }
}

/// A task's file, locked; gone when dropped.
#[derive(Debug)]
pub(crate) struct TaskFile {
    /// The directory itself, whatever its name may stand for by now.
    dir: OwnedFd,
    name: String,
    /// Held for its lock.
    _file: File,
}

impl TaskFile {
    /// Makes the file of `task` in `dir`, and `dir` where it is missing. It appears whole and
    /// locked. Nobody else can open it before, and nobody can guess its name, so that it cannot
    /// be locked or made first; nothing here waits for what others hold.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidInput`] when `dir` is no directory of its own.
    pub(crate) fn create(dir: &Path, task: &Task) -> io::Result<Self> {
        ensure_dir(dir)?;
        sweep(dir);
        let json = serde_json::to_vec(task)?;
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        let unique = format!("{}-{random:016x}", std::process::id());
        let draft = format!(".{unique}{DRAFT_SUFFIX}");
        let name = format!("{unique}{LOCKED_SUFFIX}");
        let dir = open_dir(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&dir, &draft, flags, Mode::RUSR | Mode::WUSR)?);
        let made = file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(&json))
            // Whatever the umask: the agent may be another user.
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
            .and_then(|()| Ok(renameat(&dir, &draft, &dir, &name)?));
        if let Err(error) = made {
            let _ = unlinkat(&dir, &draft, AtFlags::empty());
            return Err(error);
        }
        Ok(Self { dir, name, _file: file })
    }
}

impl Drop for TaskFile {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Makes `dir` where it is missing: open to all users with the sticky bit where it is
/// [`DEFAULT_DIR`], else as the umask has it.
///
/// # Errors
/// The system's; [`io::ErrorKind::InvalidInput`] when the default is something else than a
/// directory: what lies in `/tmp` may be anybody's.
pub(crate) fn ensure_dir(dir: &Path) -> io::Result<()> {
    let is_default = dir == Path::new(DEFAULT_DIR);
    match fs::DirBuilder::new().mode(0o777).create(dir) {
        Ok(()) if is_default => fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)),
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if is_directory(dir, is_default)? {
                return Ok(());
            }
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a directory"))
        }
        Err(error) => Err(error),
    }
}

/// The directory as a place for files, whatever becomes of its name.
fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, dir == Path::new(DEFAULT_DIR));
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// Whether `dir` is a directory; with `itself`, and no link to one.
fn is_directory(dir: &Path, itself: bool) -> io::Result<bool> {
    let found = if itself { fs::symlink_metadata(dir) } else { fs::metadata(dir) };
    Ok(found?.is_dir())
}

/// Reads directories of tasks, again and again.
#[derive(Debug)]
pub(crate) struct TaskDirs {
    dirs: Vec<PathBuf>,
    /// Files that were wrong at the last look, with how often in a row. A script may be about
    /// to finish writing, so the first time is not worth a word.
    wrong: BTreeMap<PathBuf, u32>,
    /// Files that were opened at the last look.
    opened: usize,
    said_too_many: bool,
    said_crowded: bool,
}

impl TaskDirs {
    /// Nothing is read yet.
    #[must_use]
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, wrong: BTreeMap::new(), opened: 0, said_too_many: false, said_crowded: false }
    }

    /// The tasks that are running now, by file name, as many as a heartbeat may hold; files
    /// beyond those are not opened. What is wrong is logged once, a line a look at most: anybody
    /// may fill such a directory.
    pub(crate) fn read(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut room = Room::default();
        let mut wrong = BTreeMap::new();
        let mut news = News::default();
        let mut too_many = false;
        self.opened = 0;
        for path in self.files() {
            self.opened += 1;
            match read_task(&path) {
                Ok(Some(task)) if room.takes(&task) => tasks.push(task),
                Ok(Some(_)) => {
                    too_many = true;
                    break;
                }
                Ok(None) => {}
                Err(why) => {
                    let times = self.wrong.get(&path).copied().unwrap_or(0) + 1;
                    if times == 2 {
                        news.add(&path, &why);
                    }
                    wrong.insert(path, times);
                }
            }
        }
        self.wrong = wrong;
        news.log();
        if too_many && !self.said_too_many {
            log::warn!("more tasks than a heartbeat can hold: the first {} go", tasks.len());
        }
        self.said_too_many = too_many;
        tasks
    }

    /// How many times as much as a heartbeat's tasks the last look had to open: 0 unless a
    /// directory is full of what is none.
    #[must_use]
    pub(crate) fn excess(&self) -> u32 {
        u32::try_from(self.opened / (MAX_TASKS + 2)).unwrap_or(u32::MAX)
    }

    /// The files that may be tasks, in order.
    fn files(&mut self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut crowded = None;
        for dir in &self.dirs {
            if !list(dir, &mut files) {
                crowded = Some(dir);
            }
        }
        if let Some(dir) = crowded
            && !self.said_crowded
        {
            let shown = dir.display().to_string();
            log::warn!(
                "{} holds more than {MAX_ENTRIES} files: some are not seen",
                printable(&shown)
            );
        }
        self.said_crowded = crowded.is_some();
        files.sort();
        files
    }
}

/// What a heartbeat has still room for.
#[derive(Debug, Default)]
struct Room {
    tasks: usize,
    bytes: usize,
}

impl Room {
    /// Whether `task` fits, too; it counts from then on.
    fn takes(&mut self, task: &Task) -> bool {
        self.tasks += 1;
        self.bytes += serde_json::to_vec(task).map_or(0, |json| json.len() + 1);
        self.tasks <= MAX_TASKS && self.bytes <= MAX_TASKS_BYTES
    }
}

/// What one look has found wrong that the log does not have yet.
#[derive(Debug, Default)]
struct News {
    first: Option<String>,
    others: usize,
}

impl News {
    fn add(&mut self, path: &Path, why: &str) {
        if self.first.is_some() {
            self.others += 1;
            return;
        }
        let shown = path.display().to_string();
        self.first = Some(format!("{} is not a task: {}", printable(&shown), printable(why)));
    }

    fn log(&self) {
        match (&self.first, self.others) {
            (None, _) => {}
            (Some(first), 0) => log::warn!("{first}"),
            (Some(first), others) => log::warn!("{first}; nor are {others} other files"),
        }
    }
}

/// Adds the files of a directory that may be tasks; `false` where it has more entries than are
/// looked at. A directory that is not there has none: it is made by the first task.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> bool {
    // Looked at each time: in `/tmp` it may be anybody's by now.
    if !is_directory(dir, dir == Path::new(DEFAULT_DIR)).unwrap_or(false) {
        return true;
    }
    let mut entries = fs::read_dir(dir).into_iter().flatten();
    let paths = entries.by_ref().take(MAX_ENTRIES).filter_map(Result::ok).map(|entry| entry.path());
    files.extend(paths.filter(|path| {
        let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        name.ends_with(b".json") && !name.starts_with(b".")
    }));
    entries.next().is_none()
}

/// The task in a file; `None` where it ended, and with it its file.
fn read_task(path: &Path) -> Result<Option<Task>, String> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("it has {} bytes, and may have {MAX_FILE_BYTES}", metadata.len()));
    }
    if is_locked_by_name(path) && lock_is_gone(&file) {
        // Where we may not, the next task of its owner does.
        let _ = fs::remove_file(path);
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let Object(task): Object<Task> =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    task.check().map_err(|name| format!("{name} is longer than {MAX_TEXT_CHARS} characters"))?;
    Ok(Some(task))
}

/// Anybody may put anything there: no link is followed, and no pipe is waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Removes what tasks of our user have left that were killed: an agent of another user may not.
/// Files of others don't count, so that they cannot hide ours; more than [`MAX_ENTRIES`] do.
fn sweep(dir: &Path) {
    let our_uid = geteuid().as_raw();
    let entries = fs::read_dir(dir).into_iter().flatten().take(MAX_ENTRIES).filter_map(Result::ok);
    let ours = entries.filter(|entry| {
        let path = entry.path();
        (is_locked_by_name(&path) || is_draft_by_name(&path))
            && entry.metadata().is_ok_and(|metadata| metadata.uid() == our_uid)
    });
    for path in ours.take(MAX_SWEPT).map(|entry| entry.path()) {
        if is_draft_by_name(&path) {
            let _ = remove_dead_draft(&path);
        } else {
            let _ = read_task(&path);
        }
    }
}

fn remove_dead_draft(path: &Path) -> io::Result<()> {
    let file = open(path)?;
    let age = file.metadata()?.modified()?.elapsed();
    if age.is_ok_and(|age| age > MAX_DRAFT_AGE) && lock_is_gone(&file) {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn is_draft_by_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(DRAFT_SUFFIX.as_bytes())
}

fn is_locked_by_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(LOCKED_SUFFIX.as_bytes())
}

/// Whether nobody holds the lock. A file system that knows no locks says nothing of the dead.
fn lock_is_gone(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}
