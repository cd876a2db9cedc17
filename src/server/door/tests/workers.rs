//! What the door makes of workers that are slow, gone, or talk nonsense.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::never;

use super::house::{DEADLINE, GET, House, ok, pause, ping};
use crate::runtime::clock::Clock;
use crate::server::auth::Gate;
use crate::server::hub;
use crate::server::limits::Limits;
use crate::server::registry::Rules;
use crate::server::workers::{Handlers, Pool};
use crate::wire::id::PoolId;
use crate::wire::{KIB, MIB};

#[test]
fn answers_find_their_askers_when_some_have_left() {
    let house = House::with_workers_in_hand(Limits::default());
    let mut gone = house.client();
    gone.send(&ping("gone", b""));
    let for_gone = house.ingest.recv_timeout(DEADLINE).unwrap();
    let mut stays = house.client();
    stays.send(&ping("stays", b""));
    let for_stays = house.ingest.recv_timeout(DEADLINE).unwrap();
    drop(gone);
    for_gone.say("gone");
    for_stays.say("stays");
    assert_eq!(stays.answer().body, b"stays");
}

#[test]
fn a_worker_that_takes_too_long_costs_a_503_and_its_answer_reaches_nobody() {
    let limits = Limits { worker_timeout: Duration::from_millis(200), ..Limits::default() };
    let house = House::with_workers_in_hand(limits);
    let mut client = house.client();
    client.send(&ping("a", b""));
    let late = house.ingest.recv_timeout(DEADLINE).unwrap();
    let reply = client.answer();
    assert_eq!(reply.status, 503);
    assert!(reply.field("Retry-After").is_some());
    client.send(&ping("b", b""));
    let next = house.ingest.recv_timeout(DEADLINE).unwrap();
    late.say("late");
    next.say("next");
    assert_eq!(client.answer().body, b"next");
    assert_eq!(house.counters.overloads.get(), 1);
}

#[test]
fn a_broken_pipe_costs_what_was_in_flight_and_is_made_anew() {
    let house = House::with_workers_in_hand(Limits::default());
    let (mut first, mut second) = (house.client(), house.client());
    for (round, nonsense) in
        [None, Some(&b"SSH-2.0\r\n\r\n"[..]), Some(b"HTTP/1.1 200 OK\r\n\r\n")].iter().enumerate()
    {
        first.send(&ping("a", b""));
        let seen = house.ingest.recv_timeout(DEADLINE).unwrap();
        second.send(&ping("b", b""));
        house.ingest.recv_timeout(DEADLINE).unwrap();
        match nonsense {
            None => seen.break_pipe(),
            Some(bytes) => seen.answer(bytes),
        }
        assert_eq!((first.answer().status, second.answer().status), (503, 503));
        assert_eq!(house.counters.pipe_breaks.get(), round as u64 + 1);
        first.send(&ping("a", b""));
        house.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
        assert_eq!(first.answer().status, 200);
    }
}

/// What cannot be healed must not go on as a 503 for ever.
#[test]
fn workers_whose_socket_is_gone_end_the_door_with_the_reason() {
    let house = House::with_workers_in_hand(Limits::default());
    let mut client = house.client();
    client.send(&ping("a", b""));
    let seen = house.ingest.recv_timeout(DEADLINE).unwrap();
    house.remove_sockets();
    seen.break_pipe();
    let reason = house.end().to_string();
    assert!(reason.contains("workers") && reason.contains("No such file"), "{reason}");
}

/// Who asks about health has a second or so, and a snapshot of a large pool takes long.
#[test]
fn readyz_waits_for_no_snapshot() {
    let house = House::with_workers_in_hand(Limits::default());
    let snapshot = b"GET /api/v1/agent-pools/a/metrics HTTP/1.1\r\nHost: localhost\r\n\
                     Authorization: Bearer all\r\n\r\n";
    let mut readers: Vec<_> = (0..100).map(|_| house.client()).collect();
    let mut seen = Vec::new();
    for reader in &mut readers {
        reader.send(snapshot);
        seen.push(house.reads.recv_timeout(DEADLINE).unwrap());
    }
    let mut probe = house.client();
    for path in ["/readyz", "/healthz"] {
        probe.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        house.ingest.recv_timeout(DEADLINE).unwrap().say("ready");
        assert_eq!(probe.answer().body, b"ready");
    }
    for (reader, seen) in readers.iter_mut().zip(&seen) {
        seen.say("{}");
        assert_eq!(reader.answer().status, 200);
    }
}

#[test]
fn head_of_a_snapshot_makes_none() {
    let house = House::with_workers_in_hand(Limits::default());
    let mut client = house.client();
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
    assert!(house.reads.is_empty(), "a worker was asked");
}

