//! The way to the workers and back: whole requests into pipes, answers out of them to who
//! asked, and what happens when a pipe breaks.

use std::io::Write as _;
use std::time::Duration;

use super::check::Relay;
use super::connection::{Manner, Pending, Phase, Queued};
use super::lanes::Lane;
use super::pipe::{Piece, Ticket};
use super::reply::AnswerHead;
use super::{Door, DoorError, READ_BYTES};
use crate::server::event::Stamp;
use crate::server::relay::{STAMP, encode_stamp};
use crate::wire::response::Response;

/// Reads of one pipe in one turn, so that a large answer keeps nobody else waiting for long.
const MAX_READS_PER_TURN: usize = 8;

/// Of the budget, one in so many bytes stays for requests, however much of large answers is not
/// taken.
pub(super) const REQUESTS_SHARE: usize = 16;

/// Answers up to this size in bytes, what one read brings, are always given.
const SMALL_BYTES: usize = READ_BYTES;

/// A pipe on which nothing has come for so many times `worker_timeout`, although something is
/// in flight, has died without saying so: everyone on it has had a 503 by then.
const PATIENCE_IN_TIMEOUTS: u32 = 2;

impl Door {
    pub(super) fn pipe_patience(&self) -> Duration {
        self.limits.worker_timeout.saturating_mul(PATIENCE_IN_TIMEOUTS)
    }

    /// Stamps a request that is whole, and hands it to a worker or has it wait for one.
    pub(super) fn hand_over(&mut self, slot: usize, relay: Relay, body: &[u8], manner: Manner) {
        self.stamped += 1;
        let number = self.stamped;
        let stamp = Stamp { number, at: self.clock.now(), wall: self.clock.wall() };
        let mut request = relay.head;
        let stamp = encode_stamp(&stamp, &self.clock);
        // Writing to a Vec cannot fail.
        let _ = write!(request, "{STAMP}: {stamp}\r\n\r\n");
        if relay.wants_body {
            request.extend_from_slice(body);
        }
        let (ticket, pending) = (Ticket { slot, number }, Pending { number, manner });
        let lane = relay.lane;
        let deadline = self.now + self.limits.worker_timeout;
        let pipe = if self.lanes.is_clear(lane) { self.lanes.choose(lane) } else { None };
        let phase = match pipe {
            Some(pipe) => {
                pipe.push(ticket, &request, self.now);
                self.counters.requests.add_one();
                Phase::InFlight(pending)
            }
            None => {
                self.queue(lane, ticket);
                Phase::Waiting(Box::new(Queued { request, pending }))
            }
        };
        self.clients.enter(slot, phase, self.now, deadline);
    }

    /// Clients that were told 503 or are gone leave their place in the queue behind. There are
    /// never many more places than clients.
    fn queue(&mut self, lane: Lane, ticket: Ticket) {
        let waiting = self.lanes.waiting(lane);
        if waiting.len() >= 2 * self.clients.len() {
            waiting.retain(|ticket| {
                let connection = self.clients.get(ticket.slot);
                connection.is_some_and(|connection| connection.waits_with(ticket.number).is_some())
            });
        }
        waiting.push_back(ticket);
    }

    /// Gives places in pipes to those who wait, first come first.
    pub(super) fn hand_over_waiting(&mut self) {
        for lane in [Lane::Ingest, Lane::Reads] {
            while let Some(ticket) = self.lanes.waiting(lane).front().copied() {
                let connection = self.clients.get(ticket.slot);
                if let Some(connection) = connection
                    && let Some(queued) = connection.waits_with(ticket.number)
                {
                    let Some(pipe) = self.lanes.choose(lane) else { break };
                    pipe.push(ticket, &queued.request, self.now);
                    self.counters.requests.add_one();
                    connection.phase = Phase::InFlight(queued.pending);
                    self.clients.account(ticket.slot);
                }
                self.lanes.waiting(lane).pop_front();
            }
        }
    }

    /// Takes in what the workers answered, and makes broken pipes anew.
    ///
    /// # Errors
    /// [`DoorError::Workers`] when they cannot be reached any more.
    pub(super) fn read_pipes(&mut self) -> Result<(), DoorError> {
        let patience = self.pipe_patience();
        for index in 0..self.lanes.pipes.len() {
            for _ in 0..MAX_READS_PER_TURN {
                if !self.lanes.pipes[index].is_readable() {
                    break;
                }
                self.read_pipe(index);
            }
            let pipe = &mut self.lanes.pipes[index];
            if pipe.deadline(self.now, patience).is_some_and(|deadline| deadline <= self.now) {
                if pipe.is_up() {
                    pipe.note_silence();
                    self.pipe_broke(index, &"no answer for too long");
                } else {
                    pipe.connect(self.poll.registry(), self.now).map_err(DoorError::Workers)?;
                }
            }
        }
        Ok(())
    }

