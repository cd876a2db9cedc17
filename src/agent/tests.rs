//! The whole agent against the test's own server, one request at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Sender, bounded};

use super::client::HeartbeatError;
use super::machine::Reading;
use super::schedule::Timing;
use super::*;
use crate::wire::id::AgentId;

const TIMEOUT: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(2);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(60 * 60);

struct Request {
    /// The number of its connection.
    connection: usize,
    line: String,
    headers: Vec<String>,
    body: serde_json::Value,
}

enum Reply {
    Status(u16, &'static str),
    /// Replies 200, then closes the connection.
    OkAndClose,
}

const OK: Reply = Reply::Status(200, "{}");

struct Server {
    address: SocketAddr,
    requests: Receiver<Request>,
    replies: Sender<Reply>,
}

impl Server {
    fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Serves one connection after the other; the thread ends with the process.
    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (outbox, requests) = bounded(0);
        let (replies, inbox) = bounded(64);
        Builder::new()
            .spawn(move || {
                for (connection, stream) in listener.incoming().enumerate() {
                    serve(connection, stream.unwrap(), &outbox, &inbox);
                }
            })
            .unwrap();
        Self { address, requests, replies }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn next(&self) -> Request {
        self.requests.recv_timeout(TIMEOUT).expect("a request")
    }

    fn reply(&self, reply: Reply) {
        self.replies.send(reply).unwrap();
    }

    /// Replies 200 up to the goodbye, and returns that.
    fn until_goodbye(&self) -> Request {
        loop {
            let request = self.next();
            self.reply(OK);
            if request.body["status"] == "offline" {
                return request;
            }
        }
    }
}

fn serve(connection: usize, stream: TcpStream, outbox: &Sender<Request>, inbox: &Receiver<Reply>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(connection, &mut reader) {
        let (Ok(()), Ok(reply)) = (outbox.send(request), inbox.recv()) else { return };
        let (status, body, is_last) = match reply {
            Reply::Status(status, body) => (status, body, false),
            Reply::OkAndClose => (200, "{}", true),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() || is_last {
            return;
        }
    }
}

fn read_request(connection: usize, reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let line = lines.next()?;
    let headers: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(Request { connection, line, headers, body: serde_json::from_slice(&body).unwrap() })
}

fn settings(url: &str) -> Settings {
    let id = AgentId::parse("agent-7").unwrap();
    let secret = Secret::new("hush").unwrap();
    let profile = Profile { name: Some("Seven".to_owned()), ..Profile::default() };
    let mut settings =
        Settings::new(url, "key", secret, id, Duration::from_secs(1), profile).unwrap();
    settings.timing = Timing {
        interval: SOON,
        first_window: Duration::ZERO,
        backoff_min: SOON,
        backoff_max: SOON,
        unauthorized_retry: SOON,
        request_timeout: TIMEOUT,
        goodbye_timeout: TIMEOUT,
    };
    settings
}

/// An agent on a thread of its own, with CPU readings of 1 %, 2 %, ...
struct Running {
    /// Dropping it stops the agent, too.
    stop: Sender<()>,
    /// The readings so far.
    reads: Receiver<u32>,
    thread: JoinHandle<Result<(), AgentError>>,
}

fn start(settings: Settings) -> Running {
    let (outbox, reads) = bounded(1_024);
    let mut count = 0;
    let measure = move |_| {
        count += 1;
        let _ = outbox.try_send(count);
        Reading { cpu_percent: f64::from(count), memory_percent: 50.0 }
    };
    let (stop, stopped) = bounded(1);
    let thread = Builder::new()
        .spawn(move || run_with(measure, settings, &stopped, Clock::start()))
        .unwrap();
    Running { stop, reads, thread }
}

#[test]
fn heartbeats_have_the_seeds_format_use_one_connection_and_end_with_a_goodbye() {
    let server = Server::start();
    let agent = start(settings(&server.url()));
    for count in 1..=3 {
        let request = server.next();
        assert_eq!(request.line, "POST /api/v1/agents/agent-7/ping HTTP/1.1");
        for header in ["x-app-key: key", "x-app-secret: hush", "content-type: application/json"] {
            assert!(request.headers.iter().any(|line| line == header), "{:?}", request.headers);
        }
        let expected = serde_json::json!({
            "status": "idle",
            "cpu_usage": f64::from(count),
            "memory_usage": 50.0,
            "running_tasks": [],
            "agent_name": "Seven",
        });
        assert_eq!(request.body, expected);
        assert_eq!(request.connection, 0);
        server.reply(OK);
    }
    agent.stop.send(()).unwrap();
    let goodbye = server.until_goodbye();
    assert_eq!(goodbye.line, "POST /api/v1/agents/agent-7/ping HTTP/1.1");
    assert_eq!(goodbye.connection, 0);
    agent.thread.join().unwrap().unwrap();
}

#[test]
fn the_real_machine_is_measured_from_the_first_heartbeat_on() {
    let server = Server::start();
    let id = AgentId::parse("real").unwrap();
    let secret = Secret::new("hush").unwrap();
    let (interval, profile) = (*settings::INTERVALS.start(), Profile::default());
    let settings = Settings::new(&server.url(), "key", secret, id, interval, profile).unwrap();
    let (stop, stopped) = bounded::<()>(1);
    let thread = Builder::new().spawn(move || run(settings, &stopped, Clock::start())).unwrap();
    let request = server.next();
    for member in ["cpu_usage", "memory_usage"] {
        let value = request.body[member].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&value), "{member}: {value}");
    }
    assert!(request.body.get("agent_name").is_none());
    server.reply(OK);
    // Disconnecting the channel stops it, too.
    drop(stop);
    server.until_goodbye();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_server_that_was_unavailable_gets_the_newest_state_and_no_backlog() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let agent = start(settings(&format!("http://{address}")));
    // The third reading means that two requests have failed.
    while agent.reads.recv_timeout(TIMEOUT).expect("a try") < 3 {}
    let server = Server::on(TcpListener::bind(address).unwrap());
    let first = server.next().body["cpu_usage"].as_f64().unwrap();
    assert!(first >= 3.0, "a state from before the outage: {first}");
    server.reply(OK);
    let second = server.next().body["cpu_usage"].as_f64().unwrap();
    assert_eq!(second, first + 1.0);
    server.reply(OK);
    drop(agent.stop);
    server.until_goodbye();
    agent.thread.join().unwrap().unwrap();
}

