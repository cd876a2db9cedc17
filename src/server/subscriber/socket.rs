//! A subscriber as tungstenite's socket: reads come from the dashboard, and are counted; writes go to
//! the fanout thread.

use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};

use super::Subscriber;
use crate::server::door::Upgrade;
use crate::server::event::{Action, WriteSide};
use crate::server::limits::SILENCE_TIMEOUT;

/// Of [`SILENCE_TIMEOUT`], the part before and after the moment that a silent dashboard is looked
/// at once more.
const SILENCE_LAST_LOOK: Duration = Duration::from_secs(5);
pub(super) const FIRST_SILENCE: Duration = SILENCE_TIMEOUT.saturating_sub(SILENCE_LAST_LOOK);

impl Subscriber {
    /// Reads with the socket's timeout. A timed read is not restarted when the process was
    /// stopped and continued.
    fn read_socket(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        retry_on_intr(|| rustix::io::read(&self.upgrade.socket, &mut *buffer))
    }

    /// Reads, and takes silence for an end only when a last look finds it still there. Without
    /// that, a server that was itself stopped for longer than the timeout would drop everyone on
    /// waking: their Pongs can only come after our Pings.
    fn read_or_time_out(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_socket(buffer);
        if read != Err(Errno::AGAIN) {
            return Ok(read?);
        }
        self.upgrade.socket.set_read_timeout(Some(SILENCE_LAST_LOOK))?;
        let read = self.read_socket(buffer)?;
        self.upgrade.socket.set_read_timeout(Some(FIRST_SILENCE))?;
        Ok(read)
    }
}

impl Read for Subscriber {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What came with the handshake first.
        let mut ahead = &self.upgrade.read_ahead[self.read_ahead..];
        let mut read = ahead.read(buffer)?;
        self.read_ahead += read;
        if read == 0 {
            read = self.read_or_time_out(buffer)?;
        }
        let metered = self.meter.feed(&buffer[..read], self.shared.clock.now());
        metered.map_err(io::Error::other)?;
        Ok(read)
    }
}

impl WriteSide for Upgrade {
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send_now(bytes)
    }

    fn end(&self) {
        self.socket.end();
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
