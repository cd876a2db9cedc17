//! One client's way through: relayed, answered, kept or closed, upgraded.

use std::io::{Read as _, Write as _};

use super::support::{Client, DEADLINE, HANDSHAKE, TestDoor, ping};
use crate::server::auth::Viewer;
use crate::server::feed::FeedId;
use crate::server::limits::Limits;
use crate::server::relay::{Caller, RequestHead};
use crate::wire::id::PoolIndex;
use crate::wire::response::Response;

#[test]
fn a_worker_gets_what_it_needs_of_a_heartbeat_and_the_client_its_response() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(
        b"POST http://h/api/v1/agents/x/ping?secret HTTP/1.1\r\nHost: i\r\nX-Evil: 1\r\n\
          X-Forwarded-Proto: https\r\nAccept: text/html\r\n\
          TE: chunked\r\nX-App-Key: kb\r\nX-App-Secret: sb\r\nContent-Length: 02\r\n\r\n{}",
    );
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    let RequestHead {
        method,
        path,
        query,
        caller,
        is_secure,
        if_none_match,
        content_type,
        prefers_html,
        body_bytes,
    } = seen.head();
    assert_eq!((seen.number, method, path), (1, "POST", "/api/v1/agents/x/ping"));
    assert_eq!((caller, is_secure, query), (Caller::Agent(PoolIndex(1)), false, None));
    assert_eq!((if_none_match, content_type, body_bytes), (None, None, 2));
    assert!(!prefers_html, "only the login's business");
    assert_eq!(seen.body, b"{}");
    seen.say("{\"message\":\"ping received\"}");
    let reply = client.answer();
    assert_eq!((reply.status, reply.body), (200, b"{\"message\":\"ping received\"}".to_vec()));
    assert!(reply.head.contains("\r\nDate: ") && reply.head.contains("GMT\r\n"));
    assert!(reply.head.contains("\r\nX-Content-Type-Options: nosniff\r\n"));
    assert!(!reply.head.contains("Connection"));
    client.send(&ping("y", b""));
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    assert_eq!(seen.number, 2);
}

