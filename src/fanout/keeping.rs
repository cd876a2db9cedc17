//! What a fanout thread does beside passing on batches: client threads' words, second tries,
//! keep-alives and Pings, cutting off who stays behind, closing.

use std::sync::Weak;
use std::time::Instant;

use crossbeam_channel::never;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Fanout;
use super::dashboard::{Dashboard, Pumped, Sent};
use crate::event::Control;
use crate::frame;
use crate::hub::HubHandle;
use crate::id::DashboardId;
use crate::limits::{FANOUT_CONTROLS, MIB};
use crate::wire::{self, Envelope};

/// Snapshots on their way, of one fanout thread, in bytes. Beyond it those who have been taking
/// theirs for the longest are cut off. Room for one of the largest pool, and then some.
const MAX_SNAPSHOT_BYTES: usize = 64 * MIB;

impl Fanout {
    /// Takes the client threads' words that wait now.
    pub(super) fn take_controls(&mut self) {
        for _ in 0..FANOUT_CONTROLS {
            match self.controls.try_recv() {
                Ok(control) => self.control(control),
                Err(_) => break,
            }
        }
    }

    pub(super) fn control(&mut self, control: Control) {
        match control {
            Control::Attach { dashboard: id, pool, socket, greeting } => {
                let dashboard = Dashboard::new(socket, greeting, self.now);
                if self.closing_until.is_none() {
                    self.homes.insert(id, pool);
                    self.feeds[pool.0].dashboards.insert(id, dashboard);
                }
            }
            Control::Reply { dashboard, frames } => {
                let until = self.now + self.times.close_grace;
                self.with(dashboard, |dashboard, now| dashboard.reply(frames, now, until));
            }
            Control::Close { dashboard, code } => self.close(dashboard, code),
            Control::Gone { dashboard } => {
                let until = self.now + self.times.close_grace;
                self.with(dashboard, |dashboard, _| dashboard.peer_gone(until));
            }
        }
    }

    fn close(&mut self, id: DashboardId, code: CloseCode) {
        let until = self.now + self.times.close_grace;
        self.with(id, |dashboard, now| dashboard.reply(frame::close(code), now, until));
    }

    /// The hub has ended, and so does everything here.
    pub(super) fn close_all(&mut self) {
        self.batches = never();
        // Who was attached in the last moment gets its Close as well: left in the channel it
        // would hold up its thread, and with it the whole stop.
        self.take_controls();
        self.closing_until = Some(self.now + self.times.close_grace);
        for id in self.homes.keys().copied().collect::<Vec<_>>() {
            self.close(id, CloseCode::Away);
        }
    }

    /// Writes to those whose next try is due, and asks for the snapshots of those that have
    /// caught up.
    pub(super) fn retry(&mut self, hub: &HubHandle) {
        while let Some((at, id)) = self.retries.first().copied() {
            if at > self.now {
                return;
            }
            self.retries.remove(&(at, id));
            self.with(id, |dashboard, now| match dashboard.pump(now) {
                Pumped::Ended => Sent::Broken,
                Pumped::CaughtUp => {
                    // With the hub's inbox full, the next try asks again.
                    if hub.rejoin(id).is_ok() {
                        dashboard.await_snapshot();
                    }
                    Sent::Queued
                }
                Pumped::Blocked | Pumped::Drained => Sent::Queued,
            });
        }
    }

    /// Keep-alives, Pings, lags, and Closes that nobody answered.
    pub(super) fn keep_house(&mut self) {
        if self.now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = self.now + self.times.housekeeping_every;
        for pool in 0..self.feeds.len() {
            let mut keepalive: Option<Vec<u8>> = None;
            for id in self.feeds[pool].dashboards.keys().copied().collect::<Vec<_>>() {
                let Some(dashboard) = self.feeds[pool].dashboards.get_mut(&id) else { continue };
                if dashboard.close_is_overdue(self.now) {
                    self.remove(id);
                } else if let Some(why) = dashboard.check_lag(self.now, &self.times) {
                    self.cut_off(id, why);
                } else if dashboard.wants_keepalive(self.now, self.times.keepalive_after) {
                    let frames = match &keepalive {
                        Some(frames) => frames.clone(),
                        None => keepalive.insert(self.keepalive(pool)).clone(),
                    };
                    self.with(id, |dashboard, now| dashboard.send_text(frames, now));
                }
                self.ping(id, pool);
            }
        }
    }

    fn ping(&mut self, id: DashboardId, pool: usize) {
        let Some(dashboard) = self.feeds[pool].dashboards.get_mut(&id) else { return };
        if dashboard.wants_ping(self.now, self.times.ping_every) {
            self.with(id, |dashboard, now| dashboard.send_control(frame::ping(), now));
        }
    }

    fn keepalive(&self, pool: usize) -> Vec<u8> {
        let text = wire::keepalive(&Envelope {
            pool: &self.pools[pool],
            server_time: self.clock.wall(),
            epoch: &self.epoch,
            seq: self.feeds[pool].seq,
        });
        let mut frames = Vec::with_capacity(text.len() + 10);
        frame::push_text(&mut frames, &text);
        frames
    }

    /// Keeps the snapshots that are on their way, with one of `incoming` bytes more, within
    /// [`MAX_SNAPSHOT_BYTES`], at the cost of who has been behind for the longest.
    pub(super) fn make_room(&mut self, incoming: usize) {
        loop {
            self.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
            let held = self.snapshots.iter().filter_map(Weak::upgrade);
            let held: usize = held.map(|snapshot| snapshot.len()).sum();
            if held == 0 || held + incoming <= MAX_SNAPSHOT_BYTES {
                return;
            }
            let dashboards = self.feeds.iter().flat_map(|feed| &feed.dashboards);
            let slowest: Option<(Instant, DashboardId)> = dashboards
                .filter_map(|(id, dashboard)| Some((dashboard.taking_snapshot_since()?, *id)))
                .min();
            let Some((_, slowest)) = slowest else { return };
            self.cut_off(slowest, "too slow for the snapshots that others wait for");
        }
    }
}
