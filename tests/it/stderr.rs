//! A log that nobody takes: the server answers on and ends in order.

use rustix::process::Signal;

use super::support::frames::{Heard, RawFeed};
use super::support::http::heartbeat;
use super::support::{Conn, Launch, Request, Setup, Stderr};

/// Thousands of requests, good and bad, which give the log something to say.
fn assert_goes_on_and_ends_well(launch: Launch) {
    let mut server = launch.env("AGENT_METRICS_LOG", "trace").start();
    let addr = server.addr();
    let mut feed = RawFeed::join(addr, "pool-a");
    assert_eq!(feed.json()["type"], "initial_metrics");
    let mut agent = Conn::open(addr);
    for turn in 0..2_000_u32 {
        let cpu_usage = f64::from(turn % 100);
        assert_eq!(agent.ping("a", &heartbeat(cpu_usage)).status, 200);
        assert_eq!(feed.json()["metrics"]["cpu_usage"], cpu_usage);
        if turn % 10 == 0 {
            assert_eq!(Request::get("/nowhere").send(addr).status, 404);
        }
    }
    assert!(server.is_running());
    server.signal(Signal::TERM);
    assert_eq!(feed.farewell(), Heard::Close(Some(1001)));
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_closed_stderr_stops_nothing() {
    // The port is chosen beforehand where stderr is not collected; the shell then closes it.
    let launch = Launch::config(&Setup::open().busy_agents().toml()).stderr(Stderr::Broken);
    assert_goes_on_and_ends_well(launch.under(&["sh", "-c", r#"exec "$0" "$@" 2>&-"#]));
}

#[test]
fn a_stderr_whose_reader_is_gone_stops_nothing() {
    assert_goes_on_and_ends_well(
        Launch::config(&Setup::open().busy_agents().toml()).stderr(Stderr::Broken),
    );
}

#[test]
fn a_stderr_on_a_full_disk_stops_nothing() {
    let launch = Launch::config(&Setup::open().busy_agents().toml()).stderr(Stderr::Broken);
    assert_goes_on_and_ends_well(launch.under(&["sh", "-c", r#"exec "$0" "$@" 2>/dev/full"#]));
}

#[test]
fn a_stderr_that_nobody_reads_stops_nothing() {
    assert_goes_on_and_ends_well(
        Launch::config(&Setup::open().busy_agents().toml()).stderr(Stderr::Full),
    );
}
