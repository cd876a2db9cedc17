//! The private directory of the Unix sockets between the door and tiny_http. What connects to them is
//! trusted, so only the owner may enter it. Creates it, locks it, and removes those of killed servers
//! of the same user; listens on nothing.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, lstat, open, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::TempDir;

/// How the directory's name begins; no other name of ours does.
const PREFIX: &str = "agent-metrics-run-";

/// The socket of heartbeats, goodbyes and `/readyz`.
pub(super) const INGEST: &str = "http";

/// The socket of everything else.
pub(super) const READS: &str = "read";

/// Entries of the temporary directory that are examined, so that a crowded one delays no start.
const MAX_ENTRIES: usize = 10_000;

/// Another server that starts and removes leftovers may take our new directory for one, before we
/// have locked it. Each such server does so at most once.
const MAX_ATTEMPTS: usize = 8;

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct SocketDirectory {
    directory: TempDir,
    /// Locked; the system releases the lock however the process ends.
    _lock: OwnedFd,
}

impl SocketDirectory {
    /// Removes leftovers in `parent`, then creates a directory there.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        remove_leftovers(parent);
        let mut attempts = 1;
        loop {
            // Explicit, because the default is what the umask leaves of 0777.
            let owner_only = Permissions::from_mode(0o700);
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(owner_only)
                .tempdir_in(parent)?;
            match claim(directory.path()) {
                Ok(lock) => return Ok(Self { directory, _lock: lock }),
                Err(Errno::NOENT | Errno::STALE | Errno::WOULDBLOCK) if attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The path of the socket `name`.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Opens and locks the directory at `path`, if it is ours and no process holds the lock.
fn claim(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    let opened = fstat(&directory)?;
    if opened.st_uid != geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    // It may have been removed between opening and locking.
    let named = lstat(path)?;
    if (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino) {
        return Err(Errno::STALE);
    }
    Ok(directory)
}

/// Removes the directories that killed servers of this user left in `parent`. One that holds anything
/// but our sockets stays, since `rmdir` removes only empty ones.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(leftover) = claim(&entry.path()) else { continue };
        for name in [INGEST, READS] {
            let _ = unlinkat(&leftover, name, AtFlags::empty());
        }
        match std::fs::remove_dir(entry.path()) {
            Ok(()) => log::info!("removed the sockets of a killed server: {:?}", entry.path()),
            Err(error) => log::debug!("left {:?} where it is: {error}", entry.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A directory as a killed server leaves it.
    fn leftover(parent: &Path, name: &str) -> PathBuf {
        let path = parent.join(format!("{PREFIX}{name}"));
        fs::create_dir(&path).unwrap();
        for socket in [INGEST, READS] {
            drop(UnixListener::bind(path.join(socket)).unwrap());
        }
        path
    }

    #[test]
    fn only_the_owner_may_enter_it_and_it_is_removed_with_the_server() {
        let parent = tempfile::tempdir().unwrap();
        let directory = SocketDirectory::create(parent.path()).unwrap();
        let path = directory.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        drop(UnixListener::bind(directory.socket(INGEST)).unwrap());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn the_directory_of_a_killed_server_is_removed_and_of_a_running_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let first = SocketDirectory::create(parent.path()).unwrap();
        drop(UnixListener::bind(first.socket(INGEST)).unwrap());
        let killed = leftover(parent.path(), "killed");
        let second = SocketDirectory::create(parent.path()).unwrap();
        assert!(!killed.exists());
        assert!(first.socket(INGEST).exists() && second.path().exists());
        assert_ne!(first.path(), second.path());
    }

    #[test]
    fn nothing_is_removed_that_is_not_a_server_s_own() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = leftover(parent.path(), "elsewhere");
        let target = parent.path().join("target");
        fs::rename(&elsewhere, &target).unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        symlink(&target, &link).unwrap();
        let file = parent.path().join(format!("{PREFIX}file"));
        fs::write(&file, "").unwrap();
        let fuller = leftover(parent.path(), "fuller");
        fs::write(fuller.join("notes"), "").unwrap();
        let of_another = leftover(parent.path(), "of-another");
        let is_root = geteuid().is_root();
        if is_root {
            chown(&of_another, Some(65_534), None).unwrap();
        }
        let _directory = SocketDirectory::create(parent.path()).unwrap();
        assert!(link.is_symlink() && file.exists() && fuller.join("notes").exists());
        assert!(target.join(INGEST).exists() && target.join(READS).exists());
        assert_eq!(of_another.exists(), is_root, "another user's stays");
    }
}
