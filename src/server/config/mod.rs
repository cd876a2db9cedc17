//! From file, flags and environment to one checked [`Config`]. Reads files; opens no socket
//! and starts nothing.
//!
//! A file can be wrong in many ways, and in several at once: the error says all of them in the
//! file's order, each with line, column, table and key, and what is allowed instead.

mod access;
mod bounds;
mod error;
mod file;
mod secrets;
mod units;

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::bounds::{changed_limits, default_limits};
pub(crate) use self::error::{ConfigError, Problem};
use self::file::{File, Source};
use self::units::TIME;
use crate::server::auth::{Gate, SecretDigest};
use crate::server::limits::{DEFAULT_EVICT_AFTER, Limits};
use crate::wire::id::{PoolId, PoolIndex};

/// The file that is read when none is named, in the working directory.
pub(crate) const DEFAULT_FILE: &str = "agent-metrics.toml";

/// The port of the two default addresses (seed: 8080).
pub(crate) const DEFAULT_PORT: u16 = 8_080;

/// Key of `--dev`.
pub(crate) const DEV_KEY: &str = "dev";

/// Secret of `--dev`: known to all, which is why `--dev` stays on loopback.
pub(crate) const DEV_SECRET: &str = "dev";

/// Pool of `--dev`.
pub(crate) const DEV_POOL: &str = "local";

/// Least `evict_after`: the eviction tick is a quarter of it, and a faster one would only
/// heat the machine.
pub(crate) const MIN_EVICT_AFTER: Duration = Duration::from_millis(100);

/// Most `evict_after`: who is silent for a month is not coming back.
pub(crate) const MAX_EVICT_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Most addresses to listen on: each is a descriptor of those held in reserve.
pub(crate) const MAX_LISTEN: usize = 8;

/// Most pools. The registry and the page hold one entry for each, agents or not.
pub(crate) const MAX_POOLS: usize = 1_000;

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: usize = 1_024 * 1_024;

/// Shortest secret or token that a file may hold, in bytes: 16 random letters are 75 bits, which
/// nobody guesses over a network. Of a digest the length is not known.
const MIN_TEXT_BYTES: usize = 16;

/// Longest secret or token that a file may hold, in bytes: what fits a head beside all else.
const MAX_TEXT_BYTES: usize = 1_024;

/// A pool as the configuration has it.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// Its id, unique.
    pub id: PoolId,
    /// Its name for people; the id where the file gives none.
    pub name: String,
}

/// Everything the server is told, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where the door listens; at least one address.
    pub listen: Vec<SocketAddr>,
    /// See [`crate::server::limits::DEFAULT_EVICT_AFTER`].
    pub evict_after: Duration,
    /// In the file's order: a [`crate::wire::id::PoolIndex`] counts from here.
    pub pools: Vec<Pool>,
    /// Who may do what.
    pub gate: Gate,
    /// Whether anyone may look without a token.
    pub open: bool,
    /// Bounds.
    pub limits: Limits,
}

/// What flags and environment say instead of the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// Instead of `listen`, if there is any.
    pub listen: Vec<SocketAddr>,
    /// Instead of `evict_after`.
    pub evict_after: Option<Duration>,
}

/// How an error names what set [`Overrides::listen`].
const LISTEN_OPTION: &str = "--listen (AGENT_METRICS_LISTEN)";
/// How an error names what set [`Overrides::evict_after`].
const EVICT_AFTER_OPTION: &str = "--evict-after (AGENT_METRICS_EVICT_AFTER)";

