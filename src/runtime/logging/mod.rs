//! The log: records go through a bounded channel to the thread `log`, the only one that
//! touches stderr. Senders never wait: what the thread cannot take is dropped and counted.
//!
//! A full stderr (a pipe that nobody reads) stops that thread alone; a closed one makes
//! `eprintln!` panic, which the thread survives. For the same reason nothing else in the
//! process may print to stderr while the log runs: it would wait for the lock that a stuck
//! log thread holds. That goes for the standard panic hook too, so [`start`] replaces it with
//! one that logs.

mod text;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use std::{io, panic};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

pub(crate) use self::text::printable;

use self::text::Bounded;
use crate::runtime::counters::Counters;
use crate::runtime::threads::{STACK_BYTES, panic_text};

/// Log lines waiting for the log thread; beyond it lines are dropped and counted.
pub(crate) const LOG_QUEUE: usize = 1_024;

/// The environment variable that sets the level.
pub(crate) const LEVEL_VARIABLE: &str = "AGENT_METRICS_LOG";

/// Longest message, in bytes; the rest is cut. With [`LOG_QUEUE`] it bounds what waits to
/// 4 MiB.
pub(crate) const MAX_LINE_BYTES: usize = 4 * 1_024;

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
///
/// # Errors
/// [`LoggingError::Level`].
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

/// Makes the log the process's logger and its panic hook. `level` is for our own records;
/// packages that we use speak up from warn on and never below, since their debug output may
/// hold headers. Dropped lines are counted in `counters`.
///
/// # Errors
/// See [`LoggingError`].
pub(crate) fn start(level: LevelFilter, counters: Arc<Counters>) -> Result<Logging, LoggingError> {
    let (queue, inbox) = bounded(LOG_QUEUE);
    let front = Front { queue: queue.clone(), level, counters: Arc::clone(&counters) };
    let (on_end, ended) = bounded(1);
    let printer = SimpleLogger::new().with_level(LevelFilter::Trace).with_utc_timestamps();
    let thread = Builder::new()
        .name("log".to_owned())
        .stack_size(STACK_BYTES)
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
pub(crate) struct Logging {
    queue: Sender<Entry>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Logging {
    /// Prints what is queued and ends the thread, if both can be done within `grace`; else
    /// leaves the thread, stuck on stderr, to the end of the process. Records that come later
    /// are dropped.
    pub(crate) fn finish(self, grace: Duration) {
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
        let most = match metadata.target() {
            ours if is_ours(ours) => self.level,
            // Says at every try what the agent says once.
            verifier if verifier.starts_with("rustls_platform_verifier") => LevelFilter::Off,
            _ => self.level.min(LevelFilter::Warn),
        };
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
fn print_all(inbox: &Receiver<Entry>, counters: &Counters, print: impl FnMut(&Line)) {
    IS_LOG_THREAD.set(true);
    let mut printer = Printer { print, counters, reported: 0, since_report: 0 };
    while let Ok(Entry::Line(line)) = inbox.recv() {
        printer.line(&line);
        // A loss is told once the rush is over, or as often as a queue goes by in a long one.
        if inbox.is_empty() || printer.since_report >= LOG_QUEUE {
            printer.report();
        }
    }
    printer.report();
}

/// Prints, survives what printing does, and keeps account of what was lost.
struct Printer<'a, P> {
    print: P,
    counters: &'a Counters,
    /// How many lost lines the log has told of.
    reported: u64,
    since_report: usize,
}

impl<P: FnMut(&Line)> Printer<'_, P> {
    fn line(&mut self, line: &Line) {
        self.since_report += 1;
        if catch_unwind(AssertUnwindSafe(|| (self.print)(line))).is_err() {
            self.counters.log_lines_dropped.add_one();
        }
    }

    fn report(&mut self) {
        self.since_report = 0;
        let dropped = self.counters.log_lines_dropped.get();
        let news = dropped - self.reported;
        self.reported = dropped;
        if news > 0 {
            self.line(&Line {
                level: Level::Warn,
                target: module_path!().to_owned(),
                message: format!("{news} log lines dropped"),
            });
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
        // With and without room for its own last word.
        for waiting in [0, 1] {
            let (_let_go, held) = bounded::<()>(0);
            let (printing, is_printing) = bounded(1);
            let (front, logging, _) = log_to(1, move |_| {
                printing.send(()).unwrap();
                let _ = held.recv();
            });
            say(&front, Level::Info, OUR_TARGET, "stuck");
            is_printing.recv_timeout(PATIENCE).unwrap();
            (0..waiting).for_each(|_| say(&front, Level::Info, OUR_TARGET, "waiting"));
            let (done, finished) = bounded(1);
            let finish = move || {
                logging.finish(Duration::from_millis(50));
                done.send(()).unwrap();
            };
            Builder::new().spawn(finish).unwrap();
            // The printer is stuck all the while.
            let ended = finished.recv_timeout(PATIENCE);
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
        logging.finish(PATIENCE);
        let lines: Vec<String> = lines.try_iter().collect();
        assert!(lines.contains(&"kept".to_owned()), "{lines:?}");
        assert!(lines.contains(&"1 log lines dropped".to_owned()), "{lines:?}");
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
        assert!(!enabled(Level::Error, "rustls_platform_verifier::verification::others"));
        logging.finish(PATIENCE);
    }

    #[test]
    fn levels_have_their_names() {
        assert_eq!(parse_level("").unwrap(), LevelFilter::Info);
        assert_eq!(parse_level("Debug").unwrap(), LevelFilter::Debug);
        assert!(parse_level("loud").is_err());
    }
}
