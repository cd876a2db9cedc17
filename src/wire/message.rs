//! The messages to dashboards, the seed's three and ours, and the bodies of HTTP responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::{Metrics, push_json};
use crate::runtime::clock::UnixMillis;
use crate::wire::KIB;
use crate::wire::id::{AgentId, PoolId};

/// One pool in numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    pub by_status: Vec<(Arc<str>, usize)>,
    pub agents: usize,
    /// Departures that the pool remembers.
    pub departed: usize,
    /// None for a pool without agents.
    pub load: Option<Load>,
}

/// Mean and highest load over a pool's agents, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub cpu_mean: f64,
    pub cpu_max: f64,
    pub memory_mean: f64,
    pub memory_max: f64,
}

/// What every message has beside its type and metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub pool: &'a PoolId,
    pub server_time: UnixMillis,
    /// This run of the server.
    pub epoch: &'a str,
    /// The pool's count of changes.
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
}

/// A pool's agents and departures at one moment, shared and not yet text: the hub takes it, which is
/// cheap, and another thread makes the text.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// In no order.
    pub agents: Vec<SnapshotAgent>,
    /// The newest first.
    pub departed: Vec<Arc<Departure>>,
    pub server_time: UnixMillis,
    /// The pool's count of changes when it was taken.
    pub seq: u64,
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
        mut part: impl FnMut(&[u8], bool),
    ) {
        self.agents
            .sort_unstable_by(|a, b| (&a.metrics.name, &a.agent).cmp(&(&b.metrics.name, &b.agent)));
        let mut text = Vec::with_capacity(part_bytes + KIB);
        open(&mut text, "initial_metrics", pool);
        text.push(b'[');
        let mut begin_entry = |text: &mut Vec<u8>, index| {
            if text.len() >= part_bytes {
                part(text, false);
                text.clear();
            }
            if index > 0 {
                text.push(b',');
            }
        };
        for (index, agent) in self.agents.iter().enumerate() {
            begin_entry(&mut text, index);
            push_metrics(&mut text, &agent.metrics, agent.interval_ms);
        }
        text.extend_from_slice(b"],\"departed\":[");
        for (index, departure) in self.departed.iter().enumerate() {
            begin_entry(&mut text, index);
            push_departure(&mut text, departure);
        }
        text.push(b']');
        let Self { server_time, seq, .. } = self;
        close(&mut text, &Envelope { pool, server_time, epoch, seq });
        part(&text, true);
    }

    /// [`Snapshot::write`] as one text.
    pub(crate) fn text(self, pool: &PoolId, epoch: &str) -> String {
        let mut text = Vec::with_capacity(self.text_bytes());
        self.write(pool, epoch, PART_BYTES, |part, _| text.extend_from_slice(part));
        into_text(text)
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
    let mut text = Vec::with_capacity(metrics.open_object().len() + 256);
    open(&mut text, "metrics_update", envelope.pool);
    push_metrics(&mut text, metrics, interval_ms);
    close(&mut text, envelope);
    into_text(text)
}

/// The `agent_offline` message.
pub(crate) fn offline(envelope: &Envelope<'_>, agent: &AgentId, reason: Reason) -> String {
    let mut text = Vec::with_capacity(320);
    open(&mut text, "agent_offline", envelope.pool);
    text.extend_from_slice(b"{\"agent_id\":");
    push_json(&mut text, agent.as_str());
    text.extend_from_slice(b",\"status\":\"offline\"},\"reason\":");
    push_json(&mut text, &reason);
    close(&mut text, envelope);
    into_text(text)
}

/// The `keepalive` message.
pub(crate) fn keepalive(envelope: &Envelope<'_>) -> String {
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(b"{\"type\":\"keepalive\",\"pool_id\":");
    push_json(&mut text, envelope.pool.as_str());
    close(&mut text, envelope);
    into_text(text)
}

fn open(text: &mut Vec<u8>, kind: &str, pool: &PoolId) {
    text.extend_from_slice(b"{\"type\":\"");
    text.extend_from_slice(kind.as_bytes());
    text.extend_from_slice(b"\",\"pool_id\":");
    push_json(text, pool.as_str());
    text.extend_from_slice(b",\"metrics\":");
}

fn close(text: &mut Vec<u8>, envelope: &Envelope<'_>) {
    let Envelope { server_time, epoch, seq, .. } = envelope;
    let tail = format!(",\"server_time\":\"{server_time}\",\"epoch\":\"{epoch}\",\"seq\":{seq}}}");
    text.extend_from_slice(tail.as_bytes());
}

/// All pieces came from UTF-8.
fn into_text(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_default()
}

fn push_metrics(text: &mut Vec<u8>, metrics: &Metrics, interval_ms: Option<u64>) {
    text.extend_from_slice(metrics.open_object().as_bytes());
    text.extend_from_slice(b",\"interval_ms\":");
    push_json(text, &interval_ms);
    text.push(b'}');
}

fn push_departure(text: &mut Vec<u8>, departure: &Departure) {
    text.extend_from_slice(b"{\"agent_id\":");
    push_json(text, departure.agent.as_str());
    text.extend_from_slice(b",\"agent_name\":");
    push_json(text, &departure.name);
    text.extend_from_slice(b",\"reason\":");
    push_json(text, &departure.reason);
    text.extend_from_slice(format!(",\"at\":\"{}\",\"running_tasks\":", departure.at).as_bytes());
    text.extend_from_slice(departure.tasks.as_bytes());
    text.push(b'}');
}

