//! Pools, their keys, and who may look: from the file's tables to a [`Gate`]. Keeps only
//! digests.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::error::{self, Problem};
use super::file::{File, KeyTable, PoolTable, Source, ViewersTable};
use super::secrets::{SecretKind, SecretSource};
use super::{MAX_POOLS, Pool};
use crate::server::auth::{Authority, Gate, Origin, SecretDigest, Viewer};
use crate::wire::MAX_TEXT_CHARS;
use crate::wire::id::{MAX_ID_BYTES, PoolId, PoolIndex};

/// The file's pools in its order, and the gate before them. Without those that are mistaken.
pub(super) fn checked(file: &File, source: &Source<'_>) -> (Vec<Pool>, Gate) {
    let tables = file.pools.as_ref().map_or(&[][..], |pools| pools.get_ref());
    if !(1..=MAX_POOLS).contains(&tables.len()) {
        let span = file.pools.as_ref().map(Spanned::span);
        source.report(span, "[[pools]]", Problem::PoolCount(tables.len()));
    }
    let mut builder = Builder {
        source,
        gate: networks(file, source),
        pools: Vec::with_capacity(tables.len().min(MAX_POOLS)),
        ids: HashSet::new(),
        key_owners: HashMap::new(),
        tokens: Vec::new(),
    };
    builder.all_pools_token(file);
    // What is wrong with more pools than there may be is no use to anyone.
    for (number, table) in tables.iter().take(MAX_POOLS).enumerate() {
        builder.pool(PoolIndex(number), table);
    }
    builder.open(file);
    (builder.pools, builder.gate)
}

/// Whether the file says who may look, rightly or wrongly.
pub(super) fn is_viewing_settled(file: &File, source: &Source<'_>) -> bool {
    let ViewersTable { token_sha256, token_file, open } = &file.viewers;
    let says_open = |open: &Spanned<bool>| *open.get_ref() || !source.is_sound(Some(open.span()));
    let has_token =
        |pool: &PoolTable| pool.viewer_token_sha256.is_some() || pool.viewer_token_file.is_some();
    token_sha256.is_some()
        || token_file.is_some()
        || open.as_ref().is_some_and(says_open)
        || file.pools.as_ref().is_some_and(|pools| pools.get_ref().iter().any(has_token))
}

/// A gate that knows the file's hosts, origins and proxies.
fn networks(file: &File, source: &Source<'_>) -> Gate {
    let refuse = |key: &str, entry: &Spanned<String>, rule| {
        let subject = format!("{key} {:?}", entry.get_ref());
        source.report(Some(entry.span()), subject, Problem::Form(rule));
    };
    let mut gate = Gate::default();
    for host in &file.allowed_hosts {
        match Authority::parse(host.get_ref()) {
            Some(read) => gate = gate.with_host(read),
            None => refuse("allowed_hosts", host, error::HOST_RULE),
        }
    }
    for origin in &file.allowed_origins {
        match Origin::parse(origin.get_ref()) {
            Some(read) => gate = gate.with_origin(read),
            None => refuse("allowed_origins", origin, error::ORIGIN_RULE),
        }
    }
    for proxy in &file.trusted_proxies {
        let text = proxy.get_ref();
        match text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(read) => gate = gate.with_proxy(read),
            None => refuse("trusted_proxies", proxy, error::PROXY_RULE),
        }
    }
    gate
}

/// What has been read so far, to find what comes twice.
struct Builder<'a> {
    source: &'a Source<'a>,
    gate: Gate,
    pools: Vec<Pool>,
    /// Ids of the pools.
    ids: HashSet<PoolId>,
    /// App key to the pool that has it, in words.
    key_owners: HashMap<String, String>,
    /// Viewer tokens and where they stand.
    tokens: Vec<(String, SecretDigest)>,
}