impl Config {
    /// The file that is meant: `named`, or [`DEFAULT_FILE`] in the working directory.
    ///
    /// # Errors
    /// [`ConfigError::NoFile`] when none is named and that one is not there.
    pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
        find(named, Path::new(DEFAULT_FILE))
    }

    /// Reads and checks the file at `path`, or [`DEFAULT_FILE`] in the working directory.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong and where.
    pub(crate) fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let path = Self::find(path)?;
        let text = read(&path)?;
        Self::parse(&text, &path, overrides)
    }

    /// Checks a file's text. `path` names it in errors, and the files that it names are looked
    /// for in that directory.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong and where.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let source = Source::new(path, text);
        let config = source.parse().map(|file| Self::of_file(&file, &source, overrides));
        let mut config = source.finish(config)?;
        if !overrides.listen.is_empty() {
            distinct(&overrides.listen).map_err(in_option(LISTEN_OPTION))?;
            config.listen.clone_from(&overrides.listen);
            if !config.open && !config.gate.has_viewers() {
                reached_by_some(&config.listen).map_err(in_option(LISTEN_OPTION))?;
            }
        }
        if let Some(given) = overrides.evict_after {
            config.evict_after = override_evict_after(given)?;
        }
        Ok(config)
    }

    /// What the file says, of use where nothing in it was a mistake. What options go before is
    /// checked all the same: a mistake in the file should not wait for its day.
    fn of_file(file: &File, source: &Source<'_>, overrides: &Overrides) -> Self {
        let listen = file_listen(file, source);
        let evict_after = file.evict_after.as_ref().and_then(|value| {
            let bounds = (MIN_EVICT_AFTER, MAX_EVICT_AFTER);
            bounds::bounded(source, "evict_after", value, &TIME, bounds)
        });
        let (pools, gate) = access::checked(file, source);
        if overrides.listen.is_empty() && !access::is_viewing_settled(file, source) {
            let span = file.listen.as_ref().map(toml::Spanned::span);
            let _ =
                reached_by_some(&listen).map_err(|problem| source.report(span, "listen", problem));
        }
        let evict_after = evict_after.unwrap_or(DEFAULT_EVICT_AFTER);
        let limits = file.limits.checked(source);
        Self { listen, evict_after, pools, open: gate.is_open(), gate, limits }
    }

    /// The configuration of `--dev`: no file, loopback only, everything open and well-known.
    ///
    /// # Errors
    /// [`ConfigError::Override`] when an override leaves loopback or its range.
    pub(crate) fn dev(overrides: &Overrides) -> Result<Self, ConfigError> {
        let listen = if overrides.listen.is_empty() {
            default_listen()
        } else {
            distinct(&overrides.listen).map_err(in_option(LISTEN_OPTION))?;
            overrides.listen.clone()
        };
        if let Some(address) = listen.iter().find(|address| !is_loopback(address)) {
            return Err(in_option(LISTEN_OPTION)(Problem::DevBeyondLoopback(*address)));
        }
        let evict_after =
            overrides.evict_after.map_or(Ok(DEFAULT_EVICT_AFTER), override_evict_after)?;
        let secret = SecretDigest::of(DEV_SECRET);
        let gate = Gate::default()
            .with_key(DEV_KEY, PoolIndex(0), secret)
            .with_public_secrets()
            .with_open_viewing();
        let id = PoolId::parse(DEV_POOL)
            .map_err(|_| in_option("--dev")(Problem::Form(crate::wire::id::ID_RULE)))?;
        let pools = vec![Pool { id, name: "Local".to_owned() }];
        Ok(Self { listen, evict_after, pools, gate, open: true, limits: Limits::default() })
    }
}

/// Whether only this machine reaches `address`.
#[must_use]
pub(crate) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Reads one address to listen on.
///
/// # Errors
/// The sentence that says what is allowed.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("must be {}", error::LISTEN_RULE))
}

/// Both loopback addresses at [`DEFAULT_PORT`]: `localhost` may mean either.
fn default_listen() -> Vec<SocketAddr> {
    vec![(Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(), (Ipv6Addr::LOCALHOST, DEFAULT_PORT).into()]
}

fn find(named: Option<&Path>, default: &Path) -> Result<PathBuf, ConfigError> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None if default.exists() => Ok(default.to_owned()),
        None => Err(ConfigError::NoFile),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    fs::File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text))
        .map_err(|source: io::Error| ConfigError::Read { path: path.to_owned(), source })?;
    if text.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn in_option(option: &'static str) -> impl Fn(Problem) -> ConfigError {
    move |problem| ConfigError::Override { option, problem: Box::new(problem) }
}

/// Port 0 may come twice: each is a port of its own.
fn distinct(addresses: &[SocketAddr]) -> Result<(), Problem> {
    if !(1..=MAX_LISTEN).contains(&addresses.len()) {
        return Err(Problem::ListenCount);
    }
    for (number, address) in addresses.iter().enumerate() {
        if address.port() != 0 && addresses[..number].contains(address) {
            return Err(Problem::ListenTwice(*address));
        }
    }
    Ok(())
}

/// Without addresses that are mistaken.
fn file_listen(file: &File, source: &Source<'_>) -> Vec<SocketAddr> {
    let Some(listen) = &file.listen else { return default_listen() };
    let mut addresses = Vec::new();
    for text in listen.get_ref() {
        match parse_listen(text.get_ref()) {
            Ok(address) => addresses.push(address),
            Err(_) => {
                let subject = format!("listen {:?}", text.get_ref());
                source.report(Some(text.span()), subject, Problem::Form(error::LISTEN_RULE));
            }
        }
    }
    if addresses.len() == listen.get_ref().len() {
        let _ = distinct(&addresses)
            .map_err(|problem| source.report(Some(listen.span()), "listen", problem));
    }
    addresses
}

fn override_evict_after(given: Duration) -> Result<Duration, ConfigError> {
    bounds::within(given, &TIME, (MIN_EVICT_AFTER, MAX_EVICT_AFTER))
        .map_err(in_option(EVICT_AFTER_OPTION))
}

/// For when nothing says who may look. On loopback that is a choice; where others can come it is
/// more likely forgotten, and the page would be a riddle.
fn reached_by_some(listen: &[SocketAddr]) -> Result<(), Problem> {
    let public = listen.iter().find(|address| !is_loopback(address));
    public.map_or(Ok(()), |address| Err(Problem::NobodySaidOpen(*address)))
}

#[cfg(test)]
mod tests;
