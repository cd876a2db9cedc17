//! What becomes of a request, decided from its head alone: route, then credentials, then the size
//! of the body. Pure, given the gate; reads no socket and sends nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::cors::{self, Cors};
use super::head::{Fields, Head};
use super::refusals::{Cause, Refusal, Requester};
use crate::dashboard::page;
use crate::server::auth::{Gate, Viewer, presented_token};
use crate::server::feed::FeedId;
use crate::server::limits::MAX_BODY_BYTES;
use crate::server::relay::{Caller, EncodedRequest, RequestHead};
use crate::server::route::{NoRoute, Route, history_agents};
use crate::wire::KIB;
use crate::wire::id::{PoolId, PoolIndex};
use crate::wire::response::{Body, Response};

/// Largest body of `POST /login`, in bytes: one token in a form.
const MAX_LOGIN_BYTES: usize = 4 * KIB;

/// What was decided of a request.
#[derive(Debug)]
pub(super) struct Decision {
    /// Whose request it is: the peer's, or that of whom a trusted proxy names.
    pub(super) client: IpAddr,
    /// What the response, whatever it is, says of origins.
    pub(super) cors: Cors,
    pub(super) action: Action,
}

/// What a head leads to.
#[derive(Debug)]
pub(super) enum Action {
    /// This response, whether or not a body follows; with a refusal where that is to be noted.
    Respond(Response, Option<Refusal>),
    /// The response of `/livez`, which needs no worker: it says that the door's loop runs.
    Live,
    /// A worker's response.
    Relay(Relay),
    /// A dashboard.
    Upgrade(Handshake),
}

/// Two ways to the workers, each a tiny_http server of its own, so that a large snapshot delays no
/// heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// Heartbeats, goodbyes and `/readyz`.
    Ingest,
    /// Everything else.
    Reads,
}

/// A request on its way to a worker.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) backend: Backend,
    /// The agent, when it is an agent's request.
    pub(super) requester: Option<Requester>,
    /// The agent's pool, when it is a heartbeat.
    pub(super) heartbeat_of: Option<PoolIndex>,
    pub(super) request: EncodedRequest,
    /// Whether the worker gets the body; otherwise it is read and dropped.
    pub(super) wants_body: bool,
}

/// A WebSocket handshake that may go on.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) accept_key: String,
    pub(super) feed: FeedId,
}

/// A refusal that is not noted yet.
struct Refused {
    response: Response,
    /// None for those that are not noted.
    cause: Option<Cause>,
    why: Option<String>,
}

impl Refused {
    fn new(cause: Cause, response: Response, why: Option<&str>) -> Self {
        Self { response, cause: Some(cause), why: why.map(str::to_owned) }
    }

    fn heartbeat(status: u16, detail: &str) -> Self {
        Self::new(Cause::BadHeartbeat, Response::problem(status, detail), Some(detail))
    }
}

impl From<Response> for Refused {
    fn from(response: Response) -> Self {
        Self { response, cause: None, why: None }
    }
}

/// What decisions go by.
pub(super) struct Policy {
    /// Also knows what the log may show, and what is a secret.
    pub(super) gate: Arc<Gate>,
    pools: HashMap<PoolId, PoolIndex>,
}

impl Policy {
    /// `pools` in the order of their [`PoolIndex`].
    pub(super) fn new(gate: Arc<Gate>, pools: Vec<PoolId>) -> Self {
        let pools = pools.into_iter().enumerate().map(|(n, id)| (id, PoolIndex(n))).collect();
        Self { gate, pools }
    }

    /// Decides on the request of `peer`, in the contract's order.
    pub(super) fn decide(&self, head: &Head<'_>, peer: IpAddr) -> Decision {
        let client = self.gate.client_address(peer, head.fields.forwarded_for.as_deref());
        let mut requester = Requester { app_key: head.fields.app_key.map(Into::into), agent: None };
        let (cors, action) = match Route::parse(head.path) {
            Ok(route) => {
                requester.agent = route.agent().cloned();
                if requester.agent.is_none() {
                    requester.app_key = None;
                }
                let cors = Cors::of(&route, head.fields.origin, &self.gate);
                (cors, self.check(&route, cors, head, peer))
            }
            Err(no_route) => (Cors::Silent, Err(refuse_path(no_route, head))),
        };
        let action = match action {
            Ok(Action::Relay(relay)) => Action::Relay(Relay {
                requester: requester.agent.is_some().then_some(requester),
                ..relay
            }),
            Ok(action) => action,
            Err(Refused { response, cause, why }) => {
                let refusal = cause.map(|cause| Refusal { cause, address: client, requester, why });
                Action::Respond(response, refusal)
            }
        };
        Decision { client, cors, action }
    }

