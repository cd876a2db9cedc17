//! Configurations for tests: two pools, their keys, viewers, and limits.

use std::fmt::Write as _;

use sha2::Digest as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) key: &'static str,
    pub(crate) secret: &'static str,
}

/// Of `pool-a`.
pub(crate) const KEY_A: Key = Key { key: "key-a", secret: "secret-of-pool-a-3f9c" };
/// Also of `pool-a`.
pub(crate) const KEY_A_NEW: Key = Key { key: "key-a-new", secret: "secret-of-pool-a-new-77d0" };
/// Of `pool-b`.
pub(crate) const KEY_B: Key = Key { key: "key-b", secret: "secret-of-pool-b-81ee" };
/// Sees every pool, with [`Setup::guarded`].
pub(crate) const TOKEN_ALL: &str = "token-of-all-pools-5b21";
/// Sees `pool-a`, with [`Setup::guarded`].
pub(crate) const TOKEN_A: &str = "token-of-pool-a-c4d8";
/// Sees `pool-b`, with [`Setup::guarded`].
pub(crate) const TOKEN_B: &str = "token-of-pool-b-09fa";

/// No log or error may contain any of these.
pub(crate) const SECRETS: [&str; 6] =
    [KEY_A.secret, KEY_A_NEW.secret, KEY_B.secret, TOKEN_ALL, TOKEN_A, TOKEN_B];

/// Builds a configuration with the pools `pool-a` ("Pool A") and `pool-b` (without a name).
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    guarded: bool,
    top: String,
    more_pools: usize,
    limits: String,
}

impl Setup {
    /// Viewing needs no token.
    pub(crate) fn open() -> Self {
        Self::default()
    }

    /// Viewing needs [`TOKEN_ALL`], [`TOKEN_A`] or [`TOKEN_B`].
    pub(crate) fn guarded() -> Self {
        Self { guarded: true, ..Self::default() }
    }

    /// Adds a top-level line, such as `evict_after = "2s"`.
    pub(crate) fn line(mut self, line: &str) -> Self {
        let _ = writeln!(self.top, "{line}");
        self
    }

    /// Adds so many pools, `more-000` ("More 000") and on, to which nobody reports.
    pub(crate) fn more_pools(self, more_pools: usize) -> Self {
        Self { more_pools, ..self }
    }

    /// Adds a line to `[limits]`, such as `max_dashboards = 3`.
    pub(crate) fn limit(mut self, line: &str) -> Self {
        let _ = writeln!(self.limits, "{line}");
        self
    }

    /// One agent may send as many heartbeats as it likes, and dashboards see them all, as thousands
    /// together might: for tests of load that need no more than a few.
    pub(crate) fn busy_agents(self) -> Self {
        self.limit("max_agent_heartbeats_per_second = 1_000_000")
            .limit("max_agent_updates_per_second = 1_000_000")
    }

    pub(crate) fn toml(&self) -> String {
        let (viewers, viewer_a, viewer_b) = if self.guarded {
            (
                format!("token_sha256 = \"{}\"", sha256(TOKEN_ALL)),
                format!("viewer_token_sha256 = \"{}\"", sha256(TOKEN_A)),
                format!("viewer_token_sha256 = \"{}\"", sha256(TOKEN_B)),
            )
        } else {
            ("open = true".to_owned(), String::new(), String::new())
        };
        let Self { top, limits, .. } = self;
        let secret = sha256("nobody reports to these pools");
        let more: String = (0..self.more_pools)
            .map(|n| {
                format!(
                    "[[pools]]\nid = \"more-{n:03}\"\nname = \"More {n:03}\"\n\
                     keys = [{{ app_key = \"key-more-{n}\", app_secret_sha256 = \"{secret}\" }}]\n"
                )
            })
            .collect();
        let (key_a, key_a_new, key_b) = (entry(KEY_A), entry(KEY_A_NEW), entry(KEY_B));
        format!(
            "{top}\n[viewers]\n{viewers}\n\
             [[pools]]\nid = \"pool-a\"\nname = \"Pool A\"\nkeys = [{key_a}, {key_a_new}]\n{viewer_a}\n\
             [[pools]]\nid = \"pool-b\"\nkeys = [{key_b}]\n{viewer_b}\n\
             {more}[limits]\n{limits}"
        )
    }
}

/// In hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    hex::encode(sha2::Sha256::digest(text))
}

fn entry(key: Key) -> String {
    format!("{{ app_key = \"{}\", app_secret_sha256 = \"{}\" }}", key.key, sha256(key.secret))
}
