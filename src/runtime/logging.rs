//! The log: records go through a bounded channel to the thread `log`, the only one that writes to
//! stderr. Senders never wait: a record for which the channel has no room is dropped and counted.
//!
//! A full stderr (a pipe that nobody reads) blocks that thread alone; a closed one makes `eprintln!`
//! panic, which the thread catches. Nothing else in the process may print to stderr while the log
//! runs: it would wait for the lock that a blocked log thread holds. So [`start`] also replaces the
//! standard panic hook by one that logs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use simple_logger::SimpleLogger;

use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::STACK_BYTES;

/// Lines waiting for the log thread.
const LOG_QUEUE: usize = 1_024;

/// Longest message, in bytes; the rest is cut. With [`LOG_QUEUE`] it bounds what waits to 4 MiB.
const MAX_LINE_BYTES: usize = 4 * 1_024;

/// Longest text that [`printable`] shows, in characters.
const MAX_PRINTABLE_CHARS: usize = 256;

const LEVEL_VARIABLE: &str = "AGENT_METRICS_LOG";

/// Our own records' targets begin with this.
const OUR_TARGET: &str = env!("CARGO_CRATE_NAME");

const THREAD_NAME: &str = "log";

/// Why the log did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    #[error("{LEVEL_VARIABLE} must be off, error, warn, info, debug or trace")]
    Level,
    #[error("the process has a logger already")]
    Taken(#[from] SetLoggerError),
    #[error("cannot start the log thread: {0}")]
    Thread(#[from] io::Error),
}

/// The level that [`LEVEL_VARIABLE`] asks for; info where it is unset or empty.
fn parse_level(variable: &str) -> Result<LevelFilter, LoggingError> {
    match variable.trim() {
        "" => Ok(LevelFilter::Info),
        level => level.parse().map_err(|_| LoggingError::Level),
    }
}

/// `text` as it may stand in a log line, whoever wrote it: control characters, quotes, backslashes and
/// invisible characters are escaped as in Rust's string literals, and what is over
/// [`MAX_PRINTABLE_CHARS`] is cut.
pub(crate) fn printable(text: &str) -> String {
    let mut characters = text.chars();
    let start = characters.by_ref().take(MAX_PRINTABLE_CHARS);
    let mut shown: String = start.flat_map(char::escape_debug).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// Makes the log the process's logger and its panic hook. [`LEVEL_VARIABLE`] is for our own records;
/// records of packages appear from warn on and never below, since their debug output may hold
/// headers. Dropped lines are counted in `counters`.
pub(crate) fn start(counters: Arc<Counters>) -> Result<Logging, LoggingError> {
    let level = std::env::var_os(LEVEL_VARIABLE).unwrap_or_default();
    let level = parse_level(&level.to_string_lossy())?;
    let printer = SimpleLogger::new().with_level(LevelFilter::Trace).with_utc_timestamps();
    let (front, logging) = spawn(LOG_QUEUE, level, counters, move |line| {
        let args = format_args!("{}", line.message);
        printer.log(&Record::builder().level(line.level).target(&line.target).args(args).build());
    })?;
    log::set_boxed_logger(Box::new(front))?;
    log::set_max_level(level.max(LevelFilter::Warn));
    panic::set_hook(Box::new(log_panic));
    Ok(logging)
}

/// Starts the log thread, with a channel of `capacity`.
fn spawn(
    capacity: usize,
    level: LevelFilter,
    counters: Arc<Counters>,
    print: impl FnMut(&Line) + Send + 'static,
) -> io::Result<(Front, Logging)> {
    let (queue, inbox) = bounded(capacity);
    let (running, ended) = bounded(0);
    let front = Front { queue: queue.clone(), level, counters: Arc::clone(&counters) };
    let builder = Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES);
    let thread = builder.spawn(move || {
        print_all(&inbox, &counters, print);
        drop(running);
    })?;
    Ok((front, Logging { queue, ended, thread }))
}

/// The running log.
#[derive(Debug)]
#[must_use = "what is queued at the end is lost without finish"]
pub(crate) struct Logging {
    queue: Sender<Option<Line>>,
    /// Disconnected when the thread has printed all.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Logging {
    /// Prints what is queued and ends the thread, if both can be done within `grace`; else leaves the
    /// thread, blocked on stderr, to the end of the process. Later records are dropped.
    pub(crate) fn finish(self, grace: Duration) {
        let deadline = Clock::start().now() + grace;
        if self.queue.send_deadline(None, deadline).is_ok()
            && self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Disconnected)
        {
            // It has nothing more to do but return.
            let _ = self.thread.join();
        }
    }
}

#[derive(Debug)]
struct Line {
    level: Level,
    target: String,
    message: String,
}

/// The logger that the process sees.
struct Front {
    /// None ends the thread.
    queue: Sender<Option<Line>>,
    level: LevelFilter,
    counters: Arc<Counters>,
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = match metadata.target().split("::").next() {
            Some(OUR_TARGET) => self.level,
            // It repeats at every attempt what the agent logs once.
            Some("rustls_platform_verifier") => LevelFilter::Off,
            _ => self.level.min(LevelFilter::Warn),
        };
        metadata.level() <= most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, target) = (record.level(), record.target().to_owned());
        let line = Line { level, target, message: bounded_text(*record.args()) };
        if self.queue.try_send(Some(line)).is_err() {
            self.counters.log_lines_dropped.add_one();
        }
    }

    fn flush(&self) {}
}

