//! Transcripts of one connection: bytes and instants in, requests and bytes out. No socket, and
//! time is what the test says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::support::{HANDSHAKE, ping};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::auth::{Gate, SecretDigest, Viewer};
use crate::server::door::connection::{Connection, Context, Event, Then};
use crate::server::door::policy::Policy;
use crate::server::limits::Limits;
use crate::server::relay::RequestHead;
use crate::wire::MIB;
use crate::wire::id::{PoolId, PoolIndex};
use crate::wire::response::{Response, problem_detail};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// What a client gets of [`answer`], and what when it is the last.
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                        X-Content-Type-Options: nosniff\r\n\r\n";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
      X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n";
const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// A connection, its client, and workers who respond at once unless `is_manual`.
struct Stage {
    connection: Connection,
    context: Context,
    is_manual: bool,
    /// What happened, one line each.
    log: Vec<String>,
    sent: Vec<u8>,
    /// How much the client takes.
    room: usize,
    /// What followed last, other than the next request.
    end: Option<Then>,
}

fn answer() -> Response {
    Response::empty(204)
}

impl Stage {
    fn new() -> Self {
        let gate = Gate::default()
            .with_key("ka", PoolIndex(0), SecretDigest::of("sa"))
            .with_viewer(Viewer::All, SecretDigest::of("only-a"));
        let limits = Limits::default();
        let pools = vec![PoolId::parse("a").unwrap()];
        let policy = Policy::new(Arc::new(gate), pools);
        let now = Clock::start().now();
        let mut context = Context::new(policy, limits, now);
        context.set_time(now, UnixMillis(0));
        Self {
            connection: Connection::new(PEER, now, now + context.limits.head_timeout),
            context,
            is_manual: false,
            log: Vec::new(),
            sent: Vec::new(),
            room: usize::MAX,
            end: None,
        }
    }

    fn manual() -> Self {
        Self { is_manual: true, ..Self::new() }
    }

