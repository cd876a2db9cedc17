//! Who is too slow, who takes too much, and the end: deadlines, the budget, stopping.

use super::Door;
use super::connection::{Phase, Then};
use super::held::Held;
use super::workers::REQUESTS_SHARE;
use crate::wire::response::Response;

/// Beyond the budget, so much more room is made than is needed, one in so many bytes of it: to
/// look for who is to go is to look at all.
const ROOM_SHARE: usize = 32;

// Large answers alone cannot keep that room from being made.
const _: () = assert!(ROOM_SHARE > REQUESTS_SHARE);

impl Door {
    pub(super) fn keep_deadlines(&mut self) {
        for slot in self.clients.expired(self.now) {
            let Some(connection) = self.clients.get(slot) else { continue };
            let manner = connection.manner();
            match &connection.phase {
                Phase::Head(_) => {
                    let late = Response::problem(408, "the head did not come in time");
                    self.answer(slot, &late, manner.closing(), Then::Linger);
                }
                Phase::Body(_) => {
                    let late = Response::problem(408, "the body did not come in time");
                    self.answer(slot, &late, manner.closing(), Then::Linger);
                }
                Phase::Waiting(_) | Phase::InFlight(_) => {
                    let unserved = Response::problem(503, "no worker answered in time");
                    self.answer(slot, &unserved, manner, manner.then());
                }
                Phase::Delayed(_) => self.release(slot),
                Phase::Answering(..) => self.judge_progress(slot),
                Phase::Idle | Phase::Lingering(_) => self.close(slot),
            }
            self.clients.account(slot);
        }
    }

    /// Has the socket asked whether it takes more: it tells of its own accord only when a good
    /// part of its buffer is free.
    fn try_to_flush(&mut self, slot: usize) {
        if let Some(connection) = self.clients.get(slot) {
            connection.note_writable();
        }
        self.flush(slot);
    }

    /// Who goes on taking an answer gets all of it, however long that takes.
    fn judge_progress(&mut self, slot: usize) {
        self.try_to_flush(slot);
        let Some(connection) = self.clients.get(slot) else { return };
        if !matches!(connection.phase, Phase::Answering(..)) {
            return;
        }
        // Who has taken all that there is waits for the worker.
        let progress = connection.take_progress();
        if connection.is_flushed() || progress >= self.limits.lag_min_bytes {
            self.clients.extend(slot, self.now + self.limits.lag_timeout);
        } else {
            self.close(slot);
        }
    }

    /// Within the budget again: who has made no progress for longest goes first, in taking an
    /// answer as in sending a request.
    pub(super) fn make_room_in_memory(&mut self) {
        let budget = self.limits.max_buffered_bytes;
        let held = |door: &Self| door.clients.buffered() + door.lanes.held();
        if held(self) <= budget {
            return;
        }
        for slot in self.clients.unflushed() {
            self.try_to_flush(slot);
        }
        for slot in self.clients.holders() {
            if held(self) <= budget - budget / ROOM_SHARE {
                break;
            }
            self.counters.buffer_evictions.add_one();
            self.evict(slot);
        }
    }

    fn evict(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        connection.input = Held::default();
        let manner = connection.manner().closing();
        let answered = matches!(connection.phase, Phase::Answering(..) | Phase::Delayed(_));
        if answered || !connection.is_flushed() {
            return self.close(slot);
        }
        let full = Response::problem(503, "the server holds too many requests at once");
        self.answer(slot, &full, manner, Then::Linger);
        self.clients.account(slot);
    }

    /// No new connection, no new request: who rests is closed, who has sent half a request is
    /// told, and whose request is in flight gets the answer.
    pub(super) fn begin_to_stop(&mut self) {
        // Known before anyone is told, so that nobody is kept.
        self.ends_at = Some(self.now + super::STOP_GRACE);
        self.listeners.clear();
        for slot in self.clients.slots() {
            let Some(connection) = self.clients.get(slot) else { continue };
            let manner = connection.manner().closing();
            match connection.phase {
                Phase::Idle | Phase::Lingering(_) => self.close(slot),
                Phase::Head(_) | Phase::Body(_) => {
                    let stopping = Response::problem(503, "the server is stopping");
                    self.answer(slot, &stopping, manner, Then::Linger);
                }
                Phase::Delayed(_) => self.release(slot),
                Phase::Waiting(_) | Phase::InFlight(_) | Phase::Answering(..) => {}
            }
        }
        self.tell_refusals(true);
    }
}
