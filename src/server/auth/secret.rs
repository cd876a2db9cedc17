//! SHA-256 digests of secrets, compared in constant time. Keeps no secret and shows no digest.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The SHA-256 (FIPS 180-4) of a secret or token. Secrets are random and long (`init` draws 256 bits)
/// and cannot be guessed, so a fast hash is safe; with a slow one, wrong secrets would cost us CPU.
#[derive(Clone, Copy)]
pub(crate) struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// No known secret has this digest. It is compared with where there is none, so that the answer
    /// takes as long.
    pub(super) const NOBODY: Self = Self([0; 32]);

    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits of either case.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Takes the same time either way.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example for the one-block message "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_is_sha_256_in_hex_of_either_case() {
        assert_eq!(SecretDigest::of("abc").to_hex(), ABC);
        let upper = SecretDigest::from_hex(&ABC.to_uppercase()).unwrap();
        assert!(upper.matches(&SecretDigest::of("abc")));
        assert!(!upper.matches(&SecretDigest::of("abd")));
        for bad in ["", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "g"), &format!(" {ABC}")] {
            assert!(SecretDigest::from_hex(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_digest() {
        assert_eq!(format!("{:?}", SecretDigest::of("abc")), "SecretDigest(..)");
    }
}
