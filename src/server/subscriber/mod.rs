//! A subscriber: a dashboard's own thread, which reads what the dashboard sends.
//! It never writes to the socket: what is to be sent goes to the fanout thread that owns the
//! write side.

mod meter;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{SendError, Sender};
use rustix::io::retry_on_intr;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role as Side, WebSocket, WebSocketConfig};

use crate::runtime::clock::Clock;
use crate::runtime::threads::{Role, Threads};
use crate::server::door::Upgrade;
use crate::server::event::{Action, Control, FanoutIndex, WriteSide};
use crate::server::frame;
use crate::server::hub::HubHandle;
use crate::server::limits::{CLOSE_GRACE, MAX_CLIENT_MESSAGE_BYTES, SILENCE_TIMEOUT};
use crate::wire::KIB;
use crate::wire::id::DashboardId;
use meter::{Meter, OverLimit};

/// What tungstenite reads at a time: dashboards send Pongs and little else. Allocated per subscriber.
const READ_BUFFER_BYTES: usize = 256;

/// Frames of ours that tungstenite may hold: a Pong and a Close. They are passed on at once.
const MAX_WRITE_BUFFER_BYTES: usize = KIB;

/// Of [`SILENCE_TIMEOUT`], the part before and after the moment that a silent dashboard is looked
/// at once more.
const FIRST_SILENCE: Duration = SILENCE_TIMEOUT.saturating_sub(LAST_SILENCE);
const LAST_SILENCE: Duration = Duration::from_secs(5);

/// What is read and thrown away after a broken rule, at most.
const MAX_DRAIN_BYTES: usize = 256 * KIB;

/// Gives each dashboard a thread. What all of these use.
#[derive(Debug)]
pub(crate) struct Subscribers {
    threads: Threads,
    hub: HubHandle,
    /// By [`FanoutIndex`]; at least one.
    fanouts: Vec<Sender<Control>>,
    clock: Clock,
    next: AtomicUsize,
}

impl Subscribers {
    /// Subscribers that `hub` feeds through `fanouts`. Behind a pointer: what a thread is given lies
    /// on its stack, more than once.
    pub(crate) fn new(
        threads: Threads,
        hub: HubHandle,
        fanouts: Vec<Sender<Control>>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self { threads, hub, fanouts, clock, next: AtomicUsize::new(0) })
    }

    /// See [`OpenFeed`](crate::server::door::OpenFeed).
    pub(crate) fn open(self: &Arc<Self>, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let upgrade = Arc::new(upgrade);
        let (shared, given) = (Arc::clone(self), Arc::clone(&upgrade));
        let work = move || {
            serve(number, shared, given);
            Ok(())
        };
        match self.threads.spawn(format!("subscriber-{number}"), Role::Temporary, work) {
            Ok(()) => Ok(()),
            // What was given went with the thread.
            Err(error) => Arc::into_inner(upgrade).map_or(Ok(()), |upgrade| Err((upgrade, error))),
        }
    }
}

/// The thread.
fn serve(number: usize, shared: Arc<Subscribers>, upgrade: Arc<Upgrade>) {
    let Some(mut websocket) = join(number, shared, upgrade).map(websocket) else { return };
    // What it says is ignored. Reading also answers Pings and Closes.
    let error = loop {
        if let Err(error) = websocket.read() {
            break error;
        }
    };
    websocket.get_ref().end(&error);
}

/// Not inlined: see [`websocket`].
#[inline(never)]
fn join(number: usize, shared: Arc<Subscribers>, upgrade: Arc<Upgrade>) -> Option<Subscriber> {
    let subscriber = Subscriber {
        id: DashboardId(number as u64),
        // In turn, so that each fanout thread has its share.
        fanout: FanoutIndex(number % shared.fanouts.len()),
        shared,
        upgrade,
        read_ahead: 0,
        meter: Meter::default(),
    };
    if let Err(error) = subscriber.join() {
        log::warn!("dashboard {} cannot join: {error}", subscriber.id);
        let _ = subscriber.control(Action::Send(frame::close(CloseCode::Again)));
        return None;
    }
    log::debug!("dashboard {} joined", subscriber.id);
    Some(subscriber)
}

