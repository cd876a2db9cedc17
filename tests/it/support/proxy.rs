//! A network between a client and a server that can be cut without a word, as when a cable is
//! pulled: nobody gets a FIN, nothing goes through, and new connections get no answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};

use super::wait::DEADLINE;

/// Forwards connections to one address. Ends, with all of them, when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    wire: Arc<Wire>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To the server at `target`.
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

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets nothing through, in either direction, until [`Proxy::heal`].
    pub(crate) fn cut(&self) {
        self.wire.state.lock().unwrap().cut = true;
    }

    /// Lets everything through again, what was under way first: TCP would send it again.
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
    /// Every socket, so that the threads that read them end.
    sockets: Vec<TcpStream>,
}

impl Wire {
    /// Forwards between `client` and the server from now on; `false` when all is over.
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
            // The end is news, too, and waits like all else.
            if !self.wait_for_passage() || read == 0 || to.write_all(&chunk[..read]).is_err() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Waits while the wire is cut; `false` when all is over.
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
