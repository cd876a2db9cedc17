//! Which pipe a request takes, and who waits for a place. Owns the pipes and the queues; does
//! no reading or writing itself.

use std::collections::VecDeque;

use super::pipe::{Pipe, Ticket};

/// Two ways to the workers, so that a large snapshot holds up no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Heartbeats, goodbyes and `/readyz`.
    Ingest,
    /// Everything else.
    Reads,
}

/// Of the requests in flight, reads may be one in so many.
const READS_SHARE: usize = 4;

/// A pipe and a queue for each lane. A pipe goes by its index, which is the lane's.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) pipes: [Pipe; 2],
    ingest: Queue,
    reads: Queue,
}

#[derive(Debug)]
struct Queue {
    max_in_flight: usize,
    /// In order of arrival. Some have been told 503 meanwhile, or are gone.
    waiting: VecDeque<Ticket>,
}

impl Lanes {
    /// `pipes` in the order of [`Lane`]. `max_in_flight` is divided between the lanes, each of
    /// which has one place at least.
    pub(super) fn new(pipes: [Pipe; 2], max_in_flight: usize) -> Self {
        let reads = (max_in_flight / READS_SHARE).max(1);
        let ingest = max_in_flight.saturating_sub(reads).max(1);
        let queue = |max_in_flight| Queue { max_in_flight, waiting: VecDeque::new() };
        Self { pipes, ingest: queue(ingest), reads: queue(reads) }
    }

    /// The pipe of `lane`, if it may take a request now.
    pub(super) fn choose(&mut self, lane: Lane) -> Option<&mut Pipe> {
        let max = self.queue(lane).max_in_flight;
        let pipe = &mut self.pipes[lane as usize];
        (pipe.has_room() && pipe.in_flight() < max).then_some(pipe)
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Ingest => &mut self.ingest,
            Lane::Reads => &mut self.reads,
        }
    }

    /// Whether nobody waits in `lane`.
    pub(super) fn is_clear(&mut self, lane: Lane) -> bool {
        self.queue(lane).waiting.is_empty()
    }

    /// The queue of `lane`, first come first.
    pub(super) fn waiting(&mut self, lane: Lane) -> &mut VecDeque<Ticket> {
        &mut self.queue(lane).waiting
    }

    /// Memory for what is on its way, in bytes.
    pub(super) fn held(&self) -> usize {
        self.pipes.iter().map(Pipe::held).sum()
    }
}
