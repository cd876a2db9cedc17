//! What the door does for a client: from its bytes to a request, from a response to its bytes, and
//! out to the dashboards. Another part of [`Door`].

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::addresses::Address;
use super::connection::{Connection, Context, Event, SMALL_BODY_BYTES, Then};
use super::policy::{Handshake, Relay};
use super::refusals::{Cause, Refusal};
use super::{Door, READ_BYTES, Upgrade};
use crate::server::event::Stamp;
use crate::wire::response::{Body, Response, phrase};

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
    /// comes first, so that a client which pipelines fills its socket and not our memory. Then sends
    /// what the client can take.
    pub(super) fn serve(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let received = client.receive(&mut self.scratch, &self.context);
        let event = received.unwrap_or(Event::Close);
        if !matches!(event, Event::None | Event::Close) {
            self.moderation.note_request(client.connection.responded_at, self.context.now);
        }
        self.act(slot, event);
        self.make_room_in_memory();
    }

    /// Does what a client's connection calls for after this `step`.
    pub(super) fn advise(
        &mut self,
        slot: usize,
        step: impl FnOnce(&mut Connection, &Context) -> Event,
    ) {
        let Some(client) = self.clients.get(slot) else { return };
        let event = step(&mut client.connection, &self.context);
        self.act(slot, event);
    }

    pub(super) fn act(&mut self, slot: usize, event: Event) {
        match event {
            Event::None => {}
            Event::Respond(response, refusal) => {
                if let Some(refusal) = refusal {
                    self.note_refusal(refusal);
                }
                self.respond(slot, response);
            }
            Event::Relay(mut relay) => match self.refuse_flood(slot, &mut relay) {
                Some((response, refusal)) => {
                    self.note_refusal(refusal);
                    self.respond(slot, response);
                }
                None => self.relay(slot, relay),
            },
            Event::Upgrade(handshake, read_ahead) => self.upgrade(slot, handshake, read_ahead),
            Event::Close => self.close(slot),
        }
        self.settle(slot);
    }

    fn note_refusal(&mut self, refusal: Refusal) {
        refusal.cause.parts().1(&self.counters).add_one();
        log::debug!("refused: {}", refusal.show("", &self.context.policy.gate));
        self.refusals.note(refusal, self.context.now);
    }

    /// What a heartbeat gets that is one too many of its agent's in this second.
    fn refuse_flood(&mut self, slot: usize, relay: &mut Relay) -> Option<(Response, Refusal)> {
        let (pool, max) =
            (relay.heartbeat_of?, self.context.limits.max_agent_heartbeats_per_second);
        let agent = relay.requester.as_ref()?.agent.as_ref()?;
        if !self.floods.note(pool, agent, max, self.context.now) {
            return None;
        }
        let detail = format!(
            "this agent has sent {max} heartbeats within a second \
             (max_agent_heartbeats_per_second); this one is dropped"
        );
        let response = Response::problem(429, &detail).with_header("Retry-After", "1");
        let address = self.clients.get(slot)?.connection.client;
        let requester = relay.requester.take()?;
        Some((response, Refusal { cause: Cause::Flood, address, requester, why: None }))
    }

    /// Stamps a request that is whole, and has it wait for room in its pipe.
    fn relay(&mut self, slot: usize, mut relay: Relay) {
        let Some(client) = self.clients.get(slot) else { return };
        self.stamped += 1;
        let number = self.stamped;
        let stamp = Stamp { number, at: self.clock.now(), wall: self.clock.wall() };
        relay.request.append_stamp(stamp, &self.clock);
        self.pipes[relay.backend as usize].waiting.insert(number, slot);
        client.connection.wait_for_worker(number, relay, &self.context);
    }

    /// Hands requests that wait to a pipe that has room.
    pub(super) fn relay_waiting(&mut self, index: usize) {
        while let Some((number, slot)) = self.pipes[index].next_waiting() {
            if let Some(relay) = self.clients.pending(number, slot) {
                let request = std::mem::take(&mut relay.request);
                self.pipes[index].push(number, slot, request.as_bytes());
                self.counters.requests.add_one();
                self.clients.update(slot);
            }
        }
    }

    /// Gives the workers' responses to the clients that still wait for them.
    pub(super) fn take_responses(&mut self, index: usize) {
        while let Some((number, slot, response)) = self.pipes[index].next_response() {
            if self.clients.pending(number, slot).is_some() {
                self.advise(slot, |connection, _| connection.take_response(response));
                // A large response that its client does not take must not wait for the turn's end.
                self.make_room_in_memory();
            }
        }
    }

    /// Gives a client its response, or delays it when it is a 401 and the client guesses.
    fn respond(&mut self, slot: usize, mut response: Response) {
        self.forget_waiting(slot);
        let Some(client) = self.clients.get(slot) else { return };
        if let Body::Shared(body) = &response.body
            && body.bytes.len() > SMALL_BODY_BYTES
            && !client.connection.options.head_only
        {
            let budget = self.context.limits.max_buffered_bytes;
            let needed = self.body_bytes.load(Ordering::Relaxed) + body.bytes.len();
            if body.bytes.len() <= READ_BYTES
                || body.is_counted()
                || needed <= budget - budget / REQUESTS_SHARE
            {
                body.count_in(&self.body_bytes);
            } else {
                // Refused now, no other response is cut short.
                let full = "no room for a response of this size at the moment (max_buffered_bytes)";
                response = Response::problem(503, full);
            }
        }
        let (address, status) = (client.connection.client, response.status);
        if status >= 400 {
            log::debug!("refused {address} with {status}: {}", phrase(status));
        }
        if status == 503 {
            self.counters.overloads.add_one();
        }
        client.connection.respond(response, &self.context);
        // A stopping server does not live long enough to send it later.
        if status != 401
            || self.context.is_stopping
            || !self.guesses.note(address, self.context.now)
        {
            return;
        }
        let max_delayed = (self.context.limits.max_connections / DELAYED_SHARE).max(1);
        if Arc::strong_count(&self.delayed) > max_delayed {
            return self.close(slot);
        }
        self.counters.refusals_delayed.add_one();
        client.connection.delay(GUESS_DELAY, Arc::clone(&self.delayed), self.context.now);
    }

    /// Sends what a client can take, and does what follows. The last step of whatever is done with
    /// a client.
    pub(super) fn settle(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        match client.flush(&self.context) {
            Ok(Then::Close) | Err(_) => self.close(slot),
            Ok(Then::Keep | Then::Linger) => self.clients.update(slot),
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        self.forget_waiting(slot);
        self.clients.remove(slot);
    }

    /// A client's request, if it waits for a worker, does so no longer.
    fn forget_waiting(&mut self, slot: usize) {
        let pending = self.clients.get(slot).and_then(|client| client.connection.pending());
        if let Some((number, relay)) = pending {
            self.pipes[relay.backend as usize].waiting.remove(&number);
        }
    }

    /// The socket leaves the door. If it cannot be served, the client gets 503.
    fn upgrade(&mut self, slot: usize, handshake: Handshake, read_ahead: Vec<u8>) {
        let Some(client) = self.clients.get(slot) else { return };
        let address = client.connection.client;
        let permit = self.dashboards.acquire(Some(Address::from(address)));
        let Some(permit) = permit.ok().filter(|_| !self.context.is_stopping) else {
            let event = client.connection.fail(503, "too many dashboards");
            return self.act(slot, event);
        };
        let Some(mut socket) = self.clients.remove(slot) else { return };
        let _ = self.poll.registry().deregister(&mut socket);
        let socket = TcpStream::from(socket);
        if let Err(error) = socket.set_nonblocking(false) {
            log::debug!("cannot hand a dashboard over: {error}");
            return;
        }
        let Handshake { accept_key, feed } = handshake;
        let upgrade = Upgrade { socket, accept_key, read_ahead, feed, _permit: permit };
        if let Err((upgrade, error)) = (self.open_feed)(upgrade) {
            log::warn!("cannot serve a dashboard: {error}");
            self.reject(upgrade.socket, address, "no dashboard can be served now");
        }
    }
}
