//! What a pool's agents reported in the last 15 minutes, one sample per agent and step of 10 s, for
//! charts that are full when they open. Tracks are shared with readers and copied when they change
//! meanwhile, so that handing out ten thousand takes the hub a millisecond or two.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::clock::UnixMillis;
use crate::wire::HISTORY_BYTES;
use crate::wire::history::{HistoryHead, STEP, STEPS, Sample, history};
use crate::wire::id::{AgentId, PoolId};

/// [`STEPS`] as a number of steps.
const WINDOW: u32 = STEPS as u32;

/// A pool's steps, which begin with its first heartbeat, and the tracks of agents that departed.
#[derive(Debug, Default)]
pub(super) struct History {
    start: Option<Instant>,
    departed: HashMap<AgentId, Track>,
    /// The step in which the server was last stopped for longer than a step.
    stopped_in: u32,
}

/// One agent's samples, in the last [`STEPS`] up to that of its last heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    /// By number of the step, modulo [`STEPS`].
    slots: Arc<Slots>,
    last: u32,
}

type Slots = [Slot; STEPS];

/// The last heartbeat of a step, in 4 bytes: 10 bits each for CPU + 1 and for memory, and 12 bits
/// for the number of steps after it that begin before the agent is late. 0 where there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot(u32);

/// The most steps that a sample is repeated for: eleven hours.
const MAX_REPEATS: u32 = (1 << 12) - 1;

impl Slot {
    fn new(sample: Sample, repeats: u32) -> Self {
        let (cpu, memory) = (u32::from(sample.cpu), u32::from(sample.memory));
        Self((cpu + 1) | memory << 10 | repeats.min(MAX_REPEATS) << 20)
    }

    fn sample(self) -> Option<(Sample, u32)> {
        let tenths = |bits: u32| (bits & 0x3FF) as u16;
        let cpu = tenths(self.0).checked_sub(1)?;
        Some((Sample { cpu, memory: tenths(self.0 >> 10) }, self.0 >> 20))
    }
}

fn slot(slots: &mut Slots, step: u32) -> &mut Slot {
    &mut slots[(step % WINDOW) as usize]
}

/// Moves the window that ends with the step `last` so that it ends with `to`. A sample that leaves
/// it and is repeated into it moves to its first step.
fn shift(slots: &mut Slots, last: u32, to: u32) {
    let mut left = None;
    for new in last + 1..=to.min(last + WINDOW) {
        let old = std::mem::take(slot(slots, new));
        left = old.sample().map(|sample| (new - WINDOW, sample)).or(left);
    }
    let first = to + 1 - WINDOW;
    if let Some((step, (sample, repeats))) = left
        && let Some(repeats) = repeats.checked_sub(first - step)
        && *slot(slots, first) == Slot::default()
    {
        *slot(slots, first) = Slot::new(sample, repeats);
    }
}

impl Track {
    fn hear(&mut self, step: u32, heard: Slot) {
        let slots = Arc::make_mut(&mut self.slots);
        if step > self.last {
            shift(slots, self.last, step);
            self.last = step;
        }
        *slot(slots, self.last) = heard;
    }

    /// The last sample at or before `step` is not repeated beyond it.
    fn end_repeats(&mut self, step: u32) {
        let slots = Arc::make_mut(&mut self.slots);
        for heard in (self.last + 1 - WINDOW..=step.min(self.last)).rev() {
            let slot = slot(slots, heard);
            if let Some((sample, repeats)) = slot.sample() {
                *slot = Slot::new(sample, repeats.min(step - heard));
                return;
            }
        }
    }

    /// The last steps up to `step`, the oldest first.
    fn steps(&self, step: u32) -> [Option<Sample>; STEPS] {
        let (mut slots, step) = (*self.slots, step.max(self.last));
        shift(&mut slots, self.last, step);
        let (mut step, mut repeated) = (step - WINDOW, None);
        std::array::from_fn(|_| {
            step += 1;
            let before: Option<(Sample, u32)> = repeated;
            let repeat = || before.and_then(|(it, repeats)| Some((it, repeats.checked_sub(1)?)));
            repeated = slot(&mut slots, step).sample().or_else(repeat);
            repeated.map(|(sample, _)| sample)
        })
    }
}

impl History {
    /// The number of the step at this time. The first one has a whole window before it.
    fn step(&self, at: Instant) -> u32 {
        let since = self.start.map_or(Duration::ZERO, |start| at.saturating_duration_since(start));
        let steps = since.as_millis() / STEP.as_millis();
        u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(WINDOW)
    }

