//! What the door makes of workers that are slow or gone, and of pipes that break.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::never;

use super::support::{DEADLINE, GET, TestDoor, idle_door, ok, paths, pause, ping};
use crate::runtime::clock::Clock;
use crate::server::auth::Gate;
use crate::server::door::connection::Event;
use crate::server::door::policy::{Backend, Relay};
use crate::server::hub;
use crate::server::limits::Limits;
use crate::server::registry::Rules;
use crate::server::relay::{EncodedRequest, Request};
use crate::server::workers::{Handle, Handlers, Workers};
use crate::wire::id::PoolId;
use crate::wire::response::Response;
use crate::wire::{KIB, MIB};

#[test]
fn answers_find_their_askers_when_some_have_left() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut gone = door.client();
    gone.send(&ping("gone", b""));
    let for_gone = door.ingest.recv_timeout(DEADLINE).unwrap();
    let mut stays = door.client();
    stays.send(&ping("stays", b""));
    let for_stays = door.ingest.recv_timeout(DEADLINE).unwrap();
    drop(gone);
    for_gone.say("gone");
    for_stays.say("stays");
    assert_eq!(stays.answer().body, b"stays");
}

#[test]
fn a_worker_that_takes_too_long_costs_a_503_and_its_answer_reaches_nobody() {
    let limits = Limits { worker_timeout: Duration::from_millis(200), ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut client = door.client();
    client.send(&ping("a", b""));
    let late = door.ingest.recv_timeout(DEADLINE).unwrap();
    let reply = client.answer();
    assert_eq!(reply.status, 503);
    assert!(reply.field("Retry-After").is_some());
    client.send(&ping("b", b""));
    let next = door.ingest.recv_timeout(DEADLINE).unwrap();
    late.say("late");
    next.say("next");
    assert_eq!(client.answer().body, b"next");
    assert_eq!(door.counters.overloads.get(), 1);
}

#[test]
fn a_broken_pipe_costs_what_was_in_flight_and_is_made_anew() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let (mut first, mut second) = (door.client(), door.client());
    for (round, written) in
        [None, Some(&b"SSH-2.0\r\n\r\n"[..]), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")]
            .iter()
            .enumerate()
    {
        first.send(&ping("a", b""));
        let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
        second.send(&ping("b", b""));
        door.ingest.recv_timeout(DEADLINE).unwrap();
        match written {
            None => seen.break_pipe(),
            Some(bytes) => seen.write_to_pipe(bytes),
        }
        assert_eq!((first.answer().status, second.answer().status), (503, 503));
        assert_eq!(door.counters.pipe_breaks.get(), round as u64 + 1);
        first.send(&ping("a", b""));
        door.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
        assert_eq!(first.answer().status, 200);
    }
}

/// What cannot be healed must not go on as a 503 for ever.
#[test]
fn workers_whose_socket_is_gone_end_the_door_with_the_reason() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(&ping("a", b""));
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    door.remove_sockets();
    seen.break_pipe();
    let reason = door.end().to_string();
    assert!(reason.contains("workers") && reason.contains("No such file"), "{reason}");
}

/// Who asks about health has a second or so, and a snapshot of a large pool takes long.
#[test]
fn readyz_waits_for_no_snapshot() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let snapshot = b"GET /api/v1/agent-pools/a/metrics HTTP/1.1\r\nHost: localhost\r\n\
                     Authorization: Bearer all\r\n\r\n";
    let mut readers: Vec<_> = (0..100).map(|_| door.client()).collect();
    let mut seen = Vec::new();
    for reader in &mut readers {
        reader.send(snapshot);
        seen.push(door.reads.recv_timeout(DEADLINE).unwrap());
    }
    let mut probe = door.client();
    for path in ["/readyz", "/healthz"] {
        probe.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        door.ingest.recv_timeout(DEADLINE).unwrap().say("ready");
        assert_eq!(probe.answer().body, b"ready");
    }
    for (reader, seen) in readers.iter_mut().zip(&seen) {
        seen.say("{}");
        assert_eq!(reader.answer().status, 200);
    }
}

