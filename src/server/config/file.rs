//! The file's shape, as TOML has it, with the place of each value, and the list of what is wrong
//! with it. What the values mean is checked elsewhere.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::bounds::{GONE_LIMITS, LimitsTable};
use super::error::{ConfigError, Mistake, Problem};
use super::units::Scalar;

/// The whole file. A value of a wrong type is here as its type's default.
#[derive(Debug)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<Texts>>,
    pub(super) evict_after: Option<Spanned<Scalar>>,
    pub(super) allowed_hosts: Texts,
    pub(super) allowed_origins: Texts,
    pub(super) trusted_proxies: Texts,
    pub(super) viewers: ViewersTable,
    pub(super) pools: Option<Spanned<Vec<PoolTable>>>,
    pub(super) limits: LimitsTable,
}

/// Texts, each with its place.
pub(super) type Texts = Vec<Spanned<String>>;

/// `[viewers]`
#[derive(Debug, Default)]
pub(super) struct ViewersTable {
    pub(super) token_sha256: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) open: Option<Spanned<bool>>,
}

/// `[[pools]]`
#[derive(Debug)]
pub(super) struct PoolTable {
    pub(super) id: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) keys: Option<Spanned<Vec<KeyTable>>>,
    pub(super) viewer_token_sha256: Option<Spanned<String>>,
    pub(super) viewer_token_file: Option<Spanned<String>>,
}

/// An entry of `keys`.
#[derive(Debug)]
pub(super) struct KeyTable {
    pub(super) app_key: Option<Spanned<String>>,
    pub(super) app_secret_sha256: Option<Spanned<String>>,
    pub(super) app_secret_file: Option<Spanned<String>>,
}

/// The file's text, and what has been found wrong with it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
    /// Where each stands, and what it is.
    found: RefCell<Vec<(Option<usize>, String, Problem)>>,
    /// Where values of a wrong type stand: what else is wrong with them follows from that.
    wrong_types: RefCell<HashSet<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, found: RefCell::default(), wrong_types: RefCell::default() }
    }

    /// Reads the text as TOML of [`File`]'s shape. None when it is no TOML.
    pub(super) fn parse(&self) -> Option<File> {
        match DeTable::parse(self.text) {
            Ok(root) => Some(read_file(self, root.get_ref(), root.span())),
            Err(error) => {
                let (span, problem) = match error.span().and_then(|span| self.unquoted(&span)) {
                    Some((start, problem)) => (Some(start..start), problem),
                    None => {
                        let message = error.message().trim().replace('\n', "; ");
                        (error.span(), Problem::Syntax(message))
                    }
                };
                self.report(span, "", problem);
                None
            }
        }
    }

    /// Where the parser fails on the line at `span` because a value is a text without quotes: where
    /// that begins, and what to do.
    fn unquoted(&self, span: &Range<usize>) -> Option<(usize, Problem)> {
        let line_start = self.text.get(..span.start)?.rfind('\n').map_or(0, |end| end + 1);
        let line = self.text.get(line_start..)?.lines().next()?;
        let (before, value) = line.split_once('=')?;
        let (key, value) = (before.trim(), value.trim_start());
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_bare = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '/' | '*');
        let start = line_start + line.len() - value.len();
        let is_pair = !key.is_empty() && key.chars().all(is_key) && value.starts_with(is_bare);
        if !is_pair || span.start < start {
            return None;
        }
        let name = key.rsplit('.').next().unwrap_or(key);
        let rule = match LimitsTable::rule(name) {
            Some(rule) => format!("must be {rule}"),
            None if name == "open" => "must be true or false".to_owned(),
            None => "put it in quotes".to_owned(),
        };
        Some((start, Problem::Unquoted { key: key.to_owned(), rule }))
    }

    /// Something is wrong with what stands at `span`, or is missing where there is none.
    pub(super) fn report(
        &self,
        span: Option<Range<usize>>,
        subject: impl Into<String>,
        problem: Problem,
    ) {
        let start = span.map(|span| span.start);
        if start.is_some_and(|start| self.wrong_types.borrow().contains(&start)) {
            return;
        }
        if let (Some(start), Problem::Type { .. }) = (start, &problem) {
            self.wrong_types.borrow_mut().insert(start);
        }
        self.found.borrow_mut().push((start, subject.into(), problem));
    }

    /// Whether nothing was found wrong with what stands at `span`.
    pub(super) fn is_sound(&self, span: Option<Range<usize>>) -> bool {
        let start = span.map(|span| span.start);
        start.is_none() || self.found.borrow().iter().all(|(found, ..)| *found != start)
    }

    /// `value`, or all that was found, in the file's order; what is missing comes last.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        let mut found = self.found.take();
        if let (Some(value), true) = (value, found.is_empty()) {
            return Ok(value);
        }
        found.sort_by_key(|(start, ..)| start.unwrap_or(usize::MAX));
        let mut lines = Lines { text: self.text, line: 1, line_start: 0 };
        let mistakes = found.into_iter().map(|(start, subject, problem)| {
            let place = start.map(|start| lines.place(start));
            Mistake { place, subject, problem }
        });
        Err(ConfigError::Invalid { path: self.path.to_owned(), mistakes: mistakes.collect() })
    }
}

