//! Dashboards at the documented maxima: everyone is served in the end, and memory returns.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::support::crowd::{Stop, paced};
use super::support::flood::{bulky_heartbeat, connect_with, heavy, raise_descriptor_limit};
use super::support::frames::{FIN, PONG, RawFeed};
use super::support::process::resident_kib;
use super::support::setup::KEY_A;
use super::support::status::Status;
use super::support::wait::{eventually_within, pause, within};
use super::support::{Conn, DEADLINE, Request, Server, Setup};

/// For all of a scene: it takes a quarter of this on a machine that has nothing else to do.
const SCENE_DEADLINE: Duration = Duration::from_secs(120);

/// What may stay of the memory that a scene took.
const MAX_KEPT_KIB: u64 = 20 * 1024;

/// Heartbeats of many agents, each of the same size, and how many were answered.
struct Agents {
    addr: SocketAddr,
    count: usize,
    tasks: String,
    answered: AtomicU64,
}

impl Agents {
    fn new(addr: SocketAddr, count: usize, bytes: usize) -> Self {
        let tasks = bulky_heartbeat(0.0, bytes)["running_tasks"].to_string();
        let agents = Self { addr, count, tasks, answered: AtomicU64::new(0) };
        let mut conn = Conn::open(addr);
        (0..count).for_each(|turn| agents.beat(&mut conn, turn));
        agents
    }

    /// The heartbeat of an agent, in turn.
    fn beat(&self, conn: &mut Conn, turn: usize) {
        let body = format!(
            r#"{{"status":"busy","cpu_usage":{}.5,"memory_usage":50.0,"running_tasks":{}}}"#,
            turn % 100,
            self.tasks
        );
        let path = format!("/api/v1/agents/agent-{:05}/ping", turn % self.count);
        conn.send(&Request::new("POST", &path).key(KEY_A).body(body.as_bytes()).bytes());
        assert_eq!(conn.response().status, 200);
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Beats in turn at this rate, until `stop`.
    fn beat_on(&self, per_second: u32, stop: &AtomicBool) {
        let mut conn = Conn::open(self.addr);
        paced(f64::from(per_second), stop, |turn| self.beat(&mut conn, turn));
    }
}

/// The type and the sequence number of a message, without the price of parsing megabytes.
fn kind_and_seq(text: &str) -> (&str, u64) {
    let kind = text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split('"').next()).unwrap();
    let (_, seq) = text.rsplit_once(r#""seq":"#).unwrap();
    (kind, seq.trim_end_matches('}').parse().unwrap())
}

/// Memory is back to about what it was once all dashboards are gone.
fn assert_memory_returns(server: &Server, before_kib: u64) {
    let addr = server.addr();
    eventually_within(SCENE_DEADLINE, "all dashboards are gone", || {
        (Status::read(addr).counter("dashboards") == 0).then_some(())
    });
    let kept = || resident_kib(server.pid()).saturating_sub(before_kib);
    let returned = within(DEADLINE, || (kept() <= MAX_KEPT_KIB).then_some(()));
    assert!(returned.is_some(), "{} KiB are kept of what the dashboards took", kept());
}

/// Forty dashboards that each read 1 MB/s, and how far they are.
struct Storm {
    agents: Agents,
    /// How many have come up to date while heartbeats went on.
    live: AtomicU64,
    /// The sequence number of the last heartbeat, once it is known.
    last_seq: AtomicU64,
}

impl Storm {
    /// Reads one snapshot and all that follows, until the last heartbeat.
    fn read_slowly(&self) {
        const BYTES_PER_SECOND: u32 = 1_000_000;
        const RECEIVE_BUFFER: usize = 256 * 1024;
        /// Updates that may be on their way to who is up to date: three seconds' worth.
        const LIVE_WITHIN: u64 = 1_000;
        let stream = connect_with(2, self.agents.addr, Some(RECEIVE_BUFFER)).unwrap();
        let mut feed = RawFeed::join_over(stream, "pool-a").paced(BYTES_PER_SECOND);
        let (mut last, mut updates, mut is_live) = (0, 0, false);
        while last == 0 || last != self.last_seq.load(Ordering::SeqCst) {
            let text = feed.text();
            let (kind, seq) = kind_and_seq(&text);
            match (kind, last) {
                ("initial_metrics", 0) => {}
                ("metrics_update", 1..) => updates += 1,
                other => panic!("{other:?} after {updates} updates"),
            }
            assert!(seq > last, "{seq} after {last}");
            last = seq;
            let answered = self.agents.answered.load(Ordering::SeqCst);
            if !is_live && updates > 0 && seq + LIVE_WITHIN > answered {
                is_live = true;
                self.live.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// A join storm on a big pool ends: everyone who reads faster than the pool changes gets one
/// snapshot, then updates, is up to date while heartbeats go on, and misses none of the last.
#[test]
fn forty_slow_dashboards_join_a_pool_of_ten_thousand_agents() {
    const DASHBOARDS: u64 = 40;
    const JOIN_EVERY: Duration = Duration::from_millis(150);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let agents = Agents::new(server.addr(), 10_000, 6 * 136);
    let before_kib = resident_kib(server.pid());
    let storm = Storm { agents, live: AtomicU64::new(0), last_seq: AtomicU64::new(0) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop_at_end = Stop(&stop);
        let beats = scope.spawn(|| storm.agents.beat_on(333, &stop));
        let dashboards: Vec<_> = (0..DASHBOARDS)
            .map(|_| {
                pause(JOIN_EVERY);
                scope.spawn(|| storm.read_slowly())
            })
            .collect();
        let live = || storm.live.load(Ordering::SeqCst);
        let _ = within(SCENE_DEADLINE, || {
            let failed = dashboards.iter().any(|it| it.is_finished());
            (failed || live() == DASHBOARDS).then_some(())
        });
        assert_eq!(live(), DASHBOARDS, "up to date; {:?}", Status::read(server.addr()));
        drop(stop_at_end);
        beats.join().unwrap();
        // One more, so that everyone waits for it.
        let answered = storm.agents.answered.load(Ordering::SeqCst);
        storm.last_seq.store(answered + 1, Ordering::SeqCst);
        storm.agents.beat(&mut Conn::open(server.addr()), 0);
        for dashboard in dashboards {
            dashboard.join().unwrap();
        }
    });
    assert_eq!(Status::read(server.addr()).counter("cut_offs"), 0);
    assert_memory_returns(&server, before_kib);
}

/// Everyone gets the snapshot and then the update that comes behind it.
#[test]
fn a_thousand_dashboards_join_a_thousand_agents_at_once() {
    const THREADS: usize = 8;
    const EACH: usize = 125;
    let _alone = heavy();
    raise_descriptor_limit(4_096);
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let agents = Agents::new(addr, 1_000, 6 * 136);
    let before_kib = resident_kib(server.pid());
    let snapshots = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let dashboards: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let join = |_| {
                        let stream = connect_with(3, addr, None).unwrap();
                        RawFeed::join_over(stream, "pool-a")
                    };
                    let mut feeds: Vec<RawFeed> = (0..EACH).map(join).collect();
                    for feed in &mut feeds {
                        assert_eq!(kind_and_seq(&feed.text()), ("initial_metrics", 1_000));
                        snapshots.fetch_add(1, Ordering::SeqCst);
                    }
                    for feed in &mut feeds {
                        assert_eq!(kind_and_seq(&feed.text()), ("metrics_update", 1_001));
                    }
                })
            })
            .collect();
        eventually_within(SCENE_DEADLINE, "everyone has the snapshot", || {
            let ended = dashboards.iter().any(|it| it.is_finished());
            let served = snapshots.load(Ordering::SeqCst) == (THREADS * EACH) as u64;
            (ended || served).then_some(())
        });
        agents.beat(&mut Conn::open(addr), 0);
    });
    assert_eq!(Status::read(addr).counter("cut_offs"), 0);
    assert_memory_returns(&server, before_kib);
}