#[test]
fn head_of_a_snapshot_makes_none() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    for (pool, status) in [("a", 200), ("nope", 404), ("a", 200)] {
        let head = format!(
            "HEAD /api/v1/agent-pools/{pool}/metrics HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer all\r\n\r\n"
        );
        client.send(head.as_bytes());
        let reply = client.answer_head();
        assert_eq!(reply.status, status);
        // RFC 9110 section 8.6: what GET's would be, or none.
        assert_eq!(reply.field("Content-Length").is_none(), status == 200, "{}", reply.head);
        assert!(reply.field("Content-Type").is_some_and(|kind| kind.contains("json")));
    }
    assert!(door.reads.is_empty(), "a worker was asked");
}

/// The handler's answer says what was wrong; the door only knows that nothing came.
#[test]
fn a_hub_that_hangs_is_named_before_the_door_gives_up() {
    let limits = Limits { worker_timeout: Duration::from_secs(2), ..Limits::default() };
    let clock = Clock::start();
    let id = PoolId::parse("a").unwrap();
    // Nobody runs it.
    let (_hub, handle) = hub::hub(hub::Parts {
        pools: [id].into(),
        names: Arc::default(),
        epoch: "e".into(),
        rules: Rules {
            evict_after: DEADLINE,
            tick: DEADLINE,
            max_agents_per_pool: 1,
            max_pool_bytes: MIB,
            max_updates_per_second: usize::MAX,
        },
        timeout: limits.hub_timeout(),
        windows: crossbeam_channel::bounded(0).1,
        ticks: never(),
        fanouts: Vec::new(),
        clock,
        counters: Arc::default(),
    });
    let handlers = Arc::new(Handlers {
        hub: handle,
        pools: Vec::new(),
        gate: Arc::default(),
        epoch: "e".into(),
        started_at: clock.wall(),
        counters: Arc::default(),
        snapshot_bodies: Vec::new(),
    });
    let (door, workers) = with_tiny_http(limits, handlers);
    let mut client = door.client();
    client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = client.answer();
    let body = String::from_utf8(reply.body).unwrap();
    assert!(reply.status == 503 && body.contains("overloaded"), "{body}");
    stop(workers);
}

#[test]
fn a_pipe_that_ends_while_nothing_is_in_flight_costs_nobody_anything() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(&ping("a", b""));
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    seen.say("{}");
    seen.break_pipe();
    assert_eq!(client.answer().status, 200);
    door.wait_until("the end is seen", |counters| counters.pipe_breaks.get() == 1);
    client.send(&ping("a", b""));
    door.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
    assert_eq!(client.answer().status, 200);
}

/// It costs its request, and a place among those in flight; others are served.
#[test]
fn a_worker_that_hangs_for_good_costs_its_own_request() {
    let limits = Limits { worker_timeout: Duration::from_millis(100), ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut client = door.client();
    client.send(&ping("a", b""));
    let _hangs = door.ingest.recv_timeout(DEADLINE).unwrap();
    assert_eq!(client.answer().status, 503);
    client.send(&ping("b", b""));
    door.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
    assert_eq!(client.answer().status, 200);
    assert_eq!(door.counters.pipe_breaks.get(), 0);
}

#[test]
fn requests_in_flight_are_bounded_and_others_wait_their_turn() {
    // A quarter, one at least, is for reads.
    let door = TestDoor::with_manual_workers(Limits { max_in_flight: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..5).map(|_| door.client()).collect();
    let mut seen = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&ping(&n.to_string(), b"body"));
        if n < 2 {
            seen.push(door.ingest.recv_timeout(DEADLINE).unwrap());
        }
        // The door has looked at it: it answers another client meanwhile.
        let mut probe = door.client();
        probe.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        probe.answer();
    }
    assert!(door.ingest.is_empty(), "the bound holds");
    for n in 0..5 {
        seen[n].say(&n.to_string());
        assert_eq!(clients[n].answer().body, n.to_string().as_bytes());
        if n < 3 {
            let next = door.ingest.recv_timeout(DEADLINE).unwrap();
            assert_eq!(
                (next.path(), &*next.body),
                (&*format!("/api/v1/agents/{}/ping", n + 2), &b"body"[..])
            );
            seen.push(next);
        }
    }
    assert_eq!(door.counters.requests.get(), 5);
}

#[test]
fn who_waits_for_a_place_for_too_long_gets_503() {
    let limits =
        Limits { max_in_flight: 2, worker_timeout: Duration::from_secs(1), ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut clients = [door.client(), door.client(), door.client()];
    for client in &mut clients {
        client.send(&ping("a", b""));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 503);
    }
    assert_eq!(door.ingest.len(), 1, "only one was handed over");
}

