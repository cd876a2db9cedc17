//! What becomes of a request, from its head alone: route, then credentials, then the size of
//! the body. Pure, given the gate; reads no socket and answers nobody.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::cors::{self, Cors, Origins};
use super::lanes::Lane;
use super::parse::{Fields, Head, Version};
use crate::answer::{Answer, Body};
use crate::auth::{Gate, Scheme, Viewer, presented_token};
use crate::id::{PoolId, PoolIndex};
use crate::limits::KIB;
use crate::relay::{self, Caller};
use crate::route::{NoRoute, Route};

/// Largest body of `POST /login`, in bytes: one token in a form.
const MAX_LOGIN_BYTES: usize = 4 * KIB;

/// What a checked head leads to.
#[derive(Debug)]
pub(super) enum Decision {
    /// To an answer from the head alone: a refusal, the word on a preflight, or that of HEAD.
    Answer(Answer),
    /// To the word that this loop turns, given on the spot.
    Live,
    /// To a worker.
    Relay(Relay),
    /// To a dashboard.
    Upgrade(Handshake),
}

/// A request on its way to a worker.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) lane: Lane,
    /// Canonical request line and headers; the stamp and the empty line are still missing.
    pub(super) head: Vec<u8>,
    /// Whether the worker gets the body; otherwise it is read and dropped.
    pub(super) wants_body: bool,
}

/// A WebSocket handshake that may go on.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) accept_key: String,
    pub(super) pool: PoolIndex,
    /// Whom the dashboard counts for.
    pub(super) address: IpAddr,
}

/// What the checks go by.
pub(super) struct Rules {
    gate: Arc<Gate>,
    origins: Origins,
    pools: HashMap<PoolId, PoolIndex>,
    max_body_bytes: usize,
}

impl Rules {
    /// `pools` in the order of their [`PoolIndex`].
    pub(super) fn new(gate: Arc<Gate>, pools: Vec<PoolId>, max_body_bytes: usize) -> Self {
        let pools = pools.into_iter().enumerate().map(|(n, id)| (id, PoolIndex(n))).collect();
        Self { origins: Origins::new(&gate), gate, pools, max_body_bytes }
    }

