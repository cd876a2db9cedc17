//! The log: records go through a bounded channel to the thread `log`, the only one that
//! touches stderr. Senders never wait: what the thread cannot take is dropped and counted.
//!
//! A full stderr (a pipe that nobody reads) stops that thread alone; a closed one makes
//! `eprintln!` panic, which the thread survives. For the same reason nothing else in the
//! process may print to stderr while the log runs: it would wait for the lock that a stuck
//! log thread holds. That goes for the standard panic hook too, so [`start`] replaces it with
//! one that logs.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use std::{io, panic};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::counters::Counters;
use crate::limits::{LOG_QUEUE, THREAD_STACK_BYTES};

/// The environment variable that sets the level.
pub const LEVEL_VARIABLE: &str = "AGENT_METRICS_LOG";

/// Longest message, in bytes; the rest is cut. With [`LOG_QUEUE`] it bounds what waits to
/// 4 MiB.
pub const MAX_LINE_BYTES: usize = 4 * 1_024;

/// Longest text that [`printable`] shows, in characters.
pub const MAX_PRINTABLE_CHARS: usize = 256;

/// Our own records' targets begin with this.
const OUR_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Why the log did not start.
#[derive(Debug)]
pub enum LoggingError {
    /// [`LEVEL_VARIABLE`] holds something else than `off`, `error`, `warn`, `info`, `debug`
    /// or `trace`.
    Level,
    /// The process has a logger already.
    Taken,
    /// The thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level => {
                write!(f, "{LEVEL_VARIABLE} must be off, error, warn, info, debug or trace")
            }
            Self::Taken => write!(f, "the process has a logger already"),
            Self::Thread(error) => write!(f, "cannot start the log thread: {error}"),
        }
    }
}

impl std::error::Error for LoggingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// The level that [`LEVEL_VARIABLE`] asks for; info where it is unset or empty.
///
/// # Errors
/// [`LoggingError::Level`].
pub fn level_from_env() -> Result<LevelFilter, LoggingError> {
    match std::env::var_os(LEVEL_VARIABLE) {
        None => Ok(LevelFilter::Info),
        Some(text) => parse_level(text.to_str().unwrap_or("?")),
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, LoggingError> {
    match text.trim() {
        "" => Ok(LevelFilter::Info),
        text => text.parse().map_err(|_| LoggingError::Level),
    }
}

/// Makes the log the process's logger and its panic hook. `level` is for our own records;
/// packages that we use speak up from warn on and never below, since their debug output may
/// hold headers. Dropped lines are counted in `counters`.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(level: LevelFilter, counters: Arc<Counters>) -> Result<Logging, LoggingError> {
    let (queue, inbox) = bounded(LOG_QUEUE);
    let front = Front { queue: queue.clone(), level, counters: Arc::clone(&counters) };
    let (on_end, ended) = bounded(1);
    let printer = SimpleLogger::new().with_level(LevelFilter::Trace).with_utc_timestamps();
    let thread = Builder::new()
        .name("log".to_owned())
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || {
            print_all(&inbox, &counters, |line| print(&printer, line));
            let _ = on_end.send(());
        })
        .map_err(LoggingError::Thread)?;
    let logging = Logging { queue, ended, thread };
    if log::set_boxed_logger(Box::new(front)).is_err() {
        logging.finish(Duration::from_secs(1));
        return Err(LoggingError::Taken);
    }
    log::set_max_level(level.max(LevelFilter::Warn));
    panic::set_hook(Box::new(log_panic));
    Ok(logging)
}

