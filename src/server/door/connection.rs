//! One client's HTTP/1.1 connection as a state machine without I/O: what the client sent and the
//! time go in; requests, one at a time, and bytes to send come out. Frames requests and responses
//! and knows its own deadline. Holds no socket, and decides nothing about a request: `policy` does.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::cors::Cors;
use super::head::{Head, Scan};
use super::input::Input;
use super::policy::{Action, Decision, Handshake, Policy, Relay};
use super::refusals::{Refusal, Requester};
use crate::server::limits::Limits;
use crate::wire::response::{Body, Response};
use crate::wire::{KIB, MIB};

/// Bodies up to this size, in bytes, are copied behind their heads, so that one write sends both.
pub(super) const SMALL_BODY_BYTES: usize = 16 * KIB;

/// How long a client that was answered and is to be closed may take to stop sending.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of what it still sends is read and dropped, in bytes.
const LINGER_BYTES: usize = MIB;

/// Where a client's request stands.
#[derive(Debug)]
enum State {
    /// Nothing of a request has come.
    Idle,
    Head(Scan),
    Body(Box<Incoming>),
    /// Whole, and at a worker or waiting for one.
    Relayed(Relayed),
    /// The response is sent when the deadline comes: a 401 for a client that guesses.
    Delayed(Then),
    /// The response is being sent.
    Responding(Then),
    /// Answered and closed on our side; up to so many bytes more are read and dropped, so that no
    /// reset overtakes the response (RFC 9112 section 9.6).
    Lingering(usize),
    Closed,
}

/// A request whose body is not whole; without a `relay` one that the door answers itself.
#[derive(Debug)]
struct Incoming {
    relay: Option<Relay>,
    body_bytes: usize,
    options: ResponseOptions,
}

#[derive(Debug)]
struct Relayed {
    number: u64,
    options: ResponseOptions,
    /// The agent, when it is an agent's request.
    requester: Option<Requester>,
    /// The request, while no pipe has room for it.
    queued: Vec<u8>,
}

/// What follows a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    Keep,
    /// The end: everything that the client sent was read.
    Close,
    /// The end, but the client may still be sending.
    Linger,
}

/// How a request is to be responded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResponseOptions {
    pub(super) then: Then,
    /// HEAD was asked: the response's head only.
    pub(super) head_only: bool,
    pub(super) cors: Cors,
}

impl ResponseOptions {
    /// For a client whose request is not known.
    pub(super) const UNKNOWN: Self =
        Self { then: Then::Linger, head_only: false, cors: Cors::Silent };

    /// For a response that ends the connection before the request was read whole.
    fn lingering(self) -> Self {
        Self { then: Then::Linger, ..self }
    }
}

/// What the connection calls for.
#[derive(Debug)]
pub(super) enum Event {
    /// Nothing.
    None,
    /// This response, by [`Connection::respond`].
    Respond { response: Response, options: ResponseOptions, refusal: Option<Refusal> },
    /// A request and its body are whole; [`Connection::relay`] follows.
    Relay { relay: Relay, body: Vec<u8>, options: ResponseOptions },
    /// A WebSocket handshake is in order; the bytes are what came behind it.
    Upgrade(Handshake, Vec<u8>),
}

impl Event {
    fn problem(status: u16, detail: &str, options: ResponseOptions) -> Self {
        Self::Respond { response: Response::problem(status, detail), options, refusal: None }
    }
}

/// What there is to do once all output is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    Continue,
    /// Closing our side of the connection; what the client sends is read on.
    ShutDown,
    Close,
}

/// What all connections go by.
pub(super) struct Context {
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    /// The time of this turn of the loop.
    pub(super) now: Instant,
    /// The server is stopping: requests are refused, and no connection is kept.
    pub(super) is_stopping: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    peer: IpAddr,
    /// Whose request it is: the peer's, or that of whom a trusted proxy names.
    pub(super) client: IpAddr,
    state: State,
    pub(super) deadline: Instant,
    /// When the state began, or later bytes went either way.
    pub(super) last_progress: Instant,
    /// Received, and not yet part of a request that was passed on.
    input: Input,
    output: Output,
    /// Bytes sent since somebody asked.
    progress_bytes: usize,
    /// When the previous request's response was sent.
    pub(super) responded_at: Option<Instant>,
}

