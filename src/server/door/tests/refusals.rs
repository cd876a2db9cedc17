//! Every refusal that the door gives, with its headers, and whether the connection survives it.

use super::support::{Reply, TestDoor, ping};
use crate::server::limits::Limits;
use crate::wire::response::problem_detail;

/// Sends `request` on a connection of its own and checks that the answer is a problem, and
/// that the connection goes on exactly if `keeps`.
fn refused(door: &TestDoor, request: &[u8], status: u16, keeps: bool) -> Reply {
    let mut client = door.client();
    client.send(request);
    let reply = client.answer();
    let shown = request[..request.len().min(300)].escape_ascii();
    assert_eq!(reply.status, status, "{shown}");
    assert_eq!(reply.field("Content-Type"), Some("application/problem+json"));
    let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["detail"], body["error"]);
    assert!(!String::from_utf8_lossy(&reply.body).contains("hunter2"));
    if keeps {
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200, "{shown}");
    } else {
        assert!(reply.head.contains("Connection: close\r\n"), "{shown}");
        client.ends();
    }
    reply
}

#[test]
fn heads_that_are_not_in_order() {
    let door = TestDoor::open(Limits::default());
    for (request, status) in [
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n12345", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET /é HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417),
    ] {
        refused(&door, request.as_bytes(), status, false);
    }
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(9_000));
    refused(&door, endless.as_bytes(), 431, false);
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(64));
    refused(&door, many.as_bytes(), 431, false);
    door.check_health();
}

