//! The server's own counters, from `GET /api/v1/status`.

use std::net::SocketAddr;

use serde_json::Value;

use super::http::Request;

#[derive(Debug, Clone)]
pub(crate) struct Status(pub(crate) Value);

impl Status {
    /// Needs a server with open viewing.
    pub(crate) fn read(addr: SocketAddr) -> Self {
        let response = Request::get("/api/v1/status").send(addr);
        assert_eq!(response.status, 200, "{}", response.text());
        Self(response.json())
    }

    /// A counter or gauge.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.0["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {}", self.0))
    }
}
