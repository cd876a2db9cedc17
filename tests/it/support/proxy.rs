//! A proxy that can be cut like a cable: then no data and no FIN gets through in either direction,
//! and new connections get no response.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};

use super::wait::DEADLINE;

/// Forwards connections to one address; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    wire: Arc<Wire>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let wire = Arc::new(Wire { target, state: Mutex::default(), changed: Condvar::new() });
        let shared = Arc::clone(&wire);
        let accept = move || {
            for client in listener.incoming().flatten() {
                if !Wire::connect(&shared, client) {
                    return;
                }
            }
        };
        let acceptor = Some(Builder::new().name("proxy".to_owned()).spawn(accept).unwrap());
        Self { addr, wire, acceptor }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Until [`Proxy::heal`].
    pub(crate) fn cut(&self) {
        self.wire.state.lock().unwrap().cut = true;
    }

    /// Forwards again, first what was held back, as TCP would retransmit it.
    pub(crate) fn heal(&self) {
        self.wire.state.lock().unwrap().cut = false;
        self.wire.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.end();
        // Wakes the acceptor.
        let _ = TcpStream::connect_timeout(&self.addr, DEADLINE);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Wire {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    ended: bool,
    /// All sockets: shutting them down ends the threads that read them.
    sockets: Vec<TcpStream>,
}

impl Wire {
    /// Starts to forward between `client` and the server; `false` after the end.
    fn connect(wire: &Arc<Self>, client: TcpStream) -> bool {
        let Ok(server) = TcpStream::connect_timeout(&wire.target, DEADLINE) else {
            return !wire.state.lock().unwrap().ended;
        };
        {
            let mut state = wire.state.lock().unwrap();
            if state.ended {
                return false;
            }
            state.sockets.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        }
        let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
        for (from, to) in [(client, server), back] {
            let wire = Arc::clone(wire);
            let pump = move || wire.pump(from, to);
            Builder::new().name("proxy-pump".to_owned()).spawn(pump).unwrap();
        }
        true
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = [0; 16 * 1024];
        loop {
            let read = from.read(&mut chunk).unwrap_or(0);
            // The end is held back like data.
            if !self.wait_for_passage() || read == 0 || to.write_all(&chunk[..read]).is_err() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Waits while the wire is cut; `false` after the end.
    fn wait_for_passage(&self) -> bool {
        let state = self.state.lock().unwrap();
        let held = |state: &mut State| state.cut && !state.ended;
        !self.changed.wait_while(state, held).unwrap().ended
    }

    fn end(&self) {
        let mut state = self.state.lock().unwrap();
        state.ended = true;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
}
