//! The pool over a real Unix socket, spoken to as the door speaks: pipelined, answers in order.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use tiny_http::{Method, Server};

use super::{Handle, Pool, Request};
use crate::answer::{Answer, Body};
use crate::clock::{Clock, UnixMillis};
use crate::counters::Counters;
use crate::event::Stamp;
use crate::id::PoolIndex;
use crate::relay::{self, Caller};

const WORKERS: usize = 2;

/// Says what it was asked, panics when asked to.
struct Echo;

impl Handle for Echo {
    fn handle(&self, request: &Request) -> Answer {
        assert!(!request.path.ends_with("/panic"), "as it was asked to");
        let said = format!(
            "{} {} {:?} {} {}",
            request.method,
            request.path,
            request.caller,
            request.stamp.number,
            request.body.len()
        );
        Answer::json(200, Body::Owned(said.into_bytes()))
    }
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
    let directory = tempfile::tempdir().unwrap();
    let server = Server::http_unix(&directory.path().join("http")).unwrap();
    let clock = Clock::start();
    let counters = Arc::new(Counters::default());
    let pool = Arc::new(Pool::new(server, Arc::new(Echo), clock, Arc::clone(&counters)));
    let workers = (0..WORKERS)
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
        pipe.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
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
        self.pool.stop(WORKERS);
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

/// What the door would never send is answered, not obeyed.
#[test]
fn a_request_without_stamp_or_caller_is_our_fault() {
    let stage = stage();
    let mut pipe = stage.pipe();
    pipe.get_mut().write_all(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut pipe).0, 500);
    stage.end();
}
