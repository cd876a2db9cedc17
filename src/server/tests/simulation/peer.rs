//! A dashboard's far end: a reader of frames, and what every reader is promised, checked with each
//! message and at each look.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::{Beat, Pool};
use super::pipe::{Frame, Pipe};
use super::{GREETING, Reached};
use crate::server::feed::FeedId;
use crate::server::limits::{Limits, MAX_BATCH_BYTES, SLOW_SNAPSHOTS};
use crate::wire::id::DashboardId;

/// The greeting and some control frames.
const CONTROL_BYTES: usize = 64;

/// Within this time of being full without a pause, one who takes under `lag_min_bytes` is cut off:
/// two of the server's windows, each up to a second longer than `lag_timeout`.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(2 * 31 + 1);

/// A dashboard's far end.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: DashboardId,
    pub(super) feed: FeedId,
    pub(super) fanout: usize,
    /// The pool's last change then.
    joined_at: u64,
    pub(super) pipe: Arc<Pipe>,
    /// Bytes a step; without it, the socket always has room.
    pub(super) rate: Option<usize>,
    pub(super) is_stalled: bool,
    /// It reads faster than the pool changes. Who does not may fall behind at any time.
    pub(super) keeps_up: bool,
    /// Steps in which it read and lacked something, since more than control frames came.
    pub(super) waited: usize,
    /// What it shows: each agent's state.
    pub(super) view: BTreeMap<usize, Beat>,
    pub(super) seq: Option<u64>,
    /// It had all, and so it is to get every change, or batch, from then on.
    pub(super) is_live: bool,
    /// When its last batch was made, if it kept up then.
    batch_at: Option<Instant>,
    /// Bytes since it last waited.
    received: usize,
    /// Since when its socket was full at every look.
    pub(super) full_since: Option<Instant>,
    /// The newest stamp that it has seen of each agent.
    seen: BTreeMap<usize, u64>,
    input: Vec<u8>,
    is_greeted: bool,
    /// The fragments of the message that was begun, and their bytes with headers.
    message: Vec<u8>,
    message_bytes: usize,
    /// Of its last snapshot.
    snapshot_bytes: usize,
    /// Of the updates since then, or since it had all.
    update_bytes: usize,
    taken: VecDeque<(Instant, usize)>,
}

impl Peer {
    pub(super) fn new(
        id: DashboardId,
        feed: FeedId,
        fanout: usize,
        rate: Option<usize>,
        joined_at: u64,
    ) -> Self {
        Self {
            id,
            joined_at,
            feed,
            fanout,
            pipe: Arc::default(),
            rate,
            is_stalled: false,
            keeps_up: rate.is_none(),
            waited: 0,
            view: BTreeMap::new(),
            seq: None,
            is_live: false,
            batch_at: None,
            received: 0,
            full_since: None,
            seen: BTreeMap::new(),
            input: Vec::new(),
            is_greeted: false,
            message: Vec::new(),
            message_bytes: 0,
            snapshot_bytes: 0,
            update_bytes: 0,
            taken: VecDeque::new(),
        }
    }

    /// Takes what has arrived. Whether the connection is still there.
    pub(super) fn read(&mut self, now: Instant, pool: &Pool, reached: &mut Reached) -> bool {
        if self.pipe.counted().is_some() {
            return true;
        }
        let bytes = self.pipe.take();
        self.received += bytes.len();
        self.taken.push_back((now, bytes.len()));
        self.input.extend(bytes);
        if !self.is_greeted && self.input.starts_with(GREETING) {
            self.input.drain(..GREETING.len());
            self.is_greeted = true;
        }
        if self.is_greeted {
            let input = std::mem::take(&mut self.input);
            let mut rest = &input[..];
            while let Some((frame, behind)) = Frame::split(rest) {
                self.frame(&frame, pool, reached);
                rest = behind;
            }
            self.input = rest.to_vec();
        }
        if self.seq == Some(pool.seq()) {
            let goes_on = self.is_of_updates() || pool.made_at(self.feed, pool.seq()).is_some();
            self.is_live |= self.keeps_up && goes_on;
            self.update_bytes = 0;
        }
        self.check_cut_off(now, reached)
    }

    fn is_of_updates(&self) -> bool {
        matches!(self.feed, FeedId::Updates(_))
    }

    /// A step is over, and the last change that it can have is `seq`.
    pub(super) fn wait(&mut self, seq: u64) {
        if self.received > CONTROL_BYTES || self.seq >= Some(seq) {
            (self.waited, self.received) = (0, 0);
        } else if !self.is_stalled && !self.pipe.is_blocked() {
            self.waited += 1;
        }
    }

