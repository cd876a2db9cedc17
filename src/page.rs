//! The built-in page: its files, embedded, with type, entity tag and policy.

use crate::answer::Answer;

/// Whether `path` is a page or one of its files.
#[must_use]
pub fn exists(path: &str) -> bool {
    matches!(path, "/")
}

/// The file at `path` (for which [`exists`] holds), or 304 when `if_none_match` names it.
#[must_use]
pub fn answer(path: &str, if_none_match: Option<&str>) -> Answer {
    let _ = (path, if_none_match);
    todo!()
}
