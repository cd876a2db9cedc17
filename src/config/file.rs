//! The file's shape, as TOML has it, with the place of each value. What the values mean is
//! checked elsewhere.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::bounds::LimitsTable;
use super::error::{ConfigError, Problem};
use super::units::Scalar;

/// The whole file. Unknown keys are errors here and in every table, so that no misspelt
/// setting is silently without effect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<Texts>>,
    pub(super) evict_after: Option<Spanned<Scalar>>,
    pub(super) allowed_hosts: Vec<Spanned<String>>,
    pub(super) allowed_origins: Vec<Spanned<String>>,
    pub(super) trusted_proxies: Vec<Spanned<String>>,
    pub(super) viewers: ViewersTable,
    pub(super) pools: Vec<PoolTable>,
    pub(super) limits: LimitsTable,
}

/// `[viewers]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ViewersTable {
    pub(super) token_sha256: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) open: Option<Spanned<bool>>,
}

/// `[[pools]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    pub(super) id: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keys: Vec<KeyTable>,
    pub(super) viewer_token_sha256: Option<Spanned<String>>,
    pub(super) viewer_token_file: Option<Spanned<String>>,
}

/// An entry of `keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyTable {
    pub(super) app_key: Spanned<String>,
    pub(super) app_secret_sha256: Option<Spanned<String>>,
    pub(super) app_secret_file: Option<Spanned<String>>,
}

/// One text or a list of them.
#[derive(Debug)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;
        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes or a list of them")
            }

            fn visit_str<E>(self, value: &str) -> Result<Texts, E> {
                Ok(Texts(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(TextsVisitor)
    }
}

/// Where the file's text came from, to say where in it something is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Reads the text as TOML of [`File`]'s shape.
    pub(super) fn parse(&self) -> Result<File, ConfigError> {
        toml::from_str(self.text).map_err(|error| {
            let message = without_values(error.message());
            let key = error.span().and_then(|span| self.key_before(&span));
            ConfigError::Syntax {
                path: self.path.to_owned(),
                line: error.span().map(|span| self.line(&span)),
                message: key.map_or(message.clone(), |key| format!("{key}: {message}")),
            }
        })
    }

    /// The key whose value stands at `span`: of a wrong type the parser tells the place only.
    fn key_before(&self, span: &Range<usize>) -> Option<&str> {
        let before = self.text.get(..span.start)?.trim_end().strip_suffix('=')?.trim_end();
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = &before[before.rfind(|c| !is_key(c)).map_or(0, |end| end + 1)..];
        (!key.is_empty()).then_some(key)
    }

    /// Something is wrong with what stands at `span`.
    pub(super) fn invalid(
        &self,
        span: Option<Range<usize>>,
        subject: impl Into<String>,
        problem: Problem,
    ) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.to_owned(),
            line: span.map(|span| self.line(&span)),
            subject: subject.into(),
            problem: Box::new(problem),
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }
}

/// The parser quotes a value that has the wrong type, and that may be a secret in the wrong
/// place: only its type stays.
fn without_values(message: &str) -> String {
    let message = message.trim().replace('\n', "; ");
    let quoted =
        ["invalid type: ", "invalid value: "].iter().any(|start| message.starts_with(start));
    match (quoted, message.find(['"', '`']), message.rfind(", expected ")) {
        (true, Some(value), Some(expected)) if value < expected => {
            format!("{}{}", message[..value].trim_end(), &message[expected..])
        }
        _ => message,
    }
}
