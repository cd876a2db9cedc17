//! Every row of the contract's table of statuses, each with its body and headers; and what HTTP
//! asks of a server besides: HEAD, HTTP/1.0, 100-continue, answers in the order of the requests.

use serde_json::{Value, json};

use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, KEY_B, Key};
use crate::support::{Conn, Request, Response, Server, Setup};

/// A problem body (RFC 9457) with `error` equal to `detail`.
pub(crate) fn assert_problem(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"), "{response:?}");
    let length = response.header("Content-Length").unwrap();
    assert_eq!(length, response.body.len().to_string());
    let problem = response.json();
    assert!(problem["type"].is_string(), "{problem}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(!detail.is_empty());
    assert_eq!(problem["error"], detail);
    detail.to_owned()
}

/// Asserts that `raw` gets this problem, and its detail.
fn refuse(server: &Server, raw: &[u8], status: u16) -> (Response, String) {
    let mut conn = Conn::open(server.addr());
    conn.send(raw);
    let response = conn.response();
    let detail = assert_problem(&response, status);
    (response, detail)
}

fn with_body(body: &str) -> Vec<u8> {
    Request::new("POST", "/api/v1/agents/agent/ping").key(KEY_A).body(body.as_bytes()).bytes()
}

#[test]
fn a_400_names_the_member_and_the_rule() {
    let server = Server::start(&Setup::open().toml());
    let task = json!({ "task_id": 1, "task_type": "t", "workspace_id": "w", "started_at": "s" });
    let good = json!({
        "status": "busy", "cpu_usage": 1, "memory_usage": 2, "running_tasks": [task]
    });
    // One character more than may be, and each of them two bytes wide.
    let long = "é".repeat(129);
    let replaced = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap() = value;
        body.to_string()
    };
    let text = good.to_string();
    let cases = [
        ("status", text.replace("\"status\":\"busy\"", "\"state\":\"busy\"")),
        ("status", replaced("/status", json!(""))),
        ("status", replaced("/status", json!("Busy"))),
        ("status", replaced("/status", json!("x".repeat(33)))),
        ("status", replaced("/status", json!(7))),
        ("cpu_usage", text.replace("cpu_usage", "cpu")),
        ("cpu_usage", replaced("/cpu_usage", json!(-0.1))),
        ("cpu_usage", replaced("/cpu_usage", json!(100.1))),
        ("cpu_usage", replaced("/cpu_usage", json!("1"))),
        ("cpu_usage", replaced("/cpu_usage", json!(null))),
        ("memory_usage", text.replace("memory_usage", "memory")),
        ("memory_usage", replaced("/memory_usage", json!(101))),
        ("running_tasks", replaced("/running_tasks", json!({}))),
        ("running_tasks", replaced("/running_tasks", json!(vec![&task; 257]))),
        ("running_tasks", replaced("/running_tasks", json!([1]))),
        ("task_id", replaced("/running_tasks/0/task_id", json!(-1))),
        ("task_id", replaced("/running_tasks/0/task_id", json!(1.5))),
        ("task_id", replaced("/running_tasks/0/task_id", json!("1"))),
        ("task_id", text.replace("\"task_id\":1", "\"task_id\":18446744073709551616")),
        ("task_id", text.replace("task_id", "id")),
        ("task_type", text.replace("task_type", "kind")),
        ("task_type", replaced("/running_tasks/0/task_type", json!(long))),
        ("workspace_id", replaced("/running_tasks/0/workspace_id", json!(null))),
        ("workspace_id", replaced("/running_tasks/0/workspace_id", json!(long))),
        ("started_at", text.replace("started_at", "at")),
        ("started_at", replaced("/running_tasks/0/started_at", json!(long))),
    ];
    let mut conn = Conn::open(server.addr());
    for (member, body) in &cases {
        conn.send(&with_body(body));
        let detail = assert_problem(&conn.response(), 400);
        assert!(detail.contains(member), "{detail:?} does not name {member}: {body}");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\u{feff}{}",
        &format!("{text}{text}"),
        &text.replace('1', "NaN"),
        &text.replace("\"cpu_usage\":1", "\"cpu_usage\":1e999"),
        &"[".repeat(60_000),
    ] {
        conn.send(&with_body(body));
        assert_problem(&conn.response(), 400);
    }
    let not_utf8 = text.replace("busy", "bus\u{1}").replace('\u{1}', "?").into_bytes();
    let not_utf8: Vec<u8> = not_utf8.iter().map(|&b| if b == b'?' { 0xFF } else { b }).collect();
    conn.send(
        &Request::new("POST", "/api/v1/agents/agent/ping").key(KEY_A).body(&not_utf8).bytes(),
    );
    assert_problem(&conn.response(), 400);
    // None of it left a trace, and what is right still is.
    let snapshot = Request::get("/api/v1/agent-pools/pool-a/metrics").send(server.addr()).json();
    assert_eq!(snapshot["metrics"], json!([]));
    assert_eq!(conn.ping("agent", &good).status, 200);
}

