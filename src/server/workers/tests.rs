//! Workers over a real Unix socket, spoken to as the door speaks: pipelined, responses over the
//! channel.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never};
use mio::{Poll, Token, Waker};
use tempfile::TempDir;
use tiny_http::Server;

use super::{Handle, Workers};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::Stamp;
use crate::server::relay::{Caller, DoorHandle, EncodedRequest, Request, RequestHead, Responder};
use crate::wire::id::PoolIndex;
use crate::wire::response::Response;

const WORKERS: usize = 2;

/// Catches hangs; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(20);

/// Says what it was asked, panics when asked to.
struct Echo;

impl Handle for Echo {
    fn handle(&self, request: &Request<'_>) -> Response {
        assert!(!request.head.path.ends_with("/panic"), "as it was asked to");
        let said = format!(
            "{} {} {:?} {} {}",
            request.head.method,
            request.head.path,
            request.head.caller,
            request.stamp.number,
            request.body.len()
        );
        Response::json(200, said.into_bytes())
    }
}

/// Says which request it has begun; responds to `/wait` when told to, to others at once.
struct Gated {
    begun: Sender<u64>,
    go: Receiver<()>,
}

impl Handle for Gated {
    fn handle(&self, request: &Request<'_>) -> Response {
        self.begun.send(request.stamp.number).unwrap();
        if request.head.path == "/wait" {
            // Longer than the test waits for anything.
            self.go.recv().unwrap();
        }
        Response::json(200, request.stamp.number.to_string().into_bytes())
    }
}

fn gated() -> (Arc<Gated>, Receiver<u64>, Sender<()>) {
    let ((begun, seen), (tell, go)) = (bounded(100), bounded(100));
    (Arc::new(Gated { begun, go }), seen, tell)
}

struct Stage {
    workers: Arc<Workers>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    responses: Receiver<(u64, Response)>,
    counters: Arc<Counters>,
    clock: Clock,
    // Behind the workers, as in the server.
    directory: TempDir,
    _poll: Poll,
}

fn stage() -> Stage {
    stage_with(Arc::new(Echo), WORKERS, DEADLINE)
}

fn stage_with(handle: Arc<dyn Handle>, count: usize, timeout: Duration) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::http_unix(&directory.path().join("http")).unwrap();
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let poll = Poll::new().unwrap();
    let door = DoorHandle::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let (responder, responses) = Responder::new(100, door);
    let workers =
        Arc::new(Workers::new(server, handle, responder, clock, timeout, Arc::clone(&counters)));
    let threads = (0..count)
        .map(|number| {
            let workers = Arc::clone(&workers);
            Builder::new().name(format!("http-{number}")).spawn(move || workers.work()).unwrap()
        })
        .collect();
    Stage { workers, threads, responses, counters, clock, directory, _poll: poll }
}

fn in_batches(requests: &[Vec<u8>], together: bool) -> Vec<u8> {
    if together {
        return batch(&requests.concat());
    }
    requests.iter().flat_map(|request| batch(request)).collect()
}

fn batch(requests: &[u8]) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", requests.len());
    [head.as_bytes(), requests].concat()
}

impl Stage {
    fn pipe(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("http")).unwrap()
    }

    fn request(&self, number: u64, path: &str, body: &[u8]) -> Vec<u8> {
        let head = RequestHead {
            method: "POST",
            path,
            caller: Caller::Agent(PoolIndex(1)),
            query: None,
            is_secure: false,
            if_none_match: None,
            content_type: None,
            prefers_html: false,
            body_bytes: body.len(),
        };
        let stamp = Stamp { number, at: self.clock.now(), wall: UnixMillis(0) };
        let mut request = EncodedRequest::new(&head);
        request.append_body(body);
        request.append_stamp(stamp, &self.clock);
        request.as_bytes().to_vec()
    }

    /// A batch of one.
    fn alone(&self, number: u64, path: &str, body: &[u8]) -> Vec<u8> {
        batch(&self.request(number, path, body))
    }

    /// The next response: its request's number, status and body.
    fn response(&self) -> (u64, u16, String) {
        let (number, response) = self.responses.recv_timeout(DEADLINE).unwrap();
        let body = String::from_utf8(response.body.as_bytes().to_vec()).unwrap();
        (number, response.status, body)
    }

    fn end(self) {
        self.workers.stop();
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
    }
}

