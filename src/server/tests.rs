//! The whole server in one process, for what cannot be done to it from outside: threads that die.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::{Server, Sizes, ThreadDied};
use crate::clock::Clock;
use crate::config::{Config, Overrides};
use crate::counters::Counters;
use crate::event::{Control, FanoutIndex};
use crate::id::{DashboardId, PoolIndex};
use crate::signals::Signal;

const NO_SUCH_POOL: PoolIndex = PoolIndex(99);

fn start() -> Server {
    let overrides =
        Overrides { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], evict_after: None };
    let config = Config::dev(&overrides).unwrap();
    Server::start(config, Sizes::default(), Clock::start(), Arc::new(Counters::default())).unwrap()
}

/// A dashboard that has its snapshot, to see what becomes of it.
fn dashboard(server: &Server) -> TcpStream {
    let mut socket = TcpStream::connect(server.addresses()[0]).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(
            b"GET /ws/agent-pools/local/metrics HTTP/1.1\r\nHost: localhost\r\n\
              Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
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
        server.hub.join(DashboardId(u64::MAX), NO_SUCH_POOL, FanoutIndex(0)).unwrap();
    });
    assert_eq!(died.thread, "hub");
    assert!(died.reason.contains("panicked: index out of bounds"), "{died}");
}

#[test]
fn the_death_of_a_fanout_thread_ends_the_server_with_the_reason() {
    let died = dies_of(|server| {
        let address = server.addresses()[0];
        let attach = Control::Attach {
            dashboard: DashboardId(u64::MAX),
            pool: NO_SUCH_POOL,
            socket: Arc::new(TcpStream::connect(address).unwrap()),
            greeting: Vec::new(),
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
    let died = dies_of(|server| server.pools[1].0.stop(1));
    assert_eq!(died.thread, "read-0");
}

/// A signal is a good end, and nothing is left behind.
#[test]
fn a_signal_ends_the_server_well() {
    let server = start();
    let crew = server.crew.clone();
    let directory = server._directory.path().to_owned();
    let mut dashboard = dashboard(&server);
    let (signal, signals) = bounded(1);
    let thread = Builder::new().name("main".to_owned()).spawn(move || server.run(&signals));
    signal.send(Signal::Terminate).unwrap();
    assert_eq!(thread.unwrap().join().unwrap(), Ok(()));
    let mut rest = Vec::new();
    let _ = dashboard.read_to_end(&mut rest);
    assert_eq!(rest, [0x88, 2, 0x03, 0xE9]);
    assert!(crew.is_empty(), "{} threads", crew.len());
    assert!(!directory.exists());
}
