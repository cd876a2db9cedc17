//! What is decided from a head, as a table. The answers that clients get are in `refusals`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::server::auth::{Gate, SecretDigest, Viewer};
use crate::server::door::head::Head;
use crate::server::door::policy::{Action, Policy};
use crate::server::relay::RequestHead;
use crate::wire::id::{PoolId, PoolIndex};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn policy() -> Policy {
    let gate = Gate::default()
        .with_key("ka", PoolIndex(0), SecretDigest::of("sa"))
        .with_viewer(Viewer::All, SecretDigest::of("all"))
        .with_viewer(Viewer::Pool(PoolIndex(0)), SecretDigest::of("only-a"))
        .with_proxy("127.0.0.0/8".parse().unwrap());
    let pools = ["a", "b"].map(|id| PoolId::parse(id).unwrap()).to_vec();
    Policy::new(Arc::new(gate), pools)
}

/// What `line` with these headers leads to, in a few words.
fn decide(line: &str, headers: &[&str]) -> String {
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", headers.concat());
    let decision = policy().decide(&Head::parse(head.as_bytes()).unwrap(), PEER);
    let action = match decision.action {
        Action::Respond(response, None) => response.status.to_string(),
        Action::Respond(response, Some(refusal)) => {
            assert_eq!(refusal.address, decision.client);
            format!("{} {:?}", response.status, refusal.cause)
        }
        Action::Live => "live".to_owned(),
        Action::Relay(relay) => {
            let body = if relay.wants_body { " with body" } else { "" };
            let head: RequestHead<'_> = postcard::from_bytes(relay.request.as_bytes()).unwrap();
            format!("{:?} {:?}{body}", relay.backend, head.caller)
        }
        Action::Upgrade(handshake) => format!("upgrade {:?}", handshake.feed),
    };
    if decision.client == PEER { action } else { format!("{action} for {}", decision.client) }
}

const KEY: &str = "X-App-Key: ka\r\n";
const SECRET: &str = "X-App-Secret: sa\r\n";
const WRONG: &str = "X-App-Secret: no\r\n";
const EMPTY: &str = "Content-Length: 0\r\n";
const ALL: &str = "Authorization: Bearer all\r\n";
const ONLY_A: &str = "Authorization: Bearer only-a\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_head_leads_to_one_thing() {
    for (line, headers, expected) in [
        ("GET /livez", &[][..], "live"),
        ("HEAD /readyz", &[], "Ingest Nobody"),
        ("GET /", &[], "Reads Nobody"),
        ("GET /nope", &[], "404"),
        ("PUT /", &[], "405"),
        (
            "POST /api/v1/agents/a/ping",
            &[KEY, SECRET, EMPTY],
            "Ingest Agent(PoolIndex(0)) with body",
        ),
        ("DELETE /api/v1/agents/a", &[KEY, SECRET], "Ingest Agent(PoolIndex(0))"),
        ("POST /api/v1/agents/a/ping", &[KEY, SECRET], "411 BadHeartbeat"),
        (
            "POST /api/v1/agents/a/ping",
            &[KEY, SECRET, "Content-Length: 65537\r\n"],
            "413 BadHeartbeat",
        ),
        ("POST /api/v1/agents/a/ping", &[KEY, WRONG, EMPTY], "401 WrongSecret"),
        ("POST /api/v1/agents/a/ping", &["X-App-Key: kz\r\n", SECRET], "401 UnknownKey"),
        ("POST /api/v1/agents/a/ping", &[SECRET, EMPTY], "401 MissingHeader"),
        ("POST /api/v1/agents/%/ping", &[KEY, SECRET, EMPTY], "400 BadHeartbeat"),
        ("GET /api/v1/agents/%/ping", &[], "400"),
        ("GET /api/v1/agent-pools", &[], "401 MissingToken"),
        ("GET /api/v1/agent-pools?token=no", &[], "401 WrongToken"),
        ("GET /api/v1/agent-pools", &[ALL], "Reads Viewer(All)"),
        ("GET /api/v1/agent-pools/a/metrics", &[ONLY_A], "Reads Viewer(Pool(PoolIndex(0)))"),
        ("HEAD /api/v1/agent-pools/a/metrics", &[ONLY_A], "200"),
        ("GET /api/v1/agent-pools/b/metrics", &[ONLY_A], "404"),
        (
            "GET /api/v1/agent-pools/a/history?agent=x",
            &[ONLY_A],
            "Reads Viewer(Pool(PoolIndex(0)))",
        ),
        ("GET /api/v1/agent-pools/a/history?agent=%2F", &[ONLY_A], "400"),
        ("GET /api/v1/agent-pools/a/history?agent=%2F", &[], "401 MissingToken"),
        ("GET /api/v1/agent-pools/b/history?agent=%2F", &[ONLY_A], "404"),
        ("HEAD /api/v1/agent-pools/a/history", &[ONLY_A], "200"),
        ("HEAD /api/v1/agent-pools/a/history?agent=", &[ONLY_A], "400"),
        ("POST /api/v1/agent-pools/a/history", &[ONLY_A], "405"),
        ("GET /api/v1/status", &[ONLY_A], "404"),
        ("GET /ws/agent-pools/b/metrics", &[ALL, UPGRADE], "upgrade Updates(PoolIndex(1))"),
        ("GET /ws/agent-pools/b/metrics", &[ALL], "426"),
        ("GET /ws/agent-pools", &[ALL, UPGRADE], "upgrade AllPools"),
        ("GET /ws/agent-pools?batch_ms=x", &[ONLY_A, UPGRADE], "upgrade OnePool(PoolIndex(0))"),
        ("GET /ws/agent-pools", &[UPGRADE], "401 MissingToken"),
        ("GET /ws/agent-pools", &[ALL], "426"),
        ("POST /login", &[EMPTY], "Reads Nobody with body"),
        ("GET /", &["Origin: http://evil.example\r\n"], "403 ForeignOrigin"),
        ("GET /", &["X-Forwarded-For: 192.0.2.1\r\n"], "Reads Nobody for 192.0.2.1"),
        (
            "GET /api/v1/agent-pools",
            &["X-Forwarded-For: 192.0.2.1\r\n"],
            "401 MissingToken for 192.0.2.1",
        ),
    ] {
        assert_eq!(decide(line, headers), expected, "{line} {headers:?}");
    }
}