/// Every request gets its own response, whatever its body's size, alone or in one batch, and nothing
/// comes back over the pipe.
#[test]
fn pipelined_requests_are_answered_over_the_channel() {
    let stage = stage();
    let mut pipe = stage.pipe();
    let request = |number: u64| {
        stage.request(number, "/a", &vec![b'x'; usize::try_from(number).unwrap() * 40])
    };
    pipe.write_all(&in_batches(&(0..50).map(request).collect::<Vec<_>>(), false)).unwrap();
    pipe.write_all(&in_batches(&(50..100).map(request).collect::<Vec<_>>(), true)).unwrap();
    let mut responses = [(); 100].map(|()| stage.response());
    responses.sort_unstable();
    for (number, response) in (0..).zip(responses) {
        let expected = format!("POST /a Agent(PoolIndex(1)) {number} {}", number * 40);
        assert_eq!(response, (number, 200, expected));
    }
    stage.end();
    pipe.set_nonblocking(true).unwrap();
    assert_eq!(pipe.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A handler that panics costs its request a 500 that says nothing of the inside; the requests
/// before and behind it, and the workers, do not notice.
#[test]
fn a_panic_costs_one_request() {
    let stage = stage();
    let mut pipe = stage.pipe();
    for round in 0..10 {
        let requests =
            [(1, "/a"), (2, "/panic"), (3, "/a")].map(|(n, path)| stage.request(n, path, b"b"));
        pipe.write_all(&in_batches(&requests, round % 2 == 0)).unwrap();
        let mut responses = [(); 3].map(|()| stage.response());
        responses.sort_unstable();
        assert_eq!(responses.each_ref().map(|(_, status, _)| *status), [200, 500, 200]);
        let body = &responses[1].2;
        assert!(body.contains("internal error") && !body.contains("asked"), "{body}");
        assert_eq!(stage.counters.worker_panics.get(), round + 1);
    }
    stage.end();
}

/// A handler may wait for the hub for seconds; a request that was handled before it does not wait
/// as long.
#[test]
fn a_response_goes_out_before_the_next_request_is_handled() {
    let (handle, begun, go) = gated();
    let stage = stage_with(handle, 1, DEADLINE);
    let mut pipe = stage.pipe();
    // Several rounds, because tiny_http may take the second request only when the first is done.
    for round in 0..20 {
        let requests = [1, 2].map(|number| stage.request(number, "/wait", b"b"));
        pipe.write_all(&in_batches(&requests, round % 2 == 0)).unwrap();
        for number in [1, 2] {
            assert_eq!(begun.recv_timeout(DEADLINE), Ok(number));
            if number == 2 {
                assert_eq!(stage.response(), (1, 200, "1".to_owned()), "round {round}");
            }
            go.send(()).unwrap();
        }
        assert_eq!(stage.response(), (2, 200, "2".to_owned()));
    }
    stage.end();
}

/// tiny_http reads no further on a pipe until a body over 1,024 bytes has been read, which a worker
/// does before it handles the request.
#[test]
fn a_large_body_holds_up_no_request_behind_it() {
    let (handle, begun, go) = gated();
    let stage = stage_with(handle, 2, DEADLINE);
    let mut pipe = stage.pipe();
    let requests = [stage.alone(1, "/wait", &[b'x'; 2_048]), stage.alone(2, "/a", b"")];
    pipe.write_all(&requests.concat()).unwrap();
    // The workers report in any order. The first request ends only after `go`.
    let mut both = [(); 2].map(|()| begun.recv_timeout(DEADLINE).unwrap());
    both.sort_unstable();
    assert_eq!(both, [1, 2], "the second begins while the first is being handled");
    assert_eq!(stage.response(), (2, 200, "2".to_owned()));
    go.send(()).unwrap();
    assert_eq!(stage.response(), (1, 200, "1".to_owned()));
    stage.end();
}

/// What the door would never send is not obeyed, and costs no other batch anything.
#[test]
fn what_the_door_did_not_encode_is_not_handled() {
    let (handle, begun, _go) = gated();
    let stage = stage_with(handle, 1, DEADLINE);
    let mut pipe = stage.pipe();
    pipe.write_all(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    let whole = stage.request(2, "/a", b"body");
    pipe.write_all(&batch(&whole[..whole.len() - 1])).unwrap();
    pipe.write_all(&batch(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")).unwrap();
    pipe.write_all(&stage.alone(1, "/a", b"")).unwrap();
    assert_eq!(stage.response().0, 1);
    assert_eq!(begun.try_iter().collect::<Vec<_>>(), [1]);
    stage.end();
}

/// Behind a handler that waited for too long, what the door has given up by then is not done.
#[test]
fn what_comes_too_late_in_a_batch_is_not_handled() {
    const TIMEOUT: Duration = Duration::from_millis(50);
    let (handle, begun, go) = gated();
    let stage = stage_with(handle, 1, TIMEOUT);
    let mut pipe = stage.pipe();
    let requests = [(1, "/wait"), (2, "/a")].map(|(n, path)| stage.request(n, path, b"b"));
    pipe.write_all(&in_batches(&requests, true)).unwrap();
    assert_eq!(begun.recv_timeout(DEADLINE), Ok(1));
    let _ = never::<()>().recv_timeout(TIMEOUT);
    go.send(()).unwrap();
    assert_eq!(stage.response(), (1, 200, "1".to_owned()));
    let (number, status, _) = stage.response();
    assert_eq!((number, status), (2, 503));
    pipe.write_all(&stage.alone(3, "/a", b"")).unwrap();
    assert_eq!(stage.response(), (3, 200, "3".to_owned()));
    assert_eq!(begun.try_iter().collect::<Vec<_>>(), [3]);
    stage.end();
}