    fn read_pipe(&mut self, index: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut joined = Vec::new();
        match self.lanes.pipes[index].read(&mut scratch, &mut joined, self.now) {
            Ok(None) => {}
            Ok(Some(mut data)) => loop {
                match self.lanes.pipes[index].next_piece(&mut data) {
                    Ok(Some(piece)) => self.deliver(&piece),
                    Ok(None) => break,
                    Err(_) => {
                        self.pipe_broke(index, &"its answer makes no sense");
                        break;
                    }
                }
            },
            Err(error) => self.pipe_broke(index, &error),
        }
        self.scratch = scratch;
    }

    pub(super) fn flush_pipes(&mut self) {
        for index in 0..self.lanes.pipes.len() {
            if let Err(error) = self.lanes.pipes[index].flush() {
                self.pipe_broke(index, &error);
            }
        }
    }

    /// Sends a part of an answer to who asked, if they still wait for it.
    fn deliver(&mut self, piece: &Piece<'_>) {
        let Piece { ticket, head, body, last } = piece;
        let Some(connection) = self.clients.get(ticket.slot) else { return };
        match (&mut connection.phase, head) {
            (Phase::InFlight(pending), Some(head)) if pending.number == ticket.number => {
                let manner = pending.manner;
                self.begin_answer(*ticket, head, body, *last, manner);
            }
            (Phase::Answering(then, Some(number)), None) if *number == ticket.number => {
                let then = *then;
                if *last {
                    connection.phase = Phase::Answering(then, None);
                }
                self.send(ticket.slot, body);
            }
            (Phase::Delayed(delayed), None) if delayed.more == Some(ticket.number) => {
                delayed.answer.extend_from_slice(body);
                delayed.more = delayed.more.filter(|_| !*last);
            }
            _ => return,
        }
        self.clients.account(ticket.slot);
        // A large answer for a client that does not take it must not wait for the turn's end.
        self.make_room_in_memory();
    }

    fn begin_answer(
        &mut self,
        ticket: Ticket,
        head: &AnswerHead<'_>,
        body: &[u8],
        last: bool,
        manner: Manner,
    ) {
        let slot = ticket.slot;
        let then = manner.then();
        self.note_worker_refusal(slot, head.status, body);
        if !manner.head_only && !self.has_room_for(head.body_bytes) {
            let full = "no room for an answer of this size at the moment (max_buffered_bytes)";
            self.answer(slot, &Response::problem(503, full), manner, then);
        } else if manner.head_only {
            self.begin(slot, head, &[], (then, manner.cors), None);
        } else {
            let more = (!last).then_some(ticket.number);
            self.begin(slot, head, body, (then, manner.cors), more);
        }
    }

    /// Whether an answer may be begun: refused now, it costs nobody else what they are taking.
    /// What of its predecessors was not taken is here whole, since a pipe brings one at a time.
    fn has_room_for(&self, body_bytes: usize) -> bool {
        let budget = self.limits.max_buffered_bytes;
        let most = budget - budget / REQUESTS_SHARE;
        body_bytes <= SMALL_BYTES || self.clients.unsent_bytes() + body_bytes <= most
    }

    /// What was in flight on a pipe gets 503; an answer that was cut short can only be closed.
    fn pipe_broke(&mut self, index: usize, why: &dyn std::fmt::Display) {
        let pipe = &mut self.lanes.pipes[index];
        if !pipe.is_up() {
            return;
        }
        log::warn!("a pipe to the workers broke and is made anew: {why}");
        self.counters.pipe_breaks.add_one();
        for ticket in pipe.fail(self.now) {
            let Some(connection) = self.clients.get(ticket.slot) else { continue };
            match &connection.phase {
                Phase::InFlight(pending) if pending.number == ticket.number => {
                    let manner = pending.manner;
                    let broke =
                        Response::problem(503, "the request was lost on its way; try again");
                    self.answer(ticket.slot, &broke, manner, manner.then());
                }
                Phase::Answering(_, Some(number)) if *number == ticket.number => {
                    self.close(ticket.slot);
                }
                Phase::Delayed(delayed) if delayed.more == Some(ticket.number) => {
                    self.close(ticket.slot);
                }
                _ => {}
            }
            self.clients.account(ticket.slot);
        }
    }
}
