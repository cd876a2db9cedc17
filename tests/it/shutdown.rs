//! An orderly end: 1001 to every dashboard that reads, nobody waits for those that don't, exit 0.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::http::heartbeat;
use crate::support::setup::KEY_B;
use crate::support::status::Status;
use crate::support::wait::now;
use crate::support::{Conn, DEADLINE, Dashboard, Request, Server, Setup};

/// RFC 6455 section 7.4.1: going away.
const GOING_AWAY: u16 = 1001;

#[test]
fn sigterm_with_300_dashboards_reading_and_20_not() {
    let mut server = Server::start(&Setup::open().busy_agents().toml());
    let addr = server.addr();
    let mut readers: Vec<_> = (0..300).map(|_| Dashboard::join(addr, "pool-a")).collect();
    let sleepers: Vec<_> = (0..20).map(|_| sleeper(addr, "pool-b")).collect();
    let mut conn = Conn::open(addr);
    // Until the server itself says that it cannot get rid of what the sleepers are owed.
    let large = large_heartbeat();
    while Status::read(addr).counter("lags") < 20 {
        assert_eq!(conn.ping_as("agent", KEY_B, &large).status, 200);
    }
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);

    let asked = now();
    server.signal(Signal::TERM);
    for reader in &mut readers {
        let (messages, code) = reader.read_to_close();
        assert_eq!(code, GOING_AWAY);
        let kinds: Vec<_> = messages.iter().map(|message| &message["type"]).collect();
        assert_eq!(kinds, ["initial_metrics", "metrics_update"]);
    }
    let (status, log) = server.wait_with_log();
    // Two seconds are promised; what a loaded machine adds is not the server's.
    assert!(asked.elapsed() < DEADLINE / 2, "took {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "{log}");
    drop(sleepers);
}

#[test]
fn sigint_ends_it_too() {
    let mut server = Server::start(&Setup::open().toml());
    let mut dashboard = Dashboard::join(server.addr(), "pool-a");
    let mut idle = Conn::open(server.addr());
    assert_eq!(idle.ping("agent", &heartbeat(1.0)).status, 200);
    server.signal(Signal::INT);
    assert_eq!(dashboard.read_to_close().1, GOING_AWAY);
    assert!(idle.is_ended());
    assert_eq!(server.wait().code(), Some(0));
    assert!(Conn::try_open(server.addr()).is_err(), "somebody still listens");
}

#[test]
fn a_server_without_a_single_client_ends() {
    let mut server = Server::start(&Setup::open().toml());
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// A dashboard that has joined and reads no more, with little room at its end.
fn sleeper(addr: SocketAddr, pool: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let upgrade = Request::feed(pool).bytes();
    std::io::Write::write_all(&mut stream, &upgrade).unwrap();
    stream
}

/// A valid heartbeat of about 60 KB.
fn large_heartbeat() -> Value {
    let wide = "x".repeat(100);
    let tasks: Vec<_> = (0..150)
        .map(|id| {
            json!({ "task_id": id, "task_type": wide, "workspace_id": wide, "started_at": wide })
        })
        .collect();
    json!({ "status": "busy", "cpu_usage": 1, "memory_usage": 1, "running_tasks": tasks })
}
