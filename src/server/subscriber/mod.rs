//! A subscriber: a dashboard's own thread, which reads what the dashboard sends.
//! It never writes to the socket: what is to be sent goes to the fanout thread that owns the
//! write side.

mod meter;
mod socket;

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role as Side, WebSocket, WebSocketConfig};

use crate::runtime::clock::Clock;
use crate::runtime::threads::{Role, Threads};
use crate::server::door::Upgrade;
use crate::server::event::{Action, Control};
use crate::server::fanout::{FanoutHandle, Stopped};
use crate::server::hub::HubHandle;
use crate::server::limits::MAX_CLIENT_MESSAGE_BYTES;
use crate::wire::KIB;
use crate::wire::id::{DashboardId, PoolIndex};
use socket::{FIRST_SILENCE, Socket, TooManyFrames};

/// What tungstenite reads at a time: dashboards send Pongs and little else. Allocated per subscriber.
const READ_BUFFER_BYTES: usize = 256;

/// Frames of ours that tungstenite may hold: a Pong and a Close. They are passed on at once.
const MAX_WRITE_BUFFER_BYTES: usize = KIB;

/// Gives each dashboard a thread.
#[derive(Debug)]
pub(crate) struct Subscribers {
    threads: Threads,
    /// Behind a pointer: what a thread is given lies on its stack, more than once.
    shared: Arc<Shared>,
    next: AtomicU64,
}

/// What all subscribers use.
#[derive(Debug)]
struct Shared {
    hub: HubHandle,
    fanouts: Vec<FanoutHandle>,
    clock: Clock,
}

impl Subscribers {
    /// Subscribers that `hub` feeds through `fanouts`, of which there is at least one.
    pub(crate) fn new(
        threads: Threads,
        hub: HubHandle,
        fanouts: Vec<FanoutHandle>,
        clock: Clock,
    ) -> Self {
        let shared = Arc::new(Shared { hub, fanouts, clock });
        Self { threads, shared, next: AtomicU64::new(0) }
    }

    /// See [`OpenFeed`](crate::server::door::OpenFeed).
    pub(crate) fn open(&self, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        // A thread that cannot be spawned drops its closure; the socket has to survive that.
        let slot = Arc::new(Mutex::new(Some(upgrade)));
        let taken = Arc::clone(&slot);
        let spawned =
            self.threads.spawn(format!("subscriber-{number}"), Role::Temporary, move || {
                if let Some(upgrade) = take(&taken) {
                    shared.serve(number, upgrade);
                }
                Ok(())
            });
        match spawned {
            Ok(()) => Ok(()),
            Err(error) => take(&slot).map_or(Ok(()), |upgrade| Err((upgrade, error))),
        }
    }
}

impl Shared {
    fn serve(&self, number: u64, upgrade: Upgrade) {
        // In turn, so that each fanout thread has its share.
        #[expect(clippy::cast_possible_truncation, reason = "only the remainder counts")]
        let fanout = &self.fanouts[number as usize % self.fanouts.len()];
        let (id, pool) = (DashboardId(number), upgrade.pool);
        Subscriber { id, pool, hub: &self.hub, fanout }.serve(upgrade, self.clock);
    }
}

fn take(slot: &Mutex<Option<Upgrade>>) -> Option<Upgrade> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Tells fanout and hub when it ends, however that comes.
struct Subscriber<'a> {
    id: DashboardId,
    pool: PoolIndex,
    hub: &'a HubHandle,
    fanout: &'a FanoutHandle,
}

impl Drop for Subscriber<'_> {
    fn drop(&mut self) {
        let _ = self.control(Action::Gone);
        self.hub.leave(self.id);
    }
}

impl Subscriber<'_> {
    fn control(&self, action: Action) -> Result<(), Stopped> {
        self.fanout.send(Control { dashboard: self.id, pool: self.pool, action })
    }

    fn serve(&self, upgrade: Upgrade, clock: Clock) {
        // The permit lives as long as the thread.
        let Upgrade { socket, accept_key, read_ahead, permit: _permit, .. } = upgrade;
        let socket = Arc::new(socket);
        if !self.join(&socket, &accept_key) {
            return;
        }
        let mut websocket = websocket(Socket::new(socket, self, clock), read_ahead);
        // What it says is ignored. Reading also answers Pings and Closes.
        let error = loop {
            if let Err(error) = websocket.read() {
                break error;
            }
        };
        self.end(&error, websocket.get_mut());
    }

    /// Whether it has joined. Not inlined, as little else here: see [`websocket`].
    #[inline(never)]
    fn join(&self, socket: &Arc<TcpStream>, accept_key: &str) -> bool {
        if let Err(error) = socket.set_read_timeout(Some(FIRST_SILENCE)) {
            log::warn!("dashboard {}: {error}", self.id);
            return false;
        }
        // Attached before the hub hears of it: see `Action::Attach`.
        let attach = Action::Attach {
            socket: Arc::<TcpStream>::clone(socket),
            greeting: greeting(accept_key),
        };
        if self.control(attach).is_err() {
            return false;
        }
        if let Err(error) = self.hub.join(self.id, self.pool, self.fanout.index) {
            log::warn!("dashboard {} cannot join: {error}", self.id);
            let _ = self.control(Action::Close(CloseCode::Again));
            return false;
        }
        log::debug!("dashboard {} joined", self.id);
        true
    }

    #[inline(never)]
    fn end(&self, error: &Error, socket: &mut Socket<'_>) {
        if let Some(code) = close_code(error) {
            log::debug!("dashboard {} broke a rule: {error}", self.id);
            let _ = self.control(Action::Close(code));
            // An unread byte would make the kernel reset the connection and eat the Close.
            socket.drain();
        } else {
            log::debug!("dashboard {} left: {error}", self.id);
        }
    }
}

/// On the heap, and not inlined, so that a thread which waits for its dashboard has touched two pages
/// of its stack, and not three: of an idle dashboard's memory the stack is the most.
#[inline(never)]
fn websocket(mut socket: Socket<'_>, read_ahead: Vec<u8>) -> Box<WebSocket<Socket<'_>>> {
    socket.count(&read_ahead);
    Box::new(WebSocket::from_partially_read(socket, read_ahead, Side::Server, Some(config())))
}

/// The handshake's response (RFC 6455 section 4.2.2).
fn greeting(accept_key: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\n\r\n"
    )
    .into_bytes()
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES))
}

/// The code of the Close that a broken rule calls for (RFC 6455 section 7.4.1); none when the
/// connection is over anyway.
fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Io(error) if TooManyFrames::is(error) => Some(CloseCode::Policy),
        _ => None,
    }
}