    fn check(
        &self,
        route: &Route,
        cors: Cors,
        head: &Head<'_>,
        peer: IpAddr,
    ) -> Result<Action, Refused> {
        if cors::is_preflight(route, head.method, &head.fields) {
            self.check_browser(head, peer)?;
            // Our own page never asks: what is not listed here falls through to the 405.
            if matches!(cors, Cors::Shared(_)) {
                return Ok(Action::Respond(cors::permission(), None));
            }
        }
        if !route.allows(head.method) {
            return Err(Response::problem(405, "this path does not take this method")
                .with_header("Allow", route.allow())
                .into());
        }
        let caller = match route {
            Route::Live | Route::Ready => Caller::Nobody,
            Route::Ping(_) | Route::Agent(_) => {
                // A secret header that no page knows is guard enough, where it is one.
                if self.gate.has_public_secrets {
                    self.check_browser(head, peer)?;
                }
                Caller::Agent(self.agent(&head.fields)?)
            }
            Route::Page | Route::Login | Route::Logout => {
                self.check_browser(head, peer)?;
                Caller::Nobody
            }
            Route::Pools => Caller::Viewer(self.viewer(head, peer)?),
            Route::Status => match self.viewer(head, peer)? {
                Viewer::All => Caller::Viewer(Viewer::All),
                Viewer::Pool(_) => return Err(Response::problem(404, "no such path").into()),
            },
            Route::Metrics(pool) | Route::History(pool) => {
                let viewer = self.viewer(head, peer)?;
                self.pool(pool, viewer)?;
                Caller::Viewer(viewer)
            }
            Route::Feed(pool) => {
                let viewer = self.viewer(head, peer)?;
                let pool = self.pool(pool, viewer)?;
                let accept_key = handshake(head)?;
                let feed = FeedId::of_pool(pool, head.query)
                    .map_err(|rule| Response::problem(400, &rule))?;
                return Ok(Action::Upgrade(Handshake { accept_key, feed }));
            }
            // Its query is looked at for the token only: it has one rhythm, which is no client's choice.
            Route::Overview => {
                let feed = match self.viewer(head, peer)? {
                    Viewer::All => FeedId::AllPools,
                    Viewer::Pool(pool) => FeedId::OnePool(pool),
                };
                return Ok(Action::Upgrade(Handshake { accept_key: handshake(head)?, feed }));
            }
        };
        let posts_login = *route == Route::Login && head.method == "POST";
        let wants_body = posts_login || matches!(route, Route::Ping(_));
        let max_body = if posts_login { MAX_LOGIN_BYTES } else { MAX_BODY_BYTES };
        let refuse = |status, detail: &str| match caller {
            Caller::Agent(_) => Err(Refused::heartbeat(status, detail)),
            _ => Err(Response::problem(status, detail).into()),
        };
        match head.fields.content_length {
            None if wants_body => return refuse(411, "Content-Length is needed"),
            Some(length) if length > max_body as u64 => {
                return refuse(413, &format!("the body must be at most {max_body} bytes"));
            }
            _ => {}
        }
        if *route == Route::Live {
            return Ok(Action::Live);
        }
        let reads_history = matches!(route, Route::History(_));
        if reads_history && let Err(why) = history_agents(head.query) {
            return Err(Response::problem(400, &why).into());
        }
        // The state or history of a large pool takes longer than HEAD is worth.
        if head.method == "HEAD" && (reads_history || matches!(route, Route::Metrics(_))) {
            return Ok(Action::Respond(Response::json(200, Body::default()), None));
        }
        let backend = match route {
            // `/readyz` asks whether heartbeats can be taken, and no snapshot may delay it.
            Route::Ping(_) | Route::Agent(_) | Route::Ready => Backend::Ingest,
            _ => Backend::Reads,
        };
        let fields = &head.fields;
        let scheme = self.gate.client_scheme(peer, fields.forwarded_proto.as_deref());
        let names_type = posts_login || *route == Route::Logout;
        let length = fields.content_length.filter(|_| wants_body).unwrap_or_default();
        let head = RequestHead {
            // The door leaves the body out for HEAD, so that a worker need not know of it.
            method: if head.method == "HEAD" { "GET" } else { head.method },
            path: head.path,
            query: head.query.filter(|_| reads_history),
            caller,
            is_secure: scheme == Some("https"),
            if_none_match: fields.if_none_match.as_deref(),
            content_type: fields.content_type.filter(|_| names_type),
            prefers_html: posts_login && fields.prefers_html,
            body_bytes: usize::try_from(length).unwrap_or(usize::MAX),
        };
        let request = EncodedRequest::new(&head);
        let heartbeat_of = match (route, caller) {
            (Route::Ping(_), Caller::Agent(pool)) => Some(pool),
            _ => None,
        };
        Ok(Action::Relay(Relay { backend, requester: None, heartbeat_of, request, wants_body }))
    }