    /// An agent with this track so far was heard; unless it is heard again, it is late after
    /// `late_after`.
    pub(super) fn hear(
        &mut self,
        track: Option<Track>,
        sample: Sample,
        at: Instant,
        late_after: Duration,
    ) -> Track {
        self.start.get_or_insert(at);
        let step = self.step(at);
        let mut repeats = self.step(at + late_after) - step;
        // It came before the server was stopped, and is handled afterwards.
        if let Some(until_stop) = self.stopped_in.checked_sub(step) {
            repeats = repeats.min(until_stop);
        }
        let empty = || Track { slots: Arc::new([Slot::default(); STEPS]), last: step };
        let mut track = track.unwrap_or_else(empty);
        track.hear(step, Slot::new(sample, repeats));
        track
    }

    /// The server was away from `since` to `now`: of the steps that lie wholly between, and of those
    /// after them until an agent is heard again, nothing is known.
    pub(super) fn note_stall<'a>(
        &mut self,
        tracks: impl Iterator<Item = &'a mut Track>,
        since: Instant,
        now: Instant,
    ) {
        let step = self.step(since);
        if self.step(now) > step + 1 {
            self.stopped_in = step;
            tracks.for_each(|track| track.end_repeats(step));
        }
    }

    /// Keeps the track of an agent that departs now, as long as the pool lists its departure.
    pub(super) fn depart(&mut self, agent: AgentId, mut track: Track, now: Instant) {
        track.end_repeats(self.step(now));
        self.departed.insert(agent, track);
    }

    /// The pool lists the agent's departure no longer. Returns its track.
    pub(super) fn remove_departed(&mut self, agent: &AgentId) -> Option<Track> {
        self.departed.remove(agent)
    }

    pub(super) fn departed(&self) -> &HashMap<AgentId, Track> {
        &self.departed
    }

    /// What the tracks of agents that departed take, in bytes, but for `returning`'s.
    pub(super) fn departed_bytes(&self, returning: &AgentId) -> usize {
        let is_back = self.departed.contains_key(returning);
        (self.departed.len() - usize::from(is_back)) * HISTORY_BYTES
    }

    pub(super) fn all_departed_bytes(&self) -> usize {
        self.departed.len() * HISTORY_BYTES
    }

    pub(super) fn view(
        &self,
        tracks: Vec<(AgentId, Track)>,
        now: Instant,
        server_time: UnixMillis,
    ) -> HistoryView {
        let since = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        let step_ms = STEP.as_millis();
        let left_ms = u64::try_from(step_ms - since.as_millis() % step_ms).unwrap_or_default();
        let end = UnixMillis(server_time.0 + left_ms);
        HistoryView { tracks, step: self.step(now), server_time, end }
    }
}

/// Some agents' histories at one moment, shared and not yet text.
#[derive(Debug)]
pub(crate) struct HistoryView {
    /// In no order; an agent may be here twice.
    tracks: Vec<(AgentId, Track)>,
    /// The last step.
    step: u32,
    server_time: UnixMillis,
    /// The end of the last step.
    end: UnixMillis,
}

impl HistoryView {
    /// The body of the response: agents ordered by id.
    pub(crate) fn text(mut self, pool: &PoolId, epoch: &str) -> Vec<u8> {
        self.tracks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.tracks.dedup_by(|(a, _), (b, _)| a == b);
        let head = HistoryHead { pool, server_time: self.server_time, epoch, end: self.end };
        history(&head, self.tracks.iter().map(|(agent, track)| (agent, track.steps(self.step))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A track, its share of an agent, and what the allocator adds.
    #[test]
    fn a_track_takes_no_more_than_is_counted() {
        let (counters, chunk_header, chunk_unit) = (2 * size_of::<usize>(), 8, 16);
        let allocation = size_of::<Slots>() + counters + chunk_header;
        let held = size_of::<Option<Track>>() + allocation.next_multiple_of(chunk_unit);
        assert!(held <= HISTORY_BYTES, "{held}");
    }

    #[test]
    fn a_slot_holds_every_sample() {
        assert_eq!(Slot::default().sample(), None);
        for (cpu, memory, repeats) in [(0, 0, 0), (1_000, 1_000, MAX_REPEATS), (0, 7, 1)] {
            let sample = Sample { cpu, memory };
            assert_eq!(Slot::new(sample, repeats).sample(), Some((sample, repeats)));
        }
        let sample = Sample { cpu: 1, memory: 2 };
        let longest = Slot::new(sample, MAX_REPEATS + 1).sample();
        assert_eq!(longest, Some((sample, MAX_REPEATS)));
    }
}
