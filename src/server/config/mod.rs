//! From file, flags and environment to one checked [`Config`]. Reads files; opens no socket
//! and starts nothing.
//!
//! A file can be wrong in several places: the error names all of them, in the file's order, each with
//! line, column, table and key, and what is allowed instead.

mod access;
mod secrets;
mod settings;
mod source;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use toml::de::{DeTable, DeValue};

use self::access::Access;
use self::settings::milliseconds;
pub(crate) use self::settings::settable_limits;
use self::source::{Source, Value};
use crate::server::auth::{Gate, SecretDigest};
use crate::server::limits::{DEFAULT_EVICT_AFTER, Limits};
use crate::wire::id::PoolId;

/// The file that is read when none is named, in the working directory.
pub(crate) const DEFAULT_FILE: &str = "agent-metrics.toml";

/// The port of the two default addresses (seed: 8080).
pub(crate) const DEFAULT_PORT: u16 = 8_080;

// Of `--dev`, which listens on loopback only, since everyone knows its secret.
pub(crate) const DEV_KEY: &str = "dev";
pub(crate) const DEV_SECRET: &str = "dev";
pub(crate) const DEV_POOL: &str = "local";

/// Most addresses to listen on: each takes one of the reserved descriptors.
const MAX_LISTEN: usize = 8;

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: usize = 1_024 * 1_024;

/// What `listen` and `--listen` take.
const LISTEN_RULE: &str = "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";

#[derive(Debug, Clone)]
pub(crate) struct PoolConfig {
    pub id: PoolId,
    /// For people; the id where the file gives none.
    pub name: String,
    /// Names of its agents' keys, in the file's order.
    pub app_keys: Vec<String>,
}

/// Everything the server is told, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where the door listens; at least one address.
    pub listen: Vec<SocketAddr>,
    /// See [`DEFAULT_EVICT_AFTER`].
    pub evict_after: Duration,
    /// In the file's order: [`PoolIndex`](crate::wire::id::PoolIndex) is the position here.
    pub pools: Vec<PoolConfig>,
    pub gate: Gate,
    pub limits: Limits,
}

// The docs of the fields are the text of `--help`.
/// What flags and environment say instead of the file: an empty `listen` says nothing.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Overrides {
    /// IP address and port to listen on, instead of the file's; repeat, or separate by commas, for
    /// several; port 0 means any free port [default: port 8080 on both loopback addresses]
    #[arg(long, value_name = "ADDR", env = "AGENT_METRICS_LISTEN", num_args = 1..)]
    #[arg(value_delimiter = ',', value_parser = parse_listen)]
    pub listen: Vec<SocketAddr>,

    /// Remove an agent when its last heartbeat is older than this, instead of the file's time; with
    /// a unit, 100ms to 30days [default: 5m]
    #[arg(long, value_name = "TIME", env = "AGENT_METRICS_EVICT_AFTER", value_parser = parse_time)]
    pub evict_after: Option<Duration>,
}

// How an error names them.
const LISTEN_OPTION: &str = "--listen (AGENT_METRICS_LISTEN)";
const EVICT_AFTER_OPTION: &str = "--evict-after (AGENT_METRICS_EVICT_AFTER)";

/// Why there is no [`Config`]. Shows no value that may be a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "no configuration: name a file with --config or AGENT_METRICS_CONFIG, or put \
         {DEFAULT_FILE} into the working directory (`agent-metrics init` writes one), or try the \
         server without any by `agent-metrics serve --dev`"
    )]
    NoFile,
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: larger than {} KiB", .0.display(), MAX_FILE_BYTES / 1_024)]
    TooLarge(PathBuf),
    /// One line for each mistake, in the file's order, with path, line and column.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// A flag or its environment variable, and what is wrong with its value.
    #[error("{option}: {problem}")]
    Override { option: &'static str, problem: String },
}