#[test]
fn heartbeats_that_are_not_in_order() {
    let door = TestDoor::open(Limits::default());
    let ping = |fields: &str, body: &str| {
        format!("POST /api/v1/agents/x/ping HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}").into_bytes()
    };
    let good = "X-App-Key: ka\r\nX-App-Secret: sa\r\n";
    let mut answers = Vec::new();
    for fields in [
        "X-App-Key: ka\r\nX-App-Secret: hunter2\r\n",
        "X-App-Key: kz\r\nX-App-Secret: sa\r\n",
        "X-App-Key: ka\r\nX-App-Secret: sb\r\n",
    ] {
        let reply = refused(&door, &ping(fields, ""), 401, true);
        assert!(reply.field("WWW-Authenticate").is_some());
        answers.push(reply.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one and the same answer");
    for (fields, detail) in [
        ("X-App-Key: ka\r\n", "X-App-Secret is missing"),
        ("X-App-Secret: sa\r\n", "X-App-Key is missing"),
        ("", "X-App-Key and X-App-Secret are missing"),
    ] {
        let reply = refused(&door, &ping(fields, ""), 401, true);
        assert_eq!(problem_detail(&reply.body).as_deref(), Some(detail));
        assert!(reply.field("WWW-Authenticate").is_some());
    }
    let whole = ping("X-App-Key: ka\r\nContent-Length: 4\r\n", "body");
    refused(&door, &whole, 401, true);
    refused(&door, &ping(good, ""), 411, false);
    // A body that nothing announced must not be taken for the next request.
    refused(&door, &ping(good, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), 411, false);
    for length in ["65537", "70368744177664", "99999999999999999999999"] {
        refused(&door, &ping(&format!("{good}Content-Length: {length}\r\n"), ""), 413, false);
    }
    let wrong = "X-App-Key: ka\r\nX-App-Secret: no\r\nContent-Length: 70368744177664\r\n";
    refused(&door, &ping(wrong, ""), 401, false);
    refused(&door, b"POST /api/v1/agents/a%20b/ping HTTP/1.1\r\nHost: x\r\n\r\n", 400, true);
    let get = b"GET /api/v1/agents/a/ping HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(refused(&door, get, 405, true).field("Allow"), Some("POST"));
    refused(&door, b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404, true);
    door.check_health();
}

#[test]
fn a_bad_agent_id_counts_only_where_an_agent_may_have_sent_it() {
    let door = TestDoor::open(Limits::default());
    for (method, counted) in [("GET", 0), ("HEAD", 0), ("POST", 1), ("DELETE", 2)] {
        let mut client = door.client();
        let request = format!("{method} /api/v1/agents/%2e/ping HTTP/1.1\r\nHost: x\r\n\r\n");
        client.send(request.as_bytes());
        assert_eq!(client.answer_head().status, 400, "{method}");
        assert_eq!(door.counters.refused_bad_heartbeat.get(), counted, "{method}");
    }
}

/// All at once, so that they are of one second, unless the machine stands still for that long.
#[test]
fn the_heartbeats_of_a_flood_are_dropped_and_all_else_is_served() {
    let limits = Limits { max_agent_heartbeats_per_second: 5, ..Limits::default() };
    let door = TestDoor::open(limits);
    let mut client = door.client();
    client.send(&ping("flood", b"{}").repeat(100));
    let replies: Vec<_> = (0..100).map(|_| client.answer()).collect();
    assert!(replies[..5].iter().all(|reply| reply.status == 200));
    let dropped: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(!dropped.is_empty());
    for reply in &dropped {
        assert_eq!(reply.status, 429);
        assert_eq!(reply.field("Retry-After"), Some("1"));
        let detail = "this agent has sent 5 heartbeats within a second \
                      (max_agent_heartbeats_per_second); this one is dropped";
        assert_eq!(problem_detail(&reply.body).as_deref(), Some(detail));
    }
    assert_eq!(door.counters.refused_flood.get(), dropped.len() as u64);
    assert_eq!(door.counters.requests.get(), 100 - dropped.len() as u64, "no worker saw them");
    // In one write behind another flood: goodbyes, other agents, and the same id in another pool.
    let goodbye = "DELETE /api/v1/agents/flood HTTP/1.1\r\nHost: x\r\nX-App-Key: ka\r\n\
                   X-App-Secret: sa\r\n\r\n";
    let other_pool = String::from_utf8(ping("flood", b"{}")).unwrap();
    let other_pool = other_pool.replace("ka", "kb").replace("sa", "sb");
    let others = [goodbye.as_bytes(), &ping("quiet", b"{}"), other_pool.as_bytes()].concat();
    client.send(&[ping("flood", b"{}").repeat(100), others].concat());
    let statuses: Vec<_> = (0..103).map(|_| client.answer().status).collect();
    assert!(statuses[..100].contains(&429) && statuses[100..] == [200; 3], "{statuses:?}");
}

#[test]
fn a_body_that_is_refused_and_sent_all_the_same_does_not_eat_the_answer() {
    let door = TestDoor::open(Limits::default());
    for _ in 0..20 {
        refused(&door, &ping("big", &vec![b'x'; 300_000]), 413, false);
    }
}

#[test]
fn viewers_are_refused_in_the_contracts_order() {
    let door = TestDoor::open(Limits::default());
    let get =
        |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\n{fields}\r\n").into_bytes();
    let feed = "/ws/agent-pools/b/metrics";
    let mut fields = String::from("Host: evil.example\r\nOrigin: http://evil.example\r\n");
    refused(&door, &get(feed, &fields), 421, true);
    fields = fields.replace("Host: evil.example", "Host: localhost");
    refused(&door, &get(feed, &fields), 403, true);
    fields = "Host: localhost\r\nOrigin: http://localhost\r\n".to_owned();
    let reply = refused(&door, &get(feed, &fields), 401, true);
    assert!(reply.field("WWW-Authenticate").unwrap().starts_with("Bearer"));
    refused(&door, &get(&format!("{feed}?token=hunter2"), &fields), 401, true);
    fields += "Authorization: Bearer only-a\r\n";
    let foreign = refused(&door, &get(feed, &fields), 404, true);
    let unknown = refused(&door, &get("/ws/agent-pools/zz/metrics", &fields), 404, true);
    assert_eq!(foreign.body, unknown.body, "one and the same answer");
    let feed = "/ws/agent-pools/a/metrics";
    let upgrade = [
        "Connection: keep-alive, Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Sec-WebSocket-Version: 13\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ];
    for missing in 0..4 {
        let lines = upgrade.iter().enumerate().filter(|(n, _)| *n != missing);
        let lines: String = lines.map(|(_, line)| *line).collect();
        let status = if missing == 3 { 400 } else { 426 };
        let reply = refused(&door, &get(feed, &format!("{fields}{lines}")), status, true);
        if status == 426 {
            assert_eq!(reply.field("Upgrade"), Some("websocket"));
            assert_eq!(reply.field("Sec-WebSocket-Version"), Some("13"));
            assert_eq!(reply.field("Connection"), Some("upgrade"));
        }
    }
    let all = upgrade.concat();
    for (was, is, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Key: dGhl", "Key: dGh", 400),
        ("Key: dGhl", "Key: dGh!", 400),
    ] {
        refused(&door, &get(feed, &format!("{fields}{}", all.replace(was, is))), status, true);
    }
    let post = format!("POST {feed} HTTP/1.1\r\n{fields}{all}\r\n").into_bytes();
    assert_eq!(refused(&door, &post, 405, true).field("Allow"), Some("GET"));
}

#[test]
fn who_may_see_what_over_rest() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    for (path, token, status) in [
        ("/api/v1/agent-pools", "all", 200),
        ("/api/v1/agent-pools", "only-a", 200),
        ("/api/v1/agent-pools", "none", 401),
        ("/api/v1/agent-pools/a/metrics", "only-a", 200),
        ("/api/v1/agent-pools/b/metrics", "only-a", 404),
        ("/api/v1/agent-pools/b/metrics", "all", 200),
        ("/api/v1/status", "all", 200),
        ("/api/v1/status", "only-a", 404),
        ("/", "none", 200),
        ("/readyz", "none", 200),
    ] {
        let cookie = format!("Cookie: agent_metrics_viewer={token}");
        client.send(format!("GET {path} HTTP/1.1\r\nHost: [::1]:8\r\n{cookie}\r\n\r\n").as_bytes());
        assert_eq!(client.answer().status, status, "{path} {token}");
    }
    let foreign = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    for (path, status) in [("/", 421), ("/login", 421), ("/livez", 200), ("/readyz", 200)] {
        client.send(foreign(path).as_bytes());
        assert_eq!(client.answer().status, status, "{path}");
    }
    let mut old = door.client();
    old.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().status, 400, "a viewer route without Host");
    let login = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    for (length, status) in [(4_096, 200), (4_097, 413)] {
        client.send(login(length).as_bytes());
        assert_eq!(client.answer().status, status, "{length}");
    }
    refused(&door, b"POST /login HTTP/1.1\r\nHost: localhost\r\n\r\n", 411, false);
}

#[test]
fn a_cookie_of_another_program_on_the_same_host_is_no_obstacle() {
    let door = TestDoor::open(Limits::default());
    let mut client = door.client();
    for (cookies, status) in [
        ("other=é; agent_metrics_viewer=only-a", 200),
        ("agent_metrics_viewer=only-a; other=\u{80}", 200),
        ("other=é", 401),
        ("agent_metrics_viewer=only-é", 401),
    ] {
        let request = format!(
            "GET /api/v1/agent-pools HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies}\r\n\r\n"
        );
        client.send(request.as_bytes());
        assert_eq!(client.answer().status, status, "{cookies}");
    }
    // Not even UTF-8.
    client.send(b"GET /api/v1/agent-pools HTTP/1.1\r\nHost: localhost\r\n");
    client.send(b"Cookie: other=\xe9; agent_metrics_viewer=only-a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}
