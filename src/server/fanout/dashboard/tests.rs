//! One dashboard's write side on a pipe, with the time in the test's hands.

use super::*;
use crate::runtime::clock::{Clock, UnixMillis};
use crate::server::event::Batch;
use crate::server::fanout::tests::{FEED, POOL, alone};
use crate::server::fanout::{Fanout, Feed, MAX_WRITE_BYTES};
use crate::server::limits::{FANOUT_BATCHES, Limits, MAX_BATCH_BYTES};
use crate::server::tests::simulation::Pipe;
use crate::wire::id::{AgentId, DashboardId};
use crate::wire::{KIB, Ping, Snapshot, SnapshotAgent, read_ping};

struct Play {
    dashboard: Dashboard,
    pipe: Arc<Pipe>,
    ring: Ring,
    now: Instant,
    counters: Counters,
}

/// A dashboard whose snapshot has number 0, with `room` bytes in its socket.
fn play(room: usize) -> Play {
    let pipe = Arc::new(Pipe::default());
    pipe.give_room(room);
    let now = Clock::start().now();
    let mut dashboard = Dashboard::new(Arc::<Pipe>::clone(&pipe), Vec::new(), now);
    dashboard.seq = Some(0);
    dashboard.state = State::Reading;
    Play { dashboard, pipe, ring: Ring::default(), now, counters: Counters::default() }
}

impl Play {
    fn pump(&mut self) -> Pumped {
        self.dashboard.pump(&self.ring, self.now, &self.counters)
    }

    /// Gives room for `step` bytes at a time until all is out, and returns the frames' payloads.
    fn drain(&mut self, step: usize) -> Vec<String> {
        while self.pump() == Pumped::Blocked {
            self.pipe.give_room(step);
        }
        let bytes = self.pipe.take();
        let (mut rest, mut payloads) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = 2 + usize::from(rest[1]);
            payloads.push(String::from_utf8_lossy(&rest[2..length]).into_owned());
            rest = &rest[length..];
        }
        payloads
    }
}

/// One update for each text, numbered from `seq`.
fn texts(texts: &[&str], seq: u64) -> Arc<Frames> {
    let mut frames = Frames::default();
    for (text, seq) in texts.iter().zip(seq..) {
        frames.push_text(text, seq);
    }
    Arc::new(frames)
}

fn update(bytes: usize, seq: u64) -> Arc<Frames> {
    texts(&[&"x".repeat(bytes)], seq)
}

/// A control frame goes between frames, never into one, wherever the sending stopped: between
/// updates as well as between the fragments of a snapshot, for which two frames stand here.
#[test]
fn control_frames_go_between_frames() {
    for sent in 0..8 {
        let mut play = play(sent);
        play.ring.append(0, texts(&["ab", "cd"], 1));
        assert_eq!(play.pump(), Pumped::Blocked);
        play.ring.append(2, texts(&["ef"], 3));
        play.dashboard.send_control(&[0x8A, 1, b'1'], play.now);
        play.dashboard.send_control(&[0x8A, 1, b'2'], play.now);
        let expected = match sent {
            0 => ["1", "2", "ab", "cd", "ef"],
            1..=4 => ["ab", "1", "2", "cd", "ef"],
            _ => ["ab", "cd", "1", "2", "ef"],
        };
        assert_eq!(play.drain(1), expected, "after {sent} bytes");
        assert_eq!(play.counters.deliveries.get(), 3);
    }
}

/// After a Close comes nothing, not even the rest of a message whose frame was finished, nor a
/// second Close.
#[test]
fn nothing_follows_a_close() {
    for sent in 0..8 {
        let mut play = play(sent);
        play.ring.append(0, texts(&["ab", "cd"], 1));
        assert_eq!(play.pump(), Pumped::Blocked);
        play.dashboard.send_control(&[0x8A, 1, b'p'], play.now);
        for _ in 0..2 {
            play.dashboard.send_control(&[0x88, 0], play.now);
        }
        play.dashboard.send_control(&[0x8A, 1, b'q'], play.now);
        let expected = match sent {
            0 => vec!["p", ""],
            1..=4 => vec!["ab", "p", ""],
            _ => vec!["ab", "cd", "p", ""],
        };
        assert_eq!(play.drain(1), expected, "after {sent} bytes");
        play.dashboard.note_peer_gone(play.now);
        assert_eq!(play.pump(), Pumped::Ended);
    }
}

