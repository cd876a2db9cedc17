//! The threads that we start: named, with small stacks, none forgotten. Whoever runs the server
//! hears of each one's end, and joins it. Knows nothing of what they do.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Stack of our own threads. A dashboard's thread parses frames of at most 4 KiB and no more.
pub(crate) const STACK_BYTES: usize = 256 * 1_024;

/// How a thread ended: with its own reason for a failure, or the text of its panic.
pub(crate) type Outcome = Result<(), String>;

/// A thread has ended, or is about to return.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its name.
    pub name: String,
    /// Whether the server can go on without it.
    pub role: Role,
    /// How.
    pub outcome: Outcome,
    key: u64,
}

/// What a thread's end means for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It ends only when the server does: any earlier end is fatal.
    Vital,
    /// It comes and goes.
    Passing,
}

/// Spawns threads; clones share the crew.
#[derive(Debug, Clone)]
pub(crate) struct Crew {
    ended: Sender<Ended>,
    members: Arc<Mutex<Members>>,
}

#[derive(Debug, Default)]
struct Members {
    next_key: u64,
    handles: HashMap<u64, JoinHandle<()>>,
}

impl Crew {
    /// A crew of at most about `size` threads at once, and the channel that says who ended. With
    /// room for all of them, no thread waits there to end.
    #[must_use]
    pub(crate) fn new(size: usize) -> (Self, Receiver<Ended>) {
        let (ended, ends) = bounded(size);
        (Self { ended, members: Arc::default() }, ends)
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// The system's, when it has no room for one more.
    pub(crate) fn spawn(
        &self,
        name: impl Into<String>,
        role: Role,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> io::Result<()> {
        let name = name.into();
        let ended = self.ended.clone();
        // Held while spawning, so that the handle is here before the thread's end can be heard of.
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let key = members.next_key;
        let builder = Builder::new().name(name.clone()).stack_size(STACK_BYTES);
        let handle = builder.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic))));
            let _ = ended.send(Ended { name, role, outcome, key });
        })?;
        members.next_key += 1;
        members.handles.insert(key, handle);
        Ok(())
    }

    /// Joins a thread that has said that it ended.
    pub(crate) fn join(&self, ended: &Ended) {
        let handle = {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.handles.remove(&ended.key)
        };
        if let Some(handle) = handle {
            // Its panic, if any, was caught and reported.
            let _ = handle.join();
        }
    }

    /// How many threads have not been joined.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).handles.len()
    }

    /// Whether a thread of this name has not been joined.
    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.handles.values().any(|handle| handle.thread().name() == Some(name))
    }

    /// Whether every thread has been joined.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The message of a panic, from its payload.
#[must_use]
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_end_is_heard_of_with_its_reason() {
        let (crew, ends) = Crew::new(8);
        crew.spawn("well", Role::Passing, || Ok(())).unwrap();
        crew.spawn("ill", Role::Vital, || Err("no luck".to_owned())).unwrap();
        crew.spawn("mad", Role::Vital, || panic!("on purpose")).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let ended = ends.recv_timeout(Duration::from_secs(20)).unwrap();
            crew.join(&ended);
            seen.push((ended.name, ended.outcome));
        }
        seen.sort();
        assert_eq!(seen[0], ("ill".to_owned(), Err("no luck".to_owned())));
        assert_eq!(seen[1], ("mad".to_owned(), Err("panicked: on purpose".to_owned())));
        assert_eq!(seen[2], ("well".to_owned(), Ok(())));
        assert!(crew.is_empty());
    }
}
