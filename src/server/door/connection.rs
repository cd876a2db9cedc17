//! One client's HTTP/1.1 connection as a state machine without I/O: what the client sent and the
//! time go in; requests, one at a time, and bytes to send come out. Frames requests and responses
//! and knows its own deadline. Holds no socket, and decides nothing about a request: `policy` does.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::cors::Cors;
use super::head::{Head, Scan};
use super::input::Input;
use super::policy::{Action, Decision, Handshake, Policy, Relay};
use super::refusals::{Cause, Refusal};
use crate::runtime::clock::UnixMillis;
use crate::server::limits::Limits;
use crate::wire::response::{Body, Response, problem_detail};
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
    /// The body is not whole; without a `relay` it is that of a request which the door answers.
    Body {
        relay: Option<Relay>,
        body_bytes: usize,
    },
    /// Whole, and with this number at a worker or waiting for one: the encoded request is there until a
    /// pipe takes it.
    Pending(u64, Relay),
    /// The response is sent when the deadline comes: a 401 for a client that guesses.
    Delayed {
        _counted: Arc<()>,
    },
    /// The response is being sent; so many bytes of it since the deadline was set.
    Responding(usize),
    /// Answered and closed on our side; up to so many bytes more are read and dropped, so that no
    /// reset overtakes the response (RFC 9112 section 9.6).
    Lingering(usize),
}

/// What follows a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    Keep,
    /// The end: everything that the client sent was read.
    Close,
    /// The end, but the client may still be sending: only our side is closed.
    Linger,
}

/// How a request is to be responded to.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseOptions {
    pub(super) then: Then,
    /// HEAD was asked: the response's head only.
    pub(super) head_only: bool,
    cors: Cors,
}

/// For a client whose request is not known.
const UNKNOWN: ResponseOptions =
    ResponseOptions { then: Then::Linger, head_only: false, cors: Cors::Silent };

/// What the door is to do.
#[derive(Debug)]
pub(super) enum Event {
    None,
    /// This response, by [`Connection::respond`].
    Respond(Response, Option<Refusal>),
    /// A request is whole; [`Connection::wait_for_worker`] follows.
    Relay(Relay),
    /// A WebSocket handshake is in order; the bytes are what came behind it.
    Upgrade(Handshake, Vec<u8>),
    /// The end.
    Close,
}

/// What all connections go by.
pub(super) struct Context {
    pub(super) policy: Policy,
    pub(super) limits: Limits,
    /// The time of this turn of the loop.
    pub(super) now: Instant,
    /// The value of `Date` (RFC 9110 section 6.6.1), and the second since 1970 that it is of.
    date: (u64, String),
    /// The server is stopping: requests are refused, and no connection is kept.
    pub(super) is_stopping: bool,
}

impl Context {
    pub(super) fn new(policy: Policy, limits: Limits, now: Instant) -> Self {
        let date = (u64::MAX, String::new());
        Self { policy, limits, now, date, is_stopping: false }
    }

    /// A turn begins. The date is formatted once a second and not once a response.
    pub(super) fn set_time(&mut self, now: Instant, wall: UnixMillis) {
        // The last second that HTTP's four-digit year can write.
        const LAST: u64 = 253_402_300_799;
        self.now = now;
        let second = (wall.0 / 1_000).min(LAST);
        if self.date.0 != second {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            self.date = (second, date);
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    peer: IpAddr,
    /// Whose request it is: the peer's, or that of whom a trusted proxy names.
    pub(super) client: IpAddr,
    state: State,
    /// Of the request at hand, from the end of its head on.
    pub(super) options: ResponseOptions,
    pub(super) deadline: Instant,
    /// When the state began, or later bytes went either way.
    pub(super) last_progress: Instant,
    /// Received, and not yet part of a request that was passed on.
    input: Input,
    output: Output,
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
            options: UNKNOWN,
            deadline,
            last_progress: now,
            input: Input::default(),
            output: Output::default(),
            responded_at: None,
        }
    }

    pub(super) fn takes_input(&self) -> bool {
        !matches!(self.state, State::Pending(..) | State::Delayed { .. } | State::Responding(_))
    }

    /// Whether [`Connection::advance`] may find another request in what has come.
    pub(super) fn has_input(&self) -> bool {
        matches!(self.state, State::Idle) && !self.input.is_empty()
    }

