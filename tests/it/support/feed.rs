//! A WebSocket client of the live feed, with deadlines.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

use super::http::is_timeout;
use super::wait::{DEADLINE, Deadline};

#[derive(Debug)]
pub(crate) enum Received {
    /// Not a keepalive.
    Message(Value),
    /// By the server, with this code (1005 without one).
    Closed(u16),
    /// Without a Close.
    Cut,
}

#[derive(Debug)]
pub(crate) struct Dashboard {
    socket: WebSocket<TcpStream>,
}

impl Dashboard {
    /// Joins a pool without a token.
    pub(crate) fn join(addr: SocketAddr, pool: &str) -> Self {
        Self::join_with(addr, pool, None)
    }

    /// Joins a pool with `?batch_ms=` and this value.
    pub(crate) fn join_batches(addr: SocketAddr, pool: &str, batch_ms: u16) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        Self::open_at(stream, addr, &format!("/{pool}/metrics?batch_ms={batch_ms}"))
    }

    /// Sends a token in the query, as the seed's snippet would.
    pub(crate) fn join_with(addr: SocketAddr, pool: &str, token: Option<&str>) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        Self::join_over(stream, addr, pool, token)
    }

    /// Uses a socket that the caller has prepared, for example with a small receive buffer.
    pub(crate) fn join_over(
        stream: TcpStream,
        addr: SocketAddr,
        pool: &str,
        token: Option<&str>,
    ) -> Self {
        Self::open(stream, addr, &format!("/{pool}/metrics"), token)
    }

    /// Joins the overview of all pools that the token shows.
    pub(crate) fn overview(addr: SocketAddr, token: Option<&str>) -> Self {
        Self::open(TcpStream::connect_timeout(&addr, DEADLINE).unwrap(), addr, "", token)
    }

    fn open(stream: TcpStream, addr: SocketAddr, path: &str, token: Option<&str>) -> Self {
        let query = token.map(|token| format!("?token={token}")).unwrap_or_default();
        Self::open_at(stream, addr, &format!("{path}{query}"))
    }

    fn open_at(stream: TcpStream, addr: SocketAddr, path: &str) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let uri = format!("ws://{addr}/ws/agent-pools{path}");
        let request = ClientRequestBuilder::new(uri.parse().unwrap());
        // The default of 128 KiB is too much for hundreds of dashboards.
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config))
            .unwrap_or_else(|error| panic!("joining {path}: {error}"));
        Self { socket }
    }

    /// The next message that is not a keepalive.
    pub(crate) fn next(&mut self) -> Value {
        match self.receive() {
            Received::Message(message) => message,
            other => panic!("{other:?} where a message was due"),
        }
    }

    /// The next message, which must have this type.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let message = self.next();
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The next message for which `wanted` is true; discards those before it.
    pub(crate) fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Panics after [`DEADLINE`].
    pub(crate) fn receive(&mut self) -> Received {
        let deadline = Deadline::usual();
        loop {
            let left = deadline.left().unwrap_or_else(|| panic!("no message for {DEADLINE:?}"));
            if let Some(received) = self.receive_within(left) {
                return received;
            }
        }
    }

    /// `None` if no complete message arrives within `time`.
    pub(crate) fn receive_within(&mut self, time: std::time::Duration) -> Option<Received> {
        let deadline = Deadline::after(time);
        while let Some(left) = deadline.left() {
            self.socket.get_ref().set_read_timeout(Some(left)).unwrap();
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "keepalive" {
                        return Some(Received::Message(message));
                    }
                }
                Ok(Message::Close(frame)) => {
                    // Answers the Close, if the peer is still there.
                    let _ = self.socket.flush();
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return Some(Received::Closed(code));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => {}
                Err(_) => return Some(Received::Cut),
            }
        }
        None
    }

    /// Reads until the server's Close; returns the messages before it, and its code.
    pub(crate) fn read_to_close(&mut self) -> (Vec<Value>, u16) {
        let mut messages = Vec::new();
        loop {
            match self.receive() {
                Received::Message(message) => messages.push(message),
                Received::Closed(code) => return (messages, code),
                Received::Cut => {
                    panic!("cut off without a Close after {} messages", messages.len())
                }
            }
        }
    }

    pub(crate) fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        &mut self.socket
    }
}

/// The ids of the agents in an `initial_metrics`, in order.
pub(crate) fn agent_ids(initial: &Value) -> Vec<&str> {
    let agents = initial["metrics"].as_array().unwrap();
    agents.iter().map(|agent| agent["agent_id"].as_str().unwrap()).collect()
}