impl Config {
    pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = fs::File::open(path)
            .and_then(|file| io::read_to_string(file.take(MAX_FILE_BYTES as u64 + 1)))
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if text.len() > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        Self::parse(&text, path, overrides)
    }

    /// Checks a file's text. `path` names it in errors, and files that it names are relative to
    /// `path`'s directory.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let source = Source::new(path, text);
        let root = DeTable::parse(text).map_err(|error| source.report_syntax(&error));
        let config = root.ok().map(|root| {
            let root = DeValue::Table(root.into_inner());
            Self::read(&source.root(&root), overrides)
        });
        let mut config = source.finish(config)?;
        if !overrides.listen.is_empty() {
            let says_who_may_view = config.gate.is_open || !config.gate.viewers.is_empty();
            let listen = &overrides.listen;
            check_listen(listen.len(), listen, says_who_may_view)
                .map_err(in_option(LISTEN_OPTION))?;
            config.listen.clone_from(&overrides.listen);
        }
        if let Some(given) = overrides.evict_after {
            let mut setting = settings::evict_after(&mut config.evict_after);
            setting.set(milliseconds(given)).map_err(in_option(EVICT_AFTER_OPTION))?;
        }
        Ok(config)
    }

    /// What the file says, of use only where nothing in it is a mistake. A setting that an override
    /// replaces is checked all the same, except for whom `listen` reaches.
    fn read(root: &Value<'_>, overrides: &Overrides) -> Self {
        let known = [
            "listen",
            "evict_after",
            "allowed_hosts",
            "allowed_origins",
            "trusted_proxies",
            "viewers",
            "pools",
            "limits",
        ];
        root.allow_only(&known, &[]);
        let access = Access::read(root);
        let mut evict_after = DEFAULT_EVICT_AFTER;
        settings::evict_after(&mut evict_after).read(root);
        let may_be_public = access.says_who_may_view || !overrides.listen.is_empty();
        Self {
            listen: read_listen(root, may_be_public),
            evict_after,
            gate: access.gate,
            pools: access.pools,
            limits: settings::read_limits(root),
        }
    }

    /// The configuration of `--dev`: everything is open and well-known, so on loopback only.
    pub(crate) fn dev(overrides: &Overrides) -> Result<Self, ConfigError> {
        let secret = SecretDigest::of(DEV_SECRET).to_hex();
        let text = format!(
            r#"
            viewers.open = true
            [[pools]]
            id = "{DEV_POOL}"
            name = "Local"
            keys = [{{ app_key = "{DEV_KEY}", app_secret_sha256 = "{secret}" }}]
            "#
        );
        let mut config = Self::parse(&text, Path::new("--dev"), overrides)?;
        config.gate.has_public_secrets = true;
        match config.listen.iter().find(|address| !is_loopback(address)) {
            Some(address) => Err(in_option(LISTEN_OPTION)(format!(
                "{address} is not a loopback address: --dev has a well-known secret and open \
                 viewing, so it listens on 127.0.0.1 and [::1] only; for other addresses write a \
                 configuration with `agent-metrics init`"
            ))),
            None => Ok(config),
        }
    }
}

/// The file to read: the flag's, or the variable's if that is not empty, or `default` if that exists.
pub(crate) fn find(
    flag: Option<PathBuf>,
    variable: Option<OsString>,
    default: &Path,
) -> Result<PathBuf, ConfigError> {
    let variable = variable.filter(|name| !name.is_empty()).map(PathBuf::from);
    let default = default.exists().then(|| default.to_owned());
    flag.or(variable).or(default).ok_or(ConfigError::NoFile)
}

/// Whether only this machine can connect to `address`.
pub(crate) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "must be a time with a unit, such as 10s or 5m".to_owned())
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("must be {LISTEN_RULE}"))
}

/// Both loopback addresses at [`DEFAULT_PORT`]: `localhost` may mean either.
fn default_listen() -> Vec<SocketAddr> {
    vec![(Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(), (Ipv6Addr::LOCALHOST, DEFAULT_PORT).into()]
}

/// The file's addresses, without those that are mistaken, or the default ones.
fn read_listen(root: &Value<'_>, may_be_public: bool) -> Vec<SocketAddr> {
    let Some(value) = root.get("listen") else { return default_listen() };
    let entries = value.parse_each(LISTEN_RULE, |text| parse_listen(text).ok());
    let Some(entries) = entries else { return Vec::new() };
    let count = entries.len();
    let addresses: Vec<_> = entries.into_iter().flatten().collect();
    if let Err(why) = check_listen(count, &addresses, may_be_public) {
        value.refuse(why);
    }
    addresses
}

/// On loopback a file need not say who may see the dashboards; where other machines can connect, it
/// is more likely forgotten.
fn check_listen(count: usize, addresses: &[SocketAddr], may_be_public: bool) -> Result<(), String> {
    if !(1..=MAX_LISTEN).contains(&count) {
        return Err(format!("must name 1 to {MAX_LISTEN} addresses"));
    }
    for (number, address) in addresses.iter().enumerate() {
        // Port 0 may occur twice: the system chooses another port for each.
        if address.port() != 0 && addresses[..number].contains(address) {
            return Err(format!("{address} is named twice"));
        }
        if !may_be_public && !is_loopback(address) {
            return Err(format!(
                "other machines can connect to {address} and nothing says who may see the \
                 dashboards: give [viewers] token_sha256 or token_file, or a viewer token for a \
                 pool, or open = true in [viewers], or listen on 127.0.0.1 and [::1] only"
            ));
        }
    }
    Ok(())
}

fn in_option(option: &'static str) -> impl Fn(String) -> ConfigError {
    move |problem| ConfigError::Override { option, problem }
}

#[cfg(test)]
mod tests;
