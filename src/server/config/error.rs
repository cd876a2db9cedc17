//! What can be wrong with a configuration, and where. Words only; decides nothing. Shows no
//! value that may be a secret.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{DEFAULT_FILE, MAX_FILE_BYTES, MAX_LISTEN, MAX_POOLS, MAX_TEXT_BYTES, MIN_TEXT_BYTES};
use crate::wire::id::ID_RULE;

/// Of a file's mistakes, so many are shown: more than fit a screen.
const MAX_SHOWN: usize = 100;

/// Why there is no [`super::Config`].
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// No file was named, and there is none in the working directory.
    NoFile,
    /// The file cannot be read.
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not TOML, or says something that cannot be.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, in the file's order.
        mistakes: Vec<Mistake>,
    },
    /// A flag or its environment variable says something that cannot be.
    Override {
        /// Flag and variable.
        option: &'static str,
        /// What is wrong with it.
        problem: Box<Problem>,
    },
}

/// One thing that is wrong with a file.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// Line and column, counted from 1; none for what is missing.
    pub place: Option<(usize, usize)>,
    /// Table and key; empty where that is all of the file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a value, and what is allowed instead.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Not TOML: the parser's words.
    Syntax(String),
    /// Not TOML, since a value has no quotes.
    Unquoted {
        /// As given.
        key: String,
        /// What to do.
        rule: String,
    },
    /// A key that the table doesn't have.
    Unknown {
        /// As given.
        key: String,
        /// Those that it has.
        known: String,
    },
    /// A key of an earlier release.
    Gone {
        /// Which.
        key: &'static str,
        /// What holds instead.
        instead: &'static str,
    },
    /// A key that the table must have.
    Missing(&'static str),
    /// A value of another type.
    Type {
        /// Its type.
        found: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
    /// Not of the form that the key takes: the rule.
    Form(&'static str),
    /// Of the right form and beyond the bounds.
    Range {
        /// As it was understood.
        given: String,
        /// Least allowed.
        min: String,
        /// Most allowed.
        max: String,
    },
    /// `listen` names no address, or too many.
    ListenCount,
    /// `listen` names this address twice.
    ListenTwice(SocketAddr),
    /// An address that others can reach, with nothing said about who may look.
    NobodySaidOpen(SocketAddr),
    /// `--dev` beyond loopback.
    DevBeyondLoopback(SocketAddr),
    /// No `[[pools]]`, or too many.
    PoolCount(usize),
    /// A second pool of this id.
    PoolTwice,
    /// A pool without keys.
    NoKeys,
    /// An app key that an earlier pool (or this one) has.
    KeyTwice {
        /// Its pool.
        first: String,
    },
    /// A secret given both ways.
    BothWays(&'static str, &'static str),
    /// A secret given in neither way.
    NeitherWay(&'static str, &'static str),
    /// The digest of the empty text.
    EmptyDigest,
    /// A viewer token that something else has.
    TokenTwice {
        /// What else.
        first: String,
    },
    /// `open = true` beside a viewer token: one of them is a mistake.
    OpenWithToken {
        /// Which token.
        token: String,
    },
    /// A secret's file cannot be read.
    SecretFile {
        /// As it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret's file does not hold a secret.
    SecretText {
        /// As it was looked for.
        path: PathBuf,
        /// What it should hold.
        rule: &'static str,
    },
}

/// `[[pools]]` id.
pub(super) const POOL_ID: Problem = Problem::Form(ID_RULE);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => write!(
                f,
                "no configuration: name a file with --config or AGENT_METRICS_CONFIG, or put \
                 {DEFAULT_FILE} into the working directory (`agent-metrics init` writes one), or \
                 try the server without any by `agent-metrics serve --dev`"
            ),
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::TooLarge { path } => {
                write!(f, "{}: larger than {} KiB", path.display(), MAX_FILE_BYTES / 1_024)
            }
            Self::Invalid { path, mistakes } => {
                for (number, mistake) in mistakes.iter().take(MAX_SHOWN).enumerate() {
                    let end = if number == 0 { "" } else { "\n" };
                    write!(f, "{end}{}{mistake}", path.display())?;
                }
                match mistakes.len().checked_sub(MAX_SHOWN) {
                    Some(more @ 1..) => write!(f, "\n{}: {more} mistakes more", path.display()),
                    _ => Ok(()),
                }
            }
            Self::Override { option, problem } => write!(f, "{option}: {problem}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What comes behind the file's name.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        let colon = if self.subject.is_empty() { "" } else { ": " };
        write!(f, ": {}{colon}{}", self.subject, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => f.write_str(message),
            Self::Unquoted { key, rule } => write!(f, "{key}: {rule}"),
            Self::Unknown { key, known } => {
                write!(f, "unknown field `{}`, expected one of {known}", key.escape_debug())
            }
            Self::Gone { key, instead } => {
                write!(f, "`{key}` cannot be set any more, remove it: {instead}")
            }
            Self::Missing(key) => write!(f, "missing field `{key}`"),
            Self::Type { found, expected } => {
                write!(f, "invalid type: {found}, expected {expected}")
            }
            Self::Form(rule) => write!(f, "must be {rule}"),
            Self::Range { given, min, max } => {
                write!(f, "{given} is out of range, {min} to {max} is allowed")
            }
            Self::ListenCount => write!(f, "must name 1 to {MAX_LISTEN} addresses"),
            Self::ListenTwice(address) => write!(f, "{address} is named twice"),
            Self::NobodySaidOpen(address) => write!(
                f,
                "{address} can be reached from other machines and nothing says who may look: \
                 give [viewers] token_sha256 or token_file, or a viewer token for a pool, or say \
                 open = true in [viewers], or listen on 127.0.0.1 and [::1] only"
            ),
            Self::DevBeyondLoopback(address) => write!(
                f,
                "{address} is not a loopback address: --dev has a well-known secret and open \
                 viewing, so it listens on 127.0.0.1 and [::1] only; for other addresses write a \
                 configuration with `agent-metrics init`"
            ),
            Self::PoolCount(0) => {
                write!(f, "there is none, and every agent's key belongs to one: give at least one")
            }
            Self::PoolCount(count) => write!(f, "{count} are too many, {MAX_POOLS} are allowed"),
            Self::PoolTwice => write!(f, "an earlier pool has this id, ids must differ"),
            Self::NoKeys => {
                write!(f, "no agent could report to it: give at least one {{ app_key = ... }}")
            }
            Self::KeyTwice { first } => {
                write!(f, "{first} has this app_key already, a key belongs to one pool")
            }
            Self::BothWays(one, other) => write!(f, "give {one} or {other}, not both"),
            Self::NeitherWay(one, other) => write!(f, "give {one} or {other}"),
            Self::EmptyDigest => write!(
                f,
                "is the SHA-256 of the empty text; hash the secret itself, as in \
                 `printf %s \"$SECRET\" | sha256sum`"
            ),
            Self::TokenTwice { first } => write!(
                f,
                "{first} has the same token; a token decides what is seen, so they must differ"
            ),
            Self::OpenWithToken { token } => {
                write!(f, "anyone may look, and yet {token} asks for a token: remove one of them")
            }
            Self::SecretFile { path, source } => {
                write!(f, "cannot read {}: {source}", path.display())
            }
            Self::SecretText { path, rule } => write!(f, "{} must hold {rule}", path.display()),
        }
    }
}

/// What `listen` and `--listen` take.
pub(super) const LISTEN_RULE: &str =
    "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
/// What `allowed_hosts` takes.
pub(super) const HOST_RULE: &str = "a host name or address with or without a port, such as \"metrics.example.org\" (no scheme, \
     no path, no wildcard)";
/// What `allowed_origins` takes.
pub(super) const ORIGIN_RULE: &str = "a scheme and a host with or without a port, such as \"https://board.example.org\" (no path, \
     no wildcard, not null)";
/// What `trusted_proxies` takes.
pub(super) const PROXY_RULE: &str =
    "an IP address or a network, such as \"10.0.0.7\" or \"10.0.0.0/8\"";
/// What `app_key` takes.
pub(super) const APP_KEY_RULE: &str = "1 to 128 visible ASCII characters";
/// What `name` takes.
pub(super) const NAME_RULE: &str = "1 to 128 characters, none of them a control character";
/// What the `_sha256` keys take.
pub(super) const DIGEST_RULE: &str =
    "a SHA-256 in 64 hexadecimal digits, as `printf %s \"$SECRET\" | sha256sum` prints it";
/// What a file with an agent's secret holds.
pub(super) const SECRET_RULE: &str =
    "a secret of 16 to 1024 visible ASCII characters, and at most a line end behind it";
/// What a file with a viewer's token holds; RFC 6265 section 4.1.1 excludes the rest.
pub(super) const TOKEN_RULE: &str = "a token of 16 to 1024 visible ASCII characters other than \" , ; \\ (which no cookie can \
     carry), and at most a line end behind it";

// The rules above say these numbers.
const _: () = assert!(MIN_TEXT_BYTES == 16 && MAX_TEXT_BYTES == 1_024);
