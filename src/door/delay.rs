//! What the door does about refusals: counts them, and has the log tell of them. Decides nothing: that is `check`'s work, and `refusals`'.

use super::Door;
use super::refusals::{Cause, Refusal};
use crate::answer::problem_detail;

impl Door {
    pub(super) fn note_refusal(&mut self, refusal: Refusal) {
        refusal.cause.counter(&self.counters).add_one();
        log::debug!("refused: {}", refusal.show(&|text| self.rules.is_secret(text)));
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
        let rules = &self.rules;
        for line in self.refusals.lines(self.now, all, &|text| rules.is_secret(text)) {
            log::info!("{line}");
        }
    }
}
