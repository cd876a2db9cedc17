//! Pools, their keys, and who may look: from the file's tables to a [`Gate`]. Keeps only
//! digests.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;

use super::error::{self, ConfigError, Problem};
use super::file::{File, KeyTable, PoolTable, Source};
use super::secrets::{SecretKind, SecretSource};
use super::{MAX_POOLS, Pool};
use crate::auth::{Authority, Gate, Origin, SecretDigest, Viewer};
use crate::id::{MAX_ID_BYTES, PoolId, PoolIndex};
use crate::limits::MAX_TEXT_CHARS;

/// The file's pools in its order, and the gate before them.
pub(super) fn checked(file: &File, source: Source<'_>) -> Result<(Vec<Pool>, Gate), ConfigError> {
    let count = file.pools.len();
    if !(1..=MAX_POOLS).contains(&count) {
        return Err(source.invalid(None, "[[pools]]", Problem::PoolCount(count)));
    }
    let mut builder = Builder {
        source,
        gate: networks(file, source)?,
        pools: Vec::with_capacity(count),
        key_owners: HashMap::new(),
        tokens: Vec::new(),
    };
    builder.all_pools_token(file)?;
    for (number, table) in file.pools.iter().enumerate() {
        builder.pool(PoolIndex(number), table)?;
    }
    builder.open(file)?;
    Ok((builder.pools, builder.gate))
}

/// A gate that knows the file's hosts, origins and proxies.
fn networks(file: &File, source: Source<'_>) -> Result<Gate, ConfigError> {
    let entry = |key: &str, entry: &Spanned<String>, rule| {
        source.invalid(
            Some(entry.span()),
            format!("{key} {:?}", entry.get_ref()),
            Problem::Form(rule),
        )
    };
    let mut gate = Gate::default();
    for host in &file.allowed_hosts {
        let read = Authority::parse(host.get_ref());
        gate = gate.with_host(read.ok_or_else(|| entry("allowed_hosts", host, error::HOST_RULE))?);
    }
    for origin in &file.allowed_origins {
        let read = Origin::parse(origin.get_ref());
        gate = gate
            .with_origin(read.ok_or_else(|| entry("allowed_origins", origin, error::ORIGIN_RULE))?);
    }
    for proxy in &file.trusted_proxies {
        let text = proxy.get_ref();
        let read = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        gate = gate
            .with_proxy(read.ok_or_else(|| entry("trusted_proxies", proxy, error::PROXY_RULE))?);
    }
    Ok(gate)
}

/// What has been read so far, to find what comes twice.
struct Builder<'a> {
    source: Source<'a>,
    gate: Gate,
    pools: Vec<Pool>,
    /// App key to the pool that has it, in words.
    key_owners: HashMap<String, String>,
    /// Viewer tokens and where they stand.
    tokens: Vec<(String, SecretDigest)>,
}

