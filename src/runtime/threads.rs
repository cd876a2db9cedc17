//! Spawns, names, counts and joins threads. Whoever runs the server receives the end of each one, and
//! joins it. Knows nothing of what they do.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Stack of our own threads. A dashboard's thread parses frames of at most 4 KiB and no more.
pub(crate) const STACK_BYTES: usize = 256 * 1_024;

/// How a thread ended: the error is its own, or the text of its panic.
pub(crate) type Outcome = Result<(), String>;

/// A thread has ended, or is about to return.
#[derive(Debug)]
pub(crate) struct Ended {
    pub name: String,
    pub role: Role,
    pub outcome: Outcome,
}

/// What a thread's end means for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It ends only when the server does: any earlier end is fatal.
    Essential,
    /// The server goes on without it.
    Temporary,
}

/// Threads that have not been joined. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    ends: Sender<Ended>,
    by_name: Arc<Mutex<HashMap<String, JoinHandle<()>>>>,
}

impl Threads {
    /// For at most about `count` threads at once, and the channel that receives their ends. It has
    /// room for all of them, so that no thread waits to end.
    pub(crate) fn new(count: usize) -> (Self, Receiver<Ended>) {
        let (ends, received) = bounded(count);
        (Self { ends, by_name: Arc::default() }, received)
    }

    /// Starts a thread of a name that no other has. Fails where the system has no room for one more.
    pub(crate) fn spawn(
        &self,
        name: impl Into<String>,
        role: Role,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> io::Result<()> {
        let name = name.into();
        let builder = Builder::new().name(name.clone()).stack_size(STACK_BYTES);
        let (own_name, ends) = (name.clone(), self.ends.clone());
        // Locked while spawning, so that the handle is here before the thread's end is received.
        let mut by_name = self.lock();
        let handle = builder.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic))));
            let _ = ends.send(Ended { name: own_name, role, outcome });
        })?;
        by_name.insert(name, handle);
        Ok(())
    }

    /// Joins a thread whose end was received.
    pub(crate) fn join(&self, ended: &Ended) {
        let handle = self.lock().remove(&ended.name);
        // Its panic, if any, was caught and reported.
        let _ = handle.map(JoinHandle::join);
    }

    /// Whether a thread of this name has not been joined.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, JoinHandle<()>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message of a panic, from its payload.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_end_is_received_with_its_reason() {
        let (threads, ends) = Threads::new(8);
        threads.spawn("well", Role::Temporary, || Ok(())).unwrap();
        threads.spawn("ill", Role::Essential, || Err("no luck".to_owned())).unwrap();
        threads.spawn("mad", Role::Essential, || panic!("on purpose")).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let ended = ends.recv_timeout(Duration::from_secs(20)).unwrap();
            threads.join(&ended);
            seen.push((ended.name, ended.outcome));
        }
        seen.sort();
        assert_eq!(seen[0], ("ill".to_owned(), Err("no luck".to_owned())));
        assert_eq!(seen[1], ("mad".to_owned(), Err("panicked: on purpose".to_owned())));
        assert_eq!(seen[2], ("well".to_owned(), Ok(())));
        assert_eq!(threads.count(), 0);
    }
}
