//! A file's values with their places and names, and the list of what is wrong with them. Knows no
//! setting.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;
use std::slice;

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
    /// Byte offset into the text, none for what is missing; and the sentence.
    mistakes: RefCell<Vec<(Option<usize>, String)>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, mistakes: RefCell::default() }
    }

    /// `name` is table and key; empty where that is all of the file.
    pub(super) fn report(&self, place: Option<usize>, name: &str, why: impl Display) {
        let colon = if name.is_empty() { "" } else { ": " };
        self.mistakes.borrow_mut().push((place, format!("{name}{colon}{why}")));
    }

    /// The file is not TOML.
    pub(super) fn report_syntax(&self, error: &toml::de::Error) {
        let place = error.span().map(|span| span.start);
        match place.and_then(|place| unquoted(self.text, place)) {
            Some((place, key, rule)) => self.report(Some(place), key, rule),
            None => self.report(place, "", error.message().trim().replace('\n', "; ")),
        }
    }

    pub(super) fn root(&'a self, root: &'a Spanned<DeTable<'a>>) -> Table<'a> {
        let place = root.span().start;
        Table { source: self, items: root.get_ref(), place, name: String::new() }
    }

    /// `config`, unless there are mistakes: then those, in the file's order, with line and column.
    pub(super) fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        let mut mistakes = self.mistakes.take();
        if let (Some(config), true) = (config, mistakes.is_empty()) {
            return Ok(config);
        }
        mistakes.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
        let path = self.path.display();
        let more = mistakes.len().saturating_sub(MAX_SHOWN);
        let mut lines: Vec<String> = mistakes
            .into_iter()
            .take(MAX_SHOWN)
            .map(|(place, mistake)| match place {
                Some(place) => {
                    let (line, column) = line_and_column(self.text, place);
                    format!("{path}:{line}:{column}: {mistake}")
                }
                None => format!("{path}: {mistake}"),
            })
            .collect();
        if more > 0 {
            lines.push(format!("{path}: {more} mistakes more"));
        }
        Err(ConfigError::Invalid(lines))
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

/// One value, and what an error calls it.
pub(super) struct Value<'a> {
    source: &'a Source<'a>,
    value: &'a Spanned<DeValue<'a>>,
    /// Table and key.
    pub(super) name: String,
}

impl<'a> Value<'a> {
    pub(super) fn get(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub(super) fn refuse(&self, why: impl Display) {
        self.source.report(self.place(), &self.name, why);
    }

    fn place(&self) -> Option<usize> {
        Some(self.value.span().start)
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.or_wrong_type(self.get().as_str(), "a text in quotes")
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.or_wrong_type(self.get().as_bool(), "true or false")
    }

    /// What `read` makes of the text; none for a mistake, which is reported.
    pub(super) fn parse<T>(&self, rule: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text()?;
        let read = read(text);
        if read.is_none() {
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            let name = format!("{} {shown:?}", self.name);
            self.source.report(self.place(), &name, format_args!("must be {rule}"));
        }
        read
    }

    /// [`Value::parse`] for a text or each of a list of texts.
    pub(super) fn parse_each<T>(
        &self,
        rule: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<Option<T>> {
        let items = match self.get() {
            DeValue::String(_) => Some(slice::from_ref(self.value)),
            other => other.as_array().map(|items| &**items),
        };
        match self.or_wrong_type(items, "a text in quotes or a list of them") {
            Some(items) => items.iter().map(|item| self.item(item).parse(rule, &read)).collect(),
            None => vec![None],
        }
    }

    /// Each table of a list. One that is none is reported and left out.
    pub(super) fn tables(&self) -> Option<Vec<Table<'a>>> {
        let items = self.or_wrong_type(self.get().as_array(), "a list of tables")?;
        Some(items.iter().filter_map(|item| self.item(item).table()).collect())
    }

    fn table(self) -> Option<Table<'a>> {
        let items = self.or_wrong_type(self.get().as_table(), "a table")?;
        let Self { source, value, name } = self;
        Some(Table { source, items, place: value.span().start, name })
    }

    fn item(&self, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { source: self.source, value, name: self.name.clone() }
    }

    /// Reports what is missing as a wrong type. The error tells the type and not the value, which
    /// may be a secret in the wrong place.
    fn or_wrong_type<T>(&self, read: Option<T>, expected: &str) -> Option<T> {
        if read.is_none() {
            let found = self.get().type_str();
            self.refuse(format_args!("invalid type: {found}, expected {expected}"));
        }
        read
    }
}

/// One table, and what an error calls it.
pub(super) struct Table<'a> {
    pub(super) source: &'a Source<'a>,
    items: &'a DeTable<'a>,
    place: usize,
    /// Empty for the whole file.
    pub(super) name: String,
}

impl<'a> Table<'a> {
    pub(super) fn refuse(&self, why: impl Display) {
        self.source.report(Some(self.place), &self.name, why);
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        let space = if self.name.is_empty() { "" } else { " " };
        let value = self.items.get(key)?;
        Some(Value { source: self.source, value, name: format!("{}{space}{key}", self.name) })
    }

    pub(super) fn table(&self, key: &str) -> Option<Table<'a>> {
        let table = self.get(key)?.table()?;
        Some(Table { name: format!("[{key}]"), ..table })
    }

    /// [`Value::parse_each`], without mistakes.
    pub(super) fn parse_each<T>(
        &self,
        key: &str,
        rule: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let entries = self.get(key).map(|value| value.parse_each(rule, read));
        entries.into_iter().flatten().flatten().collect()
    }

    pub(super) fn required(&self, key: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.refuse(format_args!("missing field `{key}`"));
        }
        value
    }

    /// Refuses other keys than `known`, so that no misspelt setting is silently without effect.
    /// `gone` are keys of earlier releases, and what holds instead.
    pub(super) fn allow_only(&self, known: &[&str], gone: &[(&str, &str)]) {
        for key in self.items.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let why = match gone.iter().find(|(gone, _)| *gone == name) {
                Some((_, instead)) => {
                    format!("`{name}` cannot be set any more, remove it: {instead}")
                }
                None => {
                    let shown: String = name.chars().take(SHOWN_CHARS).collect();
                    let known = known.join("`, `");
                    format!("unknown field `{}`, expected one of `{known}`", shown.escape_debug())
                }
            };
            self.source.report(Some(key.span().start), &self.name, why);
        }
    }
}
