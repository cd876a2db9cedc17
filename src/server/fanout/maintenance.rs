//! What a fanout thread does beside passing on batches: subscribers' control messages, retries,
//! keep-alives and Pings, cutting off who stays behind, closing.

use crossbeam_channel::never;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Fanout;
use super::dashboard::Dashboard;
use crate::server::event::{Action, Control};
use crate::server::frame::{self, Frames};
use crate::server::limits::FANOUT_CONTROLS;
use crate::wire::id::{DashboardId, PoolIndex};
use crate::wire::{self, Envelope};

impl Fanout {
    /// Takes the control messages that wait now.
    pub(super) fn take_controls(&mut self) {
        for _ in 0..FANOUT_CONTROLS {
            match self.controls.try_recv() {
                Ok(control) => self.control(control),
                Err(_) => break,
            }
        }
    }

    pub(super) fn control(&mut self, Control { dashboard: id, pool, action }: Control) {
        let until = self.now + self.times.close_grace;
        let dashboards = &mut self.feeds[pool.0].dashboards;
        match (action, dashboards.get_mut(&id)) {
            (Action::Attach { socket, greeting }, _) => {
                let dashboard = Dashboard::new(socket, greeting, self.now);
                if self.closing_until.is_none() {
                    dashboards.insert(id, dashboard);
                }
                return;
            }
            (_, None) => return,
            (Action::Reply(frames), Some(dashboard)) => dashboard.reply(&frames, until),
            (Action::Close(code), Some(dashboard)) => dashboard.reply(&frame::close(code), until),
            (Action::Gone, Some(dashboard)) => dashboard.note_peer_gone(until),
        }
        self.pump(pool, id);
    }

    /// The hub has ended, and so does everything here.
    pub(super) fn close_all(&mut self) {
        self.batches = never();
        // Who was attached in the last moment gets its Close as well: left in the channel it
        // would hold up its thread, and with it the whole stop.
        self.take_controls();
        self.closing_until = Some(self.now + self.times.close_grace);
        for pool in 0..self.feeds.len() {
            for dashboard in self.ids(PoolIndex(pool)) {
                let action = Action::Close(CloseCode::Away);
                self.control(Control { dashboard, pool: PoolIndex(pool), action });
            }
        }
    }

    fn ids(&self, pool: PoolIndex) -> Vec<DashboardId> {
        self.feeds[pool.0].dashboards.keys().copied().collect()
    }

    /// Writes to those whose next try is due.
    pub(super) fn retry(&mut self) {
        while let Some(due) = self.retries.first().filter(|(at, ..)| *at <= self.now).copied() {
            self.retries.remove(&due);
            let (_, pool, id) = due;
            self.pump(pool, id);
        }
    }

    /// Keep-alives, Pings, lags, and Closes that were not answered.
    pub(super) fn maintain(&mut self) {
        if self.now < self.maintenance_at {
            return;
        }
        self.maintenance_at = self.now + self.times.maintenance_every;
        for pool in 0..self.feeds.len() {
            for id in self.ids(PoolIndex(pool)) {
                self.maintain_one(PoolIndex(pool), id);
            }
        }
    }

    fn maintain_one(&mut self, pool: PoolIndex, id: DashboardId) {
        let (now, times) = (self.now, &self.times);
        let dashboards = &mut self.feeds[pool.0].dashboards;
        let Some(dashboard) = dashboards.get_mut(&id) else { return };
        if dashboard.is_close_overdue(now) {
            dashboards.remove(&id);
            return;
        }
        if let Some(why) = dashboard.check_lag(now, times) {
            self.counters.cut_offs.add_one();
            log::info!("dashboard {id} cut off: {why}");
            dashboards.remove(&id);
            return;
        }
        let wants_keepalive = dashboard.wants_keepalive(now, times.keepalive_after);
        let wants_ping = dashboard.wants_ping(now, times.ping_every);
        if wants_ping {
            dashboard.send_urgent(&frame::ping());
        }
        if wants_keepalive {
            let text = wire::keepalive(&Envelope {
                pool: &self.pools[pool.0],
                server_time: self.clock.wall(),
                epoch: &self.epoch,
                seq: dashboard.cursor().unwrap_or_default(),
            });
            let mut frames = Frames::default();
            frames.push_text(&text, 0);
            dashboard.send_keepalive(frames.bytes(), now);
        }
        if wants_ping || wants_keepalive {
            self.pump(pool, id);
        }
    }
}