/// On the heap, and not inlined, so that a thread which waits for its dashboard has touched two pages
/// of its stack, and not three: of an idle dashboard's memory the stack is the most.
#[inline(never)]
fn websocket(subscriber: Subscriber) -> Box<WebSocket<Subscriber>> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES));
    Box::new(WebSocket::from_raw_socket(subscriber, Side::Server, Some(config)))
}

/// One dashboard, and tungstenite's socket for it: reads come from the dashboard, and are counted;
/// writes go to the fanout thread. Tells fanout and hub when it ends, however that comes.
struct Subscriber {
    id: DashboardId,
    fanout: FanoutIndex,
    shared: Arc<Subscribers>,
    upgrade: Arc<Upgrade>,
    /// Bytes of [`Upgrade::read_ahead`] that have been read.
    read_ahead: usize,
    meter: Meter,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.control(Action::Gone);
        self.shared.hub.leave(self.id);
    }
}

impl Subscriber {
    /// Hands over `action`, waiting for room: the fanout thread never waits for a subscriber.
    fn control(&self, action: Action) -> Result<(), SendError<Control>> {
        let Self { id, fanout, shared, upgrade, .. } = self;
        let control = Control { dashboard: *id, feed: upgrade.feed, action };
        shared.fanouts[fanout.0].send(control)
    }

    fn join(&self) -> Result<(), Box<dyn std::error::Error>> {
        // RFC 6455 section 4.2.2.
        let greeting = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            self.upgrade.accept_key
        )
        .into_bytes();
        // Attached before the hub hears of it: see `Action::Attach`.
        let socket = Arc::<Upgrade>::clone(&self.upgrade);
        self.control(Action::Attach { socket, greeting })?;
        Ok(self.shared.hub.join(self.id, self.upgrade.feed, self.fanout)?)
    }

    /// Reads the socket, and takes silence for an end only when a last look finds it still there.
    /// Without that, a server that was itself stopped for longer than the timeout would drop
    /// everyone on waking: their Pongs can only come after our Pings.
    fn read_socket(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.read_within(FIRST_SILENCE, buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.read_within(LAST_SILENCE, buffer)
            }
            read => read,
        }
    }

    fn read_within(&self, timeout: Duration, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = &self.upgrade.socket;
        socket.set_read_timeout(Some(timeout))?;
        // A timed read is not restarted when the process was stopped and continued.
        Ok(retry_on_intr(|| rustix::io::read(socket, &mut *buffer))?)
    }

    /// Not inlined: see [`websocket`].
    #[inline(never)]
    fn end(&self, error: &Error) {
        if let Some(code) = close_code(error) {
            log::debug!("dashboard {} broke a rule: {error}", self.id);
            let _ = self.control(Action::Send(frame::close(code)));
            self.drain();
        } else {
            log::debug!("dashboard {} left: {error}", self.id);
        }
    }

    /// Reads and throws away until the dashboard has had its Close and hung up, for a moment: an
    /// unread byte would make the kernel reset the connection and eat the Close.
    fn drain(&self) {
        let deadline = self.shared.clock.now() + CLOSE_GRACE;
        let mut left = MAX_DRAIN_BYTES;
        while left > 0 {
            let timeout = deadline.saturating_duration_since(self.shared.clock.now());
            // Fails when no time is left.
            match self.read_within(timeout, &mut [0; 4 * KIB]) {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }
}

impl Read for Subscriber {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What came with the handshake first.
        let mut ahead = &self.upgrade.read_ahead[self.read_ahead..];
        let mut read = ahead.read(buffer)?;
        self.read_ahead += read;
        if read == 0 {
            read = self.read_socket(buffer)?;
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
        sent.map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The code of the Close that a broken rule calls for (RFC 6455 section 7.4.1); none when the
/// connection is over anyway.
fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Io(error) if error.get_ref().is_some_and(|it| it.is::<OverLimit>()) => {
            Some(CloseCode::Policy)
        }
        _ => None,
    }
}
