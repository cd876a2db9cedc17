//! A file's values with their places and names, and the list of what is wrong with them. Knows no
//! setting.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Of a file's mistakes, so many are shown: more than fit a screen.
const MAX_SHOWN: usize = 100;

/// Of a text that is a mistake, so much is shown.
const SHOWN_CHARS: usize = 128;

/// The file's text, and the mistakes found in it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
    /// Byte offset into the text, and the sentence.
    mistakes: RefCell<Vec<(usize, String)>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, mistakes: RefCell::default() }
    }

    /// `name` is table and key; empty where that is all of the file.
    fn report(&self, place: usize, name: &str, why: impl Display) {
        let colon = if name.is_empty() { "" } else { ": " };
        self.mistakes.borrow_mut().push((place, format!("{name}{colon}{why}")));
    }

    /// The file is not TOML.
    pub(super) fn report_syntax(&self, error: &toml::de::Error) {
        let place = error.span().map_or(0, |span| span.start);
        match unquoted(self.text, place) {
            Some((place, key, rule)) => self.report(place, key, rule),
            None => self.report(place, "", error.message().trim().replace('\n', "; ")),
        }
    }

    /// The whole file as a value, whose name is empty. What it lacks belongs at its end.
    pub(super) fn root(&'a self, root: &'a DeValue<'a>) -> Value<'a> {
        Value { source: self, value: root, place: self.text.len(), name: String::new() }
    }

    /// `config`, unless there are mistakes: then those, in the file's order, with line and column.
    pub(super) fn finish<T>(&self, config: Option<T>) -> Result<T, ConfigError> {
        let mut mistakes = self.mistakes.take();
        if let (Some(config), true) = (config, mistakes.is_empty()) {
            return Ok(config);
        }
        mistakes.sort_by_key(|(place, _)| *place);
        let path = self.path.display();
        let shown = mistakes.iter().take(MAX_SHOWN).map(|(place, mistake)| {
            let (line, column) = line_and_column(self.text, *place);
            format!("{path}:{line}:{column}: {mistake}")
        });
        let others = mistakes.len().saturating_sub(MAX_SHOWN);
        let others = (others > 0).then(|| format!("{path}: {others} mistakes more"));
        Err(ConfigError::Invalid(shown.chain(others).collect()))
    }
}

/// If the parser fails at `place` because a value is a text without quotes: where the value begins,
/// its key, and what to do.
fn unquoted(text: &str, place: usize) -> Option<(usize, &str, &'static str)> {
    let line_start = text.get(..place)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(line_start..)?.lines().next()?;
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim_start());
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_bare = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '/' | '*');
    let start = line_start + line.len() - value.len();
    if key.is_empty() || !key.chars().all(is_key) || !value.starts_with(is_bare) || place < start {
        return None;
    }
    let is_number = value.trim_end().bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    let rule = match key.rsplit('.').next() {
        _ if is_number => "must be a whole number, without separators",
        Some("open") => "must be true or false",
        _ => "put it in quotes",
    };
    Some((start, key, rule))
}

/// Both count from 1, columns in characters.
fn line_and_column(text: &str, place: usize) -> (usize, usize) {
    let before = text.get(..place).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A value of the file, and what an error calls it. What reads it returns `None` for a mistake, which
/// is then reported.
pub(super) struct Value<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) value: &'a DeValue<'a>,
    place: usize,
    /// Table and key.
    pub(super) name: String,
}

impl<'a> Value<'a> {
    pub(super) fn refuse(&self, why: impl Display) {
        self.source.report(self.place, &self.name, why);
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.expect("a text in quotes", self.value.as_str())
    }

    /// What `read` makes of the text, which is shown if that is nothing.
    pub(super) fn parse<T>(&self, rule: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text()?;
        let read = read(text);
        if read.is_none() {
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            let name = format!("{} {shown:?}", self.name);
            self.source.report(self.place, &name, format_args!("must be {rule}"));
        }
        read
    }

    /// [`Value::parse`] for a text or each of a list of texts.
    pub(super) fn parse_each<T>(
        &self,
        rule: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<Option<T>>> {
        if self.value.is_str() {
            return Some(vec![self.parse(rule, read)]);
        }
        let items = self.expect("a text in quotes or a list of them", self.value.as_array())?;
        let items = items.iter().map(|item| self.part(item, self.name.clone()));
        Some(items.map(|item| item.parse(rule, &read)).collect())
    }

    /// Each table of a list. One that is none is reported and left out.
    pub(super) fn tables(&self) -> Option<Vec<Self>> {
        let items = self.expect("a list of tables", self.value.as_array())?;
        let items = items.iter().map(|item| self.part(item, self.name.clone()));
        Some(items.filter(|item| item.expect("a table", item.value.as_table()).is_some()).collect())
    }

    /// A table's table.
    pub(super) fn table(&self, key: &str) -> Option<Self> {
        let table = self.get(key)?;
        table.expect("a table", table.value.as_table())?;
        Some(Self { name: format!("[{key}]"), ..table })
    }

    /// A table's value.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.as_table()?.get(key)?;
        Some(self.part(value, format!("{} {key}", self.name).trim_start().to_owned()))
    }

    /// A table's value, which must be there.
    pub(super) fn required(&self, key: &str) -> Option<Self> {
        let value = self.get(key);
        if value.is_none() {
            self.refuse(format_args!("missing field `{key}`"));
        }
        value
    }

    /// Refuses other keys of a table than `known`, so that no misspelt setting is silently without
    /// effect. `removed` are keys of earlier releases, and what holds instead.
    pub(super) fn allow_only(&self, known: &[&str], removed: &[(&str, &str)]) {
        for key in self.value.as_table().into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let removed = removed.iter().find(|(removed, _)| *removed == name);
            let why = if let Some((_, instead)) = removed {
                format!("`{name}` cannot be set any more, remove it: {instead}")
            } else {
                let shown: String = name.chars().take(SHOWN_CHARS).collect();
                let known = known.join("`, `");
                format!("unknown field `{}`, expected one of `{known}`", shown.escape_debug())
            };
            self.source.report(key.span().start, &self.name, why);
        }
    }

    fn part(&self, value: &'a Spanned<DeValue<'a>>, name: String) -> Self {
        Self { source: self.source, value: value.get_ref(), place: value.span().start, name }
    }

    /// Reports a wrong type. The error tells the type and not the value, which may be a secret in the
    /// wrong place.
    pub(super) fn expect<T>(&self, expected: &str, read: Option<T>) -> Option<T> {
        if read.is_none() {
            let found = self.value.type_str();
            self.refuse(format_args!("invalid type: {found}, expected {expected}"));
        }
        read
    }
}
