//! Pools, their keys, and who may see the dashboards: from the file's tables to a [`Gate`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Pool;
use super::secrets::{APP_SECRET, POOL_TOKEN, Secret, TOKEN};
use super::source::Table;
use crate::server::auth::{Authority, Gate, Origin, SecretDigest, Viewer};
use crate::wire::MAX_TEXT_CHARS;
use crate::wire::id::{ID_RULE, MAX_ID_BYTES, PoolId, PoolIndex};

/// Most pools. The registry and the page hold one entry for each, agents or not.
pub(super) const MAX_POOLS: usize = 1_000;

/// What has been read so far, without what is mistaken.
#[derive(Default)]
pub(super) struct Access {
    pub(super) pools: Vec<Pool>,
    ids: HashSet<PoolId>,
    /// App key to the table that has it.
    key_owners: HashMap<String, String>,
    keys: Vec<(String, PoolIndex, SecretDigest)>,
    /// With where it is given.
    tokens: Vec<(String, Viewer, SecretDigest)>,
    is_open: bool,
    /// Whether the file says who may see the dashboards, rightly or wrongly.
    pub(super) says_who_may_view: bool,
}

impl Access {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let mut access = Self::default();
        let viewers = root.table("viewers");
        if let Some(viewers) = &viewers {
            viewers.allow_only(&["token_sha256", "token_file", "open"], &[]);
            access.token(viewers, &TOKEN, Viewer::All);
        }
        access.pools(root);
        if let Some(viewers) = &viewers {
            access.open(viewers);
        }
        access
    }

    fn pools(&mut self, root: &Table<'_>) {
        const NONE: &str = "there is none, and every agent's key belongs to one: give at least one";
        let Some(mut value) = root.get("pools") else {
            root.source.report(None, "[[pools]]", NONE);
            return;
        };
        value.name = "[[pools]]".to_owned();
        let Some(tables) = value.tables() else { return };
        if tables.is_empty() {
            value.refuse(NONE);
        }
        if tables.len() > MAX_POOLS {
            let count = tables.len();
            value.refuse(format_args!("{count} are too many, {MAX_POOLS} are allowed"));
        }
        for (number, table) in tables.into_iter().take(MAX_POOLS).enumerate() {
            self.pool(PoolIndex(number), table);
        }
    }

    fn pool(&mut self, index: PoolIndex, mut table: Table<'_>) {
        table.name = format!("[[pools]] number {}", index.0 + 1);
        let id = self.id(&table);
        if let Some(id) = &id {
            table.name = format!("[[pools]] {:?}", id.as_str());
        }
        let known = ["id", "name", "keys", "viewer_token_sha256", "viewer_token_file"];
        table.allow_only(&known, &[]);
        let name = table.get("name").and_then(|value| {
            let name = value.text()?;
            let length_fits = (1..=MAX_TEXT_CHARS).contains(&name.chars().count());
            if !length_fits || name.chars().any(char::is_control) {
                value.refuse("must be 1 to 128 characters, none of them a control character");
            }
            Some(name.to_owned())
        });
        if let Some(id) = id {
            self.pools.push(Pool { name: name.unwrap_or_else(|| id.to_string()), id });
        }
        self.keys(index, &table);
        self.token(&table, &POOL_TOKEN, Viewer::Pool(index));
    }

    fn id(&mut self, table: &Table<'_>) -> Option<PoolId> {
        let value = table.required("id")?;
        let id = value.parse(ID_RULE, |text| PoolId::parse(text).ok())?;
        let is_new = self.ids.insert(id.clone());
        if !is_new {
            value.refuse(format_args!("an earlier pool has the id {id}, ids must differ"));
        }
        is_new.then_some(id)
    }

    fn keys(&mut self, pool: PoolIndex, pool_table: &Table<'_>) {
        let Some(value) = pool_table.required("keys") else { return };
        let Some(tables) = value.tables() else { return };
        if tables.is_empty() {
            value.refuse("no agent could report to it: give at least one { app_key = ... }");
        }
        for table in tables {
            self.key(pool, &pool_table.name, table);
        }
    }

    fn key(&mut self, pool: PoolIndex, owner: &str, mut table: Table<'_>) {
        table.allow_only(&["app_key", "app_secret_sha256", "app_secret_file"], &[]);
        let value = table.required("app_key");
        let app_key = value.as_ref().and_then(|value| value.text());
        if let (Some(value), Some(app_key)) = (&value, app_key) {
            let is_visible = app_key.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_visible || !(1..=MAX_ID_BYTES).contains(&app_key.len()) {
                // Not shown: what breaks the rule may be a secret in the wrong place.
                value.refuse("must be 1 to 128 visible ASCII characters");
            } else {
                table.name = format!("{owner} app_key {app_key:?}");
                let owner = owner.to_owned();
                if let Some(first) = self.key_owners.insert(app_key.to_owned(), owner) {
                    let why = "has this app_key already, a key belongs to one pool";
                    table.refuse(format_args!("{first} {why}"));
                }
            }
        }
        match (APP_SECRET.read(&table), app_key) {
            (None, _) => table.refuse(APP_SECRET.ways()),
            (Some((_, Some(digest))), Some(app_key)) => {
                self.keys.push((app_key.to_owned(), pool, digest));
            }
            _ => {}
        }
    }

    fn token(&mut self, table: &Table<'_>, kind: &Secret, viewer: Viewer) {
        let Some((value, digest)) = kind.read(table) else { return };
        self.says_who_may_view = true;
        let Some(digest) = digest else { return };
        if let Some((first, ..)) = self.tokens.iter().find(|(.., other)| other.matches(&digest)) {
            value.refuse(format_args!(
                "{first} has the same token; a token decides what is seen, so they must differ"
            ));
        } else {
            self.tokens.push((value.name, viewer, digest));
        }
    }

    fn open(&mut self, viewers: &Table<'_>) {
        let Some(value) = viewers.get("open") else { return };
        let flag = value.flag();
        self.says_who_may_view |= flag != Some(false);
        self.is_open = flag == Some(true);
        if let (true, Some((token, ..))) = (self.is_open, self.tokens.first()) {
            value.refuse(format_args!(
                "viewing is open, and yet {token} requires a token: remove one of them"
            ));
        }
    }

    /// A gate for these keys and tokens, and for the hosts, origins and proxies of `root`.
    pub(super) fn gate(&self, root: &Table<'_>) -> Gate {
        let mut gate = networks(root);
        for (app_key, pool, secret) in &self.keys {
            gate = gate.with_key(app_key, *pool, *secret);
        }
        for (_, viewer, token) in &self.tokens {
            gate = gate.with_viewer(*viewer, *token);
        }
        if self.is_open { gate.with_open_viewing() } else { gate }
    }
}

fn networks(root: &Table<'_>) -> Gate {
    let mut gate = Gate::default();
    let rule = "a host name or address with or without a port, such as \"metrics.example.org\" (no \
                scheme, no path, no wildcard)";
    for host in root.parse_each("allowed_hosts", rule, Authority::parse) {
        gate = gate.with_host(host);
    }
    let rule = "a scheme and a host with or without a port, such as \"https://board.example.org\" \
                (no path, no wildcard, not null)";
    for origin in root.parse_each("allowed_origins", rule, Origin::parse) {
        gate = gate.with_origin(origin);
    }
    let rule = "an IP address or a network, such as \"10.0.0.7\" or \"10.0.0.0/8\"";
    for proxy in root.parse_each("trusted_proxies", rule, parse_network) {
        gate = gate.with_proxy(proxy);
    }
    gate
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
