//! Deadlines, caps and the budget: what a client can take from the others, and what not.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::support::{Client, DEADLINE, GET, HANDSHAKE, TestDoor, ok, ping};
use crate::runtime::clock::Clock;
use crate::server::limits::Limits;
use crate::server::relay::Caller;
use crate::wire::{KIB, MIB};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn each_phase_has_its_deadline_and_its_end() {
    let limits = Limits {
        head_timeout: SHORT,
        body_timeout: SHORT,
        idle_timeout: SHORT,
        ..Limits::default()
    };
    let door = TestDoor::open(limits);
    door.client().ends();
    let mut head = door.client();
    head.send(b"GET /livez HTT");
    assert_eq!(head.answer().status, 408);
    head.ends();
    let mut body = door.client();
    body.send(&ping("a", b"12345")[..100]);
    body.send(&ping("a", b"12345")[100..ping("a", b"12345").len() - 1]);
    assert_eq!(body.answer().status, 408);
    body.ends();
    let mut idle = door.client();
    idle.send(&ping("a", b""));
    assert_eq!(idle.answer().status, 200);
    idle.ends();
}

#[test]
fn an_empty_line_behind_a_body_begins_no_request() {
    let door = TestDoor::open(Limits { head_timeout: SHORT, ..Limits::default() });
    let mut sloppy = door.client();
    sloppy.send(&ping("a", b"{}"));
    assert_eq!(sloppy.answer().status, 200);
    sloppy.send(b"\r\n");
    let mut later = door.client();
    later.send(b"G");
    assert_eq!(later.answer().status, 408, "a deadline that began later is over");
    sloppy.send(&ping("a", b"{}"));
    assert_eq!(sloppy.answer().status, 200);
}

#[test]
fn a_head_that_trickles_is_cut_off_in_time_however_it_trickles() {
    let door = TestDoor::open(Limits { head_timeout: SHORT, ..Limits::default() });
    let clock = Clock::start();
    let opened = clock.now();
    let mut client = door.client();
    let socket = client.stream.get_mut();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut answer = [0; 512];
    // A byte at a time, for as long as nothing is said of it.
    let length = loop {
        assert!(clock.now() - opened < DEADLINE, "each byte moves the deadline");
        socket.write_all(b"G").unwrap();
        if let Ok(length) = socket.read(&mut answer) {
            break length;
        }
    };
    assert!(clock.now() - opened >= SHORT, "cut off too early");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    door.check_health();
}

#[test]
fn an_answer_that_is_not_taken_has_a_deadline_too() {
    let door = TestDoor::with_manual_workers(Limits { lag_timeout: SHORT, ..Limits::default() });
    let mut client = door.client();
    client.send(GET);
    door.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(16 << 20));
    door.wait_until("the connection is closed", |counters| counters.connections.get() == 0);
}

