//! The way out for a client that becomes a dashboard. The door writes no 101 and reads no
//! frame: that is done on the other side of [`OpenFeed`].

use std::io;
use std::net::TcpStream;

use mio::Interest;

use super::Door;
use super::admission::Permit;
use super::check::Handshake;
use super::connection::{Connection, Manner, Then};
use crate::wire::id::PoolIndex;
use crate::wire::response::Response;

/// A checked WebSocket handshake (RFC 6455 section 4.2) and its socket. The client has been
/// told nothing yet.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The client's socket, blocking, with `TCP_NODELAY`.
    pub socket: TcpStream,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// What the client sent beyond the handshake: the beginning of its frames.
    pub read_ahead: Vec<u8>,
    /// The pool that it may and wants to watch.
    pub pool: PoolIndex,
    /// Its place among the dashboards; given back when dropped.
    pub permit: Permit,
}

/// Who serves dashboards.
pub(crate) trait OpenFeed: Send {
    /// Takes over the client, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be served (no thread, say), it is given back with the reason, and the
    /// door answers 503.
    fn open(&self, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)>;
}

impl Door {
    /// The socket leaves the door; it comes back only to be told 503.
    pub(super) fn upgrade(&mut self, slot: usize, handshake: Handshake, read_ahead: Vec<u8>) {
        let stopping = self.ends_at.is_some();
        let Some(client) = self.clients.get(slot).map(|connection| connection.client) else {
            return;
        };
        let permit = self.dashboards.admit(client).filter(|_| !stopping);
        let Some(permit) = permit else {
            let full = Response::problem(503, "too many dashboards");
            return self.answer(slot, &full, Manner::CLOSING, Then::Linger);
        };
        let Some(mut connection) = self.clients.remove(slot) else { return };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        let socket = TcpStream::from(connection.socket);
        if let Err(error) = socket.set_nonblocking(false) {
            log::debug!("cannot hand a dashboard over: {error}");
            return;
        }
        let Handshake { accept_key, pool } = handshake;
        let upgrade = Upgrade { socket, accept_key, read_ahead, pool, permit };
        if let Err((upgrade, error)) = self.feed.open(upgrade) {
            log::warn!("cannot serve a dashboard: {error}");
            if let Err(error) = self.take_back(upgrade.socket) {
                log::debug!("cannot tell the dashboard: {error}");
            }
        }
    }

    fn take_back(&mut self, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let peer = socket.peer_addr()?.ip().to_canonical();
        let mut socket = mio::net::TcpStream::from_std(socket);
        let slot = self.clients.next_slot();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, self.client_token(slot), interest)?;
        let address = (!self.rules.is_proxy(peer)).then(|| self.clients.count(peer));
        self.clients.insert(Connection::new(socket, peer, address, self.now, self.now));
        let busy = Response::problem(503, "no dashboard can be served now");
        self.answer(slot, &busy, Manner::CLOSING, Then::Linger);
        Ok(())
    }
}
