//! What a fanout thread does beside passing on batches: subscribers' control messages, retries,
//! keep-alives and Pings, cutting off who stays behind, closing.

use std::sync::Arc;

use crossbeam_channel::{TryRecvError, never};
use tungstenite::protocol::frame::coding::CloseCode;

use super::dashboard::Dashboard;
use super::{Fanout, Feed, Parts, Writer};
use crate::server::event::{Action, Control};
use crate::server::feed::FeedId;
use crate::server::frame::{self, Frames};
use crate::server::limits::FANOUT_CONTROLS;
use crate::wire::id::DashboardId;
use crate::wire::{self, Envelope};

impl Fanout {
    /// Takes the control messages that wait now.
    pub(super) fn take_controls(&mut self) {
        for _ in 0..FANOUT_CONTROLS {
            match self.controls.try_recv() {
                Ok(control) => self.control(control),
                Err(TryRecvError::Empty) => return,
                // One that is closed would always be ready.
                Err(TryRecvError::Disconnected) => return self.controls = never(),
            }
        }
    }

    pub(super) fn control(&mut self, Control { dashboard: id, feed, action }: Control) {
        let now = self.now;
        let dashboard = self.feeds.get_mut(&feed).and_then(|feed| feed.dashboards.get_mut(&id));
        match (action, dashboard) {
            (Action::Attach { socket, greeting }, _) => {
                let dashboard = Dashboard::new(socket, greeting, now);
                if self.closing_until.is_none() {
                    let pool = feed.pool().filter(|_| !feed.is_overview());
                    let new = || Feed::new(pool.map(|pool| self.parts.pools[pool.0].clone()));
                    let feed = self.feeds.entry(feed).or_insert_with(new);
                    feed.dashboards.insert(id, dashboard);
                }
                return;
            }
            (_, None) => return,
            (Action::Send(frames), Some(dashboard)) => dashboard.send_control(&frames, now),
            (Action::Gone, Some(dashboard)) => dashboard.note_peer_gone(now),
        }
        self.pump(feed, id);
    }

    /// The hub has ended, and so does everything here.
    pub(super) fn close_all(&mut self) {
        self.parts.batches = never();
        // Who was attached in the last moment gets its Close as well: left in the channel it
        // would hold up its thread, and with it the whole stop.
        self.take_controls();
        self.closing_until = Some(self.now + self.parts.times.close_grace);
        for feed in self.feed_ids() {
            self.write_each(feed, |writer, id, dashboard| {
                dashboard.send_control(&frame::close(CloseCode::Away), writer.now);
                writer.pump(id, dashboard)
            });
        }
    }

    /// Writes to those whose next try is due.
    pub(super) fn retry(&mut self) {
        while let Some(&due) = self.retries.first()
            && let (at, feed, id) = due
            && at <= self.now
        {
            self.retries.remove(&due);
            self.pump(feed, id);
        }
    }

    /// Keep-alives, Pings, lags, and Closes that were not answered.
    pub(super) fn maintain(&mut self) {
        if self.now < self.maintenance_at {
            return;
        }
        self.maintenance_at = self.now + self.parts.times.maintenance_every;
        for feed in self.feed_ids() {
            self.write_each(feed, |writer, id, dashboard| writer.maintain(id, dashboard));
        }
    }

    fn feed_ids(&self) -> Vec<FeedId> {
        self.feeds.keys().copied().collect()
    }
}

impl Writer<'_> {
    /// Whether the connection is still there.
    fn maintain(&mut self, id: DashboardId, dashboard: &mut Dashboard) -> bool {
        let Parts { times, epoch, clock, counters, .. } = self.parts;
        if dashboard.is_close_overdue(self.now, times.close_grace) {
            return false;
        }
        if dashboard.is_lagging(self.now, times) {
            counters.cut_offs.add_one();
            log::info!("dashboard {id} cut off: took less than lag_min_bytes within lag_timeout");
            return false;
        }
        let keepalive_seq = dashboard.keepalive_seq(self.now, times.keepalive_after);
        if let Some(seq) = keepalive_seq {
            let (pool, server_time) = (self.pool, clock.wall());
            let mut frames = Frames::default();
            frames.push_text(&wire::keepalive(&Envelope { pool, server_time, epoch, seq }), seq);
            dashboard.take_from(&Arc::new(frames), 0);
        }
        let is_ping_due = dashboard.is_ping_due(self.now, times.ping_every);
        if is_ping_due {
            dashboard.send_control(&frame::ping(), self.now);
        }
        let has_more = keepalive_seq.is_some() || is_ping_due;
        !has_more || self.pump(id, dashboard)
    }
}
