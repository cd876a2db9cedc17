//! Text on its way into a log line: made harmless, cut to a bound. Writes nothing itself.

use std::fmt;

/// Longest text that [`printable`] shows, in characters.
pub(crate) const MAX_PRINTABLE_CHARS: usize = 256;

/// `text` as it may stand in a log line, whoever wrote it: control characters, quotes,
/// backslashes and what has no shape of its own are escaped as in Rust's string literals,
/// and what is over [`MAX_PRINTABLE_CHARS`] is cut.
#[must_use]
pub(crate) fn printable(text: &str) -> impl fmt::Display + '_ {
    Printable(text)
}

struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(MAX_PRINTABLE_CHARS) {
            write!(f, "{}", character.escape_debug())?;
        }
        if characters.next().is_some() { f.write_str("...") } else { Ok(()) }
    }
}

/// A string that takes so many bytes and no more.
pub(super) struct Bounded {
    text: String,
    room: usize,
}

impl Bounded {
    pub(super) fn new(room: usize) -> Self {
        Self { text: String::new(), room }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if piece.len() <= self.room {
            self.room -= piece.len();
            self.text.push_str(piece);
            return Ok(());
        }
        self.text.push_str(&piece[..piece.floor_char_boundary(self.room)]);
        self.text.push_str("...");
        self.room = 0;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn a_line_is_cut_at_its_bound() {
        let mut text = Bounded::new(5);
        assert!(text.write_fmt(format_args!("ab{}", ["cdé!"][0])).is_err());
        assert_eq!(text.finish(), "abcd...");
        let mut text = Bounded::new(2);
        assert!(write!(text, "ab").is_ok());
        assert_eq!(text.finish(), "ab");
    }

    #[test]
    fn foreign_text_is_escaped_and_bounded() {
        let cases = [
            ("plain Büro 中", "plain Büro 中"),
            ("a\r\nb\0\t", r"a\r\nb\0\t"),
            ("\u{1b}]0;x\u{7}", r"\u{1b}]0;x\u{7}"),
            ("a\u{202e}b", r"a\u{202e}b"),
            ("\"q\" \\", r#"\"q\" \\"#),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text).to_string(), shown);
        }
        let long = printable(&"x".repeat(MAX_PRINTABLE_CHARS + 1)).to_string();
        assert_eq!(long, format!("{}...", "x".repeat(MAX_PRINTABLE_CHARS)));
    }
}
