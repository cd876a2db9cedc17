//! What each route does: heartbeats and goodbyes to the hub; snapshots, histories and summaries from
//! it; the page, the login.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use form_urlencoded::parse as parse_form;
use serde::Deserialize;

use super::Handle;
use crate::dashboard::page;
use crate::runtime::clock::UnixMillis;
use crate::runtime::counters::Counters;
use crate::server::auth::{Gate, VIEWER_COOKIE, Viewer};
use crate::server::config::PoolConfig;
use crate::server::event::Verdict;
use crate::server::hub::{HubError, HubHandle};
use crate::server::relay::{Caller, Request};
use crate::server::route::{Route, history_agents};
use crate::wire::id::{AgentId, PoolIndex};
use crate::wire::response::{Body, Response, SharedBody};
use crate::wire::{self, ListedPool, Object, Ping};

/// How long a browser keeps the viewer's cookie, in seconds: wall screens run for weeks.
const COOKIE_SECONDS: u32 = 30 * 24 * 60 * 60;

/// How long a snapshot's body is shared, in milliseconds: readers tell by its `server_time` which
/// agents are late, to the second, also while nothing changes because all agents are dead.
const SHARED_BODY_MS: u64 = 1_000;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Handlers {
    pub hub: HubHandle,
    /// In the configuration's order.
    pub pools: Vec<PoolConfig>,
    /// For the login.
    pub gate: Arc<Gate>,
    /// This run of the server.
    pub epoch: Arc<str>,
    /// When it started.
    pub started_at: UnixMillis,
    pub counters: Arc<Counters>,
    /// By pool.
    pub snapshot_bodies: Vec<SnapshotBody>,
}

/// The body of a pool's last snapshot, as long as a response holds it: several clients that read
/// the same state at about the same time share it.
#[derive(Debug, Default)]
pub(crate) struct SnapshotBody(Mutex<LastBody>);

#[derive(Debug, Default)]
struct LastBody {
    version: u64,
    server_time_ms: u64,
    bytes: Weak<SharedBody>,
}

impl SnapshotBody {
    /// The body for the state `version` at this time: the last one, or one that `encode` makes.
    fn get(&self, version: u64, server_time: UnixMillis, encode: impl FnOnce() -> Vec<u8>) -> Body {
        let server_time_ms = server_time.0;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.version == version
            && last.server_time_ms.abs_diff(server_time_ms) < SHARED_BODY_MS
            && let Some(bytes) = last.bytes.upgrade()
        {
            return Body::Shared(bytes);
        }
        let bytes = SharedBody::new(encode());
        *last = LastBody { version, server_time_ms, bytes: Arc::downgrade(&bytes) };
        Body::Shared(bytes)
    }
}

/// Without a reply from the hub, the response is a 503.
type Handled = Result<Response, HubError>;

impl Handle for Handlers {
    fn handle(&self, request: &Request<'_>) -> Response {
        let response = self.respond(request);
        response.unwrap_or_else(|error| Response::problem(503, &error.to_string()))
    }
}

impl Handlers {
    fn respond(&self, request: &Request<'_>) -> Handled {
        let Ok(route) = Route::parse(request.head.path) else {
            return Ok(Response::problem(404, "no such path"));
        };
        Ok(match (route, request.head.caller) {
            (Route::Ping(agent), Caller::Agent(pool)) => self.ping(pool, agent, request)?,
            (Route::Agent(agent), Caller::Agent(pool)) => self.remove(pool, agent, request)?,
            (Route::Pools, Caller::Viewer(viewer)) => self.pools(viewer)?,
            (Route::Metrics(pool), Caller::Viewer(_)) => self.metrics(&pool)?,
            (Route::History(pool), Caller::Viewer(_)) => self.history(&pool, request)?,
            (Route::Status, Caller::Viewer(_)) => self.status(),
            (Route::Ready, _) => self.ready()?,
            (Route::Login, _) if request.head.method == "POST" => self.login(request),
            (Route::Logout, _) => logged(request, "", 0),
            (Route::Login | Route::Page, _) => {
                page::answer(request.head.path, request.head.if_none_match)
            }
            _ => Response::problem(500, "internal error"),
        })
    }

    fn ping(&self, pool: PoolIndex, agent: AgentId, request: &Request<'_>) -> Handled {
        let stamp = request.stamp;
        let verdict = match wire::read_ping(request.body, &agent, stamp.wall) {
            Ok(Ping::Metrics(metrics)) => self.hub.heartbeat(pool, agent, metrics, stamp)?,
            Ok(Ping::Goodbye) => {
                self.hub.goodbye(pool, agent, stamp)?;
                Verdict::Accepted
            }
            Err(why) => return Ok(Response::problem(400, &why)),
        };
        Ok(match verdict {
            // A stale one was received as well: what came later stands for it.
            Verdict::Accepted | Verdict::Stale => {
                Response::json(200, wire::ping_received(stamp.wall))
            }
            Verdict::TooManyAgents => Response::problem(
                503,
                "the pool is full (max_agents_per_pool) and this agent is not known in it",
            ),
            Verdict::TooManyBytes => {
                Response::problem(503, "the pool's memory is full (max_pool_bytes)")
            }
        })
    }

    fn remove(&self, pool: PoolIndex, agent: AgentId, request: &Request<'_>) -> Handled {
        let body = wire::departed_answer(&agent);
        Ok(if self.hub.remove(pool, agent, request.stamp)? {
            Response::json(200, body)
        } else {
            Response::problem(404, "no such agent in the key's pool")
        })
    }