#[test]
fn what_is_at_the_edge_is_taken() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let wide = "é".repeat(128);
    let task = json!({
        "task_id": u64::MAX, "task_type": wide, "workspace_id": "", "started_at": "", "more": [{}]
    });
    let bodies = [
        json!({ "status": "x".repeat(32), "cpu_usage": 0, "memory_usage": 100 }),
        json!({ "status": "a_b-9", "cpu_usage": 100.0, "memory_usage": 0.0, "running_tasks": null }),
        json!({ "status": "s", "cpu_usage": 1e-9, "memory_usage": 1, "running_tasks": [task],
                "agent_name": wide, "unknown": { "deep": [1, 2, { "x": null }] } }),
    ];
    for (index, body) in bodies.iter().enumerate() {
        let response = conn.ping(&format!("agent-{index}"), body);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("Content-Type"), Some("application/json"));
    }
    let full = json!({
        "status": "s", "cpu_usage": 1, "memory_usage": 1,
        "running_tasks": vec![json!({
            "task_id": 1, "task_type": "t", "workspace_id": "w", "started_at": "s"
        }); 256]
    });
    assert_eq!(conn.ping("full", &full).status, 200);
    let longest_id = "i".repeat(128);
    assert_eq!(conn.ping(&longest_id, &heartbeat(1.0)).status, 200);
    // A media type that says something else is not looked at.
    let request = Request::ping("agent-0", KEY_A, &heartbeat(1.0)).header("Content-Type", "text/x");
    assert_eq!(request.send(server.addr()).status, 200);

    let snapshot = Request::get("/api/v1/agent-pools/pool-a/metrics").send(server.addr()).json();
    let agent = |id: &str| {
        let agents = snapshot["metrics"].as_array().unwrap();
        agents.iter().find(|agent| agent["agent_id"] == id).unwrap().clone()
    };
    assert_eq!(agent("agent-0")["running_tasks"], json!([]), "missing");
    assert_eq!(agent("agent-1")["running_tasks"], json!([]), "null");
    assert_eq!(agent("agent-2")["agent_name"], json!(wide));
    assert_eq!(
        agent("agent-2")["running_tasks"],
        json!([{ "task_id": u64::MAX, "task_type": wide, "workspace_id": "", "started_at": "" }])
    );
}

#[test]
fn a_400_for_what_is_not_http() {
    let server = Server::start(&Setup::open().toml());
    let host_twice = Request::get("/livez").header("Host", "localhost");
    let raws: [&[u8]; 9] = [
        &Request::get("/livez").without("Host").bytes(),
        &host_twice.bytes(),
        b"GET\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\nHost: localhost\n\n",
        b"GET /live\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for raw in raws {
        refuse(&server, raw, 400);
    }
    let bad = ["%61", "a%2fb", ".", "..", "", "a+b", &"x".repeat(129)];
    for id in bad {
        let (_, detail) = refuse(&server, &Request::ping(id, KEY_A, &heartbeat(1.0)).bytes(), 400);
        assert!(detail.contains("agent_id"), "{detail}");
    }
}

