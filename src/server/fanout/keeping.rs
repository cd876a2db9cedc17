//! What a fanout thread does beside passing on batches: client threads' words, second tries,
//! keep-alives and Pings, cutting off who stays behind, closing.

use std::sync::Arc;

use crossbeam_channel::never;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Fanout;
use super::dashboard::{Dashboard, Pumped, Sent};
use crate::server::event::Control;
use crate::server::frame::{self, Frames};
use crate::server::hub::HubHandle;
use crate::server::limits::FANOUT_CONTROLS;
use crate::wire::id::DashboardId;
use crate::wire::{self, Envelope};

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

    /// Writes to those whose next try is due, and asks the hub for those who have taken all.
    pub(super) fn retry(&mut self, hub: &HubHandle) {
        while let Some((at, id)) = self.retries.first().copied() {
            if at > self.now {
                return;
            }
            self.retries.remove(&(at, id));
            let mut again_at = None;
            self.with(id, |dashboard, now| match dashboard.pump(now) {
                Pumped::Ended => Sent::Broken,
                Pumped::Resumes(since) => {
                    match hub.resume(id, since) {
                        Ok(()) => dashboard.wait(),
                        Err(_) => again_at = dashboard.put_off(now),
                    }
                    Sent::Queued
                }
                Pumped::Blocked | Pumped::Drained => Sent::Queued,
            });
            self.retries.extend(again_at.map(|at| (at, id)));
        }
    }

    /// Keep-alives, Pings, lags, and Closes that nobody answered.
    pub(super) fn keep_house(&mut self) {
        if self.now < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = self.now + self.times.housekeeping_every;
        for pool in 0..self.feeds.len() {
            let mut keepalive = None;
            for id in self.feeds[pool].dashboards.keys().copied().collect::<Vec<_>>() {
                let Some(dashboard) = self.feeds[pool].dashboards.get_mut(&id) else { continue };
                if dashboard.close_is_overdue(self.now) {
                    self.remove(id);
                } else if let Some(why) = dashboard.check_lag(self.now, &self.times) {
                    self.cut_off(id, why);
                } else if dashboard.wants_keepalive(self.now, self.times.keepalive_after) {
                    let seq = dashboard.seq().unwrap_or_default();
                    let frames = match keepalive.take() {
                        Some((shared, frames)) if shared == seq => frames,
                        _ => Arc::new(self.keepalive(pool, seq)),
                    };
                    self.with(id, |dashboard, now| dashboard.send_text(&frames, now));
                    keepalive = Some((seq, frames));
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

    fn keepalive(&self, pool: usize, seq: u64) -> Frames {
        let text = wire::keepalive(&Envelope {
            pool: &self.pools[pool],
            server_time: self.clock.wall(),
            epoch: &self.epoch,
            seq,
        });
        let mut frames = Frames::default();
        frames.push_text(&text, seq);
        frames
    }
}