/// The running log.
#[derive(Debug)]
#[must_use = "what is queued at the end is lost without finish"]
pub struct Logging {
    queue: Sender<Entry>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Logging {
    /// Prints what is queued and ends the thread, if both can be done within `grace`; else
    /// leaves the thread, stuck on stderr, to the end of the process. Records that come later
    /// are dropped.
    pub fn finish(self, grace: Duration) {
        let patience = after(grace);
        select! {
            send(self.queue, Entry::End) -> sent => if sent.is_err() { return },
            recv(patience) -> _ => return,
        }
        select! {
            recv(self.ended) -> _ => {
                // It has nothing more to do but return.
                let _ = self.thread.join();
            }
            recv(patience) -> _ => {}
        }
    }
}

/// What travels to the log thread.
#[derive(Debug)]
enum Entry {
    Line(Line),
    End,
}

#[derive(Debug)]
struct Line {
    level: Level,
    target: String,
    message: String,
}

/// The logger that the process sees.
struct Front {
    queue: Sender<Entry>,
    level: LevelFilter,
    counters: Arc<Counters>,
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most =
            if is_ours(metadata.target()) { self.level } else { self.level.min(LevelFilter::Warn) };
        metadata.level() <= most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut message = Bounded::new(MAX_LINE_BYTES);
        // Ends early, with an error, where the bound is reached.
        let _ = message.write_fmt(*record.args());
        let line = Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: message.finish(),
        };
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.counters.log_lines_dropped.add_one();
        }
    }

    fn flush(&self) {}
}

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OUR_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