#[test]
fn a_401_is_the_same_for_an_unknown_key_and_a_wrong_secret_and_names_a_missing_header() {
    let server = Server::start(&Setup::open().toml());
    let unknown = Key { key: "nobody", secret: KEY_A.secret };
    let wrong = Key { key: KEY_A.key, secret: KEY_B.secret };
    let short = Key { key: KEY_A.key, secret: "secret" };
    let mut answers: Vec<_> = [unknown, wrong, short]
        .iter()
        .flat_map(|&key| {
            [Request::ping("agent", key, &heartbeat(1.0)), Request::delete("agent", key)]
        })
        .chain([
            // Credentials come before the body.
            Request::ping("agent", wrong, &json!("nonsense")),
        ])
        .map(|request| request.send(server.addr()))
        .collect();
    for answer in &mut answers {
        assert_problem(answer, 401);
        assert!(answer.header("WWW-Authenticate").is_some(), "{answer:?}");
        answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Date"));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    for missing in ["X-App-Key", "X-App-Secret"] {
        let request = Request::ping("agent", KEY_A, &heartbeat(1.0)).without(missing);
        let answer = request.send(server.addr());
        assert_eq!(assert_problem(&answer, 401), format!("{missing} is missing"));
        assert!(answer.header("WWW-Authenticate").is_some(), "{answer:?}");
    }
}