    /// Whether `peer` is exempt from the cap on connections of one address.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.gate.trusts(peer)
    }

    /// The header lines that say `cors`.
    pub(super) fn cors_lines(&self, cors: Cors) -> &str {
        self.origins.lines(cors)
    }

    /// Decides, in the contract's order; and what the answer, whatever it is, says of origins.
    pub(super) fn decide(&self, head: &Head<'_>, peer: IpAddr) -> (Decision, Cors) {
        let route = match Route::parse(head.path) {
            Ok(route) => route,
            Err(none) => {
                let status = if none == NoRoute::Unknown { 404 } else { 400 };
                let refusal = Answer::problem(status, &none.detail());
                return (Decision::Answer(refusal), Cors::Silent);
            }
        };
        let cors = self.origins.judge(&route, head.fields.origin);
        let decision = self.check(route, cors, head, peer);
        (decision.unwrap_or_else(Decision::Answer), cors)
    }

    fn check(
        &self,
        route: Route,
        cors: Cors,
        head: &Head<'_>,
        peer: IpAddr,
    ) -> Result<Decision, Answer> {
        if cors::is_preflight(&route, head.method, &head.fields) {
            self.check_browser(head, peer)?;
            // Our own page never asks: what is not listed here falls through to the 405.
            if matches!(cors, Cors::Shared(_)) {
                return Ok(Decision::Answer(cors::permission()));
            }
        }
        if !route.allows(head.method) {
            return Err(Answer::problem(405, "this path does not take this method")
                .with_header("Allow", route.allow()));
        }
        let posts_login = route == Route::Login && head.method == "POST";
        let posts_form = posts_login || route == Route::Logout;
        let caller = match &route {
            Route::Live | Route::Ready => Caller::Nobody,
            Route::Ping(_) | Route::Agent(_) => {
                // A secret header that no page knows is guard enough, where it is one.
                if self.gate.has_public_secrets() {
                    self.check_browser(head, peer)?;
                }
                Caller::Agent(self.agent(&head.fields)?)
            }
            Route::Page(_) | Route::Login | Route::Logout => {
                self.check_browser(head, peer)?;
                Caller::Nobody
            }
            Route::Pools => Caller::Viewer(self.viewer(head, peer)?),
            Route::Status => match self.viewer(head, peer)? {
                Viewer::All => Caller::Viewer(Viewer::All),
                Viewer::Pool(_) => return Err(Answer::problem(404, "no such path")),
            },
            Route::Metrics(pool) => {
                let viewer = self.viewer(head, peer)?;
                self.pool(pool, viewer)?;
                Caller::Viewer(viewer)
            }
            Route::Feed(pool) => {
                let viewer = self.viewer(head, peer)?;
                let pool = self.pool(pool, viewer)?;
                let accept_key = handshake(head)?;
                let address = self.gate.client_address(peer, head.fields.forwarded_for.as_deref());
                return Ok(Decision::Upgrade(Handshake { accept_key, pool, address }));
            }
        };
        let wants_body = posts_login || matches!(route, Route::Ping(_));
        let max_body = if posts_login { MAX_LOGIN_BYTES } else { self.max_body_bytes };
        check_body(&head.fields, wants_body, max_body)?;
        if route == Route::Live {
            return Ok(Decision::Live);
        }
        // A snapshot of a large pool takes longer than HEAD is worth.
        if head.method == "HEAD" && matches!(route, Route::Metrics(_)) {
            return Ok(Decision::Answer(Answer::json(200, Body::Static(b""))));
        }
        let lane = match route {
            // Ready is who can take heartbeats; and no snapshot may hold up the answer.
            Route::Ping(_) | Route::Agent(_) | Route::Ready => Lane::Ingest,
            _ => Lane::Reads,
        };
        let head = self.canonical_head(head, caller, wants_body, posts_form, peer);
        Ok(Decision::Relay(Relay { lane, head, wants_body }))
    }

    /// Unknown key and wrong secret look the same.
    fn agent(&self, fields: &Fields<'_>) -> Result<PoolIndex, Answer> {
        fields
            .app_key
            .zip(fields.app_secret)
            .and_then(|(key, secret)| self.gate.agent(key, secret))
            .ok_or_else(|| {
                Answer::problem(401, "X-App-Key and X-App-Secret do not match a known key")
                    .with_header("WWW-Authenticate", "AppKey realm=\"agent-metrics\"")
            })
    }

    /// Guards against pages of others: DNS rebinding (Host) and cross-site requests (Origin).
    fn check_browser(&self, head: &Head<'_>, peer: IpAddr) -> Result<(), Answer> {
        let fields = &head.fields;
        let host = fields.host.ok_or_else(|| Answer::problem(400, "Host is missing"))?;
        if !self.gate.host_allowed(host) {
            return Err(Answer::problem(421, "this Host is not served here; see allowed_hosts"));
        }
        let scheme = self.gate.client_scheme(peer, fields.forwarded_proto);
        if fields.origin.is_some_and(|origin| !self.gate.origin_allowed(origin, host, scheme)) {
            return Err(Answer::problem(
                403,
                "this Origin is neither this server's, with its scheme, nor listed; see \
                 allowed_origins, and behind a proxy with TLS trusted_proxies",
            ));
        }
        Ok(())
    }

    fn viewer(&self, head: &Head<'_>, peer: IpAddr) -> Result<Viewer, Answer> {
        let fields = &head.fields;
        self.check_browser(head, peer)?;
        let token = presented_token(fields.authorization, head.query, fields.cookie.as_deref());
        self.gate.viewer(token.as_deref()).ok_or_else(|| {
            Answer::problem(401, "a viewer token is needed, and none or a wrong one was sent")
                .with_header("WWW-Authenticate", "Bearer realm=\"agent-metrics\"")
        })
    }

    /// Unknown and not theirs look the same.
    fn pool(&self, id: &str, viewer: Viewer) -> Result<PoolIndex, Answer> {
        let pool = self.pools.get(id).copied().filter(|pool| viewer.sees(*pool));
        pool.ok_or_else(|| Answer::problem(404, "no such pool"))
    }

    /// The head that the worker gets: written anew, never the client's own bytes except a path
    /// that [`Route::parse`] knows and two values of visible ASCII.
    fn canonical_head(
        &self,
        head: &Head<'_>,
        caller: Caller,
        wants_body: bool,
        posts_form: bool,
        peer: IpAddr,
    ) -> Vec<u8> {
        // The door cuts the body off for HEAD, so that a worker need not know of it.
        let method = if head.method == "HEAD" { "GET" } else { head.method };
        let fields = &head.fields;
        let mut out = Vec::with_capacity(256);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{method} {} HTTP/1.1\r\n", head.path);
        let _ = write!(out, "{}: {}\r\n", relay::CALLER, caller.encode());
        if let Some(length) = fields.content_length.filter(|_| wants_body) {
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        if let Some(tags) = fields.if_none_match.as_deref() {
            let _ = write!(out, "If-None-Match: {tags}\r\n");
        }
        if let Some(kind) = fields.content_type.filter(|_| posts_form) {
            let _ = write!(out, "Content-Type: {kind}\r\n");
        }
        if self.gate.client_scheme(peer, fields.forwarded_proto) == Some(Scheme::Https) {
            let _ = write!(out, "{}: 1\r\n", relay::SECURE);
        }
        out
    }
}

fn check_body(fields: &Fields<'_>, needed: bool, max: usize) -> Result<(), Answer> {
    match fields.content_length {
        None if needed => Err(Answer::problem(411, "Content-Length is needed")),
        Some(length) if length > max as u64 => {
            Err(Answer::problem(413, &format!("the body must be at most {max} bytes")))
        }
        _ => Ok(()),
    }
}

/// The value of `Sec-WebSocket-Accept` for a handshake that is in order (RFC 6455 section
/// 4.2.1).
fn handshake(head: &Head<'_>) -> Result<String, Answer> {
    let fields = &head.fields;
    let upgrades = head.method == "GET"
        && head.version == Version::Http11
        && fields.wants_upgrade
        && fields.wants_websocket
        && fields.websocket_version == Some("13");
    if !upgrades {
        return Err(Answer::problem(426, "this path takes a WebSocket upgrade, version 13")
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13")
            .with_header("Connection", "upgrade"));
    }
    if fields.content_length.is_some_and(|length| length > 0) {
        return Err(Answer::problem(400, "a WebSocket handshake has no body"));
    }
    match fields.websocket_key.filter(|key| is_websocket_key(key)) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => Err(Answer::problem(400, "Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// Base64 of 16 bytes: 22 digits and two signs of padding.
fn is_websocket_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.bytes().all(digit))
}
