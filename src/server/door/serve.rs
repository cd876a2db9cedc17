//! What the door does for a client: from its bytes to a request, from a response to its bytes, and
//! out to the dashboards. Another part of [`Door`].

use std::net::TcpStream;
use std::time::Duration;

use super::clients::{Client, Received};
use super::connection::{Connection, Event, ResponseOptions, Then};
use super::policy::{Handshake, Relay};
use super::refusals::{Cause, Refusal};
use super::{Door, READ_BYTES, Upgrade};
use crate::server::event::Stamp;
use crate::server::relay::Relayed;
use crate::wire::response::{Body, Response};

/// How long a 401 is delayed for a client that guesses.
const GUESS_DELAY: Duration = Duration::from_secs(1);

/// Of `max_connections`, one in so many (at least one) may have a delayed response; beyond it they
/// are closed, so that guesses cost little memory and few places.
const DELAYED_SHARE: usize = 10;

/// Of the budget, one in so many bytes stays for requests, however much of large responses is not
/// taken.
pub(super) const REQUESTS_SHARE: usize = 16;

impl Door {
    /// Takes in what a client has sent: at most one read and one request. What waits in its buffer
    /// comes first, so that a client which pipelines fills its socket and not our memory.
    pub(super) fn serve(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        if !client.connection.takes_input() {
            return;
        }
        let mut event = client.connection.advance(&self.context);
        if matches!(event, Event::None) {
            match client.read(&mut self.scratch, self.context.now) {
                Received::Bytes => event = client.connection.advance(&self.context),
                Received::Nothing => {}
                Received::End => return self.close(slot),
            }
        }
        if !matches!(event, Event::None) {
            let responded_at = client.connection.responded_at;
            self.moderation.note_request(responded_at, self.context.now);
        }
        self.act(slot, event);
        self.make_room_in_memory();
    }

    /// Does what a connection calls for.
    pub(super) fn act(&mut self, slot: usize, event: Event) {
        match event {
            Event::None => {}
            Event::Respond { response, options, refusal } => {
                if let Some(refusal) = refusal {
                    self.note_refusal(refusal);
                }
                self.respond(slot, response, options);
            }
            Event::Relay { relay, body, options } => self.relay(slot, relay, &body, options),
            Event::Upgrade(handshake, read_ahead) => self.upgrade(slot, handshake, read_ahead),
        }
        self.settle(slot);
    }

    /// Stamps a request that is whole, and hands it to a backend or has it wait for one.
    fn relay(&mut self, slot: usize, relay: Relay, body: &[u8], options: ResponseOptions) {
        let Some(client) = self.clients.get(slot) else { return };
        self.stamped += 1;
        let number = self.stamped;
        let stamp = Stamp { number, at: self.clock.now(), wall: self.clock.wall() };
        let Relay { backend, requester, caller, is_secure, head: mut request, wants_body } = relay;
        Relayed { stamp, is_secure, caller }.write(&mut request, &self.clock);
        request.extend_from_slice(b"\r\n");
        if wants_body {
            request.extend_from_slice(body);
        }
        let pipe = &mut self.pipes[backend as usize];
        if pipe.has_room() && !pipe.is_awaited() {
            pipe.push(number, slot, &request);
            self.counters.requests.add_one();
            request = Vec::new();
        } else {
            pipe.wait(number, slot);
        }
        client.connection.relay(number, options, requester, request, &self.context);
    }

    /// Hands requests that wait to backends that have room again. The slot of one whose client is
    /// gone may be another's by now.
    pub(super) fn relay_waiting(&mut self) {
        for pipe in &mut self.pipes {
            while let Some((number, slot)) = pipe.next_waiting() {
                let Some(client) = self.clients.get(slot) else { continue };
                if let Some(request) = client.connection.take_queued(number) {
                    pipe.push(number, slot, &request);
                    self.counters.requests.add_one();
                    self.clients.update(slot);
                }
            }
        }
    }

    /// Gives a worker's response to its client, if that still waits for it.
    pub(super) fn deliver(&mut self, number: u64, slot: usize, response: Response) {
        let Some(client) = self.clients.get(slot) else { return };
        if client.connection.relayed() != Some(number) {
            return;
        }
        let options = client.connection.options();
        self.note_worker_refusal(slot, &response);
        let response = if options.head_only || self.has_room_for(&response.body) {
            response
        } else {
            let full = "no room for a response of this size at the moment (max_buffered_bytes)";
            Response::problem(503, full)
        };
        self.respond(slot, response, options);
        self.settle(slot);
        // A large response for a client that does not take it must not wait for the turn's end.
        self.make_room_in_memory();
    }

    /// Whether a response may be begun: when it is refused now, no other response is cut short.
    fn has_room_for(&mut self, body: &Body) -> bool {
        let Body::Shared(bytes) = body else { return true };
        let budget = self.context.limits.max_buffered_bytes;
        bytes.len() <= READ_BYTES
            || self.clients.has_body(bytes)
            || self.clients.body_bytes() + bytes.len() <= budget - budget / REQUESTS_SHARE
    }

