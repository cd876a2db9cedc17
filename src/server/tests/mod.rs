//! The whole server in one process, for what cannot be done to it from outside: threads that die.
//! And its core alone, in virtual time: [`simulation`].

pub(super) mod simulation;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::bounded;
use serde_json::Value;
use signal_hook::consts::SIGTERM;
use tungstenite::protocol::{Role, WebSocket};

use super::{Server, Sizes, StartError, ThreadDied};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::signals::Signal;
use crate::server::config::{Config, Overrides};
use crate::server::event::{Action, Control, FanoutIndex};
use crate::server::feed::FeedId;
use crate::wire::id::{DashboardId, PoolIndex};

/// Catches hangs; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(20);

const NO_SUCH_FEED: FeedId = FeedId::Updates(PoolIndex(99));

fn start() -> Server {
    start_with(Sizes::default(), &Arc::default())
}

fn start_with(sizes: Sizes, counters: &Arc<Counters>) -> Server {
    let overrides =
        Overrides { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], evict_after: None };
    let mut config = Config::dev(&overrides).unwrap();
    // The tests have few agents, and some of them much to say, all of which is to be seen.
    config.limits.max_agent_heartbeats_per_second = usize::MAX;
    config.limits.max_agent_updates_per_second = usize::MAX;
    Server::start(config, sizes, Clock::start(), Arc::clone(counters)).unwrap()
}

#[test]
fn a_port_in_use_is_told_with_the_next_one_and_port_0_without() {
    for (port, advice) in [(0, None), (8080, Some("8081")), (65_535, Some("65534"))] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let said = StartError::Listen(address, std::io::ErrorKind::AddrInUse.into()).to_string();
        let found = said.split_once("--listen 127.0.0.1:").map(|(_, port)| port);
        assert_eq!(found, advice, "{said}");
    }
}