#[test]
fn a_large_answer_that_its_client_does_not_take_holds_up_nobody() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let (mut slow, mut quick) = (door.client(), door.client());
    slow.send(GET);
    let large = "x".repeat(16 * MIB);
    let seen = door.reads.recv_timeout(DEADLINE).unwrap();
    // The whole answer leaves the worker although its client takes nothing.
    seen.say(&large);
    quick.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say("quick");
    assert_eq!(quick.answer().body, b"quick");
    let reply = slow.answer();
    assert_eq!((reply.status, reply.body.len()), (200, large.len()));
}

#[test]
fn an_answer_beyond_the_budget_is_a_503_or_the_end_of_the_slowest_and_no_more() {
    let budget = 256 * KIB;
    let door =
        TestDoor::with_manual_workers(Limits { max_buffered_bytes: budget, ..Limits::default() });
    let mut client = door.client();
    client.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(budget + 1));
    assert_eq!(client.answer().status, 503);
    client.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say("small");
    assert_eq!(client.answer().body, b"small", "the connection and the pipe are in step");
}

/// 29 MB is what a pool of 32 MiB comes to; the budget is the default one.
#[test]
fn two_large_answers_fit_and_a_third_is_refused_at_nobody_s_cost() {
    const BYTES: usize = 29_000_000;
    let door = TestDoor::with_manual_workers(Limits::default());
    let large = "x".repeat(BYTES);
    let mut clients = [door.client(), door.client(), door.client()];
    for client in &mut clients {
        client.send(GET);
        // The whole answer leaves the worker although its client takes nothing.
        door.reads.recv_timeout(DEADLINE).unwrap().say(&large);
    }
    let [first, second, third] = &mut clients;
    let refused = third.answer();
    assert_eq!((refused.status, refused.field("Retry-After").is_some()), (503, true));
    for client in [first, second] {
        let reply = client.answer();
        assert_eq!((reply.status, reply.body.len()), (200, BYTES));
    }
    assert_eq!(door.counters.buffer_evictions.get(), 0);
    third.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say(&large);
    assert_eq!(third.answer().body.len(), BYTES, "there is room again");
}

/// 29 MB at 2 MB/s take longer than anyone's patience, scaled down: an answer that takes three
/// times as long as a client may rest.
#[test]
fn who_goes_on_taking_an_answer_gets_all_of_it() {
    const REST: Duration = Duration::from_secs(1);
    const PIECES: usize = 30;
    // More than the kernel's buffers hold.
    const PIECE_BYTES: usize = MIB;
    let door = TestDoor::with_manual_workers(Limits { lag_timeout: REST, ..Limits::default() });
    let mut client = door.client();
    client.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(PIECES * PIECE_BYTES));
    assert_eq!(client.answer_head().status, 200);
    let mut piece = vec![0; PIECE_BYTES];
    for taken in 0..PIECES {
        client.stream.read_exact(&mut piece).unwrap_or_else(|error| {
            panic!("after {taken} of {PIECES} MiB: {error}");
        });
        pause(3 * REST / u32::try_from(PIECES).unwrap());
    }
    client.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say("next");
    assert_eq!(client.answer().body, b"next");
}

#[test]
fn who_takes_too_little_of_an_answer_is_cut_off() {
    let limits = Limits {
        lag_timeout: Duration::from_millis(200),
        lag_min_bytes: 8 * MIB,
        ..Limits::default()
    };
    let door = TestDoor::with_manual_workers(limits);
    let mut client = door.client();
    client.send(GET);
    let bytes = 24 * MIB;
    door.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(bytes));
    assert_eq!(client.answer_head().status, 200);
    let mut taken = 0;
    let mut piece = vec![0; 64 * KIB];
    // 1.3 MB/s, where 40 are wanted.
    while let Ok(count @ 1..) = client.stream.read(&mut piece) {
        taken += count;
        pause(Duration::from_millis(50));
    }
    assert!(taken < bytes, "all of it");
}

/// Says how long the body is; panics when asked to.
struct Length;

impl Handle for Length {
    fn handle(&self, request: &Request<'_>) -> Response {
        assert!(!request.head.path.contains("panic"), "as it was asked to");
        ok(&request.body.len().to_string())
    }
}

