//! Pools, their keys, and who may see the dashboards: from the file's tables to a [`Gate`].

use std::collections::HashMap;

use super::PoolConfig;
use super::secrets::{APP_SECRET, POOL_TOKEN, Secret, TOKEN};
use super::source::Value;
use crate::server::auth::{Authority, Gate, Origin, Viewer, parse_network};
use crate::wire::MAX_TEXT_CHARS;
use crate::wire::id::{ID_RULE, MAX_ID_BYTES, PoolId, PoolIndex};

/// Most pools. The registry and the page hold one entry for each, agents or not.
pub(super) const MAX_POOLS: usize = 1_000;

const HOST_RULE: &str = "a host name or address with or without a port, such as \
                         \"metrics.example.org\" (no scheme, no path, no wildcard)";
const ORIGIN_RULE: &str = "a scheme and a host with or without a port, such as \
                           \"https://board.example.org\" (no path, no wildcard, not null)";
const PROXY_RULE: &str = "an IP address or a network, such as \"10.0.0.7\" or \"10.0.0.0/8\"";

/// What has been read so far, without what is mistaken.
#[derive(Default)]
pub(super) struct Access {
    pub(super) pools: Vec<PoolConfig>,
    pub(super) gate: Gate,
    /// App key to the table that has it.
    key_owners: HashMap<String, String>,
    /// The tables and keys that give the gate's viewers.
    token_names: Vec<String>,
    /// Whether the file says who may see the dashboards, rightly or wrongly.
    pub(super) says_who_may_view: bool,
}

impl Access {
    pub(super) fn read(root: &Value<'_>) -> Self {
        let mut access = Self::default();
        access.gate.allowed_hosts = list(root, "allowed_hosts", HOST_RULE, Authority::parse);
        access.gate.allowed_origins = list(root, "allowed_origins", ORIGIN_RULE, Origin::parse);
        access.gate.trusted_proxies = list(root, "trusted_proxies", PROXY_RULE, parse_network);
        let viewers = root.table("viewers");
        if let Some(viewers) = &viewers {
            viewers.allow_only(&["token_sha256", "token_file", "open"], &[]);
            access.token(viewers, &TOKEN, Viewer::All);
        }
        access.pools(root);
        // Last, since it knows all tokens then.
        if let Some(open) = viewers.and_then(|viewers| viewers.get("open")) {
            let flag = open.expect("true or false", open.value.as_bool());
            access.says_who_may_view |= flag != Some(false);
            access.gate.is_open = flag == Some(true);
            if let (true, Some(token)) = (access.gate.is_open, access.token_names.first()) {
                open.refuse(format_args!(
                    "viewing is open, and yet {token} requires a token: remove one of them"
                ));
            }
        }
        access
    }

    fn pools(&mut self, root: &Value<'_>) {
        const NONE: &str = "there is none, and every agent's key belongs to one: give at least one";
        let Some(mut value) = root.get("pools") else {
            return root.refuse(format_args!("[[pools]]: {NONE}"));
        };
        value.name = "[[pools]]".to_owned();
        let Some(tables) = value.tables() else { return };
        match tables.len() {
            0 => value.refuse(NONE),
            1..=MAX_POOLS => {}
            count => value.refuse(format_args!("{count} are too many, {MAX_POOLS} are allowed")),
        }
        for (number, table) in tables.into_iter().take(MAX_POOLS).enumerate() {
            self.pool(PoolIndex(number), table);
        }
    }

    fn pool(&mut self, index: PoolIndex, mut table: Value<'_>) {
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
            let name = name.unwrap_or_else(|| id.to_string());
            self.pools.push(PoolConfig { name, id, app_keys: Vec::new() });
        }
        if let Some(value) = table.required("keys")
            && let Some(keys) = value.tables()
        {
            if keys.is_empty() {
                value.refuse("no agent could report to it: give at least one { app_key = ... }");
            }
            for key in keys {
                self.key(index, &table.name, key);
            }
        }
        self.token(&table, &POOL_TOKEN, Viewer::Pool(index));
    }

    fn id(&self, table: &Value<'_>) -> Option<PoolId> {
        let value = table.required("id")?;
        let id = value.parse(ID_RULE, |text| PoolId::parse(text).ok())?;
        if self.pools.iter().any(|pool| pool.id == id) {
            value.refuse(format_args!("an earlier pool has the id {id}, ids must differ"));
            return None;
        }
        Some(id)
    }

    fn key(&mut self, pool: PoolIndex, owner: &str, mut table: Value<'_>) {
        table.allow_only(&["app_key", "app_secret_sha256", "app_secret_file"], &[]);
        let value = table.required("app_key");
        let app_key = value.as_ref().and_then(Value::text);
        if let (Some(value), Some(app_key)) = (&value, app_key) {
            let is_visible = app_key.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_visible || !(1..=MAX_ID_BYTES).contains(&app_key.len()) {
                // Not shown: what breaks the rule may be a secret in the wrong place.
                value.refuse("must be 1 to 128 visible ASCII characters");
            } else {
                table.name = format!("{owner} app_key {app_key:?}");
                let first = self.key_owners.insert(app_key.to_owned(), owner.to_owned());
                if let Some(first) = first {
                    let why = "has this app_key already, a key belongs to one pool";
                    table.refuse(format_args!("{first} {why}"));
                }
            }
        }
        match (APP_SECRET.read(&table), app_key) {
            (None, _) => table.refuse(APP_SECRET.ways()),
            (Some((_, Some(digest))), Some(app_key)) => {
                self.gate.keys.insert(app_key.to_owned(), (pool, digest));
                if let Some(pool) = self.pools.get_mut(pool.0) {
                    pool.app_keys.push(app_key.to_owned());
                }
            }
            _ => {}
        }
    }

    fn token(&mut self, table: &Value<'_>, kind: &Secret, viewer: Viewer) {
        let Some((value, digest)) = kind.read(table) else { return };
        self.says_who_may_view = true;
        let Some(digest) = digest else { return };
        if let Some(first) = self.gate.viewers.iter().position(|(_, own)| own.matches(&digest)) {
            let first = &self.token_names[first];
            value.refuse(format_args!(
                "{first} has the same token; a token decides what is seen, so they must differ"
            ));
        } else {
            self.gate.viewers.push((viewer, digest));
            self.token_names.push(value.name);
        }
    }
}

fn list<T>(root: &Value<'_>, key: &str, rule: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let entries = root.get(key).and_then(|value| value.parse_each(rule, read));
    entries.into_iter().flatten().flatten().collect()
}
