//! What the door does about refusals: counts them, has the log tell of them, and holds back the
//! 401s of who guesses. Decides nothing: that is `check`'s work, and `refusals`'.

use std::time::Duration;

use super::Door;
use super::connection::{Phase, Then};
use super::refusals::{Cause, Refusal};
use crate::wire::response::problem_detail;

/// How long the 401 of who guesses waits.
const DELAY: Duration = Duration::from_secs(1);

/// Of `max_connections`, one in so many (at least one) may have an answer that waits; beyond it
/// they are closed, so that guesses cost little memory and few places.
const DELAYED_SHARE: usize = 10;

/// An answer that waits for its time.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) answer: Vec<u8>,
    pub(super) then: Then,
    /// The number of the request whose answer is not whole yet.
    pub(super) more: Option<u64>,
}

impl Door {
    pub(super) fn note_refusal(&mut self, refusal: Refusal) {
        refusal.cause.counter(&self.counters).add_one();
        log::debug!("refused: {}", refusal.show(self.rules.gate()));
        self.refusals.note(refusal, self.now);
    }

    /// Notes what a worker refused: a heartbeat for its body, or a login.
    pub(super) fn note_worker_refusal(&mut self, slot: usize, status: u16, body: &[u8]) {
        let Some(connection) = self.clients.get(slot) else { return };
        let asker = connection.asker.take();
        let (cause, why) = match status {
            400 if asker.is_some() => (Cause::BadHeartbeat, problem_detail(body)),
            401 => (Cause::WrongToken, Some("login".to_owned())),
            _ => return,
        };
        let address = connection.client;
        self.note_refusal(Refusal { cause, address, asker: asker.unwrap_or_default(), why });
    }

    /// Logs what is due; at the end `all` that is left.
    pub(super) fn tell_refusals(&mut self, all: bool) {
        for line in self.refusals.lines(self.now, all, self.rules.gate()) {
            log::info!("{line}");
        }
    }

    /// Notes the 401 that this client is to get; true when it must wait.
    pub(super) fn is_guessing(&mut self, slot: usize) -> bool {
        let now = self.now;
        let client = self.clients.get(slot).map(|connection| connection.client);
        client.is_some_and(|client| self.guesses.note(client, now))
    }

    /// Has an answer wait. Its client may be closed meanwhile to make room for others.
    pub(super) fn delay(&mut self, slot: usize, delayed: Delayed) {
        if self.clients.delayed() >= (self.limits.max_connections / DELAYED_SHARE).max(1) {
            return self.close(slot);
        }
        self.counters.refusals_delayed.add_one();
        let phase = Phase::Delayed(Box::new(delayed));
        self.clients.enter(slot, phase, self.now, self.now + DELAY);
    }

    /// Sends an answer that has waited.
    pub(super) fn release(&mut self, slot: usize) {
        let Some(connection) = self.clients.get(slot) else { return };
        let Phase::Delayed(delayed) = &mut connection.phase else { return };
        let (answer, then, more) =
            (std::mem::take(&mut delayed.answer), delayed.then, delayed.more);
        self.start(slot, &answer, then, more);
    }
}
