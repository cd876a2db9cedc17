//! A secret as the file gives it: its digest, or the name of a file that holds it. Reads that
//! file; keeps only digests.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::source::Value;
use crate::server::auth::SecretDigest;

/// Shortest secret that a file may hold, in bytes: 16 random letters are 75 bits, which cannot be
/// guessed over a network. The length behind a digest is not known.
const MIN_BYTES: usize = 16;

/// Longest secret that a file may hold, in bytes: what fits a head beside all else.
pub(super) const MAX_BYTES: usize = 1_024;

/// One kind of secret: the two keys that may give it, and what its file may hold.
pub(super) struct Secret {
    sha256_key: &'static str,
    file_key: &'static str,
    /// For an error.
    rule: &'static str,
    excluded: &'static [u8],
}

/// An agent's, which comes in a header of its own.
pub(super) const APP_SECRET: Secret = Secret {
    sha256_key: "app_secret_sha256",
    file_key: "app_secret_file",
    rule: "a secret of 16 to 1024 visible ASCII characters, and at most a line end behind it",
    excluded: b"",
};

/// A viewer's of all pools. RFC 6265 section 4.1.1 excludes what no cookie can carry.
pub(super) const TOKEN: Secret = Secret {
    sha256_key: "token_sha256",
    file_key: "token_file",
    rule: "a token of 16 to 1024 visible ASCII characters other than \" , ; \\ (which no cookie \
           can carry), and at most a line end behind it",
    excluded: b"\",;\\",
};

/// A viewer's of one pool.
pub(super) const POOL_TOKEN: Secret =
    Secret { sha256_key: "viewer_token_sha256", file_key: "viewer_token_file", ..TOKEN };

impl Secret {
    /// What the table gives, if anything, and its digest, if that is no mistake.
    pub(super) fn read<'a>(&self, table: &Value<'a>) -> Option<(Value<'a>, Option<SecretDigest>)> {
        let (hex, file) = (table.get(self.sha256_key), table.get(self.file_key));
        let digest = match (&hex, &file) {
            (None, None) => None,
            (Some(_), Some(_)) => Some(Err(format!("{}, not both", self.ways()))),
            (Some(hex), None) => hex.text().map(from_hex),
            (None, Some(file)) => file.text().map(|name| self.read_file(name, file.source.path)),
        };
        let value = file.or(hex)?;
        let digest = digest.and_then(|digest| digest.map_err(|why| value.refuse(why)).ok());
        Some((value, digest))
    }

    /// How a table may give it, for an error.
    pub(super) fn ways(&self) -> String {
        format!("give {} or {}", self.sha256_key, self.file_key)
    }

    /// Reads a secret from `name`, which is relative to the directory of `config`.
    fn read_file(&self, name: &str, config: &Path) -> Result<SecretDigest, String> {
        let path = config.parent().unwrap_or(Path::new("")).join(name);
        let shown = path.display();
        let mut bytes = Vec::new();
        // A little more than a secret may have, whatever the file is.
        fs::File::open(&path)
            .and_then(|file| file.take(MAX_BYTES as u64 + 16).read_to_end(&mut bytes))
            .map_err(|error| format!("cannot read {shown}: {error}"))?;
        // What is not UTF-8 becomes a character that no secret may have.
        let text = String::from_utf8_lossy(&bytes);
        let secret = text.trim_end_matches(['\n', '\r']);
        let allowed = |byte: u8| byte.is_ascii_graphic() && !self.excluded.contains(&byte);
        if (MIN_BYTES..=MAX_BYTES).contains(&secret.len()) && secret.bytes().all(allowed) {
            Ok(SecretDigest::of(secret))
        } else {
            Err(format!("{shown} must hold {}", self.rule))
        }
    }
}

fn from_hex(text: &str) -> Result<SecretDigest, String> {
    let digest = SecretDigest::from_hex(text).ok_or(
        "must be a SHA-256 in 64 hexadecimal digits, as `printf %s \"$SECRET\" | sha256sum` prints it",
    )?;
    // The digest of an unset variable; a client that sends an empty header would pass.
    if digest.matches(&SecretDigest::of("")) {
        return Err("is the SHA-256 of the empty text; hash the secret itself, as in \
                    `printf %s \"$SECRET\" | sha256sum`"
            .to_owned());
    }
    Ok(digest)
}
