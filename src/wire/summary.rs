//! A pool in figures: the kinds of state that agents are counted by, and the list of pools and the
//! overview's messages, which show the figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::message::{Envelope, head, tail};
use super::to_json;
use crate::runtime::clock::UnixMillis;

/// From here on an agent's memory needs attention, in percent.
pub(crate) const HIGH_MEMORY_PERCENT: f64 = 90.0;

/// One pool in figures.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub agents: AgentCounts,
    /// Departures that the pool remembers.
    pub departed: usize,
    /// Of agents that are not late; none where there is no such, as `memory`.
    pub cpu: Option<Load>,
    pub memory: Option<Load>,
    /// Each agent once.
    pub states: States,
    /// As in `states`.
    pub late: usize,
    /// Agents that are late, in error, or short of memory ([`HIGH_MEMORY_PERCENT`]).
    pub attention: usize,
    /// Agents lost within the last hour that have not come back.
    pub lost: usize,
    /// Running tasks that they held.
    pub tasks_lost: usize,
    /// Of the losses that the pool counts, also if it is longer ago.
    pub last_loss_at: Option<UnixMillis>,
    /// Agents that are idle, and not late.
    pub free: usize,
    /// The overview's map, two characters an agent, ordered by name, then id: [`push_cell`]. Of small
    /// pools only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct AgentCounts {
    pub total: usize,
    pub by_status: BTreeMap<Box<str>, usize>,
}

/// Over a pool's agents that are not late, in percent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Load {
    pub mean: f64,
    pub max: f64,
}

/// An agent's state, as it is counted and coloured: what its status says, unless it is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Busy,
    Idle,
    Late,
    Error,
    Paused,
    Other,
}

impl Kind {
    pub(crate) fn of(status: &str, is_late: bool) -> Self {
        match status {
            _ if is_late => Self::Late,
            "busy" => Self::Busy,
            "idle" => Self::Idle,
            "error" | "failed" | "unhealthy" => Self::Error,
            "draining" | "maintenance" | "paused" => Self::Paused,
            _ => Self::Other,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Busy => 'b',
            Self::Idle => 'i',
            Self::Late => 'l',
            Self::Error => 'e',
            Self::Paused => 'p',
            Self::Other => 'o',
        }
    }
}

/// Agents by [`Kind`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct States {
    pub busy: usize,
    pub idle: usize,
    pub late: usize,
    pub error: usize,
    pub paused: usize,
    pub other: usize,
}

impl States {
    pub(crate) fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Busy => &mut self.busy,
            Kind::Idle => &mut self.idle,
            Kind::Late => &mut self.late,
            Kind::Error => &mut self.error,
            Kind::Paused => &mut self.paused,
            Kind::Other => &mut self.other,
        };
        *count += 1;
    }
}

/// One agent of [`Summary::cells`]: the letter of its kind, and the tens digit of its load, the higher
/// one of CPU and memory; 9 for 100 %.
pub(crate) fn push_cell(cells: &mut String, kind: Kind, load_percent: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let tens = (load_percent / 10.0) as u8;
    cells.push(kind.letter());
    cells.push(char::from(b'0' + tens.min(9)));
}

/// A pool in the list of all. People who read it find id and name first.
#[derive(Serialize)]
pub(crate) struct ListedPool<'a> {
    pub pool_id: &'a str,
    pub name: &'a str,
    /// Names only, for viewers of all pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_keys: Option<&'a [String]>,
    #[serde(flatten)]
    pub summary: &'a Summary,
}

impl ListedPool<'_> {
    /// As JSON.
    pub(crate) fn text(&self) -> String {
        // serde_json writes UTF-8 only.
        String::from_utf8(to_json(self, 0)).unwrap_or_default()
    }
}

