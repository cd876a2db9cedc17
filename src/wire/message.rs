//! The messages to dashboards, the seed's three and ours, and the bodies of HTTP responses.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::{Metrics, to_json};
use crate::runtime::clock::UnixMillis;
use crate::wire::KIB;
use crate::wire::id::{AgentId, PoolId};

/// What every message has beside its type and metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    /// None in messages about several pools.
    pub pool: Option<&'a PoolId>,
    pub server_time: UnixMillis,
    /// This run of the server.
    pub epoch: &'a str,
    /// The feed's count of changes.
    pub seq: u64,
}

/// Why an agent departed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    Goodbye,
    /// It was silent for longer than `evict_after`.
    Timeout,
}

/// An agent that has departed, as the pool remembers it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Departure {
    pub agent: AgentId,
    pub name: Box<str>,
    pub reason: Reason,
    pub at: UnixMillis,
    /// The JSON array of running tasks in its last heartbeat.
    pub tasks: Arc<str>,
    /// How many that are.
    pub task_count: usize,
}

impl Departure {
    /// Whether the agent, or what it was doing, was lost: anything but a goodbye without running tasks.
    pub(crate) fn is_loss(&self) -> bool {
        self.reason == Reason::Timeout || self.task_count > 0
    }
}

/// A pool's departures since the server's start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DepartureTotals {
    /// See [`Departure::is_loss`].
    pub lost: u64,
    pub goodbyes: u64,
}

/// A pool's agents and departures at one moment, shared and not yet text: the hub takes it, which is
/// cheap, and another thread makes the text.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// In no order.
    pub agents: Vec<SnapshotAgent>,
    /// The newest first.
    pub departed: Vec<Arc<Departure>>,
    pub departures: DepartureTotals,
    pub server_time: UnixMillis,
    /// The pool's count of changes when it was taken.
    pub seq: u64,
    /// Tells the states of one count of changes apart: rises with each heartbeat and departure.
    pub version: u64,
    /// A dashboard whose state is of this count of changes, or a later one, can be brought up to date
    /// without a new snapshot.
    pub complete_since: u64,
}

/// One agent of a [`Snapshot`].
#[derive(Debug, Clone)]
pub(crate) struct SnapshotAgent {
    pub agent: AgentId,
    pub metrics: Arc<Metrics>,
    /// Its observed interval between heartbeats.
    pub interval_ms: Option<u64>,
}

impl Snapshot {
    /// At least the length of [`Snapshot::text`], and not much more.
    pub(crate) fn text_bytes(&self) -> usize {
        // Members and punctuation beside the parts that are JSON already.
        const AGENT_BYTES: usize = 40;
        const DEPARTURE_BYTES: usize = 1_024;
        let agents = self.agents.iter().map(|it| it.metrics.open_object().len() + AGENT_BYTES);
        let departed = self.departed.iter().map(|it| it.tasks.len() + DEPARTURE_BYTES);
        agents.sum::<usize>() + departed.sum::<usize>() + DEPARTURE_BYTES
    }

