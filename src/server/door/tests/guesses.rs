//! 401s that wait: whom they hold up, who ends them early, and how many there may be.

use std::time::Duration;

use super::support::{Client, DEADLINE, TestDoor, ping};
use crate::runtime::clock::Clock;
use crate::server::limits::Limits;
use crate::wire::response::Response;

/// Less than a delayed answer takes.
const EARLY: Duration = Duration::from_millis(900);

/// Rounds for what a stalled machine may spoil.
const ROUNDS: usize = 20;

const WRONG: &[u8] = b"GET /api/v1/agent-pools?token=no HTTP/1.1\r\nHost: localhost\r\n\r\n";
const RIGHT: &[u8] = b"GET /api/v1/agent-pools?token=all HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A door that has refused this address as often as it does at once.
fn guessed_at(limits: Limits) -> TestDoor {
    let door = TestDoor::open(limits);
    let mut client = door.client();
    for _ in 0..20 {
        client.send(WRONG);
        assert_eq!(client.answer().status, 401);
    }
    assert_eq!(door.counters.refusals_delayed.get(), 0);
    door
}

/// A client whose answer waits.
fn delayed(door: &TestDoor) -> Client {
    let before = door.counters.refusals_delayed.get();
    let mut client = door.client();
    client.send(WRONG);
    door.wait_until("an answer waits", |counters| counters.refusals_delayed.get() > before);
    client
}

#[test]
fn what_follows_on_the_connection_follows_the_delayed_answer() {
    let door = guessed_at(Limits::default());
    let mut client = door.client();
    let clock = Clock::start();
    let start = clock.now();
    client.send(&[WRONG, RIGHT, &ping("a", b"{}")].concat());
    assert_eq!(client.answer().status, 401);
    assert!(clock.now() - start >= EARLY, "{:?}", clock.now() - start);
    assert_eq!([client.answer().status, client.answer().status], [200, 200]);
    assert_eq!(door.counters.refusals_delayed.get(), 1, "right ones wait for nothing else");
}

#[test]
fn a_client_that_hangs_up_meanwhile_is_freed_at_once() {
    let door = guessed_at(Limits::default());
    let clock = Clock::start();
    let freed_early = || {
        let start = clock.now();
        drop(delayed(&door));
        door.wait_until("it is freed", |counters| counters.connections.get() == 0);
        clock.now() - start < EARLY
    };
    assert!((0..ROUNDS).any(|_| freed_early()), "it was held for the whole delay each time");
}

#[test]
fn beyond_the_bound_connections_are_closed() {
    let door = guessed_at(Limits { max_connections: 40, ..Limits::default() });
    let closed_in_a_round = || {
        let mut clients: Vec<_> = (0..12).map(|_| door.client()).collect();
        for client in &mut clients {
            client.send(WRONG);
        }
        clients.iter_mut().map(Client::rest_or_answer).filter(|got| got.is_none()).count()
    };
    let closed = (0..ROUNDS).map(|_| closed_in_a_round()).find(|closed| *closed > 0);
    assert!(closed.is_some_and(|closed| closed <= 8), "4 wait at least: {closed:?}");
    door.check_health();
}

#[test]
fn at_the_end_nobody_waits() {
    let door = guessed_at(Limits::default());
    let mut client = delayed(&door);
    door.stop();
    assert_eq!(client.answer().status, 401);
    client.ends();
}

const LOGIN: &[u8] = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\ntoken=x";

/// A door whose workers have refused this address as often as it does at once, a client, and
/// their answer.
fn login_guessed_at() -> (TestDoor, Client, Response) {
    let door = TestDoor::with_manual_workers(Limits::default());
    let refused = Response::problem(401, "wrong viewer token");
    let mut client = door.client();
    for _ in 0..20 {
        client.send(LOGIN);
        door.reads.recv_timeout(DEADLINE).unwrap().respond(refused.clone());
        assert_eq!(client.answer().status, 401);
    }
    (door, client, refused)
}

#[test]
fn a_401_that_comes_after_the_stop_does_not_wait() {
    let (door, mut client, refused) = login_guessed_at();
    client.send(LOGIN);
    let seen = door.reads.recv_timeout(DEADLINE).unwrap();
    // Closed by the stop, which has begun then.
    let mut idle = door.client();
    door.wait_until("both are there", |counters| counters.connections.get() >= 2);
    door.handle.stop();
    idle.ends();
    seen.respond(refused.clone());
    assert_eq!(client.answer().status, 401);
    assert_eq!(door.counters.refusals_delayed.get(), 0);
}

#[test]
fn a_401_waits_where_few_connections_are_allowed_too() {
    let door = guessed_at(Limits { max_connections: 9, ..Limits::default() });
    let mut client = door.client();
    client.send(WRONG);
    assert_eq!(client.answer().status, 401);
    assert_eq!(door.counters.refusals_delayed.get(), 1);
}

#[test]
fn a_workers_401_waits_too() {
    let (door, mut client, refused) = login_guessed_at();
    client.send(LOGIN);
    door.reads.recv_timeout(DEADLINE).unwrap().respond(refused.clone());
    door.wait_until("the response waits", |counters| counters.refusals_delayed.get() == 1);
    let reply = client.answer();
    assert!(reply.status == 401 && reply.body == refused.body.as_bytes(), "{reply:?}");
    assert_eq!(door.counters.refused_wrong_token.get(), 21);
}