/// Who loses its place is sent what was begun, and then asks with the number that it has.
#[test]
fn who_loses_its_place_asks_for_what_it_lacks() {
    let mut play = play(1);
    play.ring.append(0, texts(&["ab", "cd"], 1));
    assert_eq!(play.pump(), Pumped::Blocked);
    play.ring.append(2, texts(&["ef"], 3));
    play.ring.trim(3);
    play.pipe.give_room(100);
    assert_eq!(play.pump(), Pumped::FellBehind(Some(2)));
    play.dashboard.wait();
    assert_eq!(play.pump(), Pumped::Drained);
    play.dashboard.take_changes(&texts(&["new"], 3));
    play.ring.append(3, texts(&["gh"], 4));
    assert_eq!(play.drain(1), ["ab", "cd", "new", "gh"]);
}

/// Updates that a snapshot holds already are skipped.
#[test]
fn updates_from_before_the_snapshot_are_skipped() {
    let mut play = play(100);
    play.dashboard.wait();
    play.ring.append(2, texts(&["3", "4", "5"], 3));
    play.dashboard.take_snapshot(&texts(&["s"], 4));
    assert_eq!(play.drain(1), ["s", "5"]);
    play.ring.append(5, texts(&["6", "7"], 6));
    assert_eq!(play.drain(1), ["6", "7"]);
    assert_eq!(play.dashboard.cursor(), Some(7));
}

/// Who is behind and goes on taking a little in each `lag_timeout` is never cut off; who stops is.
#[test]
fn who_goes_on_reading_is_never_cut_off() {
    let times = Times::from(&Limits::default());
    let mut play = play(0);
    play.dashboard.wait();
    play.dashboard.take_snapshot(&update(2 * 1_024 * KIB, 1));
    for window in 0..100 {
        assert_eq!(play.pump(), Pumped::Blocked);
        play.pipe.give_room(times.lag_min_bytes);
        assert_eq!(play.pump(), Pumped::Blocked);
        play.now += times.lag_timeout;
        assert!(!play.dashboard.is_lagging(play.now, &times), "window {window}");
    }
    play.now += times.lag_timeout;
    let just_before = play.now - Duration::from_millis(1);
    play.pipe.give_room(times.lag_min_bytes - 1);
    assert_eq!(play.pump(), Pumped::Blocked);
    assert!(!play.dashboard.is_lagging(just_before, &times));
    assert!(play.dashboard.is_lagging(play.now, &times));
}

/// Who has taken all that was sent, batch by batch, is not kept waiting longer for the next one.
#[test]
fn who_catches_up_is_not_slowed_down() {
    let mut play = play(1_000);
    play.ring.append(99, texts(&["x"], 100));
    for seq in 1..20 {
        assert_eq!(play.pump(), Pumped::FellBehind(Some(seq - 1)));
        play.dashboard.wait();
        play.dashboard.take_changes(&update(1, seq));
    }
    assert!(play.dashboard.retry_delay <= RETRY_FIRST, "{:?}", play.dashboard.retry_delay);
}