/// Lines and columns of rising offsets into the text.
struct Lines<'a> {
    text: &'a str,
    line: usize,
    line_start: usize,
}

impl Lines<'_> {
    /// Both count from 1, columns in characters.
    fn place(&mut self, offset: usize) -> (usize, usize) {
        let before = self.text.get(self.line_start..offset).unwrap_or_default();
        self.line += before.matches('\n').count();
        self.line_start += before.rfind('\n').map_or(0, |end| end + 1);
        let column = self.text.get(self.line_start..offset).unwrap_or_default().chars().count() + 1;
        (self.line, column)
    }
}

fn read_file(source: &Source<'_>, root: &DeTable<'_>, span: Range<usize>) -> File {
    let mut table = Table { source, name: "", items: root, span, known: Vec::new() };
    let mut viewers = ViewersTable::default();
    let mut limits = LimitsTable::default();
    let file = File {
        listen: table.value("listen", "a text in quotes or a list of them", |value| {
            Some(match value.get_ref() {
                DeValue::Array(list) => texts(source, "listen", list.iter()),
                DeValue::String(_) => texts(source, "listen", [value]),
                _ => return None,
            })
        }),
        evict_after: table.scalar("evict_after"),
        allowed_hosts: table.texts("allowed_hosts"),
        allowed_origins: table.texts("allowed_origins"),
        trusted_proxies: table.texts("trusted_proxies"),
        viewers: ViewersTable::default(),
        pools: table.tables("pools", "[[pools]] ", read_pool),
        limits: LimitsTable::default(),
    };
    table.table("viewers", "[viewers] ", |table| {
        viewers.token_sha256 = table.text("token_sha256");
        viewers.token_file = table.text("token_file");
        viewers.open = table.value("open", "true or false", |value| value.get_ref().as_bool());
    });
    table.table("limits", LIMITS, |table| limits = LimitsTable::read(table));
    table.end();
    File { viewers, limits, ..file }
}

fn read_pool(table: &mut Table<'_>) -> PoolTable {
    PoolTable {
        id: table.required("id"),
        name: table.text("name"),
        keys: table.tables("keys", "[[pools]] keys ", |table| KeyTable {
            app_key: table.required("app_key"),
            app_secret_sha256: table.text("app_secret_sha256"),
            app_secret_file: table.text("app_secret_file"),
        }),
        viewer_token_sha256: table.text("viewer_token_sha256"),
        viewer_token_file: table.text("viewer_token_file"),
    }
}