    /// One who takes too little is cut off, and nobody else. Whether the connection is still there.
    fn check_cut_off(&mut self, now: Instant, reached: &mut Reached) -> bool {
        let Limits { lag_timeout, lag_min_bytes, .. } = Limits::default();
        while self.taken.front().is_some_and(|(at, _)| *at + CUT_OFF_WITHIN < now) {
            self.taken.pop_front();
        }
        let taken = |time| -> usize {
            let recent = self.taken.iter().rev().take_while(|(at, _)| *at + time > now);
            recent.map(|(_, bytes)| bytes).sum()
        };
        let (is_full, has_ended) = self.pipe.is_full_or_ended();
        self.full_since = is_full.then(|| self.full_since.unwrap_or(now));
        if has_ended {
            let taken = taken(lag_timeout);
            let is_slow = self.rate.is_some() && taken < lag_min_bytes;
            assert!(is_slow, "dashboard {} took {taken} bytes and was cut off", self.id);
            reached.add("cut off");
        } else if self.full_since.is_some_and(|since| since + CUT_OFF_WITHIN < now) {
            let taken = taken(CUT_OFF_WITHIN);
            let is_slow = taken < lag_min_bytes;
            assert!(!is_slow, "dashboard {} took {taken} bytes and was not cut off", self.id);
            reached.add("slow for long, and not cut off");
        }
        !has_ended
    }

    fn frame(&mut self, frame: &Frame<'_>, pool: &Pool, reached: &mut Reached) {
        match frame.opcode {
            0x0 | 0x1 => {
                let is_first = self.message.is_empty();
                assert_eq!(frame.opcode == 0x1, is_first, "a message within a message");
                self.message.extend(frame.payload);
                self.message_bytes += frame.bytes;
                if frame.is_final {
                    let message = std::mem::take(&mut self.message);
                    let bytes = std::mem::take(&mut self.message_bytes);
                    self.take(std::str::from_utf8(&message).unwrap(), bytes, pool, reached);
                }
            }
            0x9 | 0xA => assert!(frame.is_final && frame.payload.len() < 126),
            other => panic!("opcode {other:x}"),
        }
    }

    /// Holds a message against what happened.
    fn take(&mut self, text: &str, bytes: usize, pool: &Pool, reached: &mut Reached) {
        let kind = between(text, "\"type\":\"", '"').unwrap();
        let (_, seq) = text.strip_suffix('}').unwrap().rsplit_once("\"seq\":").unwrap();
        let seq: u64 = seq.parse().unwrap();
        match kind {
            "keepalive" => {
                reached.add("keep-alive");
                assert_eq!(Some(seq), self.seq, "a keep-alive tells of what did not come");
                return;
            }
            "initial_metrics" => {
                let (metrics, _) = text.split_once("\"departed\":").unwrap();
                self.take_snapshot(&states(metrics), seq, bytes, pool, reached);
            }
            "metrics_batch" => {
                let (metrics, offline) = text.split_once("\"offline\":").unwrap();
                let states = [states(metrics), states(offline)].concat();
                self.take_batch(&states, seq, bytes, pool, reached);
            }
            _ => self.take_update(&states(text), seq, bytes, pool, reached),
        }
        self.seq = Some(seq);
        // Of what has not changed since, it has the truth.
        for change in pool.unchanged_since(seq) {
            let shown = self.view.get(&change.agent).copied();
            assert_eq!(shown, change.state, "{change:?} at {seq}, for {}", self.id);
        }
    }

    fn take_snapshot(
        &mut self,
        states: &[(usize, Option<Beat>)],
        seq: u64,
        bytes: usize,
        pool: &Pool,
        reached: &mut Reached,
    ) {
        if let Some(last) = self.seq {
            assert!(seq >= last, "a snapshot of {seq} after {last}");
            assert!(!self.is_live, "a second snapshot for one who keeps up");
            let is_slow =
                self.update_bytes > SLOW_SNAPSHOTS * self.snapshot_bytes.max(MAX_BATCH_BYTES);
            assert!(
                is_slow || pool.is_forgotten(last),
                "a second snapshot after {last} and {} bytes, where an update serves",
                self.update_bytes
            );
            let why = if is_slow { "the reader is slow" } else { "departures were forgotten" };
            reached.add_because("another snapshot", why);
        }
        if self.seq.is_none() && seq < self.joined_at {
            reached.add("a snapshot from before the join");
        }
        reached.add("snapshot");
        for (agent, beat) in states {
            self.see(*agent, pool.stamp(*agent, beat.unwrap()));
        }
        self.view = states.iter().map(|(agent, beat)| (*agent, beat.unwrap())).collect();
        let present = pool.as_of(seq).filter_map(|it| Some((it.agent, it.state?)));
        assert_eq!(self.view, present.collect(), "the snapshot of {seq} for {}", self.id);
        (self.snapshot_bytes, self.update_bytes) = (bytes, 0);
    }

