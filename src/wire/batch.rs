//! The `metrics_batch` message: what changed in a pool between two of its counts of changes.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use super::Metrics;
use super::message::{Departure, Envelope, departure_json, head, metrics_json, tail};
use crate::wire::KIB;

/// The newest state of each agent that changed, shared and not yet text.
#[derive(Debug, Default)]
pub(crate) struct MetricsBatch {
    /// Each with its observed interval between heartbeats.
    agents: Vec<(Arc<Metrics>, Option<u64>)>,
    offline: Vec<Arc<Departure>>,
    entry_bytes: usize,
}

impl MetricsBatch {
    pub(crate) fn push_agent(&mut self, metrics: Arc<Metrics>, interval_ms: Option<u64>) {
        // The interval, and the comma.
        const OTHER_BYTES: usize = 40;
        self.entry_bytes += metrics.open_object().len() + OTHER_BYTES;
        self.agents.push((metrics, interval_ms));
    }

    pub(crate) fn push_departure(&mut self, departure: Arc<Departure>) {
        // Two ids or names, of which each character may be escaped, and the members.
        const OTHER_BYTES: usize = 1_024;
        self.entry_bytes += departure.tasks.len() + OTHER_BYTES;
        self.offline.push(departure);
    }

    /// At least the length of the message, and not much more.
    pub(crate) fn text_bytes(&self) -> usize {
        self.entry_bytes + KIB
    }

    /// The message, of which `envelope.seq` is the number of the newest change. Calls `part` with
    /// parts of at least `part_bytes`, and with whether it is the last.
    pub(crate) fn write(
        &self,
        envelope: &Envelope<'_>,
        part_bytes: usize,
        mut part: impl FnMut(&str, bool),
    ) {
        // Writing to a String cannot fail.
        let mut text = String::with_capacity(self.text_bytes().min(part_bytes + KIB));
        let _ = write!(text, r#"{},"metrics":["#, head("metrics_batch", envelope.pool));
        let mut push_entry = |text: &mut String, index: usize, entry: &dyn Display| {
            if text.len() >= part_bytes {
                part(text, false);
                text.clear();
            }
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{entry}");
        };
        for (index, (metrics, interval_ms)) in self.agents.iter().enumerate() {
            push_entry(&mut text, index, &metrics_json(metrics, *interval_ms));
        }
        text.push_str(r#"],"offline":["#);
        for (index, departure) in self.offline.iter().enumerate() {
            push_entry(&mut text, index, &departure_json(departure));
        }
        let _ = write!(text, "]{}", tail(envelope));
        part(&text, true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::clock::UnixMillis;
    use crate::wire::id::{AgentId, PoolId};
    use crate::wire::{Ping, Reason, read_ping};

    fn metrics(agent: &str) -> Arc<Metrics> {
        let body = br#"{"status": "busy", "cpu_usage": 1.5, "memory_usage": 2}"#;
        let agent = AgentId::parse(agent).unwrap();
        match read_ping(body, &agent, UnixMillis(0)) {
            Ok(Ping::Metrics(metrics)) => Arc::new(metrics),
            other => panic!("{other:?}"),
        }
    }

    /// The text, from parts of `part_bytes`, and their number.
    fn text(batch: &MetricsBatch, part_bytes: usize) -> (String, usize) {
        let pool = PoolId::parse("p").unwrap();
        let envelope =
            Envelope { pool: Some(&pool), server_time: UnixMillis(5), epoch: "e", seq: 9 };
        let (mut text, mut parts, mut ended) = (String::new(), 0, false);
        batch.write(&envelope, part_bytes, |part, is_last| {
            assert!(!ended && (is_last || part.len() >= part_bytes));
            text.push_str(part);
            (parts, ended) = (parts + 1, is_last);
        });
        assert!(ended && text.len() <= batch.text_bytes());
        (text, parts)
    }

    #[test]
    fn a_batch_has_updates_and_departures() {
        let mut batch = MetricsBatch::default();
        assert_eq!(
            text(&batch, KIB).0,
            concat!(
                r#"{"type":"metrics_batch","pool_id":"p","metrics":[],"offline":[],"#,
                r#""server_time":"1970-01-01T00:00:00.005Z","epoch":"e","seq":9}"#
            )
        );
        batch.push_agent(metrics("a"), None);
        batch.push_agent(metrics("b"), Some(u64::MAX));
        for agent in ["c", "d"] {
            batch.push_departure(Arc::new(Departure {
                agent: AgentId::parse(agent).unwrap(),
                name: "\u{1}".repeat(128).into(),
                reason: Reason::Timeout,
                at: UnixMillis(1),
                tasks: "[{\"task_id\":7}]".into(),
                task_count: 1,
            }));
        }
        let (whole, parts) = text(&batch, 64 * KIB);
        assert_eq!(parts, 1);
        assert_eq!(text(&batch, 1), (whole.clone(), 5), "a part an entry, and the end");
        let value: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(value["metrics"][0]["agent_id"], "a");
        assert_eq!(value["metrics"][0]["interval_ms"], Value::Null);
        assert_eq!(value["metrics"][1]["interval_ms"], u64::MAX);
        let members = ["agent_id", "reason", "at", "running_tasks"];
        let expected = [
            json!("d"),
            json!("timeout"),
            json!("1970-01-01T00:00:00.001Z"),
            json!([{"task_id": 7}]),
        ];
        assert_eq!(members.map(|member| value["offline"][1][member].clone()), expected);
    }
}