/// The handler's answer says what was wrong; the door only knows that nothing came.
#[test]
fn a_hub_that_hangs_is_named_before_the_door_gives_up() {
    let limits = Limits { worker_timeout: Duration::from_secs(2), ..Limits::default() };
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let id = PoolId::parse("a").unwrap();
    // Nobody runs it.
    let (_hub, handle) = hub::hub(hub::Parts {
        pools: [id].into(),
        epoch: "e".into(),
        rules: Rules {
            evict_after: DEADLINE,
            tick: DEADLINE,
            max_agents_per_pool: 1,
            max_pool_bytes: MIB,
        },
        patience: limits.hub_timeout(),
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
        max_tasks: 1,
        counters: Arc::default(),
    });
    let mut workers = Vec::new();
    for path in ["i", "r"] {
        let server = tiny_http::Server::http_unix(&directory.path().join(path)).unwrap();
        let pool = Arc::new(Pool::new(server, handlers.clone(), clock, Arc::default()));
        let worker = Arc::clone(&pool);
        let thread = std::thread::Builder::new().spawn(move || worker.work()).unwrap();
        workers.push((pool, thread));
    }
    let house = House::front(limits, Gate::default(), directory, never(), never());
    let mut client = house.client();
    client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = client.answer();
    let body = String::from_utf8(reply.body).unwrap();
    assert!(reply.status == 503 && body.contains("overloaded"), "{body}");
    for (pool, thread) in workers {
        pool.stop(1);
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn a_pipe_that_ends_while_nothing_is_in_flight_costs_nobody_anything() {
    let house = House::with_workers_in_hand(Limits::default());
    let mut client = house.client();
    client.send(&ping("a", b""));
    let seen = house.ingest.recv_timeout(DEADLINE).unwrap();
    seen.say("{}");
    seen.break_pipe();
    assert_eq!(client.answer().status, 200);
    house.wait_until("the end is seen", |counters| counters.pipe_breaks.get() == 1);
    client.send(&ping("a", b""));
    house.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn an_answer_that_is_cut_short_ends_the_connection() {
    let house = House::with_workers_in_hand(Limits::default());
    let mut client = house.client();
    client.send(&ping("a", b""));
    let seen = house.ingest.recv_timeout(DEADLINE).unwrap();
    seen.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    assert_eq!(client.answer_head().status, 200);
    seen.break_pipe();
    assert_eq!(client.rest(), b"he");
}

#[test]
fn a_worker_that_hangs_for_good_loses_its_pipe() {
    let limits = Limits { worker_timeout: Duration::from_millis(100), ..Limits::default() };
    let house = House::with_workers_in_hand(limits);
    let mut client = house.client();
    client.send(&ping("a", b""));
    let _hangs = house.ingest.recv_timeout(DEADLINE).unwrap();
    assert_eq!(client.answer().status, 503);
    house.wait_until("the pipe is made anew", |counters| counters.pipe_breaks.get() == 1);
    client.send(&ping("b", b""));
    house.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn requests_in_flight_are_bounded_and_others_wait_their_turn() {
    // A quarter, one at least, is for reads.
    let house = House::with_workers_in_hand(Limits { max_in_flight: 3, ..Limits::default() });
    let mut clients: Vec<_> = (0..5).map(|_| house.client()).collect();
    let mut seen = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&ping(&n.to_string(), b"body"));
        if n < 2 {
            seen.push(house.ingest.recv_timeout(DEADLINE).unwrap());
        }
        // The door has looked at it: it answers another client meanwhile.
        let mut probe = house.client();
        probe.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        probe.answer();
    }
    assert!(house.ingest.is_empty(), "the bound holds");
    for n in 0..5 {
        seen[n].say(&n.to_string());
        assert_eq!(clients[n].answer().body, n.to_string().as_bytes());
        if n < 3 {
            let next = house.ingest.recv_timeout(DEADLINE).unwrap();
            assert_eq!(
                (next.path(), &*next.body),
                (&*format!("/api/v1/agents/{}/ping", n + 2), &b"body"[..])
            );
            seen.push(next);
        }
    }
    assert_eq!(house.counters.requests.get(), 5);
}

#[test]
fn who_waits_for_a_place_for_too_long_gets_503() {
    let limits =
        Limits { max_in_flight: 2, worker_timeout: Duration::from_secs(1), ..Limits::default() };
    let house = House::with_workers_in_hand(limits);
    let mut clients = [house.client(), house.client(), house.client()];
    for client in &mut clients {
        client.send(&ping("a", b""));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 503);
    }
    assert_eq!(house.ingest.len(), 1, "only one was handed over");
}

#[test]
fn a_large_answer_that_its_client_does_not_take_holds_up_nobody() {
    let house = House::with_workers_in_hand(Limits::default());
    let (mut slow, mut quick) = (house.client(), house.client());
    slow.send(GET);
    let large = "x".repeat(16 * MIB);
    let seen = house.reads.recv_timeout(DEADLINE).unwrap();
    // The whole answer leaves the worker although its client takes nothing.
    seen.say(&large);
    quick.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().say("quick");
    assert_eq!(quick.answer().body, b"quick");
    let reply = slow.answer();
    assert_eq!((reply.status, reply.body.len()), (200, large.len()));
}

#[test]
fn an_answer_beyond_the_budget_is_a_503_or_the_end_of_the_slowest_and_no_more() {
    let budget = 256 * KIB;
    let house =
        House::with_workers_in_hand(Limits { max_buffered_bytes: budget, ..Limits::default() });
    let mut client = house.client();
    client.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().answer(&ok(&"x".repeat(budget + 1)));
    assert_eq!(client.answer().status, 503);
    client.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().say("small");
    assert_eq!(client.answer().body, b"small", "the connection and the pipe are in step");
}

/// 29 MB is what a pool of 32 MiB comes to; the budget is the default one.
#[test]
fn two_large_answers_fit_and_a_third_is_refused_at_nobody_s_cost() {
    const BYTES: usize = 29_000_000;
    let house = House::with_workers_in_hand(Limits::default());
    let large = ok(&"x".repeat(BYTES));
    let mut clients = [house.client(), house.client(), house.client()];
    for client in &mut clients {
        client.send(GET);
        // The whole answer leaves the worker although its client takes nothing.
        house.reads.recv_timeout(DEADLINE).unwrap().answer(&large);
    }
    let [first, second, third] = &mut clients;
    let refused = third.answer();
    assert_eq!((refused.status, refused.field("Retry-After").is_some()), (503, true));
    for client in [first, second] {
        let reply = client.answer();
        assert_eq!((reply.status, reply.body.len()), (200, BYTES));
    }
    assert_eq!(house.counters.buffer_evictions.get(), 0);
    third.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().answer(&large);
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
    let house = House::with_workers_in_hand(Limits { lag_timeout: REST, ..Limits::default() });
    let mut client = house.client();
    client.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(PIECES * PIECE_BYTES));
    assert_eq!(client.answer_head().status, 200);
    let mut piece = vec![0; PIECE_BYTES];
    for taken in 0..PIECES {
        client.stream.read_exact(&mut piece).unwrap_or_else(|error| {
            panic!("after {taken} of {PIECES} MiB: {error}");
        });
        pause(3 * REST / u32::try_from(PIECES).unwrap());
    }
    client.send(GET);
    house.reads.recv_timeout(DEADLINE).unwrap().say("next");
    assert_eq!(client.answer().body, b"next");
}