    /// Whether it may be closed when another client needs its place, or the server ends.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::Delayed { .. } | State::Lingering(_))
    }

    pub(super) fn is_delayed(&self) -> bool {
        matches!(self.state, State::Delayed { .. })
    }

    /// The request that waits for its response, with its number.
    pub(super) fn pending(&mut self) -> Option<(u64, &mut Relay)> {
        match &mut self.state {
            State::Pending(number, relay) => Some((*number, relay)),
            _ => None,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.last_progress = now;
        match &mut self.state {
            State::Lingering(left) => *left = left.saturating_sub(bytes.len()),
            _ => self.input.append(bytes),
        }
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
            State::Head(scan) => match scan.end(&self.input) {
                Ok(Some(end)) => self.read_head(end, context),
                Ok(None) => Event::None,
                Err(malformed) => self.fail(malformed.status, &malformed.detail),
            },
            State::Body { relay, body_bytes } if self.input.len() >= *body_bytes => {
                let body_bytes = *body_bytes;
                let body = &self.input[..body_bytes];
                let event = match relay.take() {
                    Some(mut relay) => {
                        relay.request.append_body(if relay.wants_body { body } else { b"" });
                        Event::Relay(relay)
                    }
                    None => {
                        let live = Body::Static(br#"{"status":"ok"}"#);
                        Event::Respond(Response::json(200, live), None)
                    }
                };
                self.input.remove_front(body_bytes);
                event
            }
            State::Lingering(0) => Event::Close,
            _ => Event::None,
        }
    }

    fn read_head(&mut self, end: usize, context: &Context) -> Event {
        let head = match Head::parse(&self.input[..end]) {
            Ok(head) => head,
            Err(malformed) => return self.fail(malformed.status, &malformed.detail),
        };
        let Decision { client, cors, action } = context.policy.decide(&head, self.peer);
        let then = if head.keep_alive { Then::Keep } else { Then::Close };
        let expects_continue = head.fields.expects_continue;
        // Beyond all memory is beyond the limit too.
        let length = head.fields.content_length.unwrap_or_default();
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        self.options = ResponseOptions { then, head_only: head.method == "HEAD", cors };
        self.client = client;
        self.input.remove_front(end);
        let relay = match action {
            Action::Upgrade(handshake) => return Event::Upgrade(handshake, self.input.to_vec()),
            Action::Respond(response, refusal) => {
                return self.respond_to_head(response, body_bytes, refusal);
            }
            Action::Relay(_) if context.is_stopping => {
                let stopping = Response::problem(503, "the server is stopping");
                return self.respond_to_head(stopping, body_bytes, None);
            }
            Action::Relay(relay) => Some(relay),
            Action::Live => None,
        };
        if expects_continue && self.input.is_empty() && body_bytes > 0 {
            self.output.head.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let state = State::Body { relay, body_bytes };
        self.enter(state, context.now, context.limits.body_timeout);
        self.advance(context)
    }

    /// A response that waits for no body keeps the connection when the whole body is here, to be
    /// skipped. With 411 there is no saying: a body that nothing announced would be taken for the
    /// next request.
    fn respond_to_head(
        &mut self,
        response: Response,
        body_bytes: usize,
        refusal: Option<Refusal>,
    ) -> Event {
        if body_bytes <= self.input.len() && response.status != 411 {
            self.input.remove_front(body_bytes);
        } else {
            self.out_of_step();
        }
        Event::Respond(response, refusal)
    }

    /// Ends the connection with this response, although the request was not read whole.
    pub(super) fn fail(&mut self, status: u16, detail: &str) -> Event {
        self.out_of_step();
        Event::Respond(Response::problem(status, detail), None)
    }

    /// Where the next request begins cannot be known.
    fn out_of_step(&mut self) {
        self.input = Input::default();
        self.options.then = Then::Linger;
    }

    /// The request that [`Event::Relay`] gave is with the workers.
    pub(super) fn wait_for_worker(&mut self, number: u64, relay: Relay, context: &Context) {
        self.enter(State::Pending(number, relay), context.now, context.limits.worker_timeout);
    }

    /// A worker has responded. Of its refusals, those of heartbeats and logins are noted.
    pub(super) fn take_response(&mut self, response: Response) -> Event {
        let requester = self.pending().and_then(|(_, relay)| relay.requester.take());
        let (cause, why) = match response.status {
            400 if requester.is_some() => {
                (Cause::BadHeartbeat, problem_detail(response.body.as_bytes()))
            }
            401 => (Cause::WrongToken, Some("login".to_owned())),
            _ => return Event::Respond(response, None),
        };
        let requester = requester.unwrap_or_default();
        Event::Respond(response, Some(Refusal { cause, address: self.client, requester, why }))
    }

    /// Sends a response, at once unless [`Connection::delay`] follows.
    pub(super) fn respond(&mut self, response: Response, context: &Context) {
        if self.options.then == Then::Keep && context.is_stopping {
            self.options.then = Then::Close;
        }
        let ResponseOptions { then, head_only, cors } = self.options;
        let head = &mut self.output.head;
        head.reserve(512);
        response.write_head(head, head_only);
        // Writing to a Vec cannot fail.
        let _ = write!(head, "Date: {}\r\nX-Content-Type-Options: nosniff\r\n", context.date.1);
        cors.write(&context.policy.gate, head);
        if then != Then::Keep {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        if !head_only && response.body.as_bytes().len() <= SMALL_BODY_BYTES {
            head.extend_from_slice(response.body.as_bytes());
        } else if !head_only {
            self.output.body = response.body;
        }
        self.begin_response(context);
    }

    /// Delays the response that was just given.
    pub(super) fn delay(&mut self, time: Duration, counted: Arc<()>, now: Instant) {
        self.enter(State::Delayed { _counted: counted }, now, time);
    }

    fn begin_response(&mut self, context: &Context) {
        self.enter(State::Responding(0), context.now, context.limits.lag_timeout);
    }

    /// What is to be sent next; empty when there is nothing to send now.
    pub(super) fn unsent(&self) -> &[u8] {
        if self.is_delayed() { &[] } else { self.output.unsent() }
    }

    /// The client has taken so many bytes of [`Connection::unsent`].
    pub(super) fn sent(&mut self, count: usize, now: Instant) {
        self.output.sent += count;
        if let State::Responding(sent) = &mut self.state {
            *sent += count;
        }
        self.last_progress = now;
        if self.output.unsent().is_empty() {
            self.output = Output::default();
        }
    }

    /// What follows, once all output is sent. Called last, whatever was done with the connection.
    /// `has_unread` says whether the client may have sent what was not read: closing then would
    /// reset the connection, and the response with it.
    pub(super) fn finish(&mut self, has_unread: bool, context: &Context) -> Then {
        if !matches!(self.state, State::Responding(_)) || !self.output.unsent().is_empty() {
            return Then::Keep;
        }
        if self.options.then == Then::Keep && !context.is_stopping {
            self.options = UNKNOWN;
            self.responded_at = Some(context.now);
            self.enter(State::Idle, context.now, context.limits.idle_timeout);
            return Then::Keep;
        }
        if self.options.then == Then::Linger || has_unread || !self.input.is_empty() {
            self.input = Input::default();
            self.enter(State::Lingering(LINGER_BYTES), context.now, LINGER_TIMEOUT);
            return Then::Linger;
        }
        Then::Close
    }

    /// The deadline may have passed.
    pub(super) fn expire(&mut self, context: &Context) -> Event {
        if self.deadline > context.now {
            return Event::None;
        }
        match self.state {
            State::Head(_) => self.fail(408, "the head did not come in time"),
            State::Body { .. } => self.fail(408, "the body did not come in time"),
            State::Pending(..) => {
                Event::Respond(Response::problem(503, "no worker answered in time"), None)
            }
            State::Delayed { .. } => {
                self.begin_response(context);
                Event::None
            }
            // A client that goes on taking a response gets all of it, however long that takes.
            State::Responding(sent) if sent >= context.limits.lag_min_bytes => {
                self.state = State::Responding(0);
                self.deadline = context.now + context.limits.lag_timeout;
                Event::None
            }
            State::Responding(_) | State::Idle | State::Lingering(_) => Event::Close,
        }
    }

    /// The client is to be disconnected: with a 503 if no response has begun.
    pub(super) fn evict(&mut self, _: &Context) -> Event {
        let is_answered = matches!(self.state, State::Delayed { .. } | State::Responding(_));
        if is_answered || !self.output.unsent().is_empty() {
            return Event::Close;
        }
        self.fail(503, "the server holds too many requests at once")
    }

    /// The server begins to stop: requests that are whole are served still.
    pub(super) fn stop(&mut self, context: &Context) -> Event {
        match self.state {
            State::Idle | State::Lingering(_) => Event::Close,
            State::Head(_) | State::Body { .. } => self.fail(503, "the server is stopping"),
            State::Delayed { .. } => {
                self.begin_response(context);
                Event::None
            }
            State::Pending(..) | State::Responding(_) => Event::None,
        }
    }

    /// Memory for what is buffered, in bytes, a large body aside: several may share one.
    pub(super) fn held_bytes(&self) -> usize {
        let request = match &self.state {
            State::Body { relay: Some(relay), .. } | State::Pending(_, relay) => {
                relay.request.held_bytes()
            }
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