/// Tries are further apart the less they move, within bounds.
#[test]
fn tries_adapt_to_the_line() {
    let mut play = play(0);
    play.ring.append(0, update(4 * 1_024 * KIB, 1));
    assert_eq!(play.pump(), Pumped::Blocked);
    let mut retry = |room| {
        play.now = play.dashboard.retry_blocked(play.now).unwrap();
        play.pipe.give_room(room);
        assert_eq!(play.dashboard.pump(&play.ring, play.now, &play.counters), Pumped::Blocked);
        play.dashboard.retry_delay.as_millis()
    };
    assert_eq!([0; 6].map(&mut retry), [10, 20, 40, 80, 160, 160]);
    assert_eq!([LATE_BYTES; 8].map(&mut retry), [80, 40, 20, 10, 5, 2, 1, 1]);
    assert_eq!(retry(EARLY_BYTES), 1);
}

/// A fanout thread's work with one dashboard, which has `room` bytes in its socket.
struct Thread {
    fanout: Fanout,
    batches: crossbeam_channel::Sender<Batch>,
    pipe: Arc<Pipe>,
    now: Instant,
    seq: u64,
}

impl Thread {
    fn with_room(room: usize) -> Self {
        let Play { dashboard, pipe, now, .. } = play(room);
        let (fanout, _, batches) = alone(FANOUT_BATCHES);
        let mut thread = Self { fanout, batches, pipe, now, seq: 0 };
        thread.insert(1, dashboard);
        thread
    }

    fn insert(&mut self, id: u64, dashboard: Dashboard) {
        let new = || Feed::new(Some(self.fanout.parts.pools[POOL.0].clone()));
        let feed = self.fanout.feeds.entry(FEED).or_insert_with(new);
        feed.dashboards.insert(DashboardId(id), dashboard);
    }

    /// One turn of the thread with so many batches, each as large as they get, and their bytes.
    fn turn(&mut self, batches: usize) -> usize {
        let mut bytes = 0;
        for _ in 0..batches {
            let (since, frames) = (self.seq, update(MAX_BATCH_BYTES - 100, self.seq + 1));
            bytes += frames.bytes().len();
            self.seq += 1;
            self.batches.try_send(Batch::Updates { feed: FEED, since, frames }).unwrap();
        }
        self.fanout.turn(None, None, self.now);
        bytes
    }

    fn lags(&self) -> u64 {
        self.fanout.parts.counters.lags.get()
    }
}

/// However small its socket's buffer, a dashboard that has all before does not fall behind by what
/// is written at once.
#[test]
fn one_write_makes_nobody_fall_behind() {
    let mut thread = Thread::with_room(1);
    let bytes = thread.turn(MAX_WRITE_BYTES / MAX_BATCH_BYTES + 1);
    assert!(bytes > MAX_WRITE_BYTES);
    assert_eq!((thread.lags(), thread.pipe.take().len()), (0, 1));
    thread.pipe.give_room(bytes);
    thread.now += Duration::from_secs(1);
    thread.turn(0);
    assert_eq!((thread.lags(), thread.pipe.take().len()), (0, bytes - 1));
}

/// Nor does one that takes all at once, however much comes in one turn.
#[test]
fn one_turn_makes_no_quick_reader_fall_behind() {
    let mut thread = Thread::with_room(usize::MAX);
    let bytes = thread.turn(FANOUT_BATCHES - 1);
    assert_eq!((thread.lags(), thread.pipe.take().len()), (0, bytes));
}

/// Who has read since the last try is tried again before its place is lost.
#[test]
fn who_has_read_meanwhile_has_not_fallen_behind() {
    let mut thread = Thread::with_room(1);
    let first = thread.turn(3);
    thread.pipe.give_room(usize::MAX - 1);
    let second = thread.turn(3);
    assert_eq!((thread.lags(), thread.pipe.take().len()), (0, first + second));
}

/// While the hub cannot be asked, one retry is arranged, however much comes meanwhile.
#[test]
fn who_cannot_ask_has_one_retry() {
    let mut thread = Thread::with_room(usize::MAX);
    // A gap; and nobody runs the hub.
    thread.seq = 9;
    for _ in 0..100 {
        thread.turn(1);
        thread.now += Duration::from_millis(1);
        let retries = thread.fanout.retries.len();
        assert!(retries <= 1, "{retries} retries");
    }
}

