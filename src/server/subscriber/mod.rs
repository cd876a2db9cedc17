//! A subscriber: a dashboard's own thread, which reads what the dashboard sends.
//! It never writes to the socket: what is to be sent goes to the fanout thread that owns the
//! write side.

mod meter;
mod socket;

use std::io::{self, Cursor, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, SendError, Sender, bounded};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role as Side, WebSocket, WebSocketConfig};

use crate::runtime::clock::Clock;
use crate::runtime::threads::{Role, Threads};
use crate::server::door::{Permit, Upgrade};
use crate::server::event::{Action, Control, FanoutIndex};
use crate::server::frame;
use crate::server::hub::HubHandle;
use crate::server::limits::{CLOSE_GRACE, MAX_CLIENT_MESSAGE_BYTES};
use crate::wire::KIB;
use crate::wire::id::{DashboardId, PoolIndex};
use meter::{Meter, OverLimit};
use socket::FIRST_SILENCE;

/// What tungstenite reads at a time: dashboards send Pongs and little else. Allocated per subscriber.
const READ_BUFFER_BYTES: usize = 256;

/// Frames of ours that tungstenite may hold: a Pong and a Close. They are passed on at once.
const MAX_WRITE_BUFFER_BYTES: usize = KIB;

/// What is read and thrown away after a broken rule, at most.
const MAX_DRAIN_BYTES: u64 = 256 * KIB as u64;

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
        let shared = Arc::clone(self);
        // Handed over when there is a thread: one that cannot be spawned drops its closure.
        let (sender, upgrades) = bounded(1);
        let work = move || {
            serve(number, shared, upgrades);
            Ok(())
        };
        match self.threads.spawn(format!("subscriber-{number}"), Role::Temporary, work) {
            Ok(()) => {
                let _ = sender.send(upgrade);
                Ok(())
            }
            Err(error) => Err((upgrade, error)),
        }
    }
}

/// The thread.
fn serve(number: usize, shared: Arc<Subscribers>, upgrades: Receiver<Upgrade>) {
    let Some(mut websocket) = join(number, shared, upgrades) else { return };
    // What it says is ignored. Reading also answers Pings and Closes.
    let error = loop {
        if let Err(error) = websocket.read() {
            break error;
        }
    };
    websocket.get_ref().end(&error);
}

/// On the heap, and not inlined, so that a thread which waits for its dashboard has touched two pages
/// of its stack, and not three: of an idle dashboard's memory the stack is the most.
#[inline(never)]
fn join(
    number: usize,
    shared: Arc<Subscribers>,
    upgrades: Receiver<Upgrade>,
) -> Option<Box<WebSocket<Subscriber>>> {
    let Upgrade { socket, accept_key, read_ahead, pool, permit } = upgrades.recv().ok()?;
    let subscriber = Subscriber {
        id: DashboardId(number as u64),
        pool,
        // In turn, so that each fanout thread has its share.
        fanout: FanoutIndex(number % shared.fanouts.len()),
        shared,
        socket: Arc::new(socket),
        read_ahead: Cursor::new(read_ahead),
        meter: Meter::default(),
        _permit: permit,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES));
    if let Err(error) = subscriber.join(&accept_key) {
        log::warn!("dashboard {} cannot join: {error}", subscriber.id);
        let _ = subscriber.control(Action::Send(frame::close(CloseCode::Again)));
        return None;
    }
    log::debug!("dashboard {} joined", subscriber.id);
    Some(Box::new(WebSocket::from_raw_socket(subscriber, Side::Server, Some(config))))
}

/// One dashboard, as its thread knows it. Tells fanout and hub when it ends, however that comes.
struct Subscriber {
    id: DashboardId,
    pool: PoolIndex,
    fanout: FanoutIndex,
    shared: Arc<Subscribers>,
    socket: Arc<TcpStream>,
    /// What the client sent beyond the handshake, which is read before the socket.
    read_ahead: Cursor<Vec<u8>>,
    meter: Meter,
    _permit: Permit,
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
        let control = Control { dashboard: self.id, pool: self.pool, action };
        self.shared.fanouts[self.fanout.0].send(control)
    }

    fn join(&self, accept_key: &str) -> Result<(), Box<dyn std::error::Error>> {
        self.socket.set_read_timeout(Some(FIRST_SILENCE))?;
        // RFC 6455 section 4.2.2.
        let greeting = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept_key}\r\n\r\n"
        )
        .into_bytes();
        // Attached before the hub hears of it: see `Action::Attach`.
        let socket = Arc::<TcpStream>::clone(&self.socket);
        self.control(Action::Attach { socket, greeting })?;
        Ok(self.shared.hub.join(self.id, self.pool, self.fanout)?)
    }

    /// Not inlined: see [`join`].
    #[inline(never)]
    fn end(&self, error: &Error) {
        if let Some(code) = close_code(error) {
            log::debug!("dashboard {} broke a rule: {error}", self.id);
            let _ = self.control(Action::Send(frame::close(code)));
            // An unread byte would make the kernel reset the connection and eat the Close. Where
            // the dashboard goes on sending, the fanout thread ends the connection soon after.
            let _ = self.socket.set_read_timeout(Some(CLOSE_GRACE));
            let _ = io::copy(&mut (&*self.socket).take(MAX_DRAIN_BYTES), &mut io::sink());
        } else {
            log::debug!("dashboard {} left: {error}", self.id);
        }
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