    fn take_update(
        &mut self,
        states: &[(usize, Option<Beat>)],
        seq: u64,
        bytes: usize,
        pool: &Pool,
        reached: &mut Reached,
    ) {
        assert!(self.is_of_updates(), "an update for {:?}", self.feed);
        let last = self.seq.expect("the snapshot comes first");
        assert!(seq > last, "{seq} after {last}");
        assert!(!self.is_live || seq == last + 1, "{seq} after {last} for one who keeps up");
        let [(agent, state)] = *states else { panic!("{} states", states.len()) };
        self.see(agent, state.map_or_else(|| pool.at(seq).stamp, |beat| pool.stamp(agent, beat)));
        let change = pool.at(seq);
        assert_eq!((agent, state), (change.agent, change.state), "change {seq}");
        match state {
            Some(beat) => _ = self.view.insert(agent, beat),
            None => _ = self.view.remove(&agent),
        }
        reached.add(if state.is_some() { "update" } else { "departure" });
        if seq > last + 1 {
            reached.add("newest state in place of several");
        }
        self.update_bytes += bytes;
    }

    /// Of each agent in it, a batch has the last change up to its number, and none that the dashboard
    /// has. One who keeps up gets those that were made, each with all that changed, a period apart.
    fn take_batch(
        &mut self,
        states: &[(usize, Option<Beat>)],
        seq: u64,
        bytes: usize,
        pool: &Pool,
        reached: &mut Reached,
    ) {
        assert!(!self.is_of_updates(), "a batch for {:?}", self.feed);
        let last = self.seq.expect("the snapshot comes first");
        assert!(seq > last, "{seq} after {last}");
        for (agent, state) in states {
            let newest = pool.newest(*agent, seq).expect("one of its changes");
            assert!(newest > last, "a{agent}: change {newest} in the batch of {last} to {seq}");
            let change = pool.at(newest);
            assert_eq!(*state, change.state, "a{agent} in the batch of {last} to {seq}");
            self.see(*agent, change.stamp);
            match state {
                Some(beat) => _ = self.view.insert(*agent, *beat),
                None => _ = self.view.remove(agent),
            }
        }
        let made_at = pool.made_at(self.feed, seq);
        if self.is_live {
            let made_at = made_at.expect("a whole batch for one who keeps up");
            let count = pool.count_changed(last, seq);
            assert_eq!(states.len(), count, "{states:?} in the batch of {last} to {seq}");
            let apart = self.batch_at.map(|at| made_at - at);
            let is_due = apart.is_none_or(|apart| apart >= self.feed.period());
            assert!(is_due, "{:?}: a batch after {apart:?}", self.feed);
            reached.add("batch for one who keeps up");
        } else {
            reached.add(if made_at.is_some() { "batch for others" } else { "part of a batch" });
        }
        if states.iter().any(|(_, state)| state.is_none()) {
            reached.add("departure in a batch");
        }
        self.batch_at = made_at.filter(|_| self.is_live);
        self.update_bytes += bytes;
    }

    /// Promise 2: never an older state after a newer one.
    fn see(&mut self, agent: usize, stamp: u64) {
        let seen = self.seen.entry(agent).or_default();
        assert!(stamp >= *seen, "a{agent}: the state of {stamp} after that of {seen}");
        *seen = stamp;
    }
}

/// The agents of a message and their states.
fn states(metrics: &str) -> Vec<(usize, Option<Beat>)> {
    metrics.split("\"agent_id\":\"").skip(1).map(state).collect()
}

/// An agent's id and state, from a metrics object behind `"agent_id":"`.
fn state(object: &str) -> (usize, Option<Beat>) {
    let (id, rest) = object.split_once('"').unwrap();
    let cpu = between(rest, "\"cpu_usage\":", ',').map(|it| it.parse::<f64>().unwrap());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
    let beat = cpu.map(|cpu| (100.0 * cpu).round() as Beat);
    (id.strip_prefix('a').unwrap().parse().unwrap(), beat)
}

fn between<'a>(text: &'a str, before: &str, behind: char) -> Option<&'a str> {
    text.split_once(before)?.1.split(behind).next()
}
