//! The tiny_http workers: take batches of requests that the door has checked and stamped, do what they
//! ask, and send the responses to the door. Own no state; talk to the hub through its handle. See no
//! client's own bytes but bodies, a history's query, `If-None-Match` and `Content-Type`.

mod handlers;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tiny_http::Server;

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::panic_text;
use crate::server::relay::{Request, Responder};
use crate::wire::response::Response;

pub(crate) use handlers::{Handlers, SnapshotBody};

/// What handles requests; a test may put in its own.
pub(crate) trait Handle: Send + Sync {
    /// The response to one request. A panic here makes it a 500.
    fn handle(&self, request: &Request<'_>) -> Response;
}

/// One backend: a tiny_http server on a Unix socket, with one pipe to it, and what its workers
/// share.
pub(crate) struct Workers {
    server: Server,
    handle: Arc<dyn Handle>,
    responder: Responder,
    clock: Clock,
    /// For one batch; the same as the door's for one request.
    timeout: Duration,
    counters: Arc<Counters>,
    is_stopping: AtomicBool,
}

impl Workers {
    pub(crate) fn new(
        server: Server,
        handle: Arc<dyn Handle>,
        responder: Responder,
        clock: Clock,
        timeout: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        let is_stopping = AtomicBool::new(false);
        Self { server, handle, responder, clock, timeout, counters, is_stopping }
    }

    /// One worker's thread: serves requests until [`Workers::stop`].
    ///
    /// # Errors
    /// When tiny_http's accept loop is gone: no pipe could be made anew.
    pub(crate) fn work(&self) -> io::Result<()> {
        loop {
            match self.server.recv() {
                Ok(request) => self.serve(request),
                Err(_) if self.is_stopping.load(Ordering::Acquire) => {
                    // That wakes one worker only; each wakes the next.
                    self.server.unblock();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the workers, once they have responded to the batches that came before.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.server.unblock();
    }

    /// Responds to each request of a batch before the next is handled. Where a handler waits, for a
    /// hub that hangs, those behind it are not handled after the door has given them up.
    fn serve(&self, mut inner: tiny_http::Request) {
        let began = self.clock.now();
        let length = inner.body_length().unwrap_or(0);
        let mut batch = Vec::with_capacity(length);
        let read = inner.as_reader().read_to_end(&mut batch);
        // tiny_http writes nothing for a request whose writer was taken, and reads on in the pipe:
        // a body over 1,024 bytes would hold it up until the request is dropped.
        drop(inner.into_writer());
        if read.is_err() || batch.len() < length {
            // The door has ended, or connected anew and answered them itself.
            return log::debug!("a batch of requests is cut short");
        }
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let Some((request, others)) = Request::decode(rest, &self.clock) else {
                // It does not say whose request it is: the client gets the door's 503.
                return log::error!("the door passed on an invalid request");
            };
            let is_late = self.clock.now().saturating_duration_since(began) >= self.timeout;
            let response = if is_late {
                Response::problem(503, "the workers are overloaded")
            } else {
                self.response(&request)
            };
            self.responder.send(request.stamp.number, response);
            rest = others;
        }
    }

    fn response(&self, request: &Request<'_>) -> Response {
        catch_unwind(AssertUnwindSafe(|| self.handle.handle(request))).unwrap_or_else(|panic| {
            self.counters.worker_panics.add_one();
            let (head, text) = (&request.head, panic_text(&*panic));
            log::error!("a handler panicked on {} {}: {text}", head.method, head.path);
            Response::problem(500, "internal error")
        })
    }
}