/// A table that is read key by key. A key that nobody asks for is a mistake, so that no misspelt
/// setting is silently without effect.
pub(super) struct Table<'t> {
    source: &'t Source<'t>,
    /// In front of a key's name, for an error.
    name: &'static str,
    items: &'t DeTable<'t>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl Table<'_> {
    fn value<T: Default>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Spanned<DeValue<'_>>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        self.known.push(key);
        let value = self.items.get(key)?;
        let read =
            or_wrong_type(self.source, || format!("{}{key}", self.name), value, expected, read);
        Some(Spanned::new(value.span(), read))
    }

    fn text(&mut self, key: &'static str) -> Option<Spanned<String>> {
        self.value(key, TEXT, as_text)
    }

    fn required(&mut self, key: &'static str) -> Option<Spanned<String>> {
        let value = self.text(key);
        if value.is_none() {
            self.source.report(
                Some(self.span.clone()),
                self.name.trim_end(),
                Problem::Missing(key),
            );
        }
        value
    }

    pub(super) fn scalar(&mut self, key: &'static str) -> Option<Spanned<Scalar>> {
        self.value(key, "a whole number or a text in quotes", |value| Scalar::read(value.get_ref()))
    }

    fn texts(&mut self, key: &'static str) -> Texts {
        let source = self.source;
        let list = self.value(key, "a list of texts in quotes", |value| {
            value.get_ref().as_array().map(|list| texts(source, key, list.iter()))
        });
        list.map(Spanned::into_inner).unwrap_or_default()
    }

    fn tables<T>(
        &mut self,
        key: &'static str,
        name: &'static str,
        read: impl Fn(&mut Table<'_>) -> T,
    ) -> Option<Spanned<Vec<T>>> {
        let source = self.source;
        self.value(key, "a list of tables", |value| {
            let tables = value.get_ref().as_array()?.iter();
            let table = |item: &Spanned<DeValue<'_>>| {
                let items = item.get_ref().as_table();
                let subject = || name.trim_end().to_owned();
                let span = item.span();
                let items = or_wrong_type(source, subject, item, "a table", |_| items.map(Some))?;
                let mut table = Table { source, name, items, span, known: Vec::new() };
                let read = read(&mut table);
                table.end();
                Some(read)
            };
            Some(tables.filter_map(table).collect())
        })
    }

    fn table(&mut self, key: &'static str, name: &'static str, read: impl FnOnce(&mut Table<'_>)) {
        let source = self.source;
        self.value(key, "a table", |value| {
            let items = value.get_ref().as_table()?;
            let mut table = Table { source, name, items, span: value.span(), known: Vec::new() };
            read(&mut table);
            table.end();
            Some(())
        });
    }

    /// Reports the keys that nobody asked for.
    fn end(self) {
        for key in self.items.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let known = self.known.iter().map(|known| format!("`{known}`"));
            let known = known.collect::<Vec<_>>().join(", ");
            let key_shown = key.get_ref().chars().take(SHOWN_CHARS).collect();
            let gone = GONE_LIMITS.iter().find(|(gone, _)| gone == key.get_ref());
            let problem = match gone.filter(|_| self.name == LIMITS) {
                Some(&(key, instead)) => Problem::Gone { key, instead },
                None => Problem::Unknown { key: key_shown, known },
            };
            self.source.report(Some(key.span()), self.name.trim_end(), problem);
        }
    }
}

const TEXT: &str = "a text in quotes";

const LIMITS: &str = "[limits] ";

/// Of a key that is unknown, so much is shown.
const SHOWN_CHARS: usize = 64;

fn as_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    value.get_ref().as_str().map(str::to_owned)
}

fn texts<'t>(
    source: &Source<'_>,
    key: &str,
    list: impl IntoIterator<Item = &'t Spanned<DeValue<'t>>>,
) -> Texts {
    let text = |item: &Spanned<DeValue<'_>>| {
        let text = or_wrong_type(source, || key.to_owned(), item, TEXT, as_text);
        Spanned::new(item.span(), text)
    };
    list.into_iter().map(text).collect()
}

/// What `read` finds in `value`; else a mistake, which tells the type and not the value: that may
/// be a secret in the wrong place.
fn or_wrong_type<T: Default>(
    source: &Source<'_>,
    subject: impl FnOnce() -> String,
    value: &Spanned<DeValue<'_>>,
    expected: &'static str,
    read: impl FnOnce(&Spanned<DeValue<'_>>) -> Option<T>,
) -> T {
    read(value).unwrap_or_else(|| {
        let found = value.get_ref().type_str();
        source.report(Some(value.span()), subject(), Problem::Type { found, expected });
        T::default()
    })
}