/// Bytes that the kernel holds for clients of this port (proc(5), /proc/net/tcp, tx_queue).
fn unsent_bytes(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?.rsplit_once(':')?.1;
        let (sent, _) = fields.nth(2)?.split_once(':')?;
        let is_ours = u16::from_str_radix(local, 16) == Ok(port);
        usize::from_str_radix(sent, 16).ok().filter(|_| is_ours)
    };
    table.lines().skip(1).filter_map(of_port).sum()
}

/// Who does not read a snapshot of 2.8 MB is seen to be behind, though the kernel would buffer all
/// of it, and is cut off, though it answers our Pings.
#[test]
fn dashboards_that_never_read_are_behind_and_cut_off() {
    const COUNT: usize = 100;
    let _alone = heavy();
    let server = Server::start(&Setup::open().limit(r#"lag_timeout = "2s""#).toml());
    let addr = server.addr();
    let agents = Agents::new(addr, 3_100, 6 * 136);
    let mut feeds: Vec<RawFeed> = (0..COUNT)
        .map(|_| RawFeed::join_over(connect_with(4, addr, Some(4 * 1024)).unwrap(), "pool-a"))
        .collect();
    let mut most_unsent = 0;
    eventually_within(SCENE_DEADLINE, "all are cut off", || {
        for feed in &mut feeds {
            feed.send(FIN | PONG, b"");
        }
        most_unsent = most_unsent.max(unsent_bytes(addr.port()));
        (Status::read(addr).counter("cut_offs") == COUNT as u64).then_some(())
    });
    // Without a bound it is all of 2.8 MB each.
    let most_each = most_unsent / COUNT;
    assert!((1..=256 * 1024).contains(&most_each), "the kernel holds {most_each} bytes for each");
    assert_eq!(agents.answered.load(Ordering::SeqCst), 3_100);
}