#[test]
fn reads_go_their_own_way_with_what_handlers_use_and_nothing_more() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(
        b"GET /api/v1/agent-pools HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer all\r\n\
          If-None-Match: \"a\"\r\nContent-Type: x/y\r\nContent-Length: 3\r\n\r\nabc",
    );
    let seen = door.reads.recv_timeout(DEADLINE).unwrap();
    let head = seen.head();
    assert_eq!((head.method, head.path), ("GET", "/api/v1/agent-pools"));
    assert_eq!((head.caller, head.is_secure), (Caller::Viewer(Viewer::All), false));
    assert_eq!((head.if_none_match, head.content_type), (Some("\"a\""), None));
    assert_eq!((head.body_bytes, seen.body.len()), (0, 0));
    seen.respond(Response::empty(304));
    assert_eq!(client.answer().status, 304);
    client.send(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: x/y\r\n\
          Accept: text/html,*/*;q=0.8\r\nContent-Length: 1\r\n\r\nt",
    );
    let seen = door.reads.recv_timeout(DEADLINE).unwrap();
    assert_eq!((seen.head().caller, seen.head().content_type), (Caller::Nobody, Some("x/y")));
    assert!(seen.head().prefers_html);
    assert_eq!(seen.body, b"t");
}

#[test]
fn what_a_client_pipelines_is_answered_in_order_one_at_a_time() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(
        &[ping("a", b"1"), ping("b", b"2"), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()]
            .concat(),
    );
    for (agent, body) in [("a", b"1"), ("b", b"2")] {
        let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
        assert_eq!(seen.path(), format!("/api/v1/agents/{agent}/ping"));
        assert_eq!(seen.body, body);
        assert!(door.ingest.is_empty(), "one request in flight per client");
        seen.say(agent);
        assert_eq!(client.answer().body, agent.as_bytes());
    }
    assert_eq!(client.answer().body, b"{\"status\":\"ok\"}");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    for _ in 0..2 {
        for byte in ping("slow", b"{\"a\":1}") {
            client.send(&[byte]);
        }
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn continue_is_said_when_the_head_is_in_order_and_only_then() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    let head = |secret: &str, version: &str| {
        format!(
            "POST /api/v1/agents/a/ping HTTP/{version}\r\nHost: x\r\nX-App-Key: ka\r\n\
             X-App-Secret: {secret}\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
        )
    };
    client.send(head("sa", "1.1").as_bytes());
    assert_eq!(client.answer().status, 100);
    client.send(b"{}");
    assert_eq!(client.answer().status, 200);
    client.send(format!("{}{{}}", head("sa", "1.1")).as_bytes());
    assert_eq!(client.answer().status, 200, "the body was there already");
    client.send(head("wrong", "1.1").as_bytes());
    let reply = client.answer();
    assert_eq!((reply.status, reply.field("Connection")), (401, Some("close")));
    client.ends();
    let mut old = door.client();
    old.send(head("sa", "1.0").as_bytes());
    old.send(b"{}");
    assert_eq!(old.answer().status, 200);
    old.ends();
}

#[test]
fn head_is_answered_without_a_body_and_the_connection_stays_in_step() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    for path in ["/healthz", "/livez", "/nope", "/healthz"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let reply = client.answer_head();
        assert_eq!(reply.status, if path == "/nope" { 404 } else { 200 });
        assert_ne!(reply.field("Content-Length"), Some("0"));
    }
    client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().body, b"{}");
}

#[test]
fn those_who_want_to_close_and_those_of_1_0_are_answered_and_closed() {
    let door = TestDoor::open(Limits::default());
    for request in [
        "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /next",
        "GET /livez HTTP/1.0\r\n\r\n",
    ] {
        let mut client = door.client();
        client.send(request.as_bytes());
        let reply = client.answer();
        assert_eq!((reply.status, reply.field("Connection")), (200, Some("close")));
        client.ends();
    }
}

#[test]
fn who_has_closed_the_sending_side_is_answered_still() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut client = door.client();
    client.send(&ping("nc", b"{}"));
    client.shut();
    door.ingest.recv_timeout(DEADLINE).unwrap().say("{}");
    assert_eq!(client.answer().status, 200);
    client.ends();
    for cut in [&b"POST /api"[..], &ping("a", b"12345")[..100], b""] {
        let mut client = door.client();
        client.send(cut);
        client.shut();
        client.ends();
    }
}

#[test]
fn an_upgrade_leaves_the_door_with_all_that_was_read() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    client.send(format!("{HANDSHAKE}frames").as_bytes());
    let mut upgrade = door.dashboards.recv_timeout(DEADLINE).unwrap();
    assert_eq!(upgrade.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(
        (upgrade.read_ahead.as_slice(), upgrade.feed),
        (&b"frames"[..], FeedId::Updates(PoolIndex(0)))
    );
    assert_eq!((door.counters.connections.get(), door.counters.dashboards.get()), (0, 1));
    client.send(b"more");
    let mut more = [0; 4];
    upgrade.socket.read_exact(&mut more).unwrap();
    assert_eq!(&more, b"more", "the socket blocks");
    upgrade.socket.write_all(b"101").unwrap();
    drop(upgrade);
    assert_eq!(client.rest(), b"101", "the door has said nothing");
    assert_eq!(door.counters.dashboards.get(), 0);
}

#[test]
fn a_dashboard_that_cannot_be_served_gets_503_and_its_place_is_free_again() {
    let door = TestDoor::open(Limits { max_dashboards_per_address: 1, ..Limits::default() });
    let refused = |client: &mut Client| {
        client.send(HANDSHAKE.as_bytes());
        let reply = client.answer();
        assert_eq!(reply.status, 503);
        assert!(reply.field("Retry-After").is_some());
        client.ends();
    };
    *door.feed_works.lock().unwrap() = false;
    refused(&mut door.client());
    *door.feed_works.lock().unwrap() = true;
    let mut first = door.client();
    first.send(HANDSHAKE.as_bytes());
    let upgrade = door.dashboards.recv_timeout(DEADLINE).unwrap();
    refused(&mut door.client());
    drop(upgrade);
    door.client().send(HANDSHAKE.as_bytes());
    door.dashboards.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn stopping_answers_what_is_in_flight_and_nothing_more() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let (mut idle, mut half, mut busy) = (door.client(), door.client(), door.client());
    idle.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    idle.answer();
    half.send(&ping("half", b"12345")[..60]);
    busy.send(&ping("busy", b"{}"));
    let seen = door.ingest.recv_timeout(DEADLINE).unwrap();
    door.handle.stop();
    idle.ends();
    assert_eq!(half.answer().status, 503);
    seen.say("{}");
    let reply = busy.answer();
    assert_eq!((reply.status, reply.field("Connection")), (200, Some("close")));
    busy.ends();
    door.stop();
}

#[test]
fn stopping_does_not_wait_for_a_worker_that_never_answers() {
    let door = TestDoor::with_manual_workers(Limits::default());
    let mut busy = door.client();
    busy.send(&ping("busy", b"{}"));
    let _unanswered = door.ingest.recv_timeout(DEADLINE).unwrap();
    door.stop();
}
