//! What the tests of the door have in common: a door with its stand-in workers, and a client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never};
use tempfile::TempDir;

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::auth::{Gate, SecretDigest, Viewer};
use crate::server::door::{Door, DoorError, DoorParts, OpenFeed, Upgrade};
use crate::server::limits::{Limits, MAX_UNSENT_BYTES};
use crate::server::relay::{DoorHandle, Request, RequestHead, Responder};
use crate::wire::id::{PoolId, PoolIndex};
use crate::wire::response::Response;

/// Catches hangs; nothing waits for it to pass.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A door that serves pools `a` (key `ka`, secret `sa`) and `b` (`kb`, `sb`), the token `all`
/// for both and `only-a` for one.
pub(super) struct TestDoor {
    pub(super) address: SocketAddr,
    pub(super) counters: Arc<Counters>,
    pub(super) handle: Arc<DoorHandle>,
    /// What reached the workers and waits for the test's answer.
    pub(super) ingest: Receiver<Seen>,
    pub(super) reads: Receiver<Seen>,
    /// Who became a dashboard.
    pub(super) dashboards: Receiver<Upgrade>,
    /// Whether dashboards can be served.
    pub(super) feed_works: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<Result<(), DoorError>>>,
    directory: TempDir,
}

fn feed(out: Sender<Upgrade>, works: Arc<Mutex<bool>>) -> OpenFeed {
    Box::new(move |upgrade| {
        if !*works.lock().unwrap() {
            return Err((upgrade, std::io::ErrorKind::OutOfMemory.into()));
        }
        out.send(upgrade).unwrap();
        Ok(())
    })
}

impl TestDoor {
    /// Workers say 200 to everything.
    pub(super) fn open(limits: Limits) -> Self {
        Self::build(limits, Gate::default(), true)
    }

    /// The test answers; who connects from this machine is a trusted proxy.
    pub(super) fn behind_proxy(limits: Limits) -> Self {
        let gate = Gate::default().with_proxy("127.0.0.0/8".parse().unwrap());
        Self::build(limits, gate, false)
    }

    /// The test answers what it finds in `ingest` and `reads`.
    pub(super) fn with_manual_workers(limits: Limits) -> Self {
        Self::build(limits, Gate::default(), false)
    }

    fn build(limits: Limits, gate: Gate, automatic: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets = paths(&directory).map(|path| UnixListener::bind(path).unwrap());
        let (mut door, responders) = Self::in_front(limits, gate, directory);
        let backends = sockets.into_iter().zip(responders);
        let mut seen = backends.map(|(socket, responder)| worker(socket, responder, automatic));
        (door.ingest, door.reads) = (seen.next().unwrap(), seen.next().unwrap());
        door
    }

    /// A door whose two sockets in `directory` are bound already, and what its workers are to
    /// respond through.
    pub(super) fn in_front(
        limits: Limits,
        gate: Gate,
        directory: TempDir,
    ) -> (Self, [Responder; 2]) {
        let (out, dashboards) = bounded(16);
        let feed_works = Arc::new(Mutex::new(true));
        let parts = parts(limits, gate, feed(out, Arc::clone(&feed_works)), &directory);
        let address = parts.listeners[0].local_addr().unwrap();
        let counters = Arc::clone(&parts.counters);
        let (door, handle, responders) = Door::new(parts).unwrap();
        let thread =
            std::thread::Builder::new().name("door".into()).spawn(move || door.run()).unwrap();
        let door = Self {
            address,
            counters,
            handle,
            ingest: never(),
            reads: never(),
            dashboards,
            feed_works,
            thread: Some(thread),
            directory,
        };
        (door, responders)
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A heartbeat on a new connection is answered: the door is well.
    pub(super) fn check_health(&self) {
        let mut client = self.client();
        client.send(&ping("health", b"{}"));
        assert_eq!(client.answer().status, 200);
    }

    /// Waits until `condition` holds, asking the door for a turn in between.
    pub(super) fn wait_until(&self, what: &str, condition: impl Fn(&Counters) -> bool) {
        let clock = Clock::start();
        let start = clock.now();
        while !condition(&self.counters) {
            assert!(clock.now() - start < DEADLINE, "in vain: {what}");
            let mut client = self.client();
            client.send(b"GET /livez HTTP/1.0\r\n\r\n");
            let _ = client.rest();
        }
    }

    /// Takes away the sockets of the workers; pipes that are there stay.
    pub(super) fn remove_sockets(&self) {
        std::fs::remove_dir_all(self.directory.path()).unwrap();
    }

    /// Why the door ended, which it must by itself.
    pub(super) fn end(mut self) -> DoorError {
        let clock = Clock::start();
        let start = clock.now();
        while !self.thread.as_ref().unwrap().is_finished() {
            assert!(clock.now() - start < DEADLINE, "the door goes on");
            pause(Duration::from_millis(10));
        }
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }

    pub(super) fn stop(mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for TestDoor {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.unwrap().is_ok(), "the door ended badly");
        }
    }
}

fn parts(limits: Limits, gate: Gate, open_feed: OpenFeed, directory: &TempDir) -> DoorParts {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As the server has it: accepted sockets inherit both.
    let options = socket2::SockRef::from(&listener);
    options.set_tcp_nodelay(true).unwrap();
    options.set_tcp_notsent_lowat(MAX_UNSENT_BYTES).unwrap();
    let gate = gate
        .with_key("ka", PoolIndex(0), SecretDigest::of("sa"))
        .with_key("kb", PoolIndex(1), SecretDigest::of("sb"))
        .with_viewer(Viewer::All, SecretDigest::of("all"))
        .with_viewer(Viewer::Pool(PoolIndex(0)), SecretDigest::of("only-a"));
    DoorParts {
        listeners: vec![listener],
        backends: paths(directory),
        gate: Arc::new(gate),
        pools: vec![PoolId::parse("a").unwrap(), PoolId::parse("b").unwrap()],
        clock: Clock::start(),
        counters: Arc::default(),
        limits,
        open_feed,
    }
}

