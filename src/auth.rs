//! Who may do what: agents' keys, viewers' tokens, Host and Origin. Decides; reads no socket
//! and no file.

use std::net::IpAddr;

use crate::id::PoolIndex;

/// Which pools a viewer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Every pool.
    All,
    /// This one.
    Pool(PoolIndex),
}

impl Viewer {
    /// Whether this viewer may see `pool`.
    #[must_use]
    pub fn sees(self, pool: PoolIndex) -> bool {
        match self {
            Self::All => true,
            Self::Pool(own) => own == pool,
        }
    }
}

/// The gate: everything the configuration says about who may do what.
#[derive(Debug)]
pub struct Gate {}

impl Gate {
    /// The pool that `app_key` belongs to, if `app_secret` is its secret. Unknown keys take as
    /// long as wrong secrets.
    #[must_use]
    pub fn agent(&self, app_key: &str, app_secret: &str) -> Option<PoolIndex> {
        let _ = (app_key, app_secret);
        todo!()
    }

    /// What a viewer with this token (or none) may see; `None` is a 401.
    #[must_use]
    pub fn viewer(&self, token: Option<&str>) -> Option<Viewer> {
        let _ = token;
        todo!()
    }

    /// Whether viewer routes answer to this Host (RFC 9110 section 7.2): an IP literal, `localhost`, or listed;
    /// any port.
    #[must_use]
    pub fn host_allowed(&self, host: &str) -> bool {
        let _ = host;
        todo!()
    }

    /// Whether a browser's Origin may use viewer routes: the authority of `host` (default
    /// ports aside) or listed.
    #[must_use]
    pub fn origin_allowed(&self, origin: &str, host: &str) -> bool {
        let _ = (origin, host);
        todo!()
    }

    /// Whether `peer` is a trusted proxy, whose X-Forwarded-* headers are believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let _ = peer;
        todo!()
    }

    /// The client's address: `peer`, or, when that is a trusted proxy, the last address in
    /// `forwarded_for` that is not one.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let _ = (peer, forwarded_for);
        todo!()
    }
}

/// The token that a viewer presents: `Authorization: Bearer`, else `?token=`, else the cookie
/// `agent_metrics_viewer`. The first that is there decides.
#[must_use]
pub fn presented_token(
    authorization: Option<&str>,
    query: Option<&str>,
    cookie: Option<&str>,
) -> Option<String> {
    let _ = (authorization, query, cookie);
    todo!()
}