thread_local! {
    /// Set on a log thread: its own panics come from stderr and must not be sent back to it.
    static IS_LOG_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// The log thread's loop; `print` may panic.
fn print_all(inbox: &Receiver<Entry>, counters: &Counters, mut print: impl FnMut(&Line)) {
    IS_LOG_THREAD.set(true);
    let mut reported = 0;
    let mut try_print = |line: &Line| {
        if catch_unwind(AssertUnwindSafe(|| print(line))).is_err() {
            counters.log_lines_dropped.add_one();
        }
    };
    while let Ok(Entry::Line(line)) = inbox.recv() {
        try_print(&line);
        let dropped = counters.log_lines_dropped.get();
        if dropped > reported {
            try_print(&Line {
                level: Level::Warn,
                target: module_path!().to_owned(),
                message: format!("{} log lines dropped", dropped - reported),
            });
            reported = dropped;
        }
    }
}

fn print(printer: &SimpleLogger, line: &Line) {
    printer.log(
        &Record::builder()
            .level(line.level)
            .target(&line.target)
            .args(format_args!("{}", line.message))
            .build(),
    );
}

/// The panic hook: what happened and where, at error, through the log.
fn log_panic(info: &PanicHookInfo<'_>) {
    if IS_LOG_THREAD.get() {
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let mut place = String::new();
    if let Some(location) = info.location() {
        // Writing to a String cannot fail.
        let _ = write!(place, " at {location}");
    }
    // Captured only where RUST_BACKTRACE asks for it.
    let trace = Backtrace::capture();
    let message = printable(panic_text(info.payload()));
    if trace.status() == BacktraceStatus::Captured {
        log::error!("thread {name} panicked{place}: {message}\n{trace}");
    } else {
        log::error!("thread {name} panicked{place}: {message}");
    }
}

/// The message of a panic, from its payload.
#[must_use]
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}

/// `text` as it may stand in a log line, whoever wrote it: control characters, quotes,
/// backslashes and what has no shape of its own are escaped as in Rust's string literals,
/// and what is over [`MAX_PRINTABLE_CHARS`] is cut.
///
/// ```
/// use agent_metrics::logging::printable;
/// assert_eq!(printable("one\nline \u{1b}[31m").to_string(), r"one\nline \u{1b}[31m");
/// ```
#[must_use]
pub fn printable(text: &str) -> impl fmt::Display + '_ {
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
struct Bounded {
    text: String,
    room: usize,
}

impl Bounded {
    fn new(room: usize) -> Self {
        Self { text: String::new(), room }
    }

    fn finish(self) -> String {
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
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A log whose printer does as `print` says, without touching the process's logger.
    fn log_to(
        room: usize,
        print: impl FnMut(&Line) + Send + 'static,
    ) -> (Front, Logging, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let (queue, inbox) = bounded(room);
        let (on_end, ended) = bounded(1);
        let shared = Arc::clone(&counters);
        let thread = Builder::new()
            .spawn(move || {
                print_all(&inbox, &shared, print);
                let _ = on_end.send(());
            })
            .unwrap();
        let front = Front {
            queue: queue.clone(),
            level: LevelFilter::Info,
            counters: Arc::clone(&counters),
        };
        (front, Logging { queue, ended, thread }, counters)
    }

    fn say(front: &Front, level: Level, target: &str, text: &str) {
        let args = format_args!("{text}");
        front.log(&Record::builder().level(level).target(target).args(args).build());
    }

    #[test]
    fn a_stuck_stderr_blocks_no_sender_and_the_loss_is_reported() {
        let (let_go, held) = bounded::<()>(0);
        let (printed, lines) = bounded(64);
        let (front, logging, counters) = log_to(2, move |line| {
            // Stuck until the test lets go (disconnects).
            let _ = held.recv();
            printed.send(line.message.clone()).unwrap();
        });
        for number in 0..20 {
            say(&front, Level::Info, OUR_TARGET, &number.to_string());
        }
        // One may be in the printer's hands, two wait.
        let dropped = counters.log_lines_dropped.get();
        assert!((17..=18).contains(&dropped), "{dropped}");
        drop(let_go);
        logging.finish(PATIENCE);
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines[0], "0");
        assert!(lines.contains(&format!("{dropped} log lines dropped")), "{lines:?}");
    }

    #[test]
    fn finish_gives_up_on_a_stuck_stderr() {
        let (_let_go, held) = bounded::<()>(0);
        let (front, logging, _) = log_to(1, move |_| {
            let _ = held.recv();
        });
        say(&front, Level::Info, OUR_TARGET, "stuck");
        say(&front, Level::Info, OUR_TARGET, "waiting");
        // Returns: that is the test.
        logging.finish(Duration::from_millis(50));
    }

    #[test]
    fn a_closed_stderr_is_survived() {
        let (printed, lines) = bounded(8);
        let (front, logging, counters) = log_to(8, move |line| {
            // What eprintln! does on EPIPE; resumed, so that no hook prints it into the tests.
            if line.message == "lost" {
                panic::resume_unwind(Box::new("failed printing to stderr"));
            }
            printed.send(line.message.clone()).unwrap();
        });
        say(&front, Level::Info, OUR_TARGET, "lost");
        say(&front, Level::Info, OUR_TARGET, "kept");
        logging.finish(PATIENCE);
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines, ["1 log lines dropped", "kept"]);
        assert_eq!(counters.log_lines_dropped.get(), 1);
    }

    #[test]
    fn packages_speak_from_warn_on_and_we_from_our_level_on() {
        let (front, logging, _) = log_to(1, |_| {});
        let enabled =
            |level, target| front.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(enabled(Level::Info, "agent_metrics::agent"));
        assert!(enabled(Level::Info, "agent_metrics"));
        assert!(!enabled(Level::Debug, "agent_metrics"));
        assert!(!enabled(Level::Info, "agent_metrics_other"));
        assert!(!enabled(Level::Info, "ureq::run"));
        assert!(enabled(Level::Warn, "ureq::run"));
        logging.finish(PATIENCE);
    }

    #[test]
    fn a_line_is_cut_at_its_bound() {
        let mut text = Bounded::new(5);
        assert!(write!(text, "ab{}", "cdé!").is_err());
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

    #[test]
    fn levels_have_their_names() {
        assert_eq!(parse_level("").unwrap(), LevelFilter::Info);
        assert_eq!(parse_level("Debug").unwrap(), LevelFilter::Debug);
        assert!(parse_level("loud").is_err());
    }
}