impl Builder<'_> {
    fn all_pools_token(&mut self, file: &File) {
        self.token(
            Viewer::All,
            &SecretSource {
                subject: "[viewers]",
                kind: SecretKind::ViewerToken,
                sha256: ("token_sha256", file.viewers.token_sha256.as_ref()),
                file: ("token_file", file.viewers.token_file.as_ref()),
            },
        );
    }

    /// Everything that a `[[pools]]` table says.
    fn pool(&mut self, index: PoolIndex, table: &PoolTable) {
        let subject = match self.named(index, table) {
            Some(pool) => {
                let subject = format!("[[pools]] {:?}", pool.id.as_str());
                self.pools.push(pool);
                subject
            }
            None => format!("[[pools]] number {}", index.0 + 1),
        };
        let keys = table.keys.as_ref().map_or(&[][..], |keys| keys.get_ref());
        if keys.is_empty() {
            let span = table.keys.as_ref().map(Spanned::span);
            let span = span.or_else(|| table.id.as_ref().map(Spanned::span));
            self.source.report(span, format!("{subject} keys"), Problem::NoKeys);
        }
        for key in keys {
            self.key(index, &subject, key);
        }
        self.token(
            Viewer::Pool(index),
            &SecretSource {
                subject: &subject,
                kind: SecretKind::ViewerToken,
                sha256: ("viewer_token_sha256", table.viewer_token_sha256.as_ref()),
                file: ("viewer_token_file", table.viewer_token_file.as_ref()),
            },
        );
    }

    /// The pool's id and name; none where the id is a mistake.
    fn named(&mut self, index: PoolIndex, table: &PoolTable) -> Option<Pool> {
        let given = table.id.as_ref()?;
        let shown: String = given.get_ref().chars().take(MAX_ID_BYTES).collect();
        let refuse = |problem| {
            let subject = format!("[[pools]] number {}, id {shown:?}", index.0 + 1);
            self.source.report(Some(given.span()), subject, problem);
        };
        let id = PoolId::parse(given.get_ref()).map_err(|_| refuse(error::POOL_ID)).ok()?;
        if !self.ids.insert(id.clone()) {
            refuse(Problem::PoolTwice);
            return None;
        }
        let Some(name) = &table.name else { return Some(Pool { name: id.to_string(), id }) };
        let text = name.get_ref();
        let length_fits = (1..=MAX_TEXT_CHARS).contains(&text.chars().count());
        if !length_fits || text.chars().any(char::is_control) {
            let subject = format!("[[pools]] {:?} name", id.as_str());
            self.source.report(Some(name.span()), subject, Problem::Form(error::NAME_RULE));
        }
        Some(Pool { id, name: text.clone() })
    }

    fn key(&mut self, pool: PoolIndex, owner: &str, table: &KeyTable) {
        let Some(given) = &table.app_key else { return };
        let (app_key, span) = (given.get_ref(), Some(given.span()));
        // Not shown here: what breaks the rule may be a secret in the wrong place.
        let visible = app_key.bytes().all(|byte| byte.is_ascii_graphic());
        let is_valid = visible && (1..=MAX_ID_BYTES).contains(&app_key.len());
        let subject = if is_valid {
            format!("{owner} app_key {app_key:?}")
        } else {
            format!("{owner} app_key")
        };
        if !is_valid {
            self.source.report(span.clone(), &*subject, Problem::Form(error::APP_KEY_RULE));
        } else if let Some(first) = self.key_owners.insert(app_key.clone(), owner.to_owned()) {
            self.source.report(span.clone(), &*subject, Problem::KeyTwice { first });
        }
        let secret = SecretSource {
            subject: &subject,
            kind: SecretKind::AppSecret,
            sha256: ("app_secret_sha256", table.app_secret_sha256.as_ref()),
            file: ("app_secret_file", table.app_secret_file.as_ref()),
        };
        if !secret.is_given() {
            let problem = Problem::NeitherWay("app_secret_sha256", "app_secret_file");
            self.source.report(span, subject, problem);
        } else if let Some(digest) = secret.digest(self.source) {
            self.gate = std::mem::take(&mut self.gate).with_key(app_key, pool, digest);
        }
    }

    fn token(&mut self, viewer: Viewer, token: &SecretSource<'_>) {
        let Some(digest) = token.digest(self.source) else { return };
        let subject = token.name();
        if let Some((first, _)) = self.tokens.iter().find(|(_, other)| other.matches(&digest)) {
            let problem = Problem::TokenTwice { first: first.clone() };
            self.source.report(token.span(), subject, problem);
            return;
        }
        self.tokens.push((subject, digest));
        self.gate = std::mem::take(&mut self.gate).with_viewer(viewer, digest);
    }

    fn open(&mut self, file: &File) {
        let Some(open) = file.viewers.open.as_ref().filter(|open| *open.get_ref()) else { return };
        if let Some((token, _)) = self.tokens.first() {
            let problem = Problem::OpenWithToken { token: token.clone() };
            self.source.report(Some(open.span()), "[viewers] open", problem);
        }
        self.gate = std::mem::take(&mut self.gate).with_open_viewing();
    }
}
