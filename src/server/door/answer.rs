//! Giving answers, and what follows them: the next request, or the end.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;

use super::connection::{Manner, Phase, Then};
use super::cors::Cors;
use super::delay::Delayed;
use super::held::Held;
use super::reply::AnswerHead;
use super::{Door, READ_BYTES};
use crate::wire::MIB;
use crate::wire::response::Response;

/// How long a client that was answered and is to be closed may take to stop sending.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How much of what it still sends is read and dropped, in bytes.
const LINGER_BYTES: usize = MIB;

impl Door {
    /// Gives an answer of the door's own.
    pub(super) fn answer(&mut self, slot: usize, answer: &Response, manner: Manner, then: Then) {
        if answer.status.0 >= 400
            && let Some(connection) = self.clients.get(slot)
        {
            let (client, status) = (connection.client, answer.status);
            log::debug!("refused {client} with {}: {}", status.0, status.phrase());
        }
        let bytes = answer.to_bytes();
        if let Ok(Some((mut head, body))) = AnswerHead::split(&bytes) {
            let body = if manner.head_only { &[] } else { body };
            // Where nothing was made for HEAD, nobody knows what GET's would be.
            head.omits_length = manner.head_only && head.body_bytes == 0;
            self.begin(slot, &head, body, (then, manner.cors), None);
        }
    }

    /// Begins an answer, or has it wait when it is the 401 of who guesses; `more` is the number of
    /// the request whose answer is not whole yet.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        head: &AnswerHead<'_>,
        body: &[u8],
        (then, cors): (Then, Cors),
        more: Option<u64>,
    ) {
        if head.status == 503 {
            self.counters.overloads.add_one();
        }
        let then = if self.ends_at.is_some() && then == Then::Keep { Then::Close } else { then };
        self.compose(head, body, cors, then != Then::Keep);
        let composed = std::mem::take(&mut self.composed);
        // At the end nobody would be there to send it.
        if head.status == 401 && self.ends_at.is_none() && self.is_guessing(slot) {
            self.delay(slot, Delayed { answer: composed.clone(), then, more });
        } else {
            self.start(slot, &composed, then, more);
        }
        self.composed = composed;
    }

    /// Sends the beginning of an answer.
    pub(super) fn start(&mut self, slot: usize, bytes: &[u8], then: Then, more: Option<u64>) {
        let deadline = self.now + self.limits.lag_timeout;
        self.clients.enter(slot, Phase::Answering(then, more), self.now, deadline);
        if let Some(connection) = self.clients.get(slot) {
            connection.take_progress();
        }
        self.send(slot, bytes);
    }

    /// Leaves an answer in `composed` as it goes to the client.
    fn compose(&mut self, head: &AnswerHead<'_>, body: &[u8], cors: Cors, close: bool) {
        self.composed.clear();
        // One large answer must not cost its memory for ever.
        self.composed.shrink_to(READ_BYTES);
        let cors = self.rules.cors_lines(cors);
        head.write(&mut self.composed, self.date.as_str(), cors, close);
        self.composed.extend_from_slice(body);
    }

    /// Tells a client that never got into the table why. Best effort: a socket that was just
    /// accepted takes a few hundred bytes at once.
    pub(super) fn turn_away(&mut self, mut socket: TcpStream, detail: &str) {
        self.counters.connections_refused.add_one();
        self.counters.overloads.add_one();
        let bytes = Response::problem(503, detail).to_bytes();
        if let Ok(Some((head, body))) = AnswerHead::split(&bytes) {
            self.compose(&head, body, Cors::Silent, true);
        }
        let _ = socket.write(&self.composed);
        let _ = socket.shutdown(Shutdown::Write);
        // Closing with bytes unread would reset the connection, and the answer with it.
        let _ = socket.read(&mut self.scratch);
    }

    pub(super) fn send(&mut self, slot: usize, bytes: &[u8]) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.send(bytes, self.now) {
            Ok(()) => self.go_on(slot),
            Err(_) => self.close(slot),
        }
    }

    /// Sends what was kept; the client has room again.
    pub(super) fn flush(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.flush(self.now) {
            Ok(()) => {
                self.go_on(slot);
                self.clients.account(slot);
            }
            Err(_) => self.close(slot),
        }
    }

    /// When the answer is out: the next request, or the end.
    fn go_on(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        let Phase::Answering(then, None) = connection.phase else { return };
        if !connection.is_flushed() {
            return;
        }
        let more = connection.is_readable() || !connection.input.is_empty();
        match then {
            Then::Keep if self.ends_at.is_none() => {
                let deadline = self.now + self.limits.idle_timeout;
                self.clients.enter(slot, Phase::Idle, self.now, deadline);
                if more {
                    self.clients.list(slot);
                }
            }
            // Closing with bytes unread would reset the connection, and the answer with it.
            Then::Linger => self.begin_to_linger(slot),
            Then::Keep | Then::Close if more => self.begin_to_linger(slot),
            Then::Keep | Then::Close => self.close(slot),
        }
    }

    fn begin_to_linger(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        connection.input = Held::default();
        if connection.socket.shutdown(Shutdown::Write).is_err() {
            return self.close(slot);
        }
        let deadline = self.now + LINGER_TIME;
        self.clients.enter(slot, Phase::Lingering(LINGER_BYTES), self.now, deadline);
        self.clients.list(slot);
    }

    pub(super) fn close(&mut self, slot: usize) {
        // Closing the descriptor takes it off the poll's list.
        drop(self.clients.remove(slot));
    }
}