/// What the hub sent last is written, though its end comes in the same turn.
#[test]
fn the_last_updates_come_before_the_close() {
    let mut thread = Thread::with_room(usize::MAX);
    let batch = Batch::Updates { feed: FEED, since: 0, frames: texts(&["last"], 1) };
    thread.batches.try_send(batch).unwrap();
    thread.batches = crossbeam_channel::bounded(0).0;
    thread.fanout.turn(None, None, thread.now);
    let bytes = thread.pipe.take();
    assert_eq!(bytes[..7], *b"\x81\x04last\x88", "{bytes:?}");
}

/// A pool of 100 agents at `seq`.
fn snapshot(seq: u64) -> Snapshot {
    let agent = AgentId::parse("a").unwrap();
    let body = br#"{"status": "busy", "cpu_usage": 1, "memory_usage": 2}"#;
    let Ok(Ping::Metrics(metrics)) = read_ping(body, &agent, UnixMillis(0)) else { panic!() };
    let agent = SnapshotAgent { agent, metrics: Arc::new(metrics), interval_ms: None };
    let agents = vec![agent; 100];
    Snapshot {
        agents,
        departed: Vec::new(),
        departures: Default::default(),
        server_time: UnixMillis(0),
        seq,
        version: seq,
        complete_since: 0,
    }
}

impl Thread {
    /// One dashboard, which is 1, is taking the snapshot of 10; 2 has all up to 12, has taken much
    /// since it was live, and waits for a snapshot.
    fn with_a_slow_reader() -> (Self, Arc<Pipe>) {
        let mut thread = Self::with_room(1);
        thread.dashboard(1).wait();
        thread.answer(1, 10);
        let Play { mut dashboard, pipe, .. } = play(usize::MAX);
        (dashboard.seq, dashboard.changed_bytes) = (Some(12), usize::MAX);
        dashboard.wait();
        thread.insert(2, dashboard);
        (thread, pipe)
    }

    fn dashboard(&mut self, id: u64) -> &mut Dashboard {
        self.fanout.feeds.get_mut(&FEED).unwrap().dashboards.get_mut(&DashboardId(id)).unwrap()
    }

    /// The hub sends the snapshot of `seq` for one dashboard.
    fn answer(&mut self, id: u64, seq: u64) {
        let dashboards = vec![DashboardId(id)];
        let snapshot = Arc::new(snapshot(seq).into());
        let batch = Batch::Snapshot { feed: FEED, since: 0, dashboards, snapshot };
        self.batches.try_send(batch).unwrap();
        self.fanout.turn(None, None, self.now);
    }
}

/// A large batch that there is no memory for is a gap: who has all before it asks for the parts.
#[test]
fn a_batch_without_memory_is_a_gap() {
    let mut thread = Thread::with_room(usize::MAX);
    thread.fanout.limit_snapshots(1_000);
    let batch = |since, bytes: usize| {
        let mut frames = Frames::for_fragments(bytes).unwrap();
        frames.push_fragment(&vec![b'x'; bytes], true, since, since + 5);
        Batch::Updates { feed: FEED, since, frames: Arc::new(frames) }
    };
    thread.batches.try_send(batch(0, 900)).unwrap();
    thread.fanout.turn(None, None, thread.now);
    assert!(thread.pipe.take().len() > 900);
    thread.batches.try_send(batch(5, 1_100)).unwrap();
    thread.fanout.turn(None, None, thread.now);
    assert!(thread.pipe.take().is_empty());
    assert_eq!(thread.fanout.parts.counters.batches_split.get(), 1);
    assert_eq!(thread.fanout.postponed().collect::<Vec<_>>(), [Some(5)], "nobody runs the hub");
}