#[test]
fn a_404_and_a_405_with_allow() {
    let server = Server::start(&Setup::open().toml());
    for path in ["/nope", "/api/v1/agents/a/b/ping", "/api/v1/agent-pools/", "/../etc/passwd"] {
        refuse(&server, &Request::get(path).bytes(), 404);
    }
    for path in ["/api/v1/agent-pools/no-such-pool/metrics", "/api/v1/agent-pools/%20/metrics"] {
        refuse(&server, &Request::get(path).bytes(), 404);
    }
    for (method, path, allow) in [
        ("GET", "/api/v1/agents/a/ping", "POST"),
        ("DELETE", "/api/v1/agents/a/ping", "POST"),
        ("POST", "/api/v1/agents/a", "DELETE"),
        ("POST", "/api/v1/agent-pools", "GET, HEAD"),
        ("DELETE", "/api/v1/agent-pools/pool-a/metrics", "GET, HEAD"),
        ("PUT", "/api/v1/status", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("PUT", "/login", "GET, HEAD, POST"),
    ] {
        let request = Request::new(method, path).body(b"");
        let (answer, _) = refuse(&server, &request.bytes(), 405);
        let mut methods: Vec<_> = answer.header("Allow").unwrap().split(", ").collect();
        methods.sort_unstable();
        assert_eq!(methods.join(", "), allow, "{method} {path}");
    }
    // Agents' credentials are not asked for before the path and the method are right.
    let request = Request::new("PUT", "/api/v1/agents/a/ping").body(b"");
    refuse(&server, &request.bytes(), 405);
}

#[test]
fn a_408_for_a_head_or_a_body_that_does_not_come() {
    let server = Server::start(&Setup::open().toml());
    // Someone who rests between two requests is in nobody's way.
    let mut resting = Conn::open(server.addr());
    assert_eq!(resting.ping("agent", &heartbeat(1.0)).status, 200);
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    let (head, whole) = (ping.head_bytes(), ping.bytes());
    let parts =
        [b"GET /livez HTT".as_slice(), &head[..head.len() - 1], &head, &whole[..whole.len() - 1]];
    // All at once, since each takes the ten seconds of its deadline.
    let mut conns = parts.map(|part| {
        let mut conn = Conn::open(server.addr());
        conn.send(part);
        conn
    });
    for conn in &mut conns {
        let answer = conn.response();
        assert_problem(&answer, 408);
        assert_closes(conn, &answer);
    }
    assert!(resting.is_silent_for(std::time::Duration::from_secs(2)));
    assert_eq!(resting.ping("agent", &heartbeat(1.0)).status, 200);
}

#[test]
fn a_411_a_413_and_bodies_up_to_the_limit() {
    let server = Server::start(&Setup::open().toml());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    refuse(&server, &ping.clone().without("Content-Length").head_bytes(), 411);

    // Announced is enough: not a byte of it is sent.
    for length in ["65537", "70368744177664", "18446744073709551615"] {
        let mut conn = Conn::open(server.addr());
        conn.send(&ping.clone().with("Content-Length", length).head_bytes());
        let answer = conn.response();
        assert_problem(&answer, 413);
        assert_closes(&mut conn, &answer);
    }
    let mut padded = heartbeat(1.0).to_string();
    padded.push_str(&" ".repeat(64 * 1024 - padded.len()));
    let request = ping.body(padded.as_bytes());
    let mut conn = Conn::open(server.addr());
    conn.send(&request.bytes());
    assert_eq!(conn.response().status, 200);
    padded.push(' ');
    conn.send(&request.body(padded.as_bytes()).bytes());
    assert_problem(&conn.response(), 413);
}

#[test]
fn a_431_for_heads_beyond_the_limit() {
    let server = Server::start(&Setup::open().toml());
    let with_headers = |count: usize| {
        // One of them is Host.
        (1..count).fold(Request::get("/livez"), |request, n| request.header(&format!("X-{n}"), "x"))
    };
    assert_eq!(with_headers(64).send(server.addr()).status, 200);
    let mut conn = Conn::open(server.addr());
    conn.send(&with_headers(65).bytes());
    let answer = conn.response();
    assert_problem(&answer, 431);
    assert_closes(&mut conn, &answer);

    let padded = |bytes: usize| {
        let bare = Request::get("/livez").header("X-Pad", "").head_bytes().len();
        Request::get("/livez").header("X-Pad", &"x".repeat(bytes - bare))
    };
    assert_eq!(padded(8 * 1024).send(server.addr()).status, 200);
    refuse(&server, &padded(8 * 1024 + 1).bytes(), 431);
    refuse(&server, &Request::get(&format!("/{}", "x".repeat(9 * 1024))).bytes(), 431);
}

#[test]
fn a_417_and_100_continue() {
    let server = Server::start(&Setup::open().toml());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    refuse(&server, &ping.clone().header("Expect", "200-ok").bytes(), 417);

    let expecting = ping.header("Expect", "100-continue");
    let mut conn = Conn::open(server.addr());
    // RFC 9110 section 10.1.1; any letter case.
    for request in [expecting.clone(), expecting.clone().with("Expect", "100-Continue")] {
        conn.send(&request.head_bytes());
        let interim = conn.response();
        assert_eq!((interim.status, interim.version.as_str()), (100, "HTTP/1.1"));
        conn.send(heartbeat(1.0).to_string().as_bytes());
        assert_eq!(conn.response().status, 200);
    }
    // What will be refused anyway is refused at once.
    refuse(&server, &expecting.clone().with("Content-Length", "65537").head_bytes(), 413);
    refuse(&server, &expecting.with("X-App-Secret", "wrong").head_bytes(), 401);
}

#[test]
fn a_501_for_transfer_codings_and_a_505_for_other_versions() {
    let server = Server::start(&Setup::open().toml());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    for coding in ["chunked", "gzip", "identity"] {
        let request = ping.clone().without("Content-Length").header("Transfer-Encoding", coding);
        let mut conn = Conn::open(server.addr());
        conn.send(&request.head_bytes());
        let answer = conn.response();
        assert_problem(&answer, 501);
        assert_closes(&mut conn, &answer);
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0"] {
        refuse(&server, &Request::get("/livez").version(version).bytes(), 505);
    }
    refuse(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
}

#[test]
fn ambiguous_lengths_are_refused() {
    let server = Server::start(&Setup::open().toml());
    let ping = Request::ping("agent", KEY_A, &heartbeat(1.0));
    let length = heartbeat(1.0).to_string().len();
    for value in [format!("+{length}"), format!("{length}, {length}"), "-1".into(), "0x10".into()] {
        refuse(&server, &ping.clone().with("Content-Length", &value).bytes(), 400);
    }
    refuse(&server, &ping.header("Content-Length", &length.to_string()).bytes(), 400);
}

#[test]
fn a_503_for_new_agents_of_a_full_pool_only() {
    let setup = Setup::open().limit("max_agents_per_pool = 2");
    let server = Server::start(&setup.toml());
    let mut conn = Conn::open(server.addr());
    for agent in ["a", "b"] {
        assert_eq!(conn.ping(agent, &heartbeat(1.0)).status, 200);
    }
    let full = conn.ping("c", &heartbeat(1.0));
    assert_problem(&full, 503);
    let seconds: u32 = full.header("Retry-After").unwrap().parse().unwrap();
    assert!(seconds > 0);
    // Those that it knows, and those of the other pool, go on.
    assert_eq!(conn.ping("a", &heartbeat(2.0)).status, 200);
    assert_eq!(conn.ping_as("c", KEY_B, &heartbeat(2.0)).status, 200);
    // Where one leaves there is room.
    assert_eq!(conn.ping("a", &json!({ "status": "offline" })).status, 200);
    assert_eq!(conn.ping("c", &heartbeat(3.0)).status, 200);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = Server::start(&Setup::open().toml());
    for (request, status) in [
        (Request::get("/livez"), 200),
        (Request::ping("agent", KEY_A, &heartbeat(1.0)), 200),
        (Request::get("/api/v1/agent-pools"), 200),
        (Request::get("/nope"), 404),
        (Request::get("/livez").header("Connection", "keep-alive"), 200),
    ] {
        let mut conn = Conn::open(server.addr());
        conn.send(&request.version("HTTP/1.0").bytes());
        let answer = conn.response();
        assert_eq!(answer.status, status);
        assert_closes(&mut conn, &answer);
    }
    // HTTP/1.0 knows no Host.
    let request =
        Request::ping("agent", KEY_A, &heartbeat(1.0)).without("Host").version("HTTP/1.0");
    let mut conn = Conn::open(server.addr());
    conn.send(&request.bytes());
    let answer = conn.response();
    assert!([200, 400].contains(&answer.status), "{answer:?}");
    assert_closes(&mut conn, &answer);
}

#[test]
fn connection_close_is_honoured() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    conn.send(&Request::get("/livez").header("Connection", "close").bytes());
    let answer = conn.response();
    assert_eq!(answer.status, 200);
    assert_closes(&mut conn, &answer);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    for path in [
        "/",
        "/login",
        "/livez",
        "/readyz",
        "/healthz",
        "/api/v1/agent-pools",
        "/api/v1/agent-pools/pool-a/metrics",
        "/api/v1/agent-pools/none/metrics",
        "/api/v1/status",
        "/ws/agent-pools/pool-a/metrics",
        "/nope",
    ] {
        let mut get = Request::get(path).send(server.addr());
        conn.send(&Request::new("HEAD", path).bytes());
        let mut head = conn.head_response();
        // Were there a body, this answer would not be understood.
        assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200, "after HEAD {path}");
        assert_eq!(head.status, get.status, "{path}");
        for answer in [&mut get, &mut head] {
            assert!(answer.header("Date").is_some(), "{path}");
            answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Date"));
            if path == "/api/v1/status" || path.ends_with("pool-a/metrics") {
                // Figures that grow between the two, and may get a digit more.
                answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Content-Length"));
            }
        }
        assert_eq!(head.headers, get.headers, "{path}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let setup = Setup::open().line("trusted_proxies = [\"127.0.0.1\"]");
    let server = Server::start(&setup.toml());
    let mut conn = Conn::open(server.addr());
    let mut bytes = Vec::new();
    let mut statuses = Vec::new();
    for round in 0..30 {
        // Each from an address of its own: refusals to one are delayed after the first twenty.
        let stranger = Request::ping("agent", KEY_B, &heartbeat(1.0)).with("X-App-Key", "none");
        let stranger = stranger.header("X-Forwarded-For", &format!("192.0.2.{round}"));
        for (request, status) in [
            (Request::ping(&format!("agent-{round}"), KEY_A, &heartbeat(1.0)), 200),
            (Request::get("/nope"), 404),
            (Request::ping("agent", KEY_A, &json!([])), 400),
            (Request::get("/api/v1/agent-pools/pool-a/metrics"), 200),
            (Request::delete("nobody", KEY_A), 404),
            (stranger, 401),
        ] {
            bytes.extend_from_slice(&request.bytes());
            statuses.push(status);
        }
    }
    conn.send(&bytes);
    let mut agents = 0;
    for status in statuses {
        let answer = conn.response();
        assert_eq!(answer.status, status, "{}", answer.text());
        if answer.json()["type"] == "initial_metrics" {
            // Read after the answer to the heartbeat before it: it is in there.
            agents += 1;
            assert_eq!(answer.json()["metrics"].as_array().unwrap().len(), agents);
        }
    }
    assert_eq!(agents, 30);
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for byte in Request::ping("agent", KEY_A, &heartbeat(1.0)).bytes() {
        conn.send(&[byte]);
    }
    assert_eq!(conn.response().status, 200);
}

/// That the server says it closes, and does.
fn assert_closes(conn: &mut Conn, answer: &Response) {
    let said = answer.header("Connection").unwrap_or_default().to_ascii_lowercase();
    assert_eq!(said, "close", "{answer:?}");
    assert!(conn.is_ended(), "still open after {answer:?}");
}