    /// The client sends; everything that can be done then is done.
    fn receive(&mut self, bytes: &[u8]) {
        if self.connection.takes_input() {
            self.connection.receive(bytes, self.context.now);
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        loop {
            let event = match self.connection.takes_input() {
                true => self.connection.advance(&self.context),
                false => Event::None,
            };
            let is_over = matches!(event, Event::None | Event::Close);
            self.act(event);
            if is_over {
                return;
            }
        }
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::None => {}
            Event::Close => self.end = Some(Then::Close),
            Event::Respond(response, _) => {
                let (detail, then) = (
                    problem_detail(response.body.as_bytes()).unwrap_or_default(),
                    self.connection.options.then,
                );
                self.log.push(format!("{} {then:?} {detail}", response.status));
                self.respond(answer());
            }
            Event::Relay(relay) => {
                let (head, body): (RequestHead<'_>, _) =
                    postcard::take_from_bytes(relay.request.as_bytes()).unwrap();
                let (method, path, body) = (head.method, head.path, String::from_utf8_lossy(body));
                let then = self.connection.options.then;
                self.log.push(format!("{method} {path} {body:?} {then:?}"));
                self.connection.wait_for_worker(1, relay, &self.context);
                if !self.is_manual {
                    self.respond(answer());
                }
            }
            Event::Upgrade(_, rest) => {
                self.log.push(format!("upgrade {:?}", String::from_utf8(rest).unwrap()));
                // The socket is gone.
                self.connection = Connection::new(PEER, self.context.now, self.context.now);
            }
        }
        self.settle();
    }

    fn respond(&mut self, response: Response) {
        self.connection.respond(response, &self.context);
    }

    /// The client takes what it has room for.
    fn settle(&mut self) {
        loop {
            let unsent = self.connection.unsent();
            let count = unsent.len().min(self.room);
            self.sent.extend_from_slice(&unsent[..count]);
            if count == 0 {
                break;
            }
            self.room -= count;
            self.connection.sent(count, self.context.now);
        }
        match self.connection.finish(false, &self.context) {
            Then::Keep => {}
            then => self.end = Some(then),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.context.now += time;
        let event = self.connection.expire(&self.context);
        self.act(event);
    }

    /// Passes the rest of the time to the deadline, but for a millisecond, then that.
    fn pass_to_deadline(&mut self) {
        let left = self.connection.deadline - self.context.now;
        let lines = self.log.len();
        self.pass(left - Duration::from_millis(1));
        assert_eq!((self.log.len(), self.is_closed()), (lines, false), "too early");
        self.pass(Duration::from_millis(1));
    }

    fn is_closed(&self) -> bool {
        self.end == Some(Then::Close)
    }
}

/// What comes of these bytes, in whatever pieces they come.
fn transcript(bytes: &[u8]) -> Vec<String> {
    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut stage = Stage::new();
        pieces.for_each(|piece| stage.receive(piece));
        (stage.log, stage.sent)
    };
    let whole = run(&mut std::iter::once(bytes));
    for split in 1..bytes.len() {
        let (first, second) = bytes.split_at(split);
        assert_eq!(run(&mut [first, second].into_iter()), whole, "split at {split}");
    }
    assert_eq!(run(&mut bytes.chunks(1)), whole, "byte by byte");
    whole.0
}

#[test]
fn requests_are_framed_whatever_the_pieces() {
    let pipelined = [ping("a", b"{}"), b"\r\n".to_vec(), ping("b", b""), LIVE.to_vec()].concat();
    let expected = [
        "POST /api/v1/agents/a/ping \"{}\" Keep",
        "POST /api/v1/agents/b/ping \"\" Keep",
        "200 Keep ",
    ];
    assert_eq!(transcript(&pipelined), expected);
}

#[test]
fn the_last_request_of_a_connection_is_the_last() {
    let close = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(transcript(&[close, LIVE].concat()), ["200 Close "]);
    assert_eq!(transcript(b"GET /livez HTTP/1.0\r\n\r\n"), ["200 Close "]);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let bare = transcript(&[b"GET / HTTP/1.1\nHost: x\r\n\r\n", LIVE].concat());
    assert_eq!(bare, ["400 Linger lines must end with CR LF"]);
    let version = transcript(&[b"GET / HTTP/2.0\r\n\r\n", LIVE].concat());
    assert_eq!(version, ["505 Linger HTTP/1.1 and HTTP/1.0 are served"]);
    let endless = format!("GET /{} HTTP/1.1", "x".repeat(8_192));
    assert_eq!(
        transcript(endless.as_bytes()),
        ["431 Linger the request line and headers are too large"]
    );
}

#[test]
fn refusals_without_a_body_keep_the_connection() {
    let unknown = b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n";
    let log = transcript(&[unknown, LIVE].concat());
    assert_eq!(log, ["404 Keep no such path", "200 Keep "]);
}

/// A body that is refused is skipped when it is here, and not waited for.
#[test]
fn a_refused_body_that_is_not_here_ends_the_connection() {
    let head = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
    let mut stage = Stage::new();
    stage.receive(&[&head[..], b"body", LIVE].concat());
    assert_eq!(stage.log, ["404 Keep no such path", "200 Keep "]);
    let mut stage = Stage::new();
    stage.receive(&[&head[..], b"bod"].concat());
    assert_eq!(stage.log, ["404 Linger no such path"]);
    assert_eq!(stage.end, Some(Then::Linger));
    stage.receive(&[b"y", LIVE].concat());
    assert_eq!(stage.log.len(), 1, "what comes then is dropped");
    stage.receive(&vec![b'x'; MIB]);
    assert!(stage.is_closed(), "a mebibyte of it at most");
}

#[test]
fn a_handshake_takes_along_what_came_behind_it() {
    let mut stage = Stage::new();
    stage.receive(&[HANDSHAKE.as_bytes(), b"frames"].concat());
    assert_eq!(stage.log, ["upgrade \"frames\""]);
    assert_eq!(transcript(HANDSHAKE.as_bytes()), ["upgrade \"\""]);
}

/// Continue is said to who waits for it, and is not said twice.
#[test]
fn continue_is_said_before_the_body_comes() {
    let request = String::from_utf8(ping("a", b"{}")).unwrap();
    let request = request.replace("Content-Length", "Expect: 100-continue\r\nContent-Length");
    let (head, body) = request.split_at(request.len() - 2);
    let mut stage = Stage::new();
    stage.receive(head.as_bytes());
    assert_eq!(stage.sent, b"HTTP/1.1 100 Continue\r\n\r\n");
    stage.receive(body.as_bytes());
    assert_eq!(stage.sent, [b"HTTP/1.1 100 Continue\r\n\r\n", ANSWER].concat());
    let mut stage = Stage::new();
    stage.receive(request.as_bytes());
    assert_eq!(stage.sent, ANSWER, "the body was there already");
}

/// One request at a time: what follows it is not looked at before it is answered.
#[test]
fn what_is_pipelined_waits() {
    let mut stage = Stage::manual();
    stage.receive(&[ping("a", b""), ping("b", b"")].concat());
    assert_eq!((stage.log.len(), stage.connection.takes_input()), (1, false));
    stage.respond(answer());
    stage.settle();
    assert!(stage.connection.has_input());
    stage.go_on();
    assert_eq!((stage.log.len(), stage.sent.as_slice()), (2, ANSWER));
}

/// The head's deadline is that of its first byte, the body's that of the head's last.
#[test]
fn each_state_has_its_deadline() {
    let Limits { head_timeout, body_timeout, idle_timeout, worker_timeout, .. } = Limits::default();
    let mut stage = Stage::manual();
    let request = ping("a", b"body");
    for byte in &request[..5] {
        stage.receive(&[*byte]);
        stage.pass(head_timeout / 6);
    }
    stage.receive(&request[5..request.len() - 1]);
    assert_eq!(stage.connection.deadline, stage.context.now + body_timeout);
    stage.receive(b"y");
    assert_eq!(stage.connection.deadline, stage.context.now + worker_timeout);
    stage.pass_to_deadline();
    assert_eq!(stage.log.pop().unwrap(), "503 Keep no worker answered in time");
    assert_eq!(stage.connection.deadline, stage.context.now + idle_timeout);
    stage.receive(b"POST");
    stage.pass_to_deadline();
    assert_eq!(stage.log.pop().unwrap(), "408 Linger the head did not come in time");
    stage.pass_to_deadline();
    assert!(stage.is_closed(), "it lingered for long enough");

    let mut stage = Stage::new();
    stage.receive(&request[..request.len() - 1]);
    stage.pass_to_deadline();
    assert_eq!(stage.log, ["408 Linger the body did not come in time"]);

    let mut stage = Stage::new();
    stage.pass_to_deadline();
    assert_eq!((stage.log.len(), stage.is_closed()), (0, true), "nobody is told");
}

/// Who takes `lag_min_bytes` in each `lag_timeout` gets all of a response, who takes less does not.
#[test]
fn a_response_that_is_taken_slowly_goes_on() {
    let mut stage = Stage::manual();
    stage.receive(&ping("a", b""));
    stage.room = 0;
    stage.respond(Response { body: vec![b'x'; MIB].into(), ..answer() });
    stage.settle();
    let min = stage.context.limits.lag_min_bytes;
    for _ in 0..20 {
        stage.room = min;
        stage.settle();
        stage.pass_to_deadline();
        assert!(!stage.is_closed());
    }
    assert_eq!(stage.sent.len(), 20 * min);
    stage.room = min - 1;
    stage.settle();
    stage.pass_to_deadline();
    assert!(stage.is_closed());
}

#[test]
fn a_delayed_response_waits_for_its_time_and_takes_nothing_more_in() {
    let mut stage = Stage::manual();
    stage.receive(&ping("a", b""));
    stage.respond(answer());
    stage.connection.delay(Duration::from_secs(1), Arc::default(), stage.context.now);
    stage.receive(LIVE);
    assert!(stage.connection.is_delayed() && stage.sent.is_empty());
    stage.pass_to_deadline();
    assert_eq!(stage.sent, ANSWER);
    assert_eq!(stage.connection.options.then, Then::Linger, "idle: nothing is known");
    assert!(stage.connection.takes_input());
}

/// Who can be told is told; who has part of a response can only be closed.
#[test]
fn who_must_go_is_told_if_it_can_be() {
    let mut stage = Stage::manual();
    stage.receive(&ping("a", b"body")[..100]);
    let event = stage.connection.evict(&stage.context);
    stage.act(event);
    assert_eq!(stage.log, ["503 Linger the server holds too many requests at once"]);
    let mut stage = Stage::manual();
    stage.receive(&ping("a", b""));
    stage.room = 3;
    stage.respond(answer());
    let event = stage.connection.evict(&stage.context);
    stage.act(event);
    assert!(stage.is_closed());
}

#[test]
fn the_stop_lets_whole_requests_end() {
    let stop = |stage: &mut Stage| {
        stage.context.is_stopping = true;
        let event = stage.connection.stop(&stage.context);
        stage.act(event);
    };
    let mut idle = Stage::new();
    stop(&mut idle);
    assert!(idle.is_closed() && idle.log.is_empty());
    let mut half = Stage::new();
    half.receive(b"POST");
    stop(&mut half);
    assert_eq!(half.log, ["503 Linger the server is stopping"]);
    let mut whole = Stage::manual();
    whole.receive(&ping("a", b""));
    stop(&mut whole);
    assert!(!whole.is_closed() && !whole.connection.is_idle());
    whole.respond(answer());
    whole.settle();
    assert!(whole.is_closed() && whole.sent == LAST_ANSWER);
    // A request that came meanwhile is refused.
    let mut late = Stage::new();
    late.context.is_stopping = true;
    late.receive(&ping("a", b""));
    assert_eq!(late.log, ["503 Keep the server is stopping"]);
}