/// Formats up to [`MAX_LINE_BYTES`] and no further, however long the message would be.
fn bounded_text(args: fmt::Arguments<'_>) -> String {
    let mut buffer = [0; MAX_LINE_BYTES];
    let mut room = &mut buffer[..];
    let is_cut = room.write_fmt(args).is_err();
    let length = MAX_LINE_BYTES - room.len();
    // The cut may be inside a character.
    let text = buffer[..length].utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if is_cut { format!("{text}...") } else { text.to_owned() }
}

/// The log thread's loop; `print` may panic.
fn print_all(inbox: &Receiver<Option<Line>>, counters: &Counters, mut print: impl FnMut(&Line)) {
    let mut print = |line: &Line| {
        if catch_unwind(AssertUnwindSafe(|| print(line))).is_err() {
            counters.log_lines_dropped.add_one();
        }
    };
    let mut reported = 0;
    for lines in 1_usize.. {
        let line = inbox.recv().ok().flatten();
        if let Some(line) = &line {
            print(line);
        }
        let dropped = counters.log_lines_dropped.get();
        // A burst is reported when it is over, and a long one once in a while.
        let is_due = line.is_none() || inbox.is_empty() || lines.is_multiple_of(LOG_QUEUE);
        if is_due && dropped > reported {
            let message = format!("{} log lines dropped", dropped - reported);
            print(&Line { level: Level::Warn, target: module_path!().to_owned(), message });
            reported = dropped;
        }
        if line.is_none() {
            return;
        }
    }
}

/// The panic hook: what happened and where, at error, through the log.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    if name == THREAD_NAME {
        // It comes from stderr and must not be sent back there.
        return;
    }
    let place = info.location().map(|location| format!(" at {location}")).unwrap_or_default();
    let message = printable(info.payload_as_str().unwrap_or("(no message)"));
    // Captured only where RUST_BACKTRACE asks for it.
    let trace = match Backtrace::capture() {
        trace if trace.status() == BacktraceStatus::Captured => format!("\n{trace}"),
        _ => String::new(),
    };
    log::error!("thread {name} panicked{place}: {message}{trace}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A log whose printer does as `print` says, without touching the process's logger.
    fn log_to(
        capacity: usize,
        print: impl FnMut(&Line) + Send + 'static,
    ) -> (Front, Logging, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        let (front, logging) =
            spawn(capacity, LevelFilter::Info, Arc::clone(&counters), print).unwrap();
        (front, logging, counters)
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
        logging.finish(DEADLINE);
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines[0], "0");
        assert!(lines.contains(&format!("{dropped} log lines dropped")), "{lines:?}");
    }

    #[test]
    fn finish_gives_up_on_a_stuck_stderr() {
        // With and without room for its own last word.
        for waiting in [0, 1] {
            let (_let_go, held) = bounded::<()>(0);
            let (printing, is_printing) = bounded(1);
            let (front, logging, _) = log_to(1, move |_| {
                printing.send(()).unwrap();
                let _ = held.recv();
            });
            say(&front, Level::Info, OUR_TARGET, "stuck");
            is_printing.recv_timeout(DEADLINE).unwrap();
            (0..waiting).for_each(|_| say(&front, Level::Info, OUR_TARGET, "waiting"));
            let (done, finished) = bounded(1);
            let finish = move || {
                logging.finish(Duration::from_millis(50));
                done.send(()).unwrap();
            };
            Builder::new().spawn(finish).unwrap();
            // The printer is stuck all the while.
            let ended = finished.recv_timeout(DEADLINE);
            assert_eq!(ended, Ok(()), "finish waits for a stuck stderr, {waiting} waiting");
        }
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
        logging.finish(DEADLINE);
        let lines: Vec<String> = lines.try_iter().collect();
        assert!(lines.contains(&"kept".to_owned()), "{lines:?}");
        assert!(lines.contains(&"1 log lines dropped".to_owned()), "{lines:?}");
        assert_eq!(counters.log_lines_dropped.get(), 1);
    }

    #[test]
    fn packages_log_from_warn_on_and_we_from_our_level_on() {
        let (front, logging, _) = log_to(1, |_| {});
        let enabled =
            |level, target| front.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(enabled(Level::Info, "agent_metrics::agent"));
        assert!(enabled(Level::Info, "agent_metrics"));
        assert!(!enabled(Level::Debug, "agent_metrics"));
        assert!(!enabled(Level::Info, "agent_metrics_other"));
        assert!(!enabled(Level::Info, "ureq::run"));
        assert!(enabled(Level::Warn, "ureq::run"));
        assert!(!enabled(Level::Error, "rustls_platform_verifier::verification::others"));
        logging.finish(DEADLINE);
    }

    #[test]
    fn levels_have_their_names() {
        assert_eq!(parse_level("").unwrap(), LevelFilter::Info);
        assert_eq!(parse_level("Debug").unwrap(), LevelFilter::Debug);
        assert!(parse_level("loud").is_err());
    }

    #[test]
    fn a_message_is_cut_at_its_bound_and_at_a_character() {
        let long = "é".repeat(MAX_LINE_BYTES);
        let fitting = &long[..MAX_LINE_BYTES];
        assert_eq!(bounded_text(format_args!("{fitting}")), fitting);
        assert_eq!(bounded_text(format_args!("{fitting}a")), format!("{fitting}..."));
        let cut = format!("a{}...", &long[..MAX_LINE_BYTES - 2]);
        assert_eq!(bounded_text(format_args!("a{long}")), cut);
        assert_eq!(bounded_text(format_args!("")), "");
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
