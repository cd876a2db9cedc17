//! A pool's snapshot on its way to many dashboards: the hub takes it, the first fanout thread that
//! sends it encodes it, and all others share the frames. Sends nothing.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::runtime::clock::UnixMillis;
use crate::server::frame::{FRAGMENT_BYTES, Frames};
use crate::wire::Snapshot;
use crate::wire::id::PoolId;

/// The hub gives who joins a snapshot of this age at most, and fanout threads keep what came since
/// for as long: pages tell by its time, to the second, which agents are late.
pub(crate) const SNAPSHOT_SHARED_FOR: Duration = Duration::from_secs(1);

/// See the module. What is known of it without its text, and its text, once it was needed.
#[derive(Debug)]
pub(crate) struct SharedSnapshot {
    /// As in [`Snapshot`].
    pub seq: u64,
    /// As in [`Snapshot`].
    pub complete_since: u64,
    pub server_time: UnixMillis,
    pub agents: u64,
    /// At least the length of its text, and not much more.
    pub text_bytes: usize,
    encoding: Mutex<Encoding>,
}

#[derive(Debug)]
enum Encoding {
    Needed(Snapshot),
    Done(Arc<Frames>),
}

impl From<Snapshot> for SharedSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { seq, complete_since, server_time, ref agents, .. } = snapshot;
        let (agents, text_bytes) = (agents.len() as u64, snapshot.text_bytes());
        let encoding = Mutex::new(Encoding::Needed(snapshot));
        Self { seq, complete_since, server_time, agents, text_bytes, encoding }
    }
}

impl SharedSnapshot {
    /// The text, framed. The first to call this encodes it, which takes milliseconds for ten thousand
    /// agents; who comes meanwhile waits for that.
    ///
    /// # Errors
    /// The system's, when it has no memory.
    pub(crate) fn frames(&self, pool: &PoolId, epoch: &str) -> io::Result<Arc<Frames>> {
        let mut encoding = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Encoding::Done(frames) = &*encoding {
            return Ok(Arc::clone(frames));
        }
        let mut frames = Frames::for_fragments(self.text_bytes)?;
        if let Encoding::Needed(snapshot) =
            mem::replace(&mut *encoding, Encoding::Done(Arc::default()))
        {
            snapshot.write(pool, epoch, FRAGMENT_BYTES, |part, is_last| {
                frames.push_fragment(part.as_bytes(), is_last, 0, self.seq);
            });
        }
        let frames = Arc::new(frames);
        *encoding = Encoding::Done(Arc::clone(&frames));
        Ok(frames)
    }

    /// What the hub took, unless it is encoded already.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> Snapshot {
        match &*self.encoding.lock().unwrap() {
            Encoding::Needed(snapshot) => snapshot.clone(),
            Encoding::Done(_) => panic!("it is encoded"),
        }
    }
}
