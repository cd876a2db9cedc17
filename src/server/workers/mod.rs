//! The tiny_http pool: takes the requests that the door has checked and stamped, does what they
//! ask, answers. Owns no state; talks to the hub through its handle. Sees no client's own bytes
//! but bodies and `If-None-Match`.

mod handlers;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tiny_http::{Header, Method, Server};

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::panic_text;
use crate::server::event::Stamp;
use crate::server::relay::{self, Caller};
use crate::wire::response::Response;

pub(crate) use handlers::Handlers;

/// A request as the door passed it on.
#[derive(Debug)]
pub(crate) struct Request {
    /// One that the route allows; never HEAD.
    pub method: Method,
    /// The path, known to be a route.
    pub path: String,
    /// Who calls.
    pub caller: Caller,
    /// When, and in which order.
    pub stamp: Stamp,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// The entity tags that the client has.
    pub if_none_match: Option<String>,
    /// Of a POST, as the client said it.
    pub content_type: Option<String>,
    /// Whole, and within the door's limits.
    pub body: Vec<u8>,
}

/// What answers requests; a test may put in its own.
pub(crate) trait Handle: Send + Sync {
    /// Answers one request. A panic here is answered with 500.
    fn handle(&self, request: &Request) -> Response;
}

/// One tiny_http server, on a Unix socket, with one pipe to it, and what its workers share.
pub(crate) struct Pool {
    server: Server,
    handle: Arc<dyn Handle>,
    clock: Clock,
    counters: Arc<Counters>,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("socket", &self.server.server_addr()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Workers on `server`, which is to answer through `handle`.
    #[must_use]
    pub(crate) fn new(
        server: Server,
        handle: Arc<dyn Handle>,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Self {
        Self { server, handle, clock, counters, stopping: AtomicBool::new(false) }
    }

    /// One worker's thread: answers requests until [`Pool::stop`].
    ///
    /// # Errors
    /// When tiny_http's accept loop is gone: no pipe could be made anew.
    pub(crate) fn work(&self) -> io::Result<()> {
        loop {
            match self.server.recv() {
                Ok(request) => self.serve(request),
                Err(_) if self.stopping.load(Ordering::Acquire) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends `workers` workers, each once it has answered what it has begun.
    pub(crate) fn stop(&self, workers: usize) {
        self.stopping.store(true, Ordering::Release);
        for _ in 0..workers {
            self.server.unblock();
        }
    }

    /// Answers one request.
    ///
    /// The answer is written as it is: tiny_http's own printing would make many writes, add
    /// headers, and choose encodings. It is flushed at once, since the handler of the next request
    /// may wait for the hub.
    fn serve(&self, mut inner: tiny_http::Request) {
        let request = self.read(&mut inner);
        // Taking the writer drops the request: nothing of it holds up the pipe while it is handled.
        let mut writer = inner.into_writer();
        let answer = match request {
            Ok(request) => self.answer(&request),
            Err(why) => {
                log::error!("the door passed on a request that makes no sense: {why}");
                Response::problem(500, "internal error")
            }
        };
        // A body of megabytes is not copied only to stand behind its head.
        let sent = writer
            .write_all(&answer.head_bytes())
            .and_then(|()| writer.write_all(answer.body.as_bytes()))
            .and_then(|()| writer.flush());
        if let Err(error) = sent {
            log::warn!("a pipe broke under an answer: {error}");
        }
    }

    fn answer(&self, request: &Request) -> Response {
        catch_unwind(AssertUnwindSafe(|| self.handle.handle(request))).unwrap_or_else(|panic| {
            self.counters.worker_panics.add_one();
            let text = panic_text(&*panic);
            log::error!("a handler panicked on {} {}: {text}", request.method, request.path);
            Response::problem(500, "internal error")
        })
    }

    fn read(&self, inner: &mut tiny_http::Request) -> Result<Request, &'static str> {
        let stamp = header(inner, relay::STAMP).ok_or("no stamp")?;
        let stamp = relay::decode_stamp(stamp, &self.clock).ok_or("a bad stamp")?;
        let caller = header(inner, relay::CALLER).ok_or("no caller")?;
        let caller = Caller::decode(caller).ok_or("a bad caller")?;
        let mut body = Vec::with_capacity(inner.body_length().unwrap_or(0));
        inner.as_reader().read_to_end(&mut body).map_err(|_| "a cut body")?;
        Ok(Request {
            method: inner.method().clone(),
            path: inner.url().to_owned(),
            caller,
            stamp,
            secure: header(inner, relay::SECURE).is_some(),
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