#[test]
fn the_real_tiny_http_takes_what_the_door_writes() {
    let (door, workers) = with_tiny_http(Limits::default(), Arc::new(Length));
    let mut clients: Vec<_> = (0..20).map(|_| door.client()).collect();
    for length in [0, 1, 1_024, 1_025, 64 * KIB] {
        let body = vec![b'x'; length];
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&ping(&format!("a{number}"), &body));
        }
        for client in &mut clients {
            let reply = client.answer();
            assert_eq!((reply.status, reply.body), (200, length.to_string().into_bytes()));
        }
    }
    clients[0].send(&ping("panic", b""));
    assert_eq!(clients[0].answer().status, 500);
    door.check_health();
    assert_eq!(door.counters.pipe_breaks.get(), 0);
    stop(workers);
}

type Running = Vec<(Arc<Workers>, JoinHandle<std::io::Result<()>>)>;

/// A door before tiny_http itself, with one worker for each backend.
fn with_tiny_http(limits: Limits, handle: Arc<dyn Handle>) -> (TestDoor, Running) {
    let directory = tempfile::tempdir().unwrap();
    let servers = paths(&directory).map(|path| tiny_http::Server::http_unix(&path).unwrap());
    let (door, responders) = TestDoor::in_front(limits, Gate::default(), directory);
    let clock = Clock::start();
    let backends = servers.into_iter().zip(responders);
    let workers = backends.map(|(server, responder)| {
        let handle = Arc::clone(&handle);
        let workers =
            Arc::new(Workers::new(server, handle, responder, clock, DEADLINE, Arc::default()));
        let working = Arc::clone(&workers);
        let thread = std::thread::Builder::new().spawn(move || working.work()).unwrap();
        (workers, thread)
    });
    (door, workers.collect())
}

fn stop(workers: Running) {
    for (workers, thread) in workers {
        workers.stop();
        thread.join().unwrap().unwrap();
    }
}

/// A client is evicted while its request waits and the socket takes not even `100 Continue`; the
/// next client gets its slot. Then the first one's place in the queue is nobody's.
#[test]
fn an_evicted_clients_place_in_the_queue_is_not_taken_for_the_next_clients() {
    let (mut door, _responders, _sockets) = idle_door();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The only client, so its slot is the first.
    let admit = |door: &mut super::super::Door| {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        door.admit(mio::net::TcpStream::from_std(socket), Ipv4Addr::LOCALHOST.into());
        assert!(door.clients.get(0).is_some());
    };
    let (now, slot) = (door.context.now, 0);
    admit(&mut door);
    let request = String::from_utf8(ping("a", b"{}")).unwrap();
    let request = request.replace("Content-Length", "Expect: 100-continue\r\nContent-Length");
    let (head, body) = request.as_bytes().split_at(request.len() - 2);
    let client = door.clients.get(slot).unwrap();
    client.connection.receive(head, now);
    assert!(matches!(client.connection.advance(&door.context), Event::None));
    while client.socket.write(&[b'x'; 64 * KIB]).is_ok() {}
    client.connection.receive(body, now);
    let event = client.connection.advance(&door.context);
    door.act(slot, event);
    assert_eq!(door.pipes[0].waiting.len(), 1);
    door.context.limits.max_buffered_bytes = 0;
    door.make_room_in_memory();
    assert!(door.clients.get(slot).is_none(), "it cannot be told why");

    admit(&mut door);
    let next = door.clients.get(slot).unwrap();
    let relay = Relay {
        backend: Backend::Ingest,
        requester: None,
        heartbeat_of: None,
        request: EncodedRequest::default(),
        wants_body: true,
    };
    next.connection.wait_for_worker(2, relay, &door.context);
    door.relay_waiting(0);
    assert!(door.pipes[0].reconnect(door.poll.registry()).unwrap().is_empty());
}

/// Snapshots that the door has not taken yet are in no budget: few may wait, and the workers wait
/// for the door, until it takes them or ends.
#[test]
fn few_responses_of_reads_wait_for_the_door() {
    let (mut door, [ingest, reads], _sockets) = idle_door();
    assert!(door.pipes[0].responses.capacity() >= Some(700), "heartbeats never wait");
    assert_eq!(door.pipes[1].responses.capacity(), Some(4));
    let send = move || {
        for number in 0..100 {
            reads.send(number, ok(""));
        }
    };
    let worker = std::thread::Builder::new().spawn(send).unwrap();
    ingest.send(1, ok(""));
    door.pipes[0].push(1, 0, b"");
    assert!(door.pipes[0].next_response().is_some());
    drop(door);
    worker.join().unwrap();
}