/// A dashboard that has its snapshot, to see what becomes of it.
fn dashboard(server: &Server) -> TcpStream {
    let mut socket = TcpStream::connect(server.addresses[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(
            b"GET /ws/agent-pools/local/metrics HTTP/1.1\r\nHost: localhost\r\n\
              Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\"seq\":0}") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    socket
}

/// Runs the server until it ends by itself, which it must after `kill`; all dashboards end with
/// it, those of other threads with a Close.
fn dies_of(kill: impl FnOnce(&Server)) -> ThreadDied {
    let server = start();
    let mut dashboards = [dashboard(&server), dashboard(&server)];
    kill(&server);
    let (_never, signals) = bounded::<Signal>(1);
    let died = server.run(&signals).unwrap_err();
    for dashboard in &mut dashboards {
        let mut rest = Vec::new();
        let _ = dashboard.read_to_end(&mut rest);
        // A Close frame with 1001, unless its own fanout thread was the one that died.
        let closed = rest == [0x88, 2, 0x03, 0xE9];
        assert!(closed || died.thread.starts_with("fanout"), "{rest:?} as {died}");
    }
    died
}

#[test]
fn the_death_of_the_hub_ends_the_server_with_the_reason() {
    let died = dies_of(|server| {
        server.hub.join(DashboardId(u64::MAX), NO_SUCH_FEED, FanoutIndex(0)).unwrap();
    });
    assert_eq!(died.thread, "hub");
    assert!(died.reason.contains("panicked: index out of bounds"), "{died}");
}

#[test]
fn the_death_of_a_fanout_thread_ends_the_server_with_the_reason() {
    let died = dies_of(|server| {
        let address = server.addresses[0];
        let socket = Arc::new(TcpStream::connect(address).unwrap());
        let attach = Control {
            dashboard: DashboardId(u64::MAX),
            feed: NO_SUCH_FEED,
            action: Action::Attach { socket, greeting: Vec::new() },
        };
        server.fanouts[0].send(attach).unwrap();
    });
    assert_eq!(died.thread, "fanout-0");
    assert!(died.reason.contains("panicked: index out of bounds"), "{died}");
}

#[test]
fn the_death_of_the_door_ends_the_server() {
    let died = dies_of(|server| server.door.stop());
    assert_eq!(died.thread, "door");
}

#[test]
fn the_death_of_a_worker_ends_the_server() {
    let died = dies_of(|server| server.backends[1].stop());
    assert_eq!(died.thread, "read-0");
}

/// A stop that waits for a thread which has ended already would use up the time of the others.
#[test]
fn who_has_ended_is_not_waited_for() {
    let server = start();
    server.door.stop();
    let ended = server.ends.recv_timeout(LONG).unwrap();
    assert_eq!(ended.name, "door");
    server.threads.join(&ended);
    let start = server.clock.now();
    server.await_end("door", LONG);
    assert!(server.clock.now() < start + LONG, "waited to the deadline");
    server.stop();
}

/// A signal is a good end, and nothing is left behind.
#[test]
fn a_signal_ends_the_server_well() {
    let server = start();
    let threads = server.threads.clone();
    let directory = server._directory.path().to_owned();
    let mut dashboard = dashboard(&server);
    let (signal, signals) = bounded(1);
    let thread = Builder::new().name("main".to_owned()).spawn(move || server.run(&signals));
    signal.send(Signal(SIGTERM)).unwrap();
    assert_eq!(thread.unwrap().join().unwrap(), Ok(()));
    let mut rest = Vec::new();
    let _ = dashboard.read_to_end(&mut rest);
    assert_eq!(rest, [0x88, 2, 0x03, 0xE9]);
    assert_eq!(threads.count(), 0);
    assert!(!directory.exists());
}

/// One heartbeat or goodbye of the agent "a" over a kept connection, answered.
fn say(socket: &mut TcpStream, line: &str, body: &str) {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nX-App-Key: dev\r\nX-App-Secret: dev\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut some = [0; 1024];
        let read = socket.read(&mut some).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

/// Four workers finish in any order, and one agent beats over four connections: of each
/// connection, whose requests wait for one another, the dashboard never sees an older heartbeat
/// after a newer one, and it sees every one that was not stale.
#[test]
fn four_workers_never_turn_back_time() {
    const CONNECTIONS: usize = 4;
    const ROUNDS: u64 = 50;
    /// Of all connections together fewer than the batches that may wait at a fanout thread, so
    /// that the hub never has reason to conflate.
    const BEATS: u64 = 10;
    let counters = Arc::new(Counters::default());
    let server = start_with(Sizes { workers: 4, fanouts: 2 }, &counters);
    let address = server.addresses[0];
    let mut feed = WebSocket::from_raw_socket(dashboard(&server), Role::Client, None);
    let beat = |socket: &mut TcpStream, connection: usize, round: u64| {
        for number in round * BEATS + 1..=(round + 1) * BEATS {
            let body = format!(
                r#"{{"status":"busy","cpu_usage":1,"memory_usage":1,"running_tasks":[{{"task_id":{number},"task_type":"","workspace_id":"{connection}","started_at":""}}]}}"#
            );
            say(socket, "POST /api/v1/agents/a/ping", &body);
        }
    };
    let mut sockets = [(); CONNECTIONS].map(|()| TcpStream::connect(address).unwrap());
    let mut newest = [0; CONNECTIONS];
    let mut seq = 0;
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for (connection, socket) in sockets.iter_mut().enumerate() {
                scope.spawn(move || beat(socket, connection, round));
            }
        });
        // The round ends where another agent's heartbeat, sent after all of it, is seen.
        let end = r#"{"status":"idle","cpu_usage":1,"memory_usage":1}"#;
        say(&mut sockets[0], "POST /api/v1/agents/end/ping", end);
        loop {
            let message: Value =
                serde_json::from_str(feed.read().unwrap().to_text().unwrap()).unwrap();
            seq += 1;
            assert_eq!(message["seq"], seq);
            if message["metrics"]["agent_id"] == "end" {
                break;
            }
            let task = &message["metrics"]["running_tasks"][0];
            let connection: usize = task["workspace_id"].as_str().unwrap().parse().unwrap();
            let number = task["task_id"].as_u64().unwrap();
            assert!(number > newest[connection], "{number} after {}", newest[connection]);
            newest[connection] = number;
        }
    }
    let sent = ROUNDS * (CONNECTIONS as u64 * BEATS + 1);
    assert_eq!(counters.heartbeats.get() + counters.stale.get(), sent);
    assert_eq!((counters.conflations.get(), counters.lags.get()), (0, 0));
    let stop = bounded(1);
    stop.0.send(Signal(SIGTERM)).unwrap();
    assert_eq!(server.run(&stop.1), Ok(()));
}