    /// The `initial_metrics` message: agents ordered by name, then id. Calls `part` with parts of at
    /// least `part_bytes`, and with whether it is the last.
    pub(crate) fn write(
        mut self,
        pool: &PoolId,
        epoch: &str,
        part_bytes: usize,
        mut part: impl FnMut(&str, bool),
    ) {
        self.agents
            .sort_unstable_by(|a, b| (&a.metrics.name, &a.agent).cmp(&(&b.metrics.name, &b.agent)));
        let Self { departures, server_time, seq, .. } = self;
        let envelope = Envelope { pool: Some(pool), server_time, epoch, seq };
        // Writing to a String cannot fail.
        let mut text = String::with_capacity(part_bytes + KIB);
        let _ = write!(text, r#"{},"metrics":["#, head("initial_metrics", Some(pool)));
        let mut push_entry = |text: &mut String, index: usize, entry: &dyn Display| {
            if text.len() >= part_bytes {
                part(text, false);
                text.clear();
            }
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{entry}");
        };
        for (index, agent) in self.agents.iter().enumerate() {
            push_entry(&mut text, index, &metrics_json(&agent.metrics, agent.interval_ms));
        }
        text.push_str(r#"],"departed":["#);
        for (index, departure) in self.departed.iter().enumerate() {
            push_entry(&mut text, index, &departure_json(departure));
        }
        let _ = write!(text, r#"],"departures":{}{}"#, json!(departures), tail(&envelope));
        part(&text, true);
    }

    /// [`Snapshot::write`] as one text.
    pub(crate) fn text(self, pool: &PoolId, epoch: &str) -> String {
        let mut text = String::with_capacity(self.text_bytes());
        self.write(pool, epoch, PART_BYTES, |part, _| text.push_str(part));
        text
    }
}

/// The parts in which [`Snapshot::text`] writes.
const PART_BYTES: usize = 64 * KIB;

/// The `metrics_update` message.
pub(crate) fn update(
    envelope: &Envelope<'_>,
    metrics: &Metrics,
    interval_ms: Option<u64>,
) -> String {
    let open_bytes = metrics.open_object().len();
    let metrics = metrics_json(metrics, interval_ms);
    let capacity = open_bytes + OTHER_BYTES;
    message(envelope, "metrics_update", capacity, format_args!(r#","metrics":{metrics}"#))
}

/// The `agent_offline` message.
pub(crate) fn offline(envelope: &Envelope<'_>, agent: &AgentId, reason: Reason) -> String {
    let metrics = format_args!(r#"{{"agent_id":"{agent}","status":"offline"}}"#);
    let members = format_args!(r#","metrics":{metrics},"reason":{}"#, json!(reason));
    message(envelope, "agent_offline", OTHER_BYTES, members)
}

/// The `keepalive` message.
pub(crate) fn keepalive(envelope: &Envelope<'_>) -> String {
    message(envelope, "keepalive", OTHER_BYTES, format_args!(""))
}

/// A message without its metrics takes no more.
const OTHER_BYTES: usize = 512;

fn message(
    envelope: &Envelope<'_>,
    kind: &str,
    capacity: usize,
    members: fmt::Arguments<'_>,
) -> String {
    let mut text = String::with_capacity(capacity);
    let _ = write!(text, "{}{members}{}", head(kind, envelope.pool), tail(envelope));
    text
}

/// The beginning of each message. Ids are of characters that JSON does not escape.
pub(super) fn head(kind: &str, pool: Option<&PoolId>) -> impl Display {
    fmt::from_fn(move |f| {
        write!(f, r#"{{"type":"{kind}""#)?;
        pool.map_or(Ok(()), |pool| write!(f, r#","pool_id":"{pool}""#))
    })
}

/// The end of each message.
pub(super) fn tail(envelope: &Envelope<'_>) -> impl Display {
    let Envelope { server_time, epoch, seq, .. } = *envelope;
    fmt::from_fn(move |f| {
        write!(f, r#","server_time":"{server_time}","epoch":"{epoch}","seq":{seq}}}"#)
    })
}

pub(super) fn metrics_json(metrics: &Metrics, interval_ms: Option<u64>) -> impl Display {
    let (open_object, interval_ms) = (metrics.open_object(), json!(interval_ms));
    fmt::from_fn(move |f| write!(f, r#"{open_object},"interval_ms":{interval_ms}}}"#))
}

pub(super) fn departure_json(departure: &Departure) -> impl Display {
    let Departure { agent, name, reason, at, tasks, .. } = departure;
    let (name, reason) = (json!(name), json!(reason));
    fmt::from_fn(move |f| {
        write!(f, r#"{{"agent_id":"{agent}","agent_name":{name},"reason":{reason},"#)?;
        write!(f, r#""at":"{at}","running_tasks":{tasks}}}"#)
    })
}

/// The body of `GET /api/v1/status`.
pub(crate) fn status(
    epoch: &str,
    started_at: UnixMillis,
    counters: impl Iterator<Item = (&'static str, u64)>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Status<'a> {
        version: &'static str,
        epoch: &'a str,
        started_at: UnixMillis,
        counters: BTreeMap<&'static str, u64>,
    }
    let (version, counters) = (env!("CARGO_PKG_VERSION"), counters.collect());
    to_json(&Status { version, epoch, started_at, counters }, 0)
}

/// The body of a DELETE's 200.
pub(crate) fn departed_answer(agent: &AgentId) -> Vec<u8> {
    format!(r#"{{"agent_id":"{agent}","message":"agent removed"}}"#).into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::wire::{Ping, read_ping};

    fn pool() -> PoolId {
        PoolId::parse("pool-xxx").unwrap()
    }

    fn metrics(agent: &str, name: &str) -> Metrics {
        let body =
            json!({"status": "busy", "cpu_usage": 1.5, "memory_usage": 2, "agent_name": name});
        let agent = AgentId::parse(agent).unwrap();
        match read_ping(body.to_string().as_bytes(), &agent, UnixMillis(0)) {
            Ok(Ping::Metrics(metrics)) => metrics,
            other => panic!("{other:?}"),
        }
    }

    /// Members in their order, which [`Value`] forgets.
    fn positions(text: &str, members: &[&str]) {
        let found: Vec<_> = members.iter().map(|m| text.find(&format!("\"{m}\":"))).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{members:?} in {text}");
    }

    #[test]
    fn an_update_has_the_seeds_members_first() {
        let envelope =
            Envelope { pool: Some(&pool()), server_time: UnixMillis(5), epoch: "e1", seq: 9 };
        let text = update(&envelope, &metrics("a", "n"), Some(30_000));
        positions(
            &text,
            &[
                "type",
                "pool_id",
                "metrics",
                "agent_id",
                "agent_name",
                "cpu_usage",
                "memory_usage",
                "running_tasks",
                "last_update_time",
                "status",
                "interval_ms",
                "server_time",
                "epoch",
                "seq",
            ],
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["metrics"]["interval_ms"], 30_000);
        assert_eq!(value["seq"], 9);
        assert_eq!(value["server_time"], "1970-01-01T00:00:00.005Z");
    }

    #[test]
    fn a_snapshot_is_ordered_by_name_then_id_and_holds_the_departed() {
        let agent = |id: &str, name: &str| SnapshotAgent {
            agent: AgentId::parse(id).unwrap(),
            metrics: Arc::new(metrics(id, name)),
            interval_ms: None,
        };
        let departure = Departure {
            agent: AgentId::parse("gone").unwrap(),
            name: "Gone \"x\"".into(),
            reason: Reason::Timeout,
            at: UnixMillis(1),
            tasks: "[{\"task_id\":7}]".into(),
            task_count: 1,
        };
        let snapshot = Snapshot {
            agents: vec![agent("3", "b"), agent("2", "a"), agent("1", "b")],
            departed: vec![Arc::new(departure)],
            departures: DepartureTotals { lost: 70, goodbyes: 3 },
            server_time: UnixMillis(5),
            seq: 4,
            version: 4,
            complete_since: 0,
        };
        let reserved = snapshot.text_bytes();
        assert!(snapshot.clone().text(&pool(), "e").len() <= reserved);
        let value: Value = serde_json::from_str(&snapshot.text(&pool(), "e")).unwrap();
        let order: Vec<_> =
            value["metrics"].as_array().unwrap().iter().map(|m| m["agent_id"].clone()).collect();
        assert_eq!(order, ["2", "1", "3"]);
        assert_eq!(
            value["departed"],
            json!([{"agent_id": "gone", "agent_name": "Gone \"x\"", "reason": "timeout",
                    "at": "1970-01-01T00:00:00.001Z", "running_tasks": [{"task_id": 7}]}])
        );
        assert_eq!(value["departures"], json!({"lost": 70, "goodbyes": 3}));
    }

    #[test]
    fn an_offline_message_says_why() {
        let envelope =
            Envelope { pool: Some(&pool()), server_time: UnixMillis(5), epoch: "e", seq: 1 };
        let text = offline(&envelope, &AgentId::parse("a").unwrap(), Reason::Goodbye);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["metrics"], json!({"agent_id": "a", "status": "offline"}));
        assert_eq!(value["reason"], "goodbye");
        let alive: Value = serde_json::from_str(&keepalive(&envelope)).unwrap();
        assert_eq!((&alive["type"], &alive["pool_id"]), (&json!("keepalive"), &json!("pool-xxx")));
        let of_all = keepalive(&Envelope { pool: None, ..envelope });
        let alive: Value = serde_json::from_str(&of_all).unwrap();
        assert_eq!((&alive["type"], alive.get("pool_id")), (&json!("keepalive"), None));
    }
}
