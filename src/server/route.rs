//! Paths to routes, and which methods each allows. Used by the door, which decides, and by
//! the workers, which act on what the door decided. Parses; owns nothing.

use crate::dashboard::page;
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
    /// `GET /api/v1/agent-pools/{pool_id}/history`; the id as it came, known or not.
    History(String),
    /// `GET /api/v1/status`: the server's own counters.
    Status,
    /// `GET /ws/agent-pools/{pool_id}/metrics`; the id as it came, known or not.
    Feed(String),
    /// `GET /ws/agent-pools`
    Overview,
    /// `POST /login`; `GET /login` is the page.
    Login,
    /// `POST /logout`
    Logout,
    /// `/`, `/wall`, a pool's or an agent's page, or one of the page's files.
    Page,
    /// `/livez`: the door turns.
    Live,
    /// `/readyz` and `/healthz`: the whole path to the hub and back works.
    Ready,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    /// 404.
    #[error("no such path")]
    Unknown,
    /// 400: the route is known and the agent id in it is not one.
    #[error("agent_id in the path must be {ID_RULE}")]
    BadAgentId,
}

impl Route {
    /// Finds the route of `path` (no query).
    ///
    /// # Errors
    /// [`NoRoute`] says whether that is a 404 or a 400.
    pub(crate) fn parse(path: &str) -> Result<Self, NoRoute> {
        let agent = |id| AgentId::parse(id).map_err(|_| NoRoute::BadAgentId);
        // One more than any route has.
        let (mut parts, mut count) = ([""; 7], 0);
        for (part, text) in parts.iter_mut().zip(path.split('/')) {
            *part = text;
            count += 1;
        }
        Ok(match parts[..count] {
            ["", "api", "v1", "agents", id, "ping"] => Self::Ping(agent(id)?),
            ["", "api", "v1", "agents", id] => Self::Agent(agent(id)?),
            ["", "api", "v1", "agent-pools"] => Self::Pools,
            ["", "api", "v1", "agent-pools", pool, "metrics"] => Self::Metrics(pool.to_owned()),
            ["", "api", "v1", "agent-pools", pool, "history"] => Self::History(pool.to_owned()),
            ["", "api", "v1", "status"] => Self::Status,
            ["", "ws", "agent-pools"] => Self::Overview,
            ["", "ws", "agent-pools", pool, "metrics"] => Self::Feed(pool.to_owned()),
            ["", "login"] => Self::Login,
            ["", "logout"] => Self::Logout,
            ["", "livez"] => Self::Live,
            ["", "readyz" | "healthz"] => Self::Ready,
            _ if page::exists(path) => Self::Page,
            _ => return Err(NoRoute::Unknown),
        })
    }

    /// The agent that it names.
    #[must_use]
    pub(crate) fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::Ping(agent) | Self::Agent(agent) => Some(agent),
            _ => None,
        }
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    #[must_use]
    pub(crate) fn allow(&self) -> &'static str {
        match self {
            Self::Ping(_) | Self::Logout => "POST",
            Self::Agent(_) => "DELETE",
            Self::Login => "GET, HEAD, POST",
            Self::Feed(_) | Self::Overview => "GET",
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

/// Agents that one request for a history may name: more than a screen shows.
pub(crate) const MAX_HISTORY_AGENTS: usize = 100;

/// The agents that the query of [`Route::History`] names as `agent`.
///
/// # Errors
/// A sentence that names the rule.
pub(crate) fn history_agents(query: Option<&str>) -> Result<Vec<AgentId>, String> {
    let mut agents = Vec::new();
    let members = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    for (_, id) in members.filter(|(name, _)| name == "agent") {
        if agents.len() == MAX_HISTORY_AGENTS {
            return Err(format!("agent may come at most {MAX_HISTORY_AGENTS} times"));
        }
        agents.push(AgentId::parse(&id).map_err(|_| format!("agent must be {ID_RULE}"))?);
    }
    Ok(agents)
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
        assert_eq!(Route::parse("/api/v1/agent-pools//metrics"), Ok(Route::Metrics("".into())));
        assert_eq!(Route::parse("/api/v1/agent-pools/p/history"), Ok(Route::History("p".into())));
        assert_eq!(Route::parse("/ws/agent-pools/%20/metrics"), Ok(Route::Feed("%20".into())));
        assert_eq!(Route::parse("/ws/agent-pools"), Ok(Route::Overview));
    }

    #[test]
    fn a_bad_agent_id_is_named_and_an_unknown_path_is_not_found() {
        for path in [
            "/api/v1/agents/",
            "/api/v1/agents//ping",
            "/api/v1/agents/../ping",
            "/api/v1/agents/a%2fb/ping",
        ] {
            assert_eq!(Route::parse(path), Err(NoRoute::BadAgentId), "{path}");
        }
        for path in [
            "/api/v1/agents",
            "/api/v1/agents//",
            "/api/v1/agents/a/",
            "/api/v1/agents/a/b/ping",
            "/api/v1/agents/a/ping/",
            "/api/v1/agent-pools/",
            "/api/v1/agent-pools/metrics",
            "/ws/agent-pools/",
            "/ws/agent-pools/a/b/metrics",
            "//livez",
            "livez",
            "/livez/",
            "/nope",
            "/////////",
            "",
        ] {
            assert_eq!(Route::parse(path), Err(NoRoute::Unknown), "{path}");
        }
    }

    #[test]
    fn a_history_is_of_up_to_so_many_agents() {
        assert_eq!(history_agents(None), Ok(vec![]));
        assert_eq!(history_agents(Some("token=x&agents=y")), Ok(vec![]));
        let named = history_agents(Some("agent=b&token=x&agent=a%2D1&agent=b"));
        assert_eq!(named, Ok(vec![id("b"), id("a-1"), id("b")]));
        let most = vec!["agent=a"; MAX_HISTORY_AGENTS].join("&");
        assert_eq!(history_agents(Some(&most)).map(|agents| agents.len()), Ok(MAX_HISTORY_AGENTS));
        let why = history_agents(Some(&format!("{most}&agent=a"))).unwrap_err();
        assert_eq!(why, "agent may come at most 100 times");
        for query in ["agent=", "agent", "agent=..", "agent=a%2Fb", "agent=a&agent=%C3%A9"] {
            let why = history_agents(Some(query)).unwrap_err();
            assert_eq!(why, format!("agent must be {ID_RULE}"), "{query}");
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
