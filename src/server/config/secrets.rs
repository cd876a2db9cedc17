//! A secret as the file gives it: its digest, or the name of a file that holds it. Reads that
//! file; forgets what it held.

use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::error::{self, Problem};
use super::file::Source;
use super::{MAX_TEXT_BYTES, MIN_TEXT_BYTES};
use crate::server::auth::SecretDigest;

/// Whose secret it is, which decides what characters it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretKind {
    /// Travels in a header of its own.
    AppSecret,
    /// Travels in a cookie too.
    ViewerToken,
}

impl SecretKind {
    fn rule(self) -> &'static str {
        match self {
            Self::AppSecret => error::SECRET_RULE,
            Self::ViewerToken => error::TOKEN_RULE,
        }
    }

    fn allows(self, secret: &str) -> bool {
        let cookie_safe = |byte| !matches!(byte, b'"' | b',' | b';' | b'\\');
        (MIN_TEXT_BYTES..=MAX_TEXT_BYTES).contains(&secret.len())
            && secret.bytes().all(|byte| {
                byte.is_ascii_graphic() && (self == Self::AppSecret || cookie_safe(byte))
            })
    }
}

/// The two keys of a table that can give one secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecretSource<'a> {
    /// The table, for an error.
    pub(super) subject: &'a str,
    pub(super) kind: SecretKind,
    /// Key and value.
    pub(super) sha256: (&'static str, Option<&'a Spanned<String>>),
    /// Key and value.
    pub(super) file: (&'static str, Option<&'a Spanned<String>>),
}

impl SecretSource<'_> {
    /// The secret's digest; none where the table gives no secret, or a mistake.
    pub(super) fn digest(&self, source: &Source<'_>) -> Option<SecretDigest> {
        let digest = match (self.sha256.1, self.file.1) {
            (None, None) => return None,
            (Some(_), Some(file)) => {
                let problem = Problem::BothWays(self.sha256.0, self.file.0);
                source.report(Some(file.span()), self.subject, problem);
                return None;
            }
            (Some(hex), None) => from_hex(hex.get_ref()),
            (None, Some(file)) => from_file(self.kind, file.get_ref(), source.path),
        };
        digest.map_err(|problem| source.report(self.span(), self.name(), problem)).ok()
    }

    /// Whether the table gives a secret, right or wrong.
    pub(super) fn is_given(&self) -> bool {
        self.span().is_some()
    }

    /// Table and key, for an error.
    pub(super) fn name(&self) -> String {
        let key = if self.file.1.is_some() { self.file.0 } else { self.sha256.0 };
        format!("{} {key}", self.subject)
    }

    /// Where the secret stands, if it does.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.sha256.1.or(self.file.1).map(Spanned::span)
    }
}

fn from_hex(text: &str) -> Result<SecretDigest, Problem> {
    let digest = SecretDigest::from_hex(text).ok_or(Problem::Form(error::DIGEST_RULE))?;
    // What hashing an unset variable gives; a client that sends an empty header would pass.
    if digest.matches(&SecretDigest::of("")) {
        return Err(Problem::EmptyDigest);
    }
    Ok(digest)
}

/// Reads a secret from `name`, which is relative to the directory of `config`.
fn from_file(kind: SecretKind, name: &str, config: &Path) -> Result<SecretDigest, Problem> {
    let path = config.parent().unwrap_or(Path::new("")).join(name);
    let text =
        read_secret(&path).map_err(|source| Problem::SecretFile { path: path.clone(), source })?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if kind.allows(secret) {
        Ok(SecretDigest::of(secret))
    } else {
        Err(Problem::SecretText { path, rule: kind.rule() })
    }
}

/// The beginning of the file: a little more than a secret may have, whatever the file is.
fn read_secret(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_TEXT_BYTES + 16).unwrap_or(u64::MAX);
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    // What is no UTF-8 becomes a character that no secret may have.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