impl Builder<'_> {
    fn all_pools_token(&mut self, file: &File) -> Result<(), ConfigError> {
        let token = SecretSource {
            subject: "[viewers]",
            kind: SecretKind::ViewerToken,
            sha256: ("token_sha256", file.viewers.token_sha256.as_ref()),
            file: ("token_file", file.viewers.token_file.as_ref()),
        };
        self.token(Viewer::All, &token)
    }

    /// Everything that a `[[pools]]` table says.
    fn pool(&mut self, index: PoolIndex, table: &PoolTable) -> Result<(), ConfigError> {
        let pool = self.named(index, table)?;
        let subject = format!("[[pools]] {:?}", pool.id.as_str());
        self.pools.push(pool);
        if table.keys.is_empty() {
            let subject = format!("{subject} keys");
            return Err(self.source.invalid(Some(table.id.span()), subject, Problem::NoKeys));
        }
        for key in &table.keys {
            self.key(index, &subject, key)?;
        }
        let token = SecretSource {
            subject: &subject,
            kind: SecretKind::ViewerToken,
            sha256: ("viewer_token_sha256", table.viewer_token_sha256.as_ref()),
            file: ("viewer_token_file", table.viewer_token_file.as_ref()),
        };
        self.token(Viewer::Pool(index), &token)
    }

    /// The pool's id and name.
    fn named(&self, index: PoolIndex, table: &PoolTable) -> Result<Pool, ConfigError> {
        let shown: String = table.id.get_ref().chars().take(MAX_ID_BYTES).collect();
        let invalid = |problem| {
            let subject = format!("[[pools]] number {}, id {shown:?}", index.0 + 1);
            self.source.invalid(Some(table.id.span()), subject, problem)
        };
        let id = PoolId::parse(table.id.get_ref()).map_err(|_| invalid(error::POOL_ID))?;
        if self.pools.iter().any(|pool| pool.id == id) {
            return Err(invalid(Problem::PoolTwice));
        }
        let name = match &table.name {
            None => id.as_str().to_owned(),
            Some(name) => {
                let text = name.get_ref();
                let length_fits = (1..=MAX_TEXT_CHARS).contains(&text.chars().count());
                if !length_fits || text.chars().any(char::is_control) {
                    let subject = format!("[[pools]] {:?} name", id.as_str());
                    let problem = Problem::Form(error::NAME_RULE);
                    return Err(self.source.invalid(Some(name.span()), subject, problem));
                }
                text.clone()
            }
        };
        Ok(Pool { id, name })
    }

    fn key(&mut self, pool: PoolIndex, owner: &str, table: &KeyTable) -> Result<(), ConfigError> {
        let app_key = table.app_key.get_ref();
        let span = Some(table.app_key.span());
        // Not shown here: what breaks the rule may be a secret in the wrong place.
        let visible = app_key.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_ID_BYTES).contains(&app_key.len()) {
            let problem = Problem::Form(error::APP_KEY_RULE);
            return Err(self.source.invalid(span, format!("{owner} app_key"), problem));
        }
        let subject = format!("{owner} app_key {app_key:?}");
        if let Some(first) = self.key_owners.insert(app_key.clone(), owner.to_owned()) {
            return Err(self.source.invalid(span, subject, Problem::KeyTwice { first }));
        }
        let secret = SecretSource {
            subject: &subject,
            kind: SecretKind::AppSecret,
            sha256: ("app_secret_sha256", table.app_secret_sha256.as_ref()),
            file: ("app_secret_file", table.app_secret_file.as_ref()),
        };
        let Some(digest) = secret.digest(self.source)? else {
            let problem = Problem::NeitherWay("app_secret_sha256", "app_secret_file");
            return Err(self.source.invalid(span, subject, problem));
        };
        self.gate = std::mem::take(&mut self.gate).with_key(app_key, pool, digest);
        Ok(())
    }

    fn token(&mut self, viewer: Viewer, token: &SecretSource<'_>) -> Result<(), ConfigError> {
        let Some(digest) = token.digest(self.source)? else { return Ok(()) };
        let subject = token.name();
        if let Some((first, _)) = self.tokens.iter().find(|(_, other)| other.matches(&digest)) {
            let problem = Problem::TokenTwice { first: first.clone() };
            return Err(self.source.invalid(token.span(), subject, problem));
        }
        self.tokens.push((subject, digest));
        self.gate = std::mem::take(&mut self.gate).with_viewer(viewer, digest);
        Ok(())
    }

    fn open(&mut self, file: &File) -> Result<(), ConfigError> {
        let Some(open) = file.viewers.open.as_ref().filter(|open| *open.get_ref()) else {
            return Ok(());
        };
        if let Some((token, _)) = self.tokens.first() {
            let problem = Problem::OpenWithToken { token: token.clone() };
            return Err(self.source.invalid(Some(open.span()), "[viewers] open", problem));
        }
        self.gate = std::mem::take(&mut self.gate).with_open_viewing();
        Ok(())
    }
}
