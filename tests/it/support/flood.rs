//! For load and attacks: connections from many loopback addresses, the descriptors that they need,
//! and the server's threads and descriptors before and after.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::http::{Conn, Request, heartbeat};
use super::process;
use super::setup::KEY_A;
use super::wait::{DEADLINE, Deadline, pause};

/// A lock for tests that load the machine or measure memory under load: one runs at a time.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    // A failed test does not affect the next one, which has its own server.
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So that this process can open `needed` descriptors.
pub(crate) fn raise_descriptor_limit(needed: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    let hard_enough = limit.maximum.is_none_or(|maximum| maximum >= needed);
    assert!(hard_enough, "this test needs a hard descriptor limit of {needed}: see ulimit -Hn");
    if limit.current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

/// Connects from `127.0.0.{from}`, since limits count connections per address.
pub(crate) fn connect_from(from: u8, addr: SocketAddr) -> std::io::Result<TcpStream> {
    connect_with(from, addr, None)
}

/// [`connect_from`] with a receive buffer size, set before the TCP handshake offers a window.
pub(crate) fn connect_with(
    from: u8,
    addr: SocketAddr,
    receive_buffer: Option<usize>,
) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into())?;
    socket.connect_timeout(&addr.into(), DEADLINE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// An HTTP connection from `127.0.0.{from}`.
pub(crate) fn conn_from(from: u8, addr: SocketAddr) -> Conn {
    Conn::over(connect_from(from, addr).unwrap())
}

/// A heartbeat of a regular agent on a new connection must succeed.
pub(crate) fn assert_alive(addr: SocketAddr) {
    let response = Request::ping("honest", KEY_A, &heartbeat(1.0)).send(addr);
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Makes the server create what it creates on first use. Keep the connection while [`Holdings`] are
/// compared: one that is being closed may or may not count.
pub(crate) fn warm_up(addr: SocketAddr) -> Conn {
    let mut conn = Conn::open(addr);
    assert_eq!(conn.ping("honest", &heartbeat(1.0)).status, 200);
    for path in ["/api/v1/status", "/api/v1/agent-pools", "/readyz"] {
        conn.send(&Request::get(path).bytes());
        assert_eq!(conn.response().status, 200, "{path}");
    }
    conn
}

/// A heartbeat's body of about `bytes` bytes of tasks.
pub(crate) fn bulky_heartbeat(cpu_usage: f64, bytes: usize) -> Value {
    const TASK_BYTES: usize = 136;
    let tasks: Vec<Value> = (0..bytes.div_ceil(TASK_BYTES))
        .map(|task| {
            json!({
                "task_id": 1_000 + task,
                "task_type": "compile-and-link",
                "workspace_id": "workspace-of-some-length",
                "started_at": "2025-01-07T10:30:00Z",
            })
        })
        .collect();
    let mut body = heartbeat(cpu_usage);
    body["running_tasks"] = Value::Array(tasks);
    body
}

/// The resources of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) threads: u64,
    pub(crate) descriptors: usize,
}

impl Holdings {
    pub(crate) fn of(pid: u32) -> Self {
        Self { threads: process::threads(pid), descriptors: process::descriptors(pid) }
    }

    /// Waits until the process has no more than this.
    pub(crate) fn wait_for_return(self, pid: u32) {
        let deadline = Deadline::usual();
        loop {
            let now = Self::of(pid);
            if now.threads <= self.threads && now.descriptors <= self.descriptors {
                return;
            }
            let names = process::thread_names(pid);
            assert!(deadline.left().is_some(), "{self:?} before, {now:?} still: {names:?}");
            pause(Duration::from_millis(20));
        }
    }
}
