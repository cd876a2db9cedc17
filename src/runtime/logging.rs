//! The log: records go through a bounded channel to the thread `log`, the only one that writes to
//! stderr. Senders never wait: a record for which the channel has no room is dropped and counted.
//!
//! A full stderr (a pipe that nobody reads) blocks that thread alone; a closed one makes `eprintln!`
//! panic, which the thread catches. Nothing else in the process may print to stderr while the log
//! runs: it would wait for the lock that a blocked log thread holds. So [`start`] also replaces the
//! standard panic hook by one that logs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::runtime::counters::Counters;
use crate::runtime::threads::{STACK_BYTES, panic_text};

/// Lines waiting for the log thread.
const LOG_QUEUE: usize = 1_024;

/// Longest message, in bytes; the rest is cut. With [`LOG_QUEUE`] it bounds what waits to 4 MiB.
const MAX_LINE_BYTES: usize = 4 * 1_024;

/// Longest text that [`printable`] shows, in characters.
const MAX_PRINTABLE_CHARS: usize = 256;

/// The environment variable that sets the level.
const LEVEL_VARIABLE: &str = "AGENT_METRICS_LOG";

/// Our own records' targets begin with this.
const OUR_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Why the log did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    #[error("{LEVEL_VARIABLE} must be off, error, warn, info, debug or trace")]
    Level,
    #[error("the process has a logger already")]
    Taken,
    #[error("cannot start the log thread: {0}")]
    Thread(io::Error),
}

/// The level that [`LEVEL_VARIABLE`] asks for; info where it is unset or empty.
pub(crate) fn level_from_env() -> Result<LevelFilter, LoggingError> {
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

/// Makes the log the process's logger and its panic hook. `level` is for our own records; records of
/// packages appear from warn on and never below, since their debug output may hold headers. Dropped
/// lines are counted in `counters`.
pub(crate) fn start(level: LevelFilter, counters: Arc<Counters>) -> Result<Logging, LoggingError> {
    let printer = SimpleLogger::new().with_level(LevelFilter::Trace).with_utc_timestamps();
    let (front, logging) = spawn(LOG_QUEUE, level, counters, move |line| {
        let args = format_args!("{}", line.message);
        printer.log(&Record::builder().level(line.level).target(&line.target).args(args).build());
    })?;
    if log::set_boxed_logger(Box::new(front)).is_err() {
        logging.finish(Duration::from_secs(1));
        return Err(LoggingError::Taken);
    }
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
) -> Result<(Front, Logging), LoggingError> {
    let (queue, inbox) = bounded(capacity);
    let (on_end, ended) = bounded(1);
    let front = Front { queue: queue.clone(), level, counters: Arc::clone(&counters) };
    let thread = Builder::new()
        .name("log".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            print_all(&inbox, &counters, print);
            let _ = on_end.send(());
        })
        .map_err(LoggingError::Thread)?;
    Ok((front, Logging { queue, ended, thread }))
}

/// The running log.
#[derive(Debug)]
#[must_use = "what is queued at the end is lost without finish"]
pub(crate) struct Logging {
    queue: Sender<Option<Line>>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Logging {
    /// Prints what is queued and ends the thread, if both can be done within `grace`; else leaves the
    /// thread, blocked on stderr, to the end of the process. Later records are dropped.
    pub(crate) fn finish(self, grace: Duration) {
        let timeout = after(grace);
        select! {
            send(self.queue, None) -> sent => if sent.is_err() { return },
            recv(timeout) -> _ => return,
        }
        select! {
            recv(self.ended) -> _ => {
                // It has nothing more to do but return.
                let _ = self.thread.join();
            }
            recv(timeout) -> _ => {}
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
        let most = match metadata.target() {
            ours if is_ours(ours) => self.level,
            // It repeats at every attempt what the agent logs once.
            verifier if verifier.starts_with("rustls_platform_verifier") => LevelFilter::Off,
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

fn is_ours(target: &str) -> bool {
    target.strip_prefix(OUR_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Formats up to [`MAX_LINE_BYTES`] and no further.
fn bounded_text(args: fmt::Arguments<'_>) -> String {
    let mut buffer = [0; MAX_LINE_BYTES];
    let mut room = &mut buffer[..];
    let is_cut = room.write_fmt(args).is_err();
    let length = MAX_LINE_BYTES - room.len();
    // The cut may be inside a character.
    let mut text = match buffer[..length].utf8_chunks().next() {
        Some(chunk) => chunk.valid().to_owned(),
        None => String::new(),
    };
    if is_cut {
        text.push_str("...");
    }
    text
}

thread_local! {
    /// Set on a log thread: its own panics come from stderr and must not be sent back to it.
    static IS_LOG_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// The log thread's loop; `print` may panic.
fn print_all(inbox: &Receiver<Option<Line>>, counters: &Counters, mut print: impl FnMut(&Line)) {
    IS_LOG_THREAD.set(true);
    let mut print = |line: &Line| {
        if catch_unwind(AssertUnwindSafe(|| print(line))).is_err() {
            counters.log_lines_dropped.add_one();
        }
    };
    let (mut reported, mut lines_since_report) = (0, 0);
    loop {
        let line = inbox.recv().ok().flatten();
        if let Some(line) = &line {
            print(line);
            lines_since_report += 1;
        }
        // Dropped lines are reported when the queue is empty, and in a long burst once in a while.
        if line.is_none() || inbox.is_empty() || lines_since_report >= LOG_QUEUE {
            let dropped = counters.log_lines_dropped.get();
            if dropped > reported {
                let message = format!("{} log lines dropped", dropped - reported);
                let target = module_path!().to_owned();
                print(&Line { level: Level::Warn, target, message });
            }
            (reported, lines_since_report) = (dropped, 0);
        }
        if line.is_none() {
            return;
        }
    }
}

/// The panic hook: what happened and where, at error, through the log.
fn log_panic(info: &PanicHookInfo<'_>) {
    if IS_LOG_THREAD.get() {
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let place = info.location().map(|location| format!(" at {location}")).unwrap_or_default();
    let message = printable(panic_text(info.payload()));
    // Captured only where RUST_BACKTRACE asks for it.
    let trace = Backtrace::capture();
    let trace = match trace.status() {
        BacktraceStatus::Captured => format!("\n{trace}"),
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
