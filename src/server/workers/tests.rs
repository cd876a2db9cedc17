//! The pool over a real Unix socket, spoken to as the door speaks: pipelined, answers in order.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tempfile::TempDir;
use tiny_http::{Method, Server};

use super::{Handle, Pool, Request};
use crate::runtime::clock::{Clock, UnixMillis};
use crate::runtime::counters::Counters;
use crate::server::event::Stamp;
use crate::server::relay::{self, Caller};
use crate::wire::id::PoolIndex;
use crate::wire::response::{Body, Response};

const WORKERS: usize = 2;

/// Catches hangs; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(20);

/// Says what it was asked, panics when asked to.
struct Echo;

impl Handle for Echo {
    fn handle(&self, request: &Request) -> Response {
        assert!(!request.path.ends_with("/panic"), "as it was asked to");
        let said = format!(
            "{} {} {:?} {} {}",
            request.method,
            request.path,
            request.caller,
            request.stamp.number,
            request.body.len()
        );
        Response::json(200, Body::Owned(said.into_bytes()))
    }
}

/// Says which request it has begun; answers `/wait` when told to, others at once.
struct Gated {
    begun: Sender<u64>,
    go: Receiver<()>,
}

impl Handle for Gated {
    fn handle(&self, request: &Request) -> Response {
        self.begun.send(request.stamp.number).unwrap();
        if request.path == "/wait" {
            // Longer than the test waits for anything.
            self.go.recv().unwrap();
        }
        Response::json(200, Body::Owned(request.stamp.number.to_string().into_bytes()))
    }
}

fn gated() -> (Arc<Gated>, Receiver<u64>, Sender<()>) {
    let ((begun, seen), (tell, go)) = (bounded(100), bounded(100));
    (Arc::new(Gated { begun, go }), seen, tell)
}

struct Stage {
    pool: Arc<Pool>,
    workers: Vec<JoinHandle<std::io::Result<()>>>,
    counters: Arc<Counters>,
    clock: Clock,
    // Behind the pool, as in the server.
    directory: TempDir,
}

fn stage() -> Stage {
    stage_with(Arc::new(Echo), WORKERS)
}

fn stage_with(handle: Arc<dyn Handle>, workers: usize) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::http_unix(&directory.path().join("http")).unwrap();
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let pool = Arc::new(Pool::new(server, handle, clock, Arc::clone(&counters)));
    let workers = (0..workers)
        .map(|number| {
            let pool = Arc::clone(&pool);
            Builder::new().name(format!("http-{number}")).spawn(move || pool.work()).unwrap()
        })
        .collect();
    Stage { pool, workers, counters, clock, directory }
}

impl Stage {
    fn pipe(&self) -> BufReader<UnixStream> {
        let pipe = UnixStream::connect(self.directory.path().join("http")).unwrap();
        pipe.set_read_timeout(Some(DEADLINE)).unwrap();
        BufReader::new(pipe)
    }

    fn request(&self, number: u64, path: &str, body: &[u8]) -> Vec<u8> {
        let stamp = Stamp { number, at: self.clock.now(), wall: UnixMillis(0) };
        let head = format!(
            "{} {path} HTTP/1.1\r\nContent-Length: {}\r\n{}: {}\r\n{}: {}\r\n\r\n",
            Method::Post,
            body.len(),
            relay::STAMP,
            relay::encode_stamp(&stamp, &self.clock),
            relay::CALLER,
            Caller::Agent(PoolIndex(1)).encode(),
        );
        [head.as_bytes(), body].concat()
    }

    fn end(self) {
        self.pool.stop(self.workers.len());
        for worker in self.workers {
            worker.join().unwrap().unwrap();
        }
    }
}

/// The next answer's status and body.
fn answer(pipe: &mut BufReader<UnixStream>) -> (u16, String) {
    let mut line = String::new();
    pipe.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        pipe.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    pipe.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// Answers come in the order of the requests, whatever the workers do, also with bodies that
/// tiny_http does not buffer.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let stage = stage();
    let mut pipe = stage.pipe();
    for number in 0..100 {
        let body = vec![b'x'; usize::try_from(number).unwrap() * 40];
        pipe.get_mut().write_all(&stage.request(number, "/a", &body)).unwrap();
    }
    for number in 0..100 {
        let expected = format!("POST /a Agent(PoolIndex(1)) {number} {}", number * 40);
        assert_eq!(answer(&mut pipe), (200, expected));
    }
    stage.end();
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
        pipe.get_mut().write_all(&requests.concat()).unwrap();
        assert_eq!(answer(&mut pipe).0, 200);
        let (status, body) = answer(&mut pipe);
        assert_eq!(status, 500);
        assert!(body.contains("internal error") && !body.contains("asked"), "{body}");
        assert_eq!(answer(&mut pipe).0, 200);
        assert_eq!(stage.counters.worker_panics.get(), round + 1);
    }
    stage.end();
}

/// A handler may wait for the hub for seconds; who was answered before it does not wait along.
#[test]
fn an_answer_goes_out_before_the_next_request_is_handled() {
    let (handle, begun, go) = gated();
    let stage = stage_with(handle, 1);
    let mut pipe = stage.pipe();
    // Several rounds, because tiny_http may take the second request only when the first is done.
    for round in 0..20 {
        let requests = [1, 2].map(|number| stage.request(number, "/wait", b"b"));
        pipe.get_mut().write_all(&requests.concat()).unwrap();
        for number in [1, 2] {
            assert_eq!(begun.recv_timeout(DEADLINE), Ok(number));
            if number == 2 {
                assert_eq!(answer(&mut pipe), (200, "1".to_owned()), "round {round}");
            }
            go.send(()).unwrap();
        }
        assert_eq!(answer(&mut pipe), (200, "2".to_owned()));
    }
    stage.end();
}

/// tiny_http reads no further on a pipe while it has a request whose body is over 1,024 bytes.
#[test]
fn a_large_body_holds_up_no_request_behind_it() {
    let (handle, begun, go) = gated();
    let stage = stage_with(handle, 2);
    let mut pipe = stage.pipe();
    let requests = [stage.request(1, "/wait", &[b'x'; 2_048]), stage.request(2, "/a", b"")];
    pipe.get_mut().write_all(&requests.concat()).unwrap();
    // The workers report in any order. The first request ends only after `go`.
    let mut both = [(); 2].map(|()| begun.recv_timeout(DEADLINE).unwrap());
    both.sort_unstable();
    assert_eq!(both, [1, 2], "the second begins while the first is being handled");
    go.send(()).unwrap();
    for number in [1, 2] {
        assert_eq!(answer(&mut pipe), (200, number.to_string()));
    }
    stage.end();
}

/// What the door would never send is answered, not obeyed.
#[test]
fn a_request_without_stamp_or_caller_is_our_fault() {
    let stage = stage();
    let mut pipe = stage.pipe();
    pipe.get_mut().write_all(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut pipe).0, 500);
    stage.end();
}