    /// Unknown key and wrong secret look the same to the client.
    fn agent(&self, fields: &Fields<'_>) -> Result<PoolIndex, Refused> {
        let refused = |cause, detail, why| {
            let response = Response::problem(401, detail)
                .with_header("WWW-Authenticate", "AppKey realm=\"agent-metrics\"");
            Refused::new(cause, response, why)
        };
        let missing = |detail| refused(Cause::MissingHeader, detail, Some(detail));
        let (key, secret) = match (fields.app_key, fields.app_secret) {
            (Some(key), Some(secret)) => (key, secret),
            (Some(_), None) => return Err(missing("X-App-Secret is missing")),
            (None, Some(_)) => return Err(missing("X-App-Key is missing")),
            (None, None) => return Err(missing("X-App-Key and X-App-Secret are missing")),
        };
        self.gate.agent(key, secret).ok_or_else(|| {
            let known = self.gate.has_key(key);
            let cause = if known { Cause::WrongSecret } else { Cause::UnknownKey };
            refused(cause, "X-App-Key and X-App-Secret do not match a known key", None)
        })
    }

    /// Guards against pages of others: DNS rebinding (Host) and cross-site requests (Origin).
    fn check_browser(&self, head: &Head<'_>, peer: IpAddr) -> Result<(), Refused> {
        let fields = &head.fields;
        let host = fields.host.ok_or_else(|| Response::problem(400, "Host is missing"))?;
        if !self.gate.host_allowed(host) {
            let response =
                Response::problem(421, "this Host is not served here; see allowed_hosts");
            return Err(Refused::new(Cause::ForeignHost, response, Some(host)));
        }
        let scheme = self.gate.client_scheme(peer, fields.forwarded_proto.as_deref());
        if let Some(origin) = fields.origin
            && !self.gate.origin_allowed(origin, host, scheme)
        {
            let response = Response::problem(
                403,
                "this Origin is neither this server's, with its scheme, nor listed; see \
                 allowed_origins, and behind a proxy with TLS trusted_proxies",
            );
            return Err(Refused::new(Cause::ForeignOrigin, response, Some(origin)));
        }
        Ok(())
    }

    fn viewer(&self, head: &Head<'_>, peer: IpAddr) -> Result<Viewer, Refused> {
        let fields = &head.fields;
        self.check_browser(head, peer)?;
        let token = presented_token(fields.authorization, head.query, fields.cookie.as_deref());
        self.gate.viewer(token.as_deref()).ok_or_else(|| {
            let detail = "a viewer token is needed, and none or a wrong one was sent";
            let response = Response::problem(401, detail)
                .with_header("WWW-Authenticate", "Bearer realm=\"agent-metrics\"");
            let cause = token.as_ref().map_or(Cause::MissingToken, |_| Cause::WrongToken);
            Refused::new(cause, response, None)
        })
    }

    /// Unknown and not theirs look the same.
    fn pool(&self, id: &str, viewer: Viewer) -> Result<PoolIndex, Response> {
        let pool = self.pools.get(id).copied().filter(|pool| viewer.sees(*pool));
        pool.ok_or_else(|| Response::problem(404, "no such pool"))
    }
}

fn refuse_path(no_route: NoRoute, head: &Head<'_>) -> Refused {
    let (detail, method) = (no_route.to_string(), head.method);
    let is_visit = matches!(method, "GET" | "HEAD") && head.fields.prefers_html;
    let is_for_programs = ["/api/", "/ws/"].iter().any(|root| head.path.starts_with(root));
    match no_route {
        NoRoute::Unknown if is_visit && !is_for_programs => page::not_found().into(),
        NoRoute::Unknown => Response::problem(404, &detail).into(),
        // Agents use no other methods.
        NoRoute::BadAgentId if matches!(method, "POST" | "DELETE") => {
            Refused::heartbeat(400, &detail)
        }
        NoRoute::BadAgentId => Response::problem(400, &detail).into(),
    }
}

/// The value of `Sec-WebSocket-Accept` for a handshake that is in order (RFC 6455 section
/// 4.2.1).
fn handshake(head: &Head<'_>) -> Result<String, Response> {
    let fields = &head.fields;
    let is_version = fields.websocket_version == Some("13");
    if head.method != "GET" || !fields.wants_websocket || !is_version {
        return Err(Response::problem(426, "this path takes a WebSocket upgrade, version 13")
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13")
            .with_header("Connection", "upgrade"));
    }
    if fields.content_length.is_some_and(|length| length > 0) {
        return Err(Response::problem(400, "a WebSocket handshake has no body"));
    }
    match fields.websocket_key.filter(|key| is_websocket_key(key)) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => Err(Response::problem(400, "Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// Base64 of 16 bytes: 22 digits and two signs of padding.
fn is_websocket_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.bytes().all(digit))
}
