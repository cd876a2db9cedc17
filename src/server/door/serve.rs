//! Reading what clients send: bytes to requests, requests to decisions.

use std::net::IpAddr;

use super::Door;
use super::check::{Decision, Refused, Relay};
use super::connection::{Incoming, Manner, Phase, Received, Then};
use super::held::Held;
use super::parse::{Head, Scan};
use super::refusals::Refusal;
use crate::wire::response::{Body, Response};

/// What one look at a client's bytes came to.
enum Progress {
    /// They are the beginning of something.
    NeedMore,
    /// So many of them are dealt with.
    Took(usize),
}

impl Door {
    /// Takes in what a client has sent, up to one request, if this phase takes anything.
    pub(super) fn serve(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        if !connection.takes_input() {
            return;
        }
        if let Phase::Lingering(left) = connection.phase {
            return self.linger(slot, left);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.read_request(slot, &mut scratch);
        self.scratch = scratch;
        self.clients.account(slot);
        self.make_room_in_memory();
    }

    /// What waits in the buffer comes first: no more is read before it is dealt with, so that
    /// a client which pipelines fills its socket and not our memory.
    fn read_request(&mut self, slot: usize, scratch: &mut [u8]) {
        let Some(connection) = self.clients.get(slot) else { return };
        let mut held = std::mem::take(&mut connection.input);
        if !held.is_empty()
            && let Progress::Took(count) = self.take_in(slot, &held)
        {
            held.remove_front(count);
            return self.put_back(slot, held);
        }
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.receive(scratch, self.now) {
            Received::Nothing => self.put_back(slot, held),
            Received::End => self.close(slot),
            Received::Bytes(count) if held.is_empty() => {
                let fresh = &scratch[..count];
                let taken = match self.take_in(slot, fresh) {
                    Progress::Took(taken) => taken,
                    Progress::NeedMore => 0,
                };
                self.put_back(slot, Held::from(&fresh[taken..]));
            }
            Received::Bytes(count) => {
                held.extend_from_slice(&scratch[..count]);
                if let Progress::Took(taken) = self.take_in(slot, &held) {
                    held.remove_front(taken);
                }
                self.put_back(slot, held);
            }
        }
    }

    /// Keeps what no request has used yet. What can go on without a new event is listed.
    fn put_back(&mut self, slot: usize, rest: Held) {
        let Some(connection) = self.clients.get(slot) else { return };
        // An empty buffer is given back: most clients are idle.
        let unused = rest.is_empty() || matches!(connection.phase, Phase::Lingering(_));
        connection.input = if unused { Held::default() } else { rest };
        let idle_with_bytes = matches!(connection.phase, Phase::Idle) && !unused;
        if connection.takes_input() && (connection.is_readable() || idle_with_bytes) {
            self.clients.list(slot);
        }
    }

    fn take_in(&mut self, slot: usize, data: &[u8]) -> Progress {
        let Some(connection) = self.clients.get(slot) else { return Progress::NeedMore };
        match &mut connection.phase {
            // RFC 9112 section 2.2: some clients end a body with an empty line that is not
            // part of it. Nothing may follow, so it is the beginning of nothing.
            Phase::Idle if data == b"\r\n" => Progress::Took(data.len()),
            Phase::Idle => {
                let deadline = self.now + self.limits.head_timeout;
                self.clients.enter(slot, Phase::Head(Scan::default()), self.now, deadline);
                self.take_in_head(slot, data)
            }
            Phase::Head(_) => self.take_in_head(slot, data),
            Phase::Body(incoming) if data.len() < incoming.body_bytes => Progress::NeedMore,
            Phase::Body(incoming) => {
                let (manner, length) = (incoming.manner, incoming.body_bytes);
                let relay = incoming.relay.take();
                self.serve_whole(slot, relay, &data[..length], manner);
                Progress::Took(length)
            }
            _ => Progress::NeedMore,
        }
    }

    fn take_in_head(&mut self, slot: usize, data: &[u8]) -> Progress {
        let Some(connection) = self.clients.get(slot) else { return Progress::NeedMore };
        let Phase::Head(scan) = &mut connection.phase else { return Progress::NeedMore };
        let peer = connection.peer;
        let head = match scan.end(data, self.limits.max_head_bytes) {
            Ok(None) => return Progress::NeedMore,
            Ok(Some(end)) => {
                Head::parse(&data[..end], self.limits.max_headers).map(|head| (head, end))
            }
            Err(malformed) => Err(malformed),
        };
        match head {
            Ok((head, end)) => {
                let taken = self.decide(slot, &head, peer, &data[end..]);
                Progress::Took(end + taken)
            }
            Err(malformed) => {
                let answer = Response::problem(malformed.status, malformed.detail);
                self.answer(slot, &answer, Manner::CLOSING, Then::Linger);
                Progress::Took(data.len())
            }
        }
    }

    /// Does what the head calls for. `rest` is what came behind the head; returns how much of
    /// it belongs to this request.
    fn decide(&mut self, slot: usize, head: &Head<'_>, peer: IpAddr, rest: &[u8]) -> usize {
        // Beyond all memory is beyond the limit too.
        let length = head.fields.content_length.unwrap_or_default();
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let stopping = self.ends_at.is_some();
        let (decision, cors) = self.rules.decide(head, peer);
        let client = self.rules.client(head, peer);
        if let Some(connection) = self.clients.get(slot) {
            connection.client = client;
        }
        let head_only = head.method == "HEAD";
        let manner = Manner { keep_alive: head.keep_alive && !stopping, head_only, cors };
        let relay = match decision {
            Decision::Live => None,
            Decision::Relay(_) if stopping => {
                let stopping = Response::problem(503, "the server is stopping");
                return self.answer_head(slot, &stopping, manner, body_bytes, rest);
            }
            Decision::Relay(mut relay) => {
                if let Some(connection) = self.clients.get(slot) {
                    connection.asker = relay.asker.take();
                }
                Some(relay)
            }
            Decision::Response(answer) => {
                return self.answer_head(slot, &answer, manner, body_bytes, rest);
            }
            Decision::Refused(Refused { answer, cause, asker, why }) => {
                if let Some(cause) = cause {
                    self.note_refusal(Refusal { cause, address: client, asker, why });
                }
                return self.answer_head(slot, &answer, manner, body_bytes, rest);
            }
            Decision::Upgrade(handshake) => {
                self.upgrade(slot, handshake, rest.to_vec());
                return rest.len();
            }
        };
        if let Some(body) = rest.get(..body_bytes) {
            self.serve_whole(slot, relay, body, manner);
            return body_bytes;
        }
        if head.fields.expects_continue && rest.is_empty() {
            self.send(slot, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let deadline = self.now + self.limits.body_timeout;
        let phase = Phase::Body(Box::new(Incoming { relay, body_bytes, manner }));
        self.clients.enter(slot, phase, self.now, deadline);
        0
    }

    /// An answer that waits for no body keeps the connection when the whole body is here, to be
    /// skipped. With 411 there is no saying: a body that nothing announced would be taken for the
    /// next request.
    fn answer_head(
        &mut self,
        slot: usize,
        answer: &Response,
        manner: Manner,
        body_bytes: usize,
        rest: &[u8],
    ) -> usize {
        if body_bytes <= rest.len() && answer.status.0 != 411 {
            self.answer(slot, answer, manner, manner.then());
            return body_bytes;
        }
        self.answer(slot, answer, manner.closing(), Then::Linger);
        rest.len()
    }

    fn serve_whole(&mut self, slot: usize, relay: Option<Relay>, body: &[u8], manner: Manner) {
        match relay {
            Some(relay) => self.hand_over(slot, relay, body, manner),
            None => self.answer_live(slot, manner),
        }
    }

    fn answer_live(&mut self, slot: usize, manner: Manner) {
        let live = Response::json(200, Body::Static(br#"{"status":"ok"}"#));
        self.answer(slot, &live, manner, manner.then());
    }

    fn linger(&mut self, slot: usize, left: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        match connection.receive(&mut self.scratch, self.now) {
            Received::Bytes(count) if count < left => {
                connection.phase = Phase::Lingering(left - count);
                if connection.is_readable() {
                    self.clients.list(slot);
                }
            }
            Received::Nothing => {}
            Received::Bytes(_) | Received::End => self.close(slot),
        }
    }
}