/// What is still to be sent: heads and small bodies, then a large body.
#[derive(Debug, Default)]
struct Output {
    head: Vec<u8>,
    body: Body,
    sent: usize,
}

impl Output {
    fn unsent(&self) -> &[u8] {
        match self.head.get(self.sent..) {
            Some(head) if !head.is_empty() => head,
            _ => &self.body.as_bytes()[self.sent - self.head.len()..],
        }
    }
}

impl Connection {
    pub(super) fn new(peer: IpAddr, now: Instant, deadline: Instant) -> Self {
        Self {
            peer,
            client: peer,
            state: State::Idle,
            deadline,
            last_progress: now,
            input: Input::default(),
            output: Output::default(),
            progress_bytes: 0,
            responded_at: None,
        }
    }

    /// Whether what the client sends is read in this state.
    pub(super) fn takes_input(&self) -> bool {
        matches!(self.state, State::Idle | State::Head(_) | State::Body(_) | State::Lingering(_))
    }

    /// Whether [`Connection::advance`] may find another request in what has come.
    pub(super) fn has_input(&self) -> bool {
        matches!(self.state, State::Idle) && !self.input.is_empty()
    }

    /// Whether it may be closed when another client needs its place.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::Delayed(_) | State::Lingering(_))
    }

    pub(super) fn is_delayed(&self) -> bool {
        matches!(self.state, State::Delayed(_))
    }

    /// Whether the client waits for a response or the rest of one.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.state, State::Relayed(_) | State::Responding(_))
    }

    /// The number of the request that is at a worker or waits for one.
    pub(super) fn relayed(&self) -> Option<u64> {
        match &self.state {
            State::Relayed(relayed) => Some(relayed.number),
            _ => None,
        }
    }

    /// The request with this number, which waits for room in a pipe. From here on a worker has it.
    pub(super) fn take_queued(&mut self, number: u64) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Relayed(relayed) if relayed.number == number => {
                Some(std::mem::take(&mut relayed.queued))
            }
            _ => None,
        }
    }

    /// The agent whose request is at a worker; once.
    pub(super) fn take_requester(&mut self) -> Option<Requester> {
        match &mut self.state {
            State::Relayed(relayed) => relayed.requester.take(),
            _ => None,
        }
    }

    /// How the request at hand wants its response.
    pub(super) fn options(&self) -> ResponseOptions {
        match &self.state {
            State::Body(incoming) => incoming.options,
            State::Relayed(relayed) => relayed.options,
            _ => ResponseOptions::UNKNOWN,
        }
    }

    /// The client has sent these bytes.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.last_progress = now;
        if let State::Lingering(left) = &mut self.state {
            *left = left.saturating_sub(bytes.len());
            if *left == 0 {
                self.state = State::Closed;
            }
            return;
        }
        self.input.append(bytes);
    }

    /// Looks for the next request in what has come: at most one.
    pub(super) fn advance(&mut self, context: &Context) -> Event {
        if matches!(self.state, State::Idle) {
            // RFC 9112 section 2.2: some clients end a body with an empty line that is not part
            // of it. Nothing may follow, so it is the beginning of nothing.
            if *self.input == *b"\r\n" {
                self.input = Input::default();
            }
            if self.input.is_empty() {
                return Event::None;
            }
            self.enter(State::Head(Scan::default()), context.now, context.limits.head_timeout);
        }
        match &mut self.state {
            State::Head(scan) => match scan.end(&self.input, context.limits.max_head_bytes) {
                Ok(Some(end)) => self.read_head(end, context),
                Ok(None) => Event::None,
                Err(malformed) => self.refuse(malformed.status, malformed.detail),
            },
            State::Body(incoming) if self.input.len() >= incoming.body_bytes => {
                let (relay, options) = (incoming.relay.take(), incoming.options);
                let body = self.input[..incoming.body_bytes].to_vec();
                self.input.remove_front(body.len());
                match relay {
                    Some(relay) => Event::Relay { relay, body, options },
                    None => {
                        let response = Response::json(200, Body::Static(br#"{"status":"ok"}"#));
                        Event::Respond { response, options, refusal: None }
                    }
                }
            }
            _ => Event::None,
        }
    }

    fn read_head(&mut self, end: usize, context: &Context) -> Event {
        let head = match Head::parse(&self.input[..end], context.limits.max_headers) {
            Ok(head) => head,
            Err(malformed) => return self.refuse(malformed.status, malformed.detail),
        };
        let Decision { client, cors, action } = context.policy.decide(&head, self.peer);
        let then = if head.keep_alive { Then::Keep } else { Then::Close };
        let options = ResponseOptions { then, head_only: head.method == "HEAD", cors };
        let expects_continue = head.fields.expects_continue;
        // Beyond all memory is beyond the limit too.
        let length = head.fields.content_length.unwrap_or_default();
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        self.client = client;
        self.input.remove_front(end);
        let relay = match action {
            Action::Upgrade(handshake) => {
                return Event::Upgrade(handshake, self.input.to_vec());
            }
            Action::Respond(response, refusal) => {
                return self.respond_to_head(response, options, body_bytes, refusal);
            }
            Action::Relay(_) if context.is_stopping => {
                let stopping = Response::problem(503, "the server is stopping");
                return self.respond_to_head(stopping, options, body_bytes, None);
            }
            Action::Relay(relay) => Some(relay),
            Action::Live => None,
        };
        if expects_continue && self.input.is_empty() && body_bytes > 0 {
            self.output.head.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let incoming = Incoming { relay, body_bytes, options };
        self.enter(State::Body(Box::new(incoming)), context.now, context.limits.body_timeout);
        self.advance(context)
    }

    /// A response that waits for no body keeps the connection when the whole body is here, to be
    /// skipped. With 411 there is no saying: a body that nothing announced would be taken for the
    /// next request.
    fn respond_to_head(
        &mut self,
        response: Response,
        options: ResponseOptions,
        body_bytes: usize,
        refusal: Option<Refusal>,
    ) -> Event {
        if body_bytes <= self.input.len() && response.status.0 != 411 {
            self.input.remove_front(body_bytes);
            return Event::Respond { response, options, refusal };
        }
        self.input = Input::default();
        Event::Respond { response, options: options.lingering(), refusal }
    }

    /// What is no request leaves the connection out of step.
    fn refuse(&mut self, status: u16, detail: &'static str) -> Event {
        self.input = Input::default();
        Event::problem(status, detail, ResponseOptions::UNKNOWN)
    }

    /// The request that [`Event::Relay`] gave is with the workers; `queued` is the request when no
    /// pipe had room for it, else empty.
    pub(super) fn relay(
        &mut self,
        number: u64,
        options: ResponseOptions,
        requester: Option<Requester>,
        queued: Vec<u8>,
        context: &Context,
    ) {
        let relayed = Relayed { number, options, requester, queued };
        self.enter(State::Relayed(relayed), context.now, context.limits.worker_timeout);
    }

    /// Sends a response: its `head`, to the empty line, and its body.
    pub(super) fn respond(&mut self, head: &[u8], body: Body, then: Then, context: &Context) {
        self.output.head.extend_from_slice(head);
        if body.as_bytes().len() <= SMALL_BODY_BYTES {
            self.output.head.extend_from_slice(body.as_bytes());
        } else {
            self.output.body = body;
        }
        self.begin_response(then, context);
    }

    /// Has the response that was given wait.
    pub(super) fn delay(&mut self, time: Duration, now: Instant) {
        if let State::Responding(then) = self.state {
            self.enter(State::Delayed(then), now, time);
        }
    }

    fn begin_response(&mut self, then: Then, context: &Context) {
        self.progress_bytes = 0;
        self.enter(State::Responding(then), context.now, context.limits.lag_timeout);
    }

    /// What is to be sent next; empty when there is nothing to send now.
    pub(super) fn unsent(&self) -> &[u8] {
        if self.is_delayed() { &[] } else { self.output.unsent() }
    }

    /// The client has taken so many bytes of [`Connection::unsent`].
    pub(super) fn sent(&mut self, count: usize, now: Instant) {
        self.output.sent += count;
        self.progress_bytes += count;
        self.last_progress = now;
        if self.output.unsent().is_empty() {
            self.output = Output::default();
        }
    }

    /// When all output is sent: the next request, or the end. Called last, whatever was done with
    /// the connection. `has_unread` says whether the client
    /// may have sent what was not read: closing then would reset the connection, and the response
    /// with it.
    pub(super) fn finish(&mut self, has_unread: bool, context: &Context) -> Flushed {
        let State::Responding(then) = self.state else {
            let is_closed = matches!(self.state, State::Closed);
            return if is_closed { Flushed::Close } else { Flushed::Continue };
        };
        if !self.output.unsent().is_empty() {
            return Flushed::Continue;
        }
        if then == Then::Keep && !context.is_stopping {
            self.responded_at = Some(context.now);
            self.enter(State::Idle, context.now, context.limits.idle_timeout);
            return Flushed::Continue;
        }
        if then == Then::Linger || has_unread || !self.input.is_empty() {
            self.input = Input::default();
            self.enter(State::Lingering(LINGER_BYTES), context.now, LINGER_TIMEOUT);
            return Flushed::ShutDown;
        }
        self.state = State::Closed;
        Flushed::Close
    }

    /// The time has come to look at the deadline.
    pub(super) fn expire(&mut self, context: &Context) -> Event {
        if self.deadline > context.now {
            return Event::None;
        }
        let options = self.options();
        match self.state {
            State::Head(_) => Event::problem(408, "the head did not come in time", options),
            State::Body(_) => {
                Event::problem(408, "the body did not come in time", options.lingering())
            }
            State::Relayed(_) => Event::problem(503, "no worker answered in time", options),
            State::Delayed(then) => {
                self.begin_response(then, context);
                Event::None
            }
            // A client that goes on taking a response gets all of it, however long that takes.
            State::Responding(_) if self.progress_bytes >= context.limits.lag_min_bytes => {
                self.progress_bytes = 0;
                self.deadline = context.now + context.limits.lag_timeout;
                Event::None
            }
            State::Responding(_) | State::Idle | State::Lingering(_) | State::Closed => {
                self.close()
            }
        }
    }

    /// The client is to be disconnected: with a 503 if no response has begun.
    pub(super) fn evict(&mut self) -> Event {
        self.input = Input::default();
        let is_answered = matches!(self.state, State::Delayed(_) | State::Responding(_));
        if is_answered || !self.output.unsent().is_empty() {
            return self.close();
        }
        let detail = "the server holds too many requests at once";
        Event::problem(503, detail, self.options().lingering())
    }

    /// The server begins to stop: requests that are whole are served still.
    pub(super) fn stop(&mut self, context: &Context) -> Event {
        match self.state {
            State::Idle | State::Lingering(_) | State::Closed => self.close(),
            State::Head(_) | State::Body(_) => {
                Event::problem(503, "the server is stopping", self.options().lingering())
            }
            State::Delayed(then) => {
                self.begin_response(then, context);
                Event::None
            }
            State::Relayed(_) | State::Responding(_) => Event::None,
        }
    }

    /// [`Connection::finish`] says so.
    fn close(&mut self) -> Event {
        self.state = State::Closed;
        Event::None
    }

    /// Memory for what is buffered, in bytes, a large body aside: several may share one.
    pub(super) fn held_bytes(&self) -> usize {
        let request = match &self.state {
            State::Body(incoming) => incoming.relay.as_ref().map_or(0, |it| it.head.capacity()),
            State::Relayed(relayed) => relayed.queued.capacity(),
            _ => 0,
        };
        self.input.held_bytes() + self.output.head.capacity() + request
    }

    fn enter(&mut self, state: State, now: Instant, timeout: Duration) {
        self.state = state;
        self.last_progress = now;
        self.deadline = now + timeout;
    }
}
