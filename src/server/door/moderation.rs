//! Interrupt moderation: whether the loop waits a moment after a turn, so that one wake-up of each
//! thread serves several requests. Pure: instants in, a wait out.
//!
//! To wake threads is most of what a heartbeat costs at ordinary rates, and no agent notices a
//! millisecond. A client that sends its next request within moments of a response would, so while
//! there are such, nothing waits.

use std::time::{Duration, Instant};

/// The least time from the beginning of a turn with a request to that of the next.
const WAIT: Duration = Duration::from_millis(1);

/// A request that comes so soon after the previous response on its connection is prompt. Longer
/// than [`WAIT`], by which we may see it late.
const PROMPT: Duration = Duration::from_millis(2);

/// How long after a prompt request nothing waits.
const UNMODERATED: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Moderation {
    last_request: Option<Instant>,
    last_prompt: Option<Instant>,
}

impl Moderation {
    /// A request has come, on a connection whose previous response was sent at `responded_at`. A
    /// connection's first counts as prompt: it may be the only one.
    pub(super) fn note_request(&mut self, responded_at: Option<Instant>, now: Instant) {
        self.last_request = Some(now);
        if responded_at.is_none_or(|at| now.saturating_duration_since(at) <= PROMPT) {
            self.last_prompt = Some(now);
        }
    }

    /// How long to wait at `now`, after a turn that began at `began`. After one without a request,
    /// not at all: to end a wait costs as much as to be woken, and there is nothing to gather.
    pub(super) fn wait(&self, began: Instant, now: Instant) -> Duration {
        let was_prompt = |at| now.saturating_duration_since(at) < UNMODERATED;
        if self.last_request != Some(began) || self.last_prompt.is_some_and(was_prompt) {
            return Duration::ZERO;
        }
        (began + WAIT).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn only_without_prompt_requests_is_there_a_wait() {
        let start = Clock::start().now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut moderation = Moderation::default();
        assert_eq!(moderation.wait(at(0), at(300)), Duration::ZERO, "no request");
        moderation.note_request(Some(at(0)), at(10_000));
        assert_eq!(moderation.wait(at(10_000), at(10_300)), Duration::from_micros(700));
        assert_eq!(moderation.wait(at(10_000), at(11_500)), Duration::ZERO, "the turn took longer");
        assert_eq!(moderation.wait(at(11_500), at(11_500)), Duration::ZERO, "only a response");
        moderation.note_request(Some(at(18_000)), at(20_001));
        assert_eq!(moderation.wait(at(20_001), at(20_001)), WAIT, "not prompt");
        moderation.note_request(Some(at(20_000)), at(22_000));
        assert_eq!(moderation.wait(at(22_000), at(22_000)), Duration::ZERO, "prompt");
        moderation.note_request(Some(at(0)), at(121_999));
        assert_eq!(moderation.wait(at(121_999), at(121_999)), Duration::ZERO);
        moderation.note_request(Some(at(0)), at(122_000));
        assert_eq!(moderation.wait(at(122_000), at(122_000)), WAIT, "100 ms later");
        moderation.note_request(None, at(200_000));
        assert_eq!(moderation.wait(at(200_000), at(200_000)), Duration::ZERO, "a new connection");
    }
}