    fn pools(&self, viewer: Viewer) -> Handled {
        let summaries = self.hub.summaries()?;
        let pools = self.pools.iter().zip(&summaries).enumerate();
        let visible = pools.filter(|(index, _)| viewer.sees(PoolIndex(*index)));
        let listed = visible.map(|(_, (pool, summary))| ListedPool {
            pool_id: pool.id.as_str(),
            name: &pool.name,
            app_keys: (viewer == Viewer::All).then_some(&*pool.app_keys),
            summary,
        });
        Ok(Response::json(200, wire::pool_list(&listed.collect::<Vec<_>>())))
    }

    /// The door knows that the viewer may see the pool.
    fn metrics(&self, pool: &str) -> Handled {
        let Some(index) = self.index(pool) else {
            return Ok(Response::problem(404, "no such pool"));
        };
        let snapshot = self.hub.snapshot(PoolIndex(index))?;
        let (id, shared) = (&self.pools[index].id, &self.snapshot_bodies[index]);
        let (version, server_time) = (snapshot.version, snapshot.server_time);
        let encode = || snapshot.text(id, &self.epoch).into_bytes();
        Ok(Response::json(200, shared.get(version, server_time, encode)))
    }

    /// As above.
    fn history(&self, pool: &str, request: &Request<'_>) -> Handled {
        let Some(index) = self.index(pool) else {
            return Ok(Response::problem(404, "no such pool"));
        };
        let agents = match history_agents(request.head.query) {
            Ok(agents) => agents,
            Err(why) => return Ok(Response::problem(400, &why)),
        };
        let history = self.hub.history(PoolIndex(index), agents)?;
        Ok(Response::json(200, history.text(&self.pools[index].id, &self.epoch)))
    }

    fn index(&self, pool: &str) -> Option<usize> {
        self.pools.iter().position(|known| known.id.as_str() == pool)
    }

    fn status(&self) -> Response {
        let body = wire::status(&self.epoch, self.started_at, self.counters.read());
        Response::json(200, body)
    }

    /// The hub replies, and everything on the way to here has worked.
    fn ready(&self) -> Handled {
        self.hub.alive()?;
        Ok(Response::json(200, Body::Static(b"{\"status\":\"ok\"}")))
    }

    fn login(&self, request: &Request<'_>) -> Response {
        let Some(token) = login_token(request.body, is_json(request)) else {
            return Response::problem(
                400,
                "the body must hold the token: {\"token\": \"...\"} as application/json, or token=... as a form",
            );
        };
        // What a cookie can carry (RFC 6265 section 4.1.1) every token that `init` makes is of.
        let fits =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
        if self.gate.viewer(Some(&token)).is_none() || !token.bytes().all(fits) {
            let response = if request.head.prefers_html && !is_json(request) {
                page::login_failed()
            } else {
                Response::problem(401, "wrong viewer token")
            };
            return response.with_header("WWW-Authenticate", "Bearer realm=\"agent-metrics\"");
        }
        logged(request, &token, COOKIE_SECONDS)
    }
}

/// In, with a `token`, or out, without one and a cookie that is over at once. A form is sent on to
/// the page, a script is told that it worked.
fn logged(request: &Request<'_>, token: &str, max_age_seconds: u32) -> Response {
    // A browser lets only a secure answer replace a secure cookie.
    let secure = if request.head.is_secure { "; Secure" } else { "" };
    let cookie = format!(
        "{VIEWER_COOKIE}={token}; Path=/; Max-Age={max_age_seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let is_json = is_json(request);
    let response = Response::empty(if is_json { 204 } else { 303 })
        .with_header("Cache-Control", "no-store")
        .with_header("Set-Cookie", cookie);
    if is_json { response } else { response.with_header("Location", "/") }
}

fn is_json(request: &Request<'_>) -> bool {
    let kind = request.head.content_type.unwrap_or_default();
    kind.to_ascii_lowercase().starts_with("application/json")
}

fn login_token(body: &[u8], is_json: bool) -> Option<String> {
    #[derive(Deserialize)]
    struct Login {
        token: String,
    }
    if is_json {
        return serde_json::from_slice(body).ok().map(|Object(Login { token })| token);
    }
    parse_form(body).find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_one_state_share_its_body_while_one_of_them_holds_it() {
        let shared = SnapshotBody::default();
        let made = |version, text: &str| shared.get(version, UnixMillis(0), || text.into());
        let first = made(1, "first");
        assert_eq!(made(1, "first again").as_bytes(), b"first");
        assert_eq!(made(2, "second").as_bytes(), b"second", "another state");
        assert_eq!(made(1, "first again").as_bytes(), b"first again", "only the last is shared");
        drop(first);
        assert_eq!(made(1, "at last").as_bytes(), b"at last", "nobody held it");
    }

    /// All agents are dead, so that nothing changes, and a slow client holds a body.
    #[test]
    fn a_body_is_not_shared_when_its_server_time_is_old() {
        let shared = SnapshotBody::default();
        let made = |time, text: &str| shared.get(1, UnixMillis(time), || text.into());
        let slow = made(10_000, "slow");
        assert_eq!(made(10_999, "soon").as_bytes(), b"slow");
        assert_eq!(made(11_000, "late").as_bytes(), b"late", "measured from when it was made");
        assert_eq!(made(9_000, "set back").as_bytes(), b"set back", "the clock was set");
        drop(slow);
    }
}
