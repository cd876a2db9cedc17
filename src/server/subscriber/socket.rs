//! What tungstenite takes for the dashboard's socket: reads come from it, and are counted; writes
//! go to the fanout thread.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::Subscriber;
use super::meter::{Meter, OverLimit};
use crate::runtime::clock::Clock;
use crate::server::event::Action;
use crate::server::fanout::Stopped;
use crate::server::limits::{CLOSE_GRACE, SILENCE_TIMEOUT};
use crate::wire::KIB;

/// Of [`SILENCE_TIMEOUT`], the part before and after the moment that a silent dashboard is looked
/// at once more.
const SILENCE_LAST_LOOK: Duration = Duration::from_secs(5);
pub(super) const FIRST_SILENCE: Duration = SILENCE_TIMEOUT.saturating_sub(SILENCE_LAST_LOOK);

/// What is read and thrown away after a broken rule, at most.
const MAX_DRAIN_BYTES: usize = 256 * KIB;

pub(super) struct Socket<'a> {
    socket: Arc<TcpStream>,
    subscriber: &'a Subscriber<'a>,
    clock: Clock,
    meter: Meter,
    is_over_limit: bool,
}

/// A dashboard that sends more frames than it may, as an [`io::Error`].
#[derive(Debug, Error)]
#[error("too many frames within a minute")]
pub(super) struct TooManyFrames;

impl TooManyFrames {
    pub(super) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl<'a> Socket<'a> {
    /// `socket` has [`FIRST_SILENCE`] as its read timeout.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        subscriber: &'a Subscriber<'a>,
        clock: Clock,
    ) -> Self {
        Self { socket, subscriber, clock, meter: Meter::default(), is_over_limit: false }
    }

    /// Counts the frames in `bytes`. Over the limit, the next read says so.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.is_over_limit |= self.meter.feed(bytes, self.clock.now()) == Err(OverLimit);
    }

    /// Reads and throws away until the dashboard has had its Close and hung up, for a moment.
    pub(super) fn drain(&mut self) {
        let deadline = self.clock.now() + CLOSE_GRACE;
        let mut buffer = [0; 4 * KIB];
        let mut left = MAX_DRAIN_BYTES;
        loop {
            let timeout = deadline.saturating_duration_since(self.clock.now());
            // A timeout of zero would mean none at all.
            if timeout < Duration::from_millis(1)
                || self.socket.set_read_timeout(Some(timeout)).is_err()
            {
                return;
            }
            match self.read_uninterrupted(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) if read >= left => return,
                Ok(read) => left -= read,
            }
        }
    }

    /// Reads with the socket's timeout. A timed read is not restarted when the process was
    /// stopped and continued.
    fn read_uninterrupted(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.socket).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Reads, and takes silence for an end only when a last look finds it still there. Without
    /// that, a server that was itself stopped for longer than the timeout would drop everyone on
    /// waking: their Pongs can only come after our Pings.
    fn read_or_time_out(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.read_uninterrupted(buffer) {
            Err(error) if is_timeout(&error) => {
                self.socket.set_read_timeout(Some(SILENCE_LAST_LOOK))?;
                let read = self.read_uninterrupted(buffer)?;
                self.socket.set_read_timeout(Some(FIRST_SILENCE))?;
                Ok(read)
            }
            read => read,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over_limit {
            return Err(io::Error::other(TooManyFrames));
        }
        let read = self.read_or_time_out(buffer)?;
        self.count(&buffer[..read]);
        if self.is_over_limit { Err(io::Error::other(TooManyFrames)) } else { Ok(read) }
    }
}

impl Write for Socket<'_> {
    /// Passes on whole frames, as tungstenite writes them. Blocks while the fanout thread has no
    /// room: "would block" would leave a Pong unsent until the dashboard's next frame.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        match self.subscriber.control(Action::Reply(frames.to_vec())) {
            Ok(()) => Ok(frames.len()),
            Err(Stopped) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
