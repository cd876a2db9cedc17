//! A subscriber as tungstenite's socket: reads come from the dashboard, and are counted; writes go to
//! the fanout thread.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::Subscriber;
use crate::server::event::Action;
use crate::server::limits::{CLOSE_GRACE, SILENCE_TIMEOUT};
use crate::wire::KIB;

/// Of [`SILENCE_TIMEOUT`], the part before and after the moment that a silent dashboard is looked
/// at once more.
const SILENCE_LAST_LOOK: Duration = Duration::from_secs(5);
pub(super) const FIRST_SILENCE: Duration = SILENCE_TIMEOUT.saturating_sub(SILENCE_LAST_LOOK);

/// What is read and thrown away after a broken rule, at most.
const MAX_DRAIN_BYTES: usize = 256 * KIB;

impl Subscriber {
    /// Reads and throws away until the dashboard has had its Close and hung up, for a moment.
    pub(super) fn drain(&self) {
        let deadline = self.shared.clock.now() + CLOSE_GRACE;
        let mut buffer = [0; 4 * KIB];
        let mut left = MAX_DRAIN_BYTES;
        loop {
            let timeout = deadline.saturating_duration_since(self.shared.clock.now());
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

impl Read for Subscriber {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.read_ahead.read(buffer)? {
            0 => self.read_or_time_out(buffer)?,
            read => read,
        };
        let metered = self.meter.feed(&buffer[..read], self.shared.clock.now());
        metered.map_err(io::Error::other)?;
        Ok(read)
    }
}

impl Write for Subscriber {
    /// Passes on whole frames, as tungstenite writes them. Blocks while the fanout thread has no
    /// room: "would block" would leave a Pong unsent until the dashboard's next frame.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let sent = self.control(Action::Send(frames.to_vec()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
