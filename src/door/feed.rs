//! What the door hands over when a client becomes a dashboard, and to whom. Types only: the
//! 101 is written, and frames are read, on the other side of [`OpenFeed`].

use std::io;
use std::net::TcpStream;

use super::admission::Permit;
use crate::id::PoolIndex;

/// A checked WebSocket handshake (RFC 6455 section 4.2) and its socket. The client has been
/// told nothing yet.
#[derive(Debug)]
pub struct Upgrade {
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
pub trait OpenFeed: Send {
    /// Takes over the client, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be served (no thread, say), it is given back with the reason, and the
    /// door answers 503.
    fn open(&self, upgrade: Upgrade) -> Result<(), (Upgrade, io::Error)>;
}