/// `GET /api/v1/agent-pools`. Structs, and not `json!`, which sorts members: people who read this find
/// a pool's id and name first.
#[derive(Serialize)]
struct PoolList<'a> {
    pools: Vec<PoolSummary<'a>>,
}

#[derive(Serialize)]
struct PoolSummary<'a> {
    pool_id: &'a str,
    name: &'a str,
    agents: AgentCounts<'a>,
    departed: usize,
    cpu: Option<MeanAndMax>,
    memory: Option<MeanAndMax>,
}

#[derive(Serialize)]
struct AgentCounts<'a> {
    total: usize,
    by_status: BTreeMap<&'a str, usize>,
}

/// In percent.
#[derive(Serialize)]
struct MeanAndMax {
    mean: f64,
    max: f64,
}

impl<'a> PoolSummary<'a> {
    fn new(id: &'a PoolId, name: &'a str, summary: &'a Summary) -> Self {
        let by_status = summary.by_status.iter().map(|(status, count)| (&**status, *count));
        let load = summary.load;
        Self {
            pool_id: id.as_str(),
            name,
            agents: AgentCounts { total: summary.agents, by_status: by_status.collect() },
            departed: summary.departed,
            cpu: load.map(|load| MeanAndMax { mean: load.cpu_mean, max: load.cpu_max }),
            memory: load.map(|load| MeanAndMax { mean: load.memory_mean, max: load.memory_max }),
        }
    }
}

/// The body of `GET /api/v1/agent-pools`, from each pool's id, name and summary.
pub(crate) fn summaries<'a>(
    pools: impl Iterator<Item = (&'a PoolId, &'a str, &'a Summary)>,
) -> Vec<u8> {
    let pools = pools.map(|(id, name, summary)| PoolSummary::new(id, name, summary)).collect();
    json_bytes(&PoolList { pools })
}

#[derive(Serialize)]
struct ServerStatus<'a> {
    version: &'static str,
    epoch: &'a str,
    started_at: String,
    counters: BTreeMap<&'static str, u64>,
}

/// The body of `GET /api/v1/status`.
pub(crate) fn status(
    epoch: &str,
    started_at: UnixMillis,
    counters: impl Iterator<Item = (&'static str, u64)>,
) -> Vec<u8> {
    json_bytes(&ServerStatus {
        version: env!("CARGO_PKG_VERSION"),
        epoch,
        started_at: started_at.to_string(),
        counters: counters.collect(),
    })
}

fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    push_json(&mut text, value);
    text
}

/// The body of a DELETE's 200.
pub(crate) fn departed_answer(agent: &AgentId) -> Vec<u8> {
    json!({ "message": "agent removed", "agent_id": agent.as_str() }).to_string().into_bytes()
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
        match read_ping(body.to_string().as_bytes(), &agent, UnixMillis(0), 8) {
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
        let envelope = Envelope { pool: &pool(), server_time: UnixMillis(5), epoch: "e1", seq: 9 };
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
        };
        let snapshot = Snapshot {
            agents: vec![agent("3", "b"), agent("2", "a"), agent("1", "b")],
            departed: vec![Arc::new(departure)],
            server_time: UnixMillis(5),
            seq: 4,
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
    }

    #[test]
    fn a_pool_of_the_list_begins_with_its_id_and_name() {
        let load = Load { cpu_mean: 1.0, cpu_max: 2.0, memory_mean: 3.0, memory_max: 4.0 };
        let by_status = vec![("busy".into(), 2), ("idle".into(), 1)];
        let full = Summary { by_status, agents: 3, departed: 4, load: Some(load) };
        let empty = Summary { by_status: Vec::new(), agents: 0, departed: 0, load: None };
        let other = PoolId::parse("other").unwrap();
        let body = summaries([(&pool(), "Farm", &full), (&other, "Other", &empty)].into_iter());
        assert_eq!(
            String::from_utf8(body).unwrap(),
            concat!(
                r#"{"pools":[{"pool_id":"pool-xxx","name":"Farm","#,
                r#""agents":{"total":3,"by_status":{"busy":2,"idle":1}},"departed":4,"#,
                r#""cpu":{"mean":1.0,"max":2.0},"memory":{"mean":3.0,"max":4.0}},"#,
                r#"{"pool_id":"other","name":"Other","agents":{"total":0,"by_status":{}},"#,
                r#""departed":0,"cpu":null,"memory":null}]}"#
            )
        );
    }

    #[test]
    fn an_offline_message_says_why() {
        let envelope = Envelope { pool: &pool(), server_time: UnixMillis(5), epoch: "e", seq: 1 };
        let text = offline(&envelope, &AgentId::parse("a").unwrap(), Reason::Goodbye);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["metrics"], json!({"agent_id": "a", "status": "offline"}));
        assert_eq!(value["reason"], "goodbye");
        let alive: Value = serde_json::from_str(&keepalive(&envelope)).unwrap();
        assert_eq!(alive["type"], "keepalive");
    }
}