    /// Gives a client its response, or delays it when it is a 401 and the client guesses.
    pub(super) fn respond(&mut self, slot: usize, response: Response, options: ResponseOptions) {
        let Some(client) = self.clients.get(slot) else { return };
        let (address, status) = (client.connection.client, response.status);
        if let Some(number) = client.connection.relayed() {
            self.pipes.iter_mut().for_each(|pipe| pipe.forget_waiting(number));
        }
        if status.0 >= 400 {
            log::debug!("refused {address} with {}: {}", status.0, status.phrase());
        }
        if status.0 == 503 {
            self.counters.overloads.add_one();
        }
        let is_stopping = self.context.is_stopping;
        let keeps = options.then == Then::Keep && !is_stopping;
        let then = if keeps || options.then == Then::Linger { options.then } else { Then::Close };
        let head = self.compose_head(&response, options, !keeps);
        let body = if options.head_only { Body::default() } else { response.body };
        self.clients.count_body(&body);
        let Some(client) = self.clients.get(slot) else { return };
        client.connection.respond(&head, body, then, &self.context);
        // A stopping server does not live long enough to send it later.
        if status.0 == 401 && !is_stopping && self.guesses.note(address, self.context.now) {
            self.delay(slot);
        }
    }

    /// A response's head as the client gets it, empty line included.
    fn compose_head(
        &mut self,
        response: &Response,
        options: ResponseOptions,
        closes: bool,
    ) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        response.write_head(&mut head, options.head_only);
        head.extend_from_slice(b"Date: ");
        head.extend_from_slice(self.date.as_bytes());
        head.extend_from_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
        head.extend_from_slice(self.context.policy.cors_lines(options.cors).as_bytes());
        if closes {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Delays a response. Its client may be closed meanwhile to make room for others.
    fn delay(&mut self, slot: usize) {
        let max = (self.context.limits.max_connections / DELAYED_SHARE).max(1);
        if self.clients.delayed() >= max {
            return self.close(slot);
        }
        self.counters.refusals_delayed.add_one();
        if let Some(client) = self.clients.get(slot) {
            client.connection.delay(GUESS_DELAY, self.context.now);
        }
    }

    fn note_refusal(&mut self, refusal: Refusal) {
        refusal.cause.parts().1(&self.counters).add_one();
        log::debug!("refused: {}", refusal.show(self.context.policy.gate()));
        self.refusals.note(refusal, self.context.now);
    }

    /// Notes what a worker refused: a heartbeat for its body, or a login.
    fn note_worker_refusal(&mut self, slot: usize, response: &Response) {
        let Some(client) = self.clients.get(slot) else { return };
        let requester = client.connection.take_requester();
        let (cause, why) = match response.status.0 {
            400 if requester.is_some() => (Cause::BadHeartbeat, response.problem_detail()),
            401 => (Cause::WrongToken, Some("login".to_owned())),
            _ => return,
        };
        let address = client.connection.client;
        self.note_refusal(Refusal {
            cause,
            address,
            requester: requester.unwrap_or_default(),
            why,
        });
    }

    /// Sends what a client can take, and does what follows. The last step of whatever is done with
    /// a client.
    pub(super) fn settle(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        match client.flush(&self.context) {
            Ok(super::connection::Flushed::Close) | Err(_) => self.close(slot),
            Ok(_) => self.clients.update(slot),
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        let number = self.clients.remove(slot).and_then(|client| client.connection.relayed());
        if let Some(number) = number {
            self.pipes.iter_mut().for_each(|pipe| pipe.forget_waiting(number));
        }
    }

    /// The socket leaves the door. If it cannot be served, the client gets 503.
    fn upgrade(&mut self, slot: usize, handshake: Handshake, read_ahead: Vec<u8>) {
        let Some(client) = self.clients.get(slot) else { return };
        let address = client.connection.client;
        let permit = self.dashboards.admit(address).filter(|_| !self.context.is_stopping);
        let Some(permit) = permit else {
            let full = Response::problem(503, "too many dashboards");
            return self.respond(slot, full, ResponseOptions::UNKNOWN);
        };
        let Some(mut client) = self.clients.remove(slot) else { return };
        let _ = self.poll.registry().deregister(&mut client.socket);
        let socket = TcpStream::from(client.socket);
        if let Err(error) = socket.set_nonblocking(false) {
            log::debug!("cannot hand a dashboard over: {error}");
            return;
        }
        let Handshake { accept_key, pool } = handshake;
        let upgrade = Upgrade { socket, accept_key, read_ahead, pool, permit };
        if let Err((upgrade, error)) = self.feed.open(upgrade) {
            log::warn!("cannot serve a dashboard: {error}");
            let socket = upgrade.socket;
            if socket.set_nonblocking(true).is_ok() {
                let socket = mio::net::TcpStream::from_std(socket);
                self.reject(socket, "no dashboard can be served now");
            }
        }
    }

    /// Watches a socket from here on, as that of an idle client.
    pub(super) fn register(
        &mut self,
        mut socket: mio::net::TcpStream,
        peer: std::net::IpAddr,
    ) -> std::io::Result<()> {
        let slot = self.clients.next_slot();
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        self.poll.registry().register(&mut socket, mio::Token(slot), interest)?;
        let address = (!self.context.policy.is_proxy(peer)).then(|| peer.into());
        let now = self.context.now;
        let connection = Connection::new(peer, now, now + self.context.limits.head_timeout);
        self.clients.insert(Client::new(socket, address, connection));
        Ok(())
    }

    /// Tells a client that is not in the table why it is closed. Best effort: a socket to which
    /// nothing was sent takes a few hundred bytes at once.
    pub(super) fn reject(&mut self, mut socket: mio::net::TcpStream, detail: &str) {
        use std::io::{Read as _, Write as _};
        self.counters.overloads.add_one();
        let response = Response::problem(503, detail);
        let mut bytes = self.compose_head(&response, ResponseOptions::UNKNOWN, true);
        bytes.extend_from_slice(response.body.as_bytes());
        let _ = socket.write(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        // Closing with bytes unread would reset the connection, and the response with it.
        let _ = socket.read(&mut self.scratch);
    }
}