/// Who gets an older snapshot, which one of another feed is taking, asks for what came between: of its
/// own feed nothing follows that would tell it.
#[test]
fn who_shares_another_feeds_snapshot_asks_for_what_came_since() {
    let (mut thread, pipe) = Thread::with_a_slow_reader();
    thread.dashboard(2).seq = None;
    let dashboards = vec![DashboardId(2)];
    let snapshot = Arc::new(snapshot(13).into());
    let batch = Batch::Snapshot { feed: FEED, since: 13, dashboards, snapshot };
    thread.batches.try_send(batch).unwrap();
    thread.fanout.turn(None, None, thread.now);
    assert!(pipe.take().ends_with(b"\"seq\":10}"));
    assert_eq!(thread.fanout.postponed().collect::<Vec<_>>(), [Some(10)]);
}

/// A snapshot that others are taking is not shared with one who has newer states already; who has
/// none gets it.
#[test]
fn nobody_gets_a_snapshot_older_than_what_it_has() {
    let (mut thread, pipe) = Thread::with_a_slow_reader();
    thread.dashboard(2).seq = None;
    thread.answer(2, 13);
    assert!(pipe.take().ends_with(b"\"seq\":10}"));
    let (mut thread, pipe) = Thread::with_a_slow_reader();
    thread.answer(2, 13);
    assert!(pipe.take().ends_with(b"\"seq\":13}"));
}

/// Who is sent a snapshot within a second of another's finds in the ring what came since, though
/// all others have it; later it is to ask the hub.
#[test]
fn the_ring_keeps_what_follows_a_snapshot() {
    let mut thread = Thread::with_room(usize::MAX);
    thread.dashboard(1).wait();
    thread.answer(1, 10);
    thread.seq = 10;
    thread.turn(1);
    assert_eq!(thread.dashboard(1).seq(), Some(11));
    for (id, after, seq) in [(2, 0, 11), (3, 999, 12), (4, 1_000, 10)] {
        thread.now += Duration::from_millis(after);
        if id > 2 {
            thread.turn(1);
        }
        let Play { mut dashboard, .. } = play(usize::MAX);
        dashboard.seq = None;
        dashboard.wait();
        thread.insert(id, dashboard);
        thread.answer(id, 10);
        assert_eq!(thread.dashboard(id).seq(), Some(seq), "{id}");
    }
}

/// Without memory for its snapshot, and with none to share, who has had one asks later for what
/// changed, and who has had none for a snapshot again.
#[test]
fn who_can_have_no_snapshot_asks_later() {
    let (mut thread, pipe) = Thread::with_a_slow_reader();
    thread.fanout.limit_snapshots(0);
    let gap = Batch::Updates { feed: FEED, since: 20, frames: Arc::default() };
    thread.batches.try_send(gap).unwrap();
    thread.answer(2, 20);
    assert_eq!(thread.fanout.postponed().collect::<Vec<_>>(), [Some(12)]);
    assert!(pipe.take().is_empty());
    // The hub has forgotten departures since the one that is being taken.
    let Play { mut dashboard, .. } = play(usize::MAX);
    dashboard.seq = None;
    dashboard.wait();
    thread.insert(3, dashboard);
    let snapshot = Arc::new(Snapshot { complete_since: 11, ..snapshot(20) }.into());
    let dashboards = vec![DashboardId(3)];
    let batch = Batch::Snapshot { feed: FEED, since: 0, dashboards, snapshot };
    thread.batches.try_send(batch).unwrap();
    thread.fanout.turn(None, None, thread.now);
    assert_eq!(thread.fanout.postponed().collect::<Vec<_>>(), [Some(12), None]);
}

impl Dashboard {
    /// What it asks the hub for later, as it could not: changes after a number, or a snapshot.
    pub(in crate::server::fanout) fn postponed(&self, ring: &Ring) -> Option<Option<u64>> {
        let has_nothing = self.state == State::Reading && self.next_bytes().0.is_empty();
        let lacks = self.seq.is_none_or(|seq| !ring.reaches(seq));
        (has_nothing && lacks && self.retry_at.is_some()).then(|| self.resume_after())
    }
}