/// A door that no thread runs, what its workers respond through, and the sockets that its pipes
/// are connected to, as long as these are kept.
pub(super) fn idle_door() -> (Door, [Responder; 2], ([UnixListener; 2], TempDir)) {
    let directory = tempfile::tempdir().unwrap();
    let sockets = paths(&directory).map(|path| UnixListener::bind(path).unwrap());
    let feed = feed(bounded(0).0, Arc::default());
    let parts = parts(Limits::default(), Gate::default(), feed, &directory);
    let (door, _, responders) = Door::new(parts).unwrap();
    (door, responders, (sockets, directory))
}

/// The sockets of the two backends.
pub(super) fn paths(directory: &TempDir) -> [PathBuf; 2] {
    ["i", "r"].map(|name| directory.path().join(name))
}

/// A request as a worker sees it.
pub(super) struct Seen {
    /// Encoded.
    request: Vec<u8>,
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
    pipe: UnixStream,
    responder: Responder,
}

impl Seen {
    pub(super) fn respond(&self, response: Response) {
        self.responder.send(self.number, response);
    }

    /// Responds with 200 and this body.
    pub(super) fn say(&self, text: &str) {
        self.respond(ok(text));
    }

    /// What tiny_http does with a request that it cannot parse.
    pub(super) fn write_to_pipe(&self, bytes: &[u8]) {
        (&self.pipe).write_all(bytes).unwrap();
    }

    pub(super) fn break_pipe(&self) {
        self.pipe.shutdown(Shutdown::Both).unwrap();
    }

    pub(super) fn head(&self) -> RequestHead<'_> {
        Request::decode(&self.request, &Clock::start()).unwrap().0.head
    }

    pub(super) fn path(&self) -> &str {
        self.head().path
    }
}

/// Lets time go by: for clients that are slow.
pub(super) fn pause(time: Duration) {
    let _ = never::<()>().recv_timeout(time);
}

pub(super) fn ok(text: &str) -> Response {
    Response::json(200, text.as_bytes().to_vec())
}

/// Serves pipes one after the other, for as long as the test's door makes new ones.
fn worker(socket: UnixListener, responder: Responder, automatic: bool) -> Receiver<Seen> {
    let (out, seen) = bounded(10_000);
    let serve = move || {
        while let Ok((pipe, _)) = socket.accept() {
            let (out, responder) = (out.clone(), responder.clone());
            let serve = move || {
                while let Some(batch) = read_batch(&pipe) {
                    for seen in split(&batch, &pipe, &responder) {
                        if automatic {
                            seen.say("{}");
                        } else if out.send(seen).is_err() {
                            return;
                        }
                    }
                }
            };
            std::thread::Builder::new().spawn(serve).unwrap();
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
    seen
}

/// The body of the next HTTP request.
fn read_batch(pipe: &UnixStream) -> Option<Vec<u8>> {
    let mut head = String::new();
    let mut reader = OneByOne(pipe);
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(reader.next()?));
    }
    let length = head.strip_prefix("POST / HTTP/1.1\r\nContent-Length: ").unwrap();
    let mut batch = vec![0; length.trim_end().parse().unwrap()];
    let mut pipe = pipe;
    pipe.read_exact(&mut batch).ok()?;
    Some(batch)
}

fn split(batch: &[u8], pipe: &UnixStream, responder: &Responder) -> Vec<Seen> {
    let clock = Clock::start();
    let mut rest = batch;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (request, others) = Request::decode(rest, &clock).unwrap();
        seen.push(Seen {
            number: request.stamp.number,
            body: request.body.to_vec(),
            request: rest[..rest.len() - others.len()].to_vec(),
            pipe: pipe.try_clone().unwrap(),
            responder: responder.clone(),
        });
        rest = others;
    }
    seen
}

/// No read-ahead: what follows the head is the body's.
struct OneByOne<'a>(&'a UnixStream);

impl OneByOne<'_> {
    fn next(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }
}

/// A handshake for pool `a` that is in order.
pub(super) const HANDSHAKE: &str = "GET /ws/agent-pools/a/metrics?token=only-a HTTP/1.1\r\nHost: localhost\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A heartbeat of pool `a`.
pub(super) fn ping(agent: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /api/v1/agents/{agent}/ping HTTP/1.1\r\nHost: x\r\nX-App-Key: ka\r\n\
         X-App-Secret: sa\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A request that goes to the workers for reads.
pub(super) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a client got.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(super) struct Client {
    pub(super) stream: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub(super) fn shut(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    pub(super) fn answer_head(&mut self) -> Reply {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let count = self.stream.read_line(&mut head).unwrap();
            assert_ne!(count, 0, "the connection ended after {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: Vec::new() }
    }

    pub(super) fn answer(&mut self) -> Reply {
        let mut reply = self.answer_head();
        let length = reply.field("Content-Length").map_or(0, |digits| digits.parse().unwrap());
        reply.body = vec![0; length];
        self.stream.read_exact(&mut reply.body).unwrap();
        reply
    }

    /// The answer; `None` when the connection ends instead.
    pub(super) fn rest_or_answer(&mut self) -> Option<Reply> {
        let ended = self.stream.fill_buf().map_or(true, <[u8]>::is_empty);
        (!ended).then(|| self.answer())
    }

    /// Everything up to the end, which must come.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// The end comes, and nothing before it.
    pub(super) fn ends(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }
}