#[test]
fn who_takes_too_little_of_an_answer_is_cut_off() {
    let limits = Limits {
        lag_timeout: Duration::from_millis(200),
        lag_min_bytes: 8 * MIB,
        ..Limits::default()
    };
    let house = House::with_workers_in_hand(limits);
    let mut client = house.client();
    client.send(GET);
    let bytes = 24 * MIB;
    house.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(bytes));
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

#[test]
fn the_real_tiny_http_takes_what_the_door_writes() {
    let directory = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    for path in ["i", "r"] {
        let server = tiny_http::Server::http_unix(&directory.path().join(path)).unwrap();
        let server = Arc::new(server);
        servers.push(Arc::clone(&server));
        let serve = move || server.incoming_requests().for_each(serve_with_tiny_http);
        std::thread::Builder::new().spawn(serve).unwrap();
    }
    let limits = Limits::default();
    let house = House::front(limits, Gate::default(), directory, never(), never());
    let mut clients: Vec<_> = (0..20).map(|_| house.client()).collect();
    for length in [0, 1, 1_024, 1_025, 64 * KIB] {
        let body = vec![b'x'; length];
        for client in &mut clients {
            client.send(&ping("a", &body));
        }
        for client in &mut clients {
            let reply = client.answer();
            assert_eq!((reply.status, reply.body), (200, length.to_string().into_bytes()));
        }
    }
    clients[0].send(&ping("drop", b""));
    assert_eq!(clients[0].answer().status, 500, "tiny_http's own answer for who gave none");
    house.check_health();
    assert_eq!(house.counters.pipe_breaks.get(), 0);
    for server in servers {
        server.unblock();
    }
}

fn serve_with_tiny_http(mut request: tiny_http::Request) {
    if request.url().contains("drop") {
        return;
    }
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    let mut writer = request.into_writer();
    writer.write_all(&ok(&body.len().to_string())).unwrap();
    writer.flush().unwrap();
}
