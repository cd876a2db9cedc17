//! Paths to routes, and which methods each allows. Used by the door, which decides, and by
//! the workers, which act on what the door decided. Parses; owns nothing.

use crate::wire::id::{AgentId, ID_RULE};

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `POST /api/v1/agents/{agent_id}/ping`
    Ping(AgentId),
    /// `DELETE /api/v1/agents/{agent_id}`
    Agent(AgentId),
    /// `GET /api/v1/agent-pools`
    Pools,
    /// `GET /api/v1/agent-pools/{pool_id}/metrics`; the id as it came, known or not.
    Metrics(String),
    /// `GET /api/v1/status`: the server's own counters.
    Status,
    /// `GET /ws/agent-pools/{pool_id}/metrics`; the id as it came, known or not.
    Feed(String),
    /// `POST /login`; `GET /login` is the page.
    Login,
    /// `POST /logout`
    Logout,
    /// `/`, a pool's page, or one of the page's files: the path as it came.
    Page(String),
    /// `/livez`: the door turns.
    Live,
    /// `/readyz` and `/healthz`: the whole path to the hub and back works.
    Ready,
}

/// Which pages in browsers a route is for. Programs may call any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// None: agents and probes, which have neither Origin nor a Host that matters.
    Programs,
    /// The server's own; those of allowed origins are let in but cannot read the answer.
    OwnPages,
    /// Those of allowed origins too, which load a file.
    Loaders,
    /// Those of allowed origins too, which may bring a viewer's token.
    Viewers,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// 404.
    Unknown,
    /// 400: the route is known and the agent id in it is not one.
    BadAgentId,
}

impl NoRoute {
    /// The sentence for the client.
    #[must_use]
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Unknown => "no such path".to_owned(),
            Self::BadAgentId => format!("agent_id in the path must be {ID_RULE}"),
        }
    }
}

impl Route {
    /// Finds the route of `path` (no query).
    ///
    /// # Errors
    /// [`NoRoute`] says whether that is a 404 or a 400.
    pub(crate) fn parse(path: &str) -> Result<Self, NoRoute> {
        if let Some(rest) = path.strip_prefix("/api/v1/agents/") {
            return agent_route(rest);
        }
        if let Some(pool) = between(path, "/api/v1/agent-pools/", "/metrics") {
            return Ok(Self::Metrics(pool.to_owned()));
        }
        if let Some(pool) = between(path, "/ws/agent-pools/", "/metrics") {
            return Ok(Self::Feed(pool.to_owned()));
        }
        match path {
            "/api/v1/agent-pools" => Ok(Self::Pools),
            "/api/v1/status" => Ok(Self::Status),
            "/login" => Ok(Self::Login),
            "/logout" => Ok(Self::Logout),
            "/livez" => Ok(Self::Live),
            "/readyz" | "/healthz" => Ok(Self::Ready),
            _ if crate::dashboard::page::exists(path) => Ok(Self::Page(path.to_owned())),
            _ => Err(NoRoute::Unknown),
        }
    }

    /// The agent that it names.
    #[must_use]
    pub(crate) fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::Ping(agent) | Self::Agent(agent) => Some(agent),
            _ => None,
        }
    }

    /// Whose pages it is for.
    #[must_use]
    pub(crate) fn audience(&self) -> Audience {
        match self {
            Self::Ping(_) | Self::Agent(_) | Self::Live | Self::Ready => Audience::Programs,
            // WebSockets know no CORS.
            Self::Login | Self::Logout | Self::Feed(_) => Audience::OwnPages,
            Self::Page(_) => Audience::Loaders,
            Self::Pools | Self::Metrics(_) | Self::Status => Audience::Viewers,
        }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    #[must_use]
    pub(crate) fn allow(&self) -> &'static str {
        match self {
            Self::Ping(_) | Self::Logout => "POST",
            Self::Agent(_) => "DELETE",
            Self::Login => "GET, HEAD, POST",
            Self::Feed(_) => "GET",
            _ => "GET, HEAD",
        }
    }

    /// Whether `method` is among [`Route::allow`]. HEAD goes wherever GET goes.
    #[must_use]
    pub(crate) fn allows(&self, method: &str) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        self.allow().split(", ").any(|allowed| allowed == method)
    }
}

fn agent_route(rest: &str) -> Result<Route, NoRoute> {
    let (id, ping) = match rest.strip_suffix("/ping") {
        Some(id) => (id, true),
        None => (rest, false),
    };
    if id.contains('/') {
        return Err(NoRoute::Unknown);
    }
    let id = AgentId::parse(id).map_err(|_| NoRoute::BadAgentId)?;
    Ok(if ping { Route::Ping(id) } else { Route::Agent(id) })
}

/// The single path segment between `prefix` and `suffix`.
fn between<'a>(path: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    let middle = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
    (!middle.contains('/')).then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AgentId {
        AgentId::parse(text).unwrap()
    }

    #[test]
    fn paths_lead_where_the_contract_says() {
        assert_eq!(Route::parse("/api/v1/agents/a-1/ping"), Ok(Route::Ping(id("a-1"))));
        assert_eq!(Route::parse("/api/v1/agents/a-1"), Ok(Route::Agent(id("a-1"))));
        assert_eq!(Route::parse("/api/v1/agents/ping"), Ok(Route::Agent(id("ping"))));
        assert_eq!(Route::parse("/api/v1/agents/ping/ping"), Ok(Route::Ping(id("ping"))));
        assert_eq!(Route::parse("/api/v1/agent-pools/p/metrics"), Ok(Route::Metrics("p".into())));
        assert_eq!(Route::parse("/ws/agent-pools/%20/metrics"), Ok(Route::Feed("%20".into())));
    }

    #[test]
    fn a_bad_agent_id_is_named_and_an_unknown_path_is_not_found() {
        for path in ["/api/v1/agents//ping", "/api/v1/agents/../ping", "/api/v1/agents/a%2fb/ping"]
        {
            assert_eq!(Route::parse(path), Err(NoRoute::BadAgentId), "{path}");
        }
        for path in ["/api/v1/agents/a/b/ping", "/ws/agent-pools/a/b/metrics", "/nope", ""] {
            assert_eq!(Route::parse(path), Err(NoRoute::Unknown), "{path}");
        }
    }

    #[test]
    fn head_goes_where_get_goes_and_nowhere_else() {
        let ping = Route::parse("/api/v1/agents/a/ping").unwrap();
        assert!(ping.allows("POST") && !ping.allows("HEAD") && !ping.allows("GET"));
        assert!(Route::Pools.allows("HEAD") && !Route::Pools.allows("POST"));
        assert!(Route::Login.allows("HEAD") && Route::Login.allows("POST"));
    }
}