/// The `pool_summaries` message, of [`ListedPool::text`]s.
pub(crate) fn pool_summaries<'a>(
    envelope: &Envelope<'_>,
    pools: impl Iterator<Item = &'a str>,
) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    let _ = write!(text, r#"{},"pools":["#, head("pool_summaries", envelope.pool));
    for (number, pool) in pools.enumerate() {
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(pool);
    }
    let _ = write!(text, "]{}", tail(envelope));
    text
}

/// The body of `GET /api/v1/agent-pools`.
pub(crate) fn pool_list(pools: &[ListedPool<'_>]) -> Vec<u8> {
    to_json(&BTreeMap::from([("pools", pools)]), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_the_list_begins_with_its_id_and_name() {
        let (cpu, memory) = (Load { mean: 1.0, max: 2.0 }, Load { mean: 3.0, max: 4.0 });
        let by_status = BTreeMap::from([("busy".into(), 2), ("idle".into(), 1)]);
        let full = Summary {
            agents: AgentCounts { total: 3, by_status },
            departed: 4,
            cpu: Some(cpu),
            memory: Some(memory),
            states: States { busy: 2, idle: 1, ..States::default() },
            attention: 1,
            lost: 2,
            tasks_lost: 5,
            last_loss_at: Some(UnixMillis(7)),
            free: 1,
            ..Summary::default()
        };
        let empty = Summary::default();
        let (keys, names) = (["k".to_owned()], ["pool-xxx", "other"]);
        let body = pool_list(&[
            ListedPool { pool_id: names[0], name: "Farm", app_keys: Some(&keys), summary: &full },
            ListedPool { pool_id: names[1], name: "Other", app_keys: None, summary: &empty },
        ]);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            concat!(
                r#"{"pools":[{"pool_id":"pool-xxx","name":"Farm","app_keys":["k"],"#,
                r#""agents":{"total":3,"by_status":{"busy":2,"idle":1}},"departed":4,"#,
                r#""cpu":{"mean":1.0,"max":2.0},"memory":{"mean":3.0,"max":4.0},"#,
                r#""states":{"busy":2,"idle":1,"late":0,"error":0,"paused":0,"other":0},"#,
                r#""late":0,"attention":1,"lost":2,"tasks_lost":5,"#,
                r#""last_loss_at":"1970-01-01T00:00:00.007Z","free":1},"#,
                r#"{"pool_id":"other","name":"Other","agents":{"total":0,"by_status":{}},"#,
                r#""departed":0,"cpu":null,"memory":null,"#,
                r#""states":{"busy":0,"idle":0,"late":0,"error":0,"paused":0,"other":0},"#,
                r#""late":0,"attention":0,"lost":0,"tasks_lost":0,"last_loss_at":null,"free":0}]}"#
            )
        );
    }

    #[test]
    fn a_kind_is_what_the_status_says_unless_the_agent_is_late() {
        let kinds = [
            ("busy", 'b'),
            ("idle", 'i'),
            ("error", 'e'),
            ("failed", 'e'),
            ("unhealthy", 'e'),
            ("draining", 'p'),
            ("maintenance", 'p'),
            ("paused", 'p'),
            ("late", 'o'),
            ("lost", 'o'),
            ("errors", 'o'),
        ];
        let mut states = States::default();
        for (status, letter) in kinds {
            assert_eq!(Kind::of(status, false).letter(), letter, "{status}");
            assert_eq!(Kind::of(status, true), Kind::Late, "{status}");
            states.add(Kind::of(status, false));
        }
        states.add(Kind::Late);
        let counted = States { busy: 1, idle: 1, late: 1, error: 3, paused: 3, other: 3 };
        assert_eq!(states, counted);
    }

    #[test]
    fn a_cell_has_the_tens_of_its_load() {
        let mut cells = String::new();
        for load in [0.0, 9.99, 10.0, 89.9, 90.0, 99.9, 100.0] {
            push_cell(&mut cells, Kind::Idle, load);
        }
        assert_eq!(cells, "i0i0i1i8i9i9i9");
    }
}
