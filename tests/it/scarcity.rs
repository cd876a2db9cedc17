//! When the system has no more to give: descriptors, memory, threads. The faults are made from
//! outside, by the shell's limits and by `faults.c`, which stands between the server and libc.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::support::flood::{Holdings, assert_alive, conn_from, connect_from, warm_up};
use super::support::frames::RawFeed;
use super::support::http::heartbeat;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::tools::needs;
use super::support::wait::pause;
use super::support::{Conn, Launch, Request, Server, Setup, eventually};

// Numbers of errors as Linux has them on every architecture that matters here (errno(3)).
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// A switchboard of faults for one server.
struct Faults {
    dir: TempDir,
}

impl Faults {
    /// Compiles `faults.c` for this test.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("faults.c");
        std::fs::write(&source, include_str!("faults.c")).unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("faults.so"))
            .arg(&source)
            .arg("-ldl")
            .output()
            .unwrap_or_else(|error| panic!("this test needs a C compiler, `cc`: {error}"));
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Self { dir }
    }

    /// A server that meets the faults, none of which is switched on.
    fn start(&self, setup: &Setup) -> Server {
        let path = |name: &str| self.path(name).into_os_string().into_string().unwrap();
        Launch::config(&setup.toml())
            .env("LD_PRELOAD", &path("faults.so"))
            .env("FAULTS_DIRECTORY", &path(""))
            .start()
    }

    /// From here on calls of `name` fail with `error`.
    fn begin(&self, name: &str, error: i32) {
        symlink(error.to_string(), self.path(name)).unwrap();
    }

    /// From here on they succeed again.
    fn end(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A heartbeat over `agent`, seen by `feed`.
fn assert_delivers(agent: &mut Conn, feed: &mut RawFeed, cpu_usage: f64) {
    assert_eq!(agent.ping("steady", &heartbeat(cpu_usage)).status, 200);
    loop {
        let message = feed.json();
        if message["metrics"]["cpu_usage"] == cpu_usage {
            return;
        }
    }
}

/// A counter, read over a connection that is already open.
fn counter(conn: &mut Conn, name: &str) -> u64 {
    conn.send(&Request::get("/api/v1/status").bytes());
    Status(conn.response().json()).counter(name)
}

#[test]
fn a_failing_accept_costs_newcomers_a_wait_and_nobody_else_anything() {
    needs!(Program("cc"));
    let faults = Faults::new();
    let server = faults.start(&Setup::open());
    let addr = server.addr();
    let mut resting = warm_up(addr);
    let mut feed = RawFeed::join(addr, "pool-a");
    let mut agent = Conn::open(addr);
    let mut observer = Conn::open(addr);
    assert_delivers(&mut agent, &mut feed, 1.0);
    let mut cpu_usage = 1.0;
    for error in [EMFILE, ENFILE, ENOMEM] {
        let errors_before = counter(&mut observer, "accept_errors");
        faults.begin("accept", error);
        // The kernel completes the handshake; accept would be next.
        let mut newcomer = Conn::open(addr);
        newcomer.send(&Request::ping("newcomer", KEY_A, &heartbeat(9.0)).bytes());
        eventually("the server tries to accept again and again", || {
            (counter(&mut observer, "accept_errors") >= errors_before + 3).then_some(())
        });
        // It must not spin on what keeps failing: a retry every 10 ms at most.
        let paced_from = counter(&mut observer, "accept_errors");
        pause(Duration::from_millis(500));
        let retries = counter(&mut observer, "accept_errors") - paced_from;
        assert!(retries <= 100, "{retries} retries in half a second (error {error})");
        cpu_usage += 1.0;
        assert_delivers(&mut agent, &mut feed, cpu_usage);

        faults.end("accept");
        assert_eq!(newcomer.response().status, 200, "who waited is answered (error {error})");
        assert_alive(addr);
    }
    drop(RawFeed::join(addr, "pool-a"));
    assert_eq!(resting.ping("resting", &heartbeat(9.0)).status, 200, "who rested paid for it");
}

#[test]
fn a_failing_thread_spawn_is_a_503_and_leaves_nothing_behind() {
    needs!(Program("cc"));
    let faults = Faults::new();
    let server = faults.start(&Setup::open());
    let addr = server.addr();
    let mut feed = RawFeed::join(addr, "pool-a");
    let mut agent = warm_up(addr);
    assert_delivers(&mut agent, &mut feed, 1.5);
    let before = Holdings::of(server.pid());
    let mut cpu_usage = 1.0;
    for error in [EAGAIN, ENOMEM, EMFILE] {
        faults.begin("thread", error);
        for _ in 0..20 {
            let refusal = RawFeed::try_join(connect_from(1, addr).unwrap(), "pool-a").unwrap_err();
            assert!(refusal.starts_with("HTTP/1.1 503 "), "error {error}: {refusal}");
            assert!(refusal.to_ascii_lowercase().contains("\r\nretry-after: "), "{refusal}");
        }
        assert_alive(addr);
        cpu_usage += 1.0;
        assert_delivers(&mut agent, &mut feed, cpu_usage);
        faults.end("thread");

        let mut late = RawFeed::join(addr, "pool-a");
        assert_eq!(late.json()["type"], "initial_metrics");
        drop(late);
        before.wait_for_return(server.pid());
        eventually("one dashboard is counted", || {
            (Status::read(addr).counter("dashboards") == 1).then_some(())
        });
    }
}

#[test]
fn a_low_descriptor_limit_shrinks_the_caps_and_a_flood_passes() {
    const LIMIT: usize = 128;
    let mut server = Launch::config(&Setup::open().toml())
        .under(&["sh", "-c", r#"ulimit -n 128 && exec "$0" "$@""#])
        .start();
    let (addr, pid) = (server.addr(), server.pid());
    let said = server.log().text().to_lowercase();
    assert!(said.contains("descriptor"), "start-up does not say that the caps shrank:\n{said}");
    let mut feed = RawFeed::join(addr, "pool-a");
    let _kept = warm_up(addr);
    let before = Holdings::of(pid);

    // Three hundred agents at once, who stay connected.
    let mut flood: Vec<Conn> = (0..300).map(|_| conn_from(2, addr)).collect();
    let ping = Request::ping("flood", KEY_A, &heartbeat(7.0)).bytes();
    let sent: Vec<bool> = flood.iter_mut().map(|conn| conn.try_send(&ping)).collect();
    let mut answered = 0;
    for (conn, sent) in flood.iter_mut().zip(sent) {
        if let Some(response) = sent.then(|| conn.try_response()).flatten() {
            assert!(matches!(response.status, 200 | 503), "{}", response.text());
            answered += usize::from(response.status == 200);
        }
    }
    assert!(answered > 0, "nobody got through");
    assert!(Holdings::of(pid).descriptors <= LIMIT);
    // Those who are idle now make room for whoever comes.
    assert_alive(addr);
    drop(flood);

    // Three hundred who say nothing.
    let mut silent: Vec<Conn> = (0..300).map(|_| conn_from(2, addr)).collect();
    for conn in &mut silent {
        while conn.try_response().is_some() {}
    }
    drop(silent);

    // More dashboards than there are descriptors: some join, the others are told 503.
    let crowd: Vec<_> =
        (0..LIMIT).map(|_| RawFeed::try_join(connect_from(2, addr).unwrap(), "pool-a")).collect();
    let joined = crowd.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(joined > 0 && joined < LIMIT, "{joined} joined");
    for refusal in crowd.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(refusal.is_empty() || refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    }
    drop(crowd);

    before.wait_for_return(pid);
    assert_delivers(&mut Conn::open(addr), &mut feed, 8.0);
    assert!(server.is_running());
}
