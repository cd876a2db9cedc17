//! A dashboard: a WebSocket client of the live feed, with deadlines.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

use super::http::is_timeout;
use super::wait::{DEADLINE, Deadline};

/// What may come next on a feed.
#[derive(Debug)]
pub(crate) enum Received {
    /// A JSON message that is not a keepalive.
    Message(Value),
    /// The server's Close, with its code (1005 when it gave none).
    Closed(u16),
    /// The end without a Close.
    Cut,
}

/// A connected dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    socket: WebSocket<TcpStream>,
}

impl Dashboard {
    /// Joins a pool where viewing is open.
    pub(crate) fn join(addr: SocketAddr, pool: &str) -> Self {
        Self::join_with(addr, pool, None)
    }

    /// Joins a pool with a viewer token, in the query as the seed's snippet would send it.
    pub(crate) fn join_with(addr: SocketAddr, pool: &str, token: Option<&str>) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        Self::join_over(stream, addr, pool, token)
    }

    /// Joins over a socket that the caller has prepared (a small receive buffer, say).
    pub(crate) fn join_over(
        stream: TcpStream,
        addr: SocketAddr,
        pool: &str,
        token: Option<&str>,
    ) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let query = token.map(|token| format!("?token={token}")).unwrap_or_default();
        let uri = format!("ws://{addr}/ws/agent-pools/{pool}/metrics{query}");
        let request = ClientRequestBuilder::new(uri.parse().unwrap());
        // The default of 128 KiB at once is much for a test with hundreds of dashboards.
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config))
            .unwrap_or_else(|error| panic!("joining {pool}: {error}"));
        Self { socket }
    }

    /// The next message that is not a keepalive; panics when there is none.
    pub(crate) fn next(&mut self) -> Value {
        match self.receive() {
            Received::Message(message) => message,
            other => panic!("{other:?} where a message was due"),
        }
    }

    /// The next message, which must be of this type.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let message = self.next();
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// The next message for which `wanted` holds; those before it are gone.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// What comes next, whatever it is. Panics after [`DEADLINE`].
    pub(crate) fn receive(&mut self) -> Received {
        let deadline = Deadline::usual();
        loop {
            let left = deadline.left().unwrap_or_else(|| panic!("no message for {DEADLINE:?}"));
            if let Some(received) = self.receive_within(left) {
                return received;
            }
        }
    }

    /// What comes within `time`; `None` when that is nothing (or not a whole message yet).
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
                    // Our half of the closing handshake; a peer that is gone needs none.
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

    /// Reads until the server's Close; the messages before it and its code.
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

    /// The client, for what this type does not do.
    pub(crate) fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        &mut self.socket
    }
}

/// The agents in an `initial_metrics`, by id, in order.
pub(crate) fn agent_ids(initial: &Value) -> Vec<&str> {
    let agents = initial["metrics"].as_array().unwrap();
    agents.iter().map(|agent| agent["agent_id"].as_str().unwrap()).collect()
}