#[test]
fn a_401_a_429_and_a_503_are_retried() {
    let server = Server::start();
    let mut settings = settings(&server.url());
    // So that only a retry can cause the next request.
    settings.timing.interval = NEVER;
    let agent = start(settings);
    let refusals = [401, 429, 503].map(|status| Reply::Status(status, r#"{"detail":"no"}"#));
    for reply in refusals.into_iter().chain([OK]) {
        server.next();
        server.reply(reply);
    }
    drop(agent.stop);
    server.until_goodbye();
    agent.thread.join().unwrap().unwrap();
}

#[test]
fn changed_tasks_are_sent_soon_after_a_success_and_not_after_a_401() {
    let tasks = tempfile::tempdir().unwrap();
    let mut settings = settings("http://localhost");
    settings.timing = Timing::new(NEVER);
    settings.profile.task_dirs = vec![tasks.path().to_owned()];
    let clock = Clock::start();
    let reading = Reading { cpu_percent: 1.0, memory_percent: 1.0 };
    let mut reporter = Reporter::new(settings, clock).unwrap();
    for result in [Err(HeartbeatError::Unauthorized { app_key: "key".to_owned() }), Ok(())] {
        reporter.heartbeat(reading);
        reporter.finish(&result);
        let due = reporter.due;
        assert!(due > clock.now() + NEVER / 3, "half the interval at least");
        reporter.look();
        assert_eq!(reporter.due, due, "no task has changed");
        let task = r#"{"task_id":1,"task_type":"","workspace_id":"","started_at":""}"#;
        std::fs::write(tasks.path().join(format!("{}.json", result.is_ok())), task).unwrap();
        reporter.look();
        let is_soon = reporter.due <= clock.now() + MIN_GAP;
        assert_eq!(is_soon, result.is_ok(), "{result:?}");
    }
}

#[test]
fn a_connection_that_the_server_closed_costs_no_heartbeat() {
    let server = Server::start();
    let mut settings = settings(&server.url());
    settings.timing.backoff_min = NEVER;
    settings.timing.backoff_max = NEVER;
    let agent = start(settings);
    for connection in 0..3 {
        let request = server.next();
        assert_eq!(request.connection, connection);
        assert_eq!(request.body["cpu_usage"], (connection + 1) as f64);
        server.reply(Reply::OkAndClose);
    }
    drop(agent.stop);
    server.until_goodbye();
    agent.thread.join().unwrap().unwrap();
}

#[test]
fn a_request_that_hangs_does_not_delay_the_stop() {
    let server = Server::start();
    let mut settings = settings(&server.url());
    settings.timing.request_timeout = NEVER;
    settings.timing.goodbye_timeout = SOON;
    let agent = start(settings);
    server.next();
    agent.stop.send(()).unwrap();
    // Ends although the request gets no response.
    agent.thread.join().unwrap().unwrap();
}

#[test]
fn a_stop_before_the_first_heartbeat_sends_nothing() {
    let server = Server::start();
    let mut settings = settings(&server.url());
    settings.timing.first_window = NEVER;
    let agent = start(settings);
    agent.stop.send(()).unwrap();
    agent.thread.join().unwrap().unwrap();
    assert!(server.requests.is_empty());
}
