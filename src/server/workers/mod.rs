//! The tiny_http workers: take the requests that the door has checked and stamped, do what they ask,
//! and send the responses to the door. Own no state; talk to the hub through its handle. See no
//! client's own bytes but bodies, `If-None-Match` and `Content-Type`.

mod handlers;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tiny_http::{Header, Method, Server};

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::panic_text;
use crate::server::relay::{HEADER, Relayed, Responder};
use crate::wire::response::Response;

pub(crate) use handlers::{Handlers, SnapshotBody};

/// A request as the door passed it on.
#[derive(Debug)]
pub(crate) struct Request {
    /// One that the route allows; never HEAD.
    pub method: Method,
    /// The path, known to be a route.
    pub path: String,
    pub relayed: Relayed,
    /// The entity tags that the client has.
    pub if_none_match: Option<String>,
    /// Of a form, as the client said it.
    pub content_type: Option<String>,
    /// Whole, and within the door's limits.
    pub body: Vec<u8>,
}

/// What handles requests; a test may put in its own.
pub(crate) trait Handle: Send + Sync {
    /// The response to one request. A panic here makes it a 500.
    fn handle(&self, request: &Request) -> Response;
}

/// One backend: a tiny_http server on a Unix socket, with one pipe to it, and what its workers
/// share.
pub(crate) struct Workers {
    server: Server,
    handle: Arc<dyn Handle>,
    responder: Responder,
    clock: Clock,
    counters: Arc<Counters>,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("socket", &self.server.server_addr())
            .finish_non_exhaustive()
    }
}

impl Workers {
    #[must_use]
    pub(crate) fn new(
        server: Server,
        handle: Arc<dyn Handle>,
        responder: Responder,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Self {
        Self { server, handle, responder, clock, counters, is_stopping: AtomicBool::new(false) }
    }

    /// One worker's thread: serves requests until [`Workers::stop`].
    ///
    /// # Errors
    /// When tiny_http's accept loop is gone: no pipe could be made anew.
    pub(crate) fn work(&self) -> io::Result<()> {
        loop {
            match self.server.recv() {
                Ok(request) => self.serve(request),
                Err(_) if self.is_stopping.load(Ordering::Acquire) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends `count` workers, each once it has responded to the request that it serves.
    pub(crate) fn stop(&self, count: usize) {
        self.is_stopping.store(true, Ordering::Release);
        for _ in 0..count {
            self.server.unblock();
        }
    }

    fn serve(&self, mut inner: tiny_http::Request) {
        let request = self.read(&mut inner);
        // tiny_http writes nothing for a request whose writer was taken, and reads on in the pipe:
        // a body over 1,024 bytes would hold it up until the request is dropped.
        drop(inner.into_writer());
        match request {
            Ok(request) => {
                let number = request.relayed.stamp.number;
                self.responder.send(number, self.response(&request));
            }
            // It does not say whose request it is: the client gets the door's 503.
            Err(reason) => log::error!("the door passed on an invalid request: {reason}"),
        }
    }

    fn response(&self, request: &Request) -> Response {
        catch_unwind(AssertUnwindSafe(|| self.handle.handle(request))).unwrap_or_else(|panic| {
            self.counters.worker_panics.add_one();
            let text = panic_text(&*panic);
            log::error!("a handler panicked on {} {}: {text}", request.method, request.path);
            Response::problem(500, "internal error")
        })
    }

    fn read(&self, inner: &mut tiny_http::Request) -> Result<Request, &'static str> {
        let relayed = header(inner, HEADER).ok_or("the door's header is missing")?;
        let relayed =
            Relayed::parse(relayed, &self.clock).ok_or("the door's header is malformed")?;
        let mut body = Vec::with_capacity(inner.body_length().unwrap_or(0));
        inner.as_reader().read_to_end(&mut body).map_err(|_| "the body is cut short")?;
        Ok(Request {
            method: inner.method().clone(),
            path: inner.url().to_owned(),
            relayed,
            if_none_match: header(inner, "If-None-Match").map(str::to_owned),
            content_type: header(inner, "Content-Type").map(str::to_owned),
            body,
        })
    }
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    let named = |header: &&Header| header.field.equiv(name);
    request.headers().iter().find(named).map(|header| header.value.as_str())
}