#[test]
fn at_the_cap_those_who_rest_make_room_the_longest_first() {
    let door = TestDoor::with_manual_workers(Limits { max_connections: 3, ..Limits::default() });
    let live = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut rested: Vec<Client> = (0..3).map(|_| door.client()).collect();
    for client in [1, 2, 0] {
        rested[client].send(live);
        rested[client].answer();
    }
    let mut busy = Vec::new();
    for longest in [1, 2, 0] {
        let mut client = door.client();
        client.send(&ping("a", b""));
        let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
        busy.push((client, seen));
        rested[longest].ends();
    }
    let mut refused = door.client();
    let reply = refused.answer();
    assert_eq!((reply.status, reply.field("Connection")), (503, Some("close")));
    assert_eq!(door.counters.connections_refused.get(), 4);
    for (client, seen) in &mut busy {
        seen.say("{}");
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn an_address_has_a_cap_of_its_own() {
    let limits = Limits { max_connections_per_address: 2, ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let (mut first, mut second) = (door.client(), door.client());
    for client in [&mut first, &mut second] {
        client.send(&ping("a", b""));
    }
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    door.ingest.recv_timeout(DEADLINE).unwrap();
    assert_eq!(door.client().answer().status, 503);
    seen.say("{}");
    assert_eq!(first.answer().status, 200);
    let mut third = door.client();
    third.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(third.answer().status, 200);
    first.ends();
}

#[test]
fn a_trusted_proxy_speaks_for_its_clients() {
    let limits = Limits {
        max_connections_per_address: 1,
        max_dashboards_per_address: 1,
        ..Limits::default()
    };
    let door = TestDoor::behind_proxy(limits);
    let mut clients = [door.client(), door.client()];
    for (client, proto) in clients.iter_mut().zip(["https", "http"]) {
        let request =
            format!("GET /login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        client.send(request.as_bytes());
        let seen = door.reads.recv_timeout(DEADLINE).unwrap();
        let head = seen.head();
        assert_eq!((head.caller, head.is_secure), (Caller::Nobody, proto == "https"));
        seen.say("{}");
        assert_eq!(client.answer().status, 200, "exempt from the cap of one address");
    }
    let mut upgrades = Vec::new();
    for (address, admitted) in [("192.0.2.1", true), ("192.0.2.2", true), ("192.0.2.1", false)] {
        let mut client = door.client();
        client.send(
            HANDSHAKE.replace("Host", &format!("X-Forwarded-For: {address}\r\nHost")).as_bytes(),
        );
        if admitted {
            upgrades.push(door.dashboards.recv_timeout(DEADLINE).unwrap());
        } else {
            assert_eq!(client.answer().status, 503);
        }
    }
}

#[test]
fn bodies_that_stop_one_byte_short_cost_their_senders_and_not_the_others() {
    let limits = Limits { max_buffered_bytes: 1024 * KIB, ..Limits::default() };
    let door = TestDoor::open(limits);
    let whole = ping("fat", &vec![b'x'; 64 * KIB]);
    let mut fat: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = door.client();
        client.send(&whole[..whole.len() - 1]);
        fat.push(client);
    }
    door.check_health();
    assert!(door.counters.buffer_evictions.get() > 80);
    assert_eq!(fat[0].answer().status, 503, "the slowest goes first, and is told");
    let last = fat.last_mut().unwrap();
    last.send(b"x");
    assert_eq!(last.answer().status, 200);
}

/// Begins requests that stop one byte short, `count` of them with bodies of 64 KiB.
fn begin_fat(door: &TestDoor, count: usize) -> Vec<Client> {
    let whole = ping("fat", &vec![b'x'; 64 * KIB]);
    let begin = |_| {
        let mut client = door.client();
        client.send(&whole[..whole.len() - 1]);
        client
    };
    (0..count).map(begin).collect()
}

#[test]
fn an_answer_that_nobody_takes_gives_way_before_a_request_that_is_coming() {
    let limits = Limits { max_buffered_bytes: 8 * MIB, ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut stalled = door.client();
    stalled.send(GET);
    // As much of the budget as answers may have.
    let answer = ok(&"x".repeat(7 * MIB + 500 * KIB - KIB));
    door.reads.recv_timeout(DEADLINE).unwrap().respond(answer);
    stalled.answer_head();
    let mut honest = door.client();
    let whole = ping("honest", b"{}");
    honest.send(&whole[..whole.len() - 1]);
    let _fat = begin_fat(&door, 24);
    door.wait_until("memory is short", |counters| counters.buffer_evictions.get() > 0);
    honest.send(b"x");
    // Nobody answers it: what matters is that it comes to a worker.
    let seen = door.ingest.recv_timeout(DEADLINE);
    assert!(seen.is_ok(), "closed: {:?}", honest.rest_or_answer());
    assert_eq!(door.counters.buffer_evictions.get(), 1, "that of the answer is enough");
}

#[test]
fn who_goes_on_taking_an_answer_outlasts_requests_that_stop() {
    let limits = Limits { max_buffered_bytes: 8 * MIB, ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut taker = door.client();
    // So that the kernel holds little of the answer.
    socket2::SockRef::from(taker.stream.get_ref()).set_recv_buffer_size(128 * KIB).unwrap();
    taker.send(GET);
    // Held whole until the last byte is taken.
    let bytes = 6 * MIB;
    door.reads.recv_timeout(DEADLINE).unwrap().say(&"x".repeat(bytes));
    taker.answer_head();
    let mut fat = begin_fat(&door, 14);
    // More than the kernel holds, so that the door sends in each round.
    let mut piece = vec![0; 512 * KIB];
    for round in 0..bytes / piece.len() {
        taker.stream.read_exact(&mut piece).unwrap_or_else(|error| panic!("{round}: {error}"));
        fat.extend(begin_fat(&door, 6));
        let mut live = door.client();
        live.send(b"GET /livez HTTP/1.0\r\n\r\n");
        live.rest();
    }
    assert!(door.counters.buffer_evictions.get() > 20, "memory was never short");
}

#[test]
fn one_that_pipelines_and_never_reads_fills_its_own_socket_and_nothing_else() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    let flood = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let socket = client.stream.get_mut();
    socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut rounds = 0;
    while rounds < 100_000 && socket.write_all(&flood).is_ok() {
        rounds += 1;
        if rounds % 50 == 0 {
            door.check_health();
        }
    }
    assert!(rounds < 100_000, "the door stops reading");
    door.check_health();
}

#[test]
fn many_connections_that_come_at_once_are_all_answered() {
    let door = TestDoor::open(Limits::default());
    let mut clients: Vec<Client> = (0..300).map(|_| door.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&ping(&format!("{round}-{number}"), b"{}"));
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
    }
    drop(clients);
    door.wait_until("all are gone", |counters| counters.connections.get() == 0);
    assert_eq!(door.counters.requests.get(), 900);
    assert_eq!(door.counters.overloads.get(), 0);
}

#[test]
fn head_gets_no_body_even_with_the_answer_that_ends_the_connection() {
    let door = TestDoor::open(Limits { body_timeout: SHORT, ..Limits::default() });
    let mut late = door.client();
    late.send(b"HEAD /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n1234");
    assert_eq!(late.answer_head().status, 408);
    late.ends();
    let limits = Limits { max_buffered_bytes: 1024 * KIB, ..Limits::default() };
    let door = TestDoor::with_manual_workers(limits);
    let mut slowest = door.client();
    slowest.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez");
    let _waits = door.reads.recv_timeout(DEADLINE).unwrap();
    let whole = ping("fat", &vec![b'x'; 64 * KIB]);
    let mut fat: Vec<Client> = (0..20).map(|_| door.client()).collect();
    for client in &mut fat {
        client.send(&whole[..whole.len() - 1]);
    }
    assert_eq!(slowest.answer_head().status, 503);
    slowest.ends();
}
