//! What passes between the door and the workers: to them, requests in batches, each batch the body of
//! one HTTP request to tiny_http; from them, responses over a channel. Only the door writes to the
//! private socket. Encodes, decodes and hands over; decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::auth::Viewer;
use crate::server::event::Stamp;
use crate::wire::id::PoolIndex;
use crate::wire::response::Response;

/// The caller, as the door has established it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Caller {
    /// The route asks for no credentials.
    Nobody,
    /// An agent, with a key of this pool.
    Agent(PoolIndex),
    Viewer(Viewer),
}

/// What the door has found in a request's head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestHead<'a> {
    /// One that the route allows; never HEAD.
    pub method: &'a str,
    /// The path, known to be a route.
    pub path: &'a str,
    /// As the client sent it, for a history; a token in it is of no use to the worker.
    pub query: Option<&'a str>,
    pub caller: Caller,
    /// Whether the client came over TLS (a trusted proxy says so).
    pub is_secure: bool,
    pub if_none_match: Option<&'a str>,
    /// As the client sent it, for login and logout.
    pub content_type: Option<&'a str>,
    /// Whether it is a person's browser that sends a login, without scripts.
    pub prefers_html: bool,
    pub body_bytes: usize,
}

/// A request as a worker gets it.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub head: RequestHead<'a>,
    /// Whole, and within the door's limits.
    pub body: &'a [u8],
    /// When and in which order it came. The number also says whose request it is.
    pub stamp: Stamp,
}

/// A request on its way to a worker: its head, its body and its stamp are encoded in this order, each
/// when it is known.
#[derive(Debug, Default)]
pub(crate) struct EncodedRequest(Vec<u8>);

/// A [`Stamp`], its instant as the time since the clock's zero.
type EncodedStamp = (u64, Duration, u64);

/// An encoded stamp takes no more: numbers of 7 bits a byte.
const MAX_STAMP_BYTES: usize = 35;

impl EncodedRequest {
    pub(crate) fn new(head: &RequestHead<'_>) -> Self {
        // Encoding such types into a Vec cannot fail.
        Self(postcard::to_extend(head, Vec::with_capacity(128)).unwrap_or_default())
    }

    /// The whole body, as long as the head says.
    pub(crate) fn append_body(&mut self, body: &[u8]) {
        self.0.reserve_exact(body.len() + MAX_STAMP_BYTES);
        self.0.extend_from_slice(body);
    }

    pub(crate) fn append_stamp(&mut self, stamp: Stamp, clock: &Clock) {
        let Stamp { number, at, wall } = stamp;
        let stamp: EncodedStamp = (number, clock.since_base(at), wall.0);
        // As above.
        self.0 = postcard::to_extend(&stamp, std::mem::take(&mut self.0)).unwrap_or_default();
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Memory that this takes, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.0.capacity()
    }
}

impl<'a> Request<'a> {
    /// The first request of a batch that was encoded with the same clock, and what follows it.
    pub(crate) fn decode(batch: &'a [u8], clock: &Clock) -> Option<(Self, &'a [u8])> {
        let (head, rest) = postcard::take_from_bytes::<RequestHead<'a>>(batch).ok()?;
        let (body, rest) = rest.split_at_checked(head.body_bytes)?;
        let (stamp, rest) = postcard::take_from_bytes::<EncodedStamp>(rest).ok()?;
        let (number, since_base, wall) = stamp;
        let stamp = Stamp { number, at: clock.at(since_base), wall: UnixMillis(wall) };
        Some((Self { head, body, stamp }, rest))
    }
}

/// Wakes the door, once for all that comes while it does not sleep, and stops it.
#[derive(Debug)]
pub(crate) struct DoorHandle {
    waker: mio::Waker,
    sleeps: AtomicBool,
    is_stopped: AtomicBool,
}

impl DoorHandle {
    pub(crate) fn new(waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self { waker, sleeps: AtomicBool::new(false), is_stopped: AtomicBool::new(false) })
    }

    /// No new connection and no new request from here on; the door ends once requests in flight have
    /// their responses, or `STOP_GRACE` is over. Does not wait for that.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Called by the door around its wait for events. After saying that it will sleep it looks once
    /// more at what has come: a response that is sent later wakes it.
    pub(crate) fn set_sleeping(&self, sleeps: bool) {
        self.sleeps.store(sleeps, Ordering::SeqCst);
    }

    /// Wakes the door if it sleeps and was not woken yet.
    pub(crate) fn wake(&self) {
        if self.sleeps.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the door: {error}");
        }
    }
}

/// Takes the responses of one backend's workers to the door.
#[derive(Debug, Clone)]
pub(crate) struct Responder {
    responses: Sender<(u64, Response)>,
    door: Arc<DoorHandle>,
}

impl Responder {
    /// A channel for `capacity` responses. With one for each request at the workers, none waits
    /// for room.
    pub(crate) fn new(capacity: usize, door: Arc<DoorHandle>) -> (Self, Receiver<(u64, Response)>) {
        let (responses, received) = bounded(capacity);
        (Self { responses, door }, received)
    }

    /// Responds to the request with this stamp's number, once the channel has room. A door that has
    /// ended wants no responses.
    pub(crate) fn send(&self, number: u64, response: Response) {
        if self.responses.send((number, response)).is_ok() {
            self.door.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_decoded_as_it_was_encoded_and_never_when_cut_short() {
        let clock = Clock::start();
        let longest = Stamp { number: u64::MAX, at: clock.now(), wall: UnixMillis(u64::MAX) };
        let requests = [
            ("GET", "/", Caller::Nobody, None, Some("a/b"), &b""[..]),
            ("POST", "/a", Caller::Agent(PoolIndex(3)), None, None, b"{}"),
            ("GET", "/b", Caller::Viewer(Viewer::All), Some("\"x\""), None, b""),
            ("GET", "/c", Caller::Viewer(Viewer::Pool(PoolIndex(0))), None, None, b""),
        ];
        let mut batch = Vec::new();
        for (method, path, caller, if_none_match, content_type, body) in requests {
            let (is_secure, body_bytes) = (if_none_match.is_some(), body.len());
            let prefers_html = content_type.is_some();
            let head = RequestHead {
                method,
                path,
                query: content_type,
                caller,
                is_secure,
                if_none_match,
                content_type,
                prefers_html,
                body_bytes,
            };
            let mut request = EncodedRequest::new(&head);
            request.append_body(body);
            let held_bytes = request.held_bytes();
            request.append_stamp(longest, &clock);
            assert_eq!(request.held_bytes(), held_bytes, "the stamp has room");
            let request = request.as_bytes();
            for cut in 0..request.len() {
                assert!(Request::decode(&request[..cut], &clock).is_none(), "{cut}");
            }
            batch.extend_from_slice(request);
        }
        let mut rest = batch.as_slice();
        for expected in requests {
            let (Request { head, body, stamp }, others) = Request::decode(rest, &clock).unwrap();
            let RequestHead { method, path, caller, if_none_match, content_type, .. } = head;
            assert_eq!((method, path, caller, if_none_match, content_type, body), expected);
            assert_eq!(head.query, content_type);
            assert_eq!((stamp, head.is_secure), (longest, if_none_match.is_some()));
            rest = others;
        }
        assert!(rest.is_empty());
    }
}
