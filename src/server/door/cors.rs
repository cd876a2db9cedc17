//! What responses say to browsers about pages of other origins (CORS: the Fetch standard, "CORS
//! protocol"). Decides from route and Origin; sends nothing. That a foreign Origin is refused is
//! not CORS and not here: `policy` does it, and such a response says nothing but `Vary`.
//!
//! `allowed_origins` are the sites whose pages may look. Their scripts get to read the viewer's
//! REST responses, refusals too, since "401" and "no such pool" are what a script has to act on; and
//! the page's files, since a module is fetched with CORS or not at all.
//!
//! - **Never `*`**: that would open what a network's border protects to every page that a viewer
//!   visits. The response names the one origin that asked, as the configuration has it.
//! - **No credentials**: the cookie is `SameSite=Strict`, so only a site that shares our registrable
//!   domain could use them, which would then act with a token that it never had. A page elsewhere
//!   brings its own: `Authorization: Bearer`, which is why the preflight allows that header, and
//!   `?token=` for a WebSocket, which has no headers and knows no CORS.
//! - **`Vary: Origin`** on all that looks at the Origin, also when none came: a stored response to our
//!   own page lacks what another site's needs, and the other way round (the standard's "CORS
//!   protocol and HTTP caches").
//! - **No login, no heartbeat**: a foreign page has no use for our cookie, and agents are no pages.

use std::io::Write as _;

use super::head::Fields;
use crate::server::auth::{Gate, Origin};
use crate::server::route::Route;
use crate::wire::response::Response;

/// How long a browser may remember a preflight, in seconds: the most that Chromium does. Nothing is
/// lost by it, since each request that follows is checked by itself.
const MAX_AGE_SECONDS: u32 = 7_200;

/// What a response says about other origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cors {
    /// Nothing: the Origin makes no difference.
    Silent,
    /// That the Origin makes a difference.
    Varies,
    /// That too, and that pages of this one of the listed origins may read it.
    Shared(usize),
}

impl Cors {
    /// What the response to a request for `route` says. A listed origin is named whatever the Host
    /// is: behind TLS, only the proxy knows which scheme would make them one.
    pub(super) fn of(route: &Route, origin: Option<&str>, gate: &Gate) -> Self {
        let listed = || {
            let origin = Origin::parse(origin?)?;
            gate.allowed_origins.iter().position(|listed| *listed == origin)
        };
        match route {
            // For agents and probes, which are no pages.
            Route::Ping(_) | Route::Agent(_) | Route::Live | Route::Ready => Self::Silent,
            Route::Login | Route::Logout | Route::Feed(_) | Route::Overview => Self::Varies,
            Route::Page | Route::Pools | Route::Metrics(_) | Route::History(_) | Route::Status => {
                listed().map_or(Self::Varies, Self::Shared)
            }
        }
    }

    /// Appends the header lines that say so to `out`, each with its CR LF.
    pub(super) fn write(self, gate: &Gate, out: &mut Vec<u8>) {
        if self != Self::Silent {
            out.extend_from_slice(b"Vary: Origin\r\n");
        }
        if let Self::Shared(index) = self
            && let Some(origin) = gate.allowed_origins.get(index)
        {
            // Writing to a Vec cannot fail.
            let _ = write!(
                out,
                "Access-Control-Allow-Origin: {origin}\r\n\
                 Access-Control-Expose-Headers: Retry-After, WWW-Authenticate\r\n"
            );
        }
    }
}

/// Whether a browser asks beforehand (a "CORS-preflight request") about a route that takes a
/// header which it would not send unasked. Other routes have nothing that needs asking.
pub(super) fn is_preflight(route: &Route, method: &str, fields: &Fields<'_>) -> bool {
    method == "OPTIONS"
        && fields.origin.is_some()
        && fields.asks_for_method
        && matches!(route, Route::Pools | Route::Metrics(_) | Route::History(_) | Route::Status)
}

/// The response to a preflight of a listed origin. It says the same whether or not the pool is there:
/// a preflight has no token.
pub(super) fn permission() -> Response {
    Response::empty(204)
        .with_header("Access-Control-Allow-Methods", "GET, HEAD")
        .with_header("Access-Control-Allow-Headers", "Authorization")
        .with_header("Access-Control-Max-Age", MAX_AGE_SECONDS.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &str, origin: Option<&str>) -> String {
        let listed = |text| Origin::parse(text).unwrap();
        let gate = Gate::default()
            .with_origin(listed("https://one.example"))
            .with_origin(listed("http://TWO.example:3000"));
        let mut lines = Vec::new();
        Cors::of(&Route::parse(path).unwrap(), origin, &gate).write(&gate, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    const SHARED: [&str; 7] = [
        "/api/v1/agent-pools",
        "/api/v1/agent-pools/p/metrics",
        "/api/v1/agent-pools/p/history",
        "/api/v1/status",
        "/metrics-client.js",
        "/style.css",
        "/",
    ];

    #[test]
    fn a_listed_origin_is_named_as_a_browser_writes_it() {
        for path in SHARED {
            for (origin, named) in [
                ("https://one.example", "https://one.example"),
                ("https://one.example:443", "https://one.example"),
                ("http://two.example:3000", "http://two.example:3000"),
            ] {
                let lines = judge(path, Some(origin));
                let allow = format!("Access-Control-Allow-Origin: {named}\r\n");
                assert!(lines.contains(&allow), "{path} {origin}: {lines}");
                assert!(lines.contains("Vary: Origin\r\n") && !lines.contains("Credentials"));
                assert!(!lines.contains('*') && !lines.contains("\r\n\r\n"));
            }
        }
    }

    #[test]
    fn who_is_not_listed_is_told_only_that_it_matters() {
        for path in SHARED {
            for origin in [
                None,
                Some("null"),
                Some("http://one.example"),
                Some("https://one.example.evil"),
                Some("http://two.example"),
                Some(""),
            ] {
                assert_eq!(judge(path, origin), "Vary: Origin\r\n", "{path} {origin:?}");
            }
        }
    }

    #[test]
    fn login_and_feed_are_not_shared_and_agents_and_probes_have_no_origin() {
        let listed = Some("https://one.example");
        for path in ["/login", "/logout", "/ws/agent-pools/p/metrics"] {
            assert_eq!(judge(path, listed), "Vary: Origin\r\n", "{path}");
        }
        for path in ["/api/v1/agents/a/ping", "/api/v1/agents/a", "/livez", "/readyz"] {
            assert_eq!(judge(path, listed), "", "{path}");
        }
    }
}
