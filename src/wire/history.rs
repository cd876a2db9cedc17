//! The body of `GET /api/v1/agent-pools/{pool_id}/history`.

use std::io::Write as _;
use std::time::Duration;

use super::Metrics;
use crate::runtime::clock::UnixMillis;
use crate::wire::id::{AgentId, PoolId};

/// The time that one figure stands for.
pub(crate) const STEP: Duration = Duration::from_secs(10);

/// A history's steps: 15 minutes.
pub(crate) const STEPS: usize = 90;

/// Bytes that one agent takes in the text, roughly: each figure up to `100.0,`.
const AGENT_BYTES: usize = 2 * STEPS * 6;

/// What an agent reported, in tenths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub cpu: u16,
    pub memory: u16,
}

impl From<&Metrics> for Sample {
    fn from(metrics: &Metrics) -> Self {
        // A percentage is from 0 to 100.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        let tenths = |percent: f64| (percent * 10.0).round() as u16;
        Self { cpu: tenths(metrics.cpu), memory: tenths(metrics.memory) }
    }
}

/// What a history has beside its agents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryHead<'a> {
    pub pool: &'a PoolId,
    pub server_time: UnixMillis,
    /// This run of the server.
    pub epoch: &'a str,
    /// The end of the last step, which is the present one.
    pub end: UnixMillis,
}

/// The body: `agents` in their order, each with its steps, the oldest first; `None` where it is not
/// known what the agent was doing. Written by hand: ten thousand agents have 1.8 million figures.
pub(crate) fn history<'a>(
    head: &HistoryHead<'_>,
    agents: impl ExactSizeIterator<Item = (&'a AgentId, [Option<Sample>; STEPS])>,
) -> Vec<u8> {
    let HistoryHead { pool, server_time, epoch, end } = head;
    let mut text = Vec::with_capacity(512 + agents.len() * AGENT_BYTES);
    // Ids and the epoch are of characters that JSON does not escape. Writing to a Vec cannot fail.
    let _ =
        write!(text, r#"{{"pool_id":"{pool}","server_time":"{server_time}","epoch":"{epoch}","#);
    let _ = write!(text, r#""step_ms":{},"end":"{end}","agents":{{"#, STEP.as_millis());
    for (index, (agent, steps)) in agents.enumerate() {
        text.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        text.extend_from_slice(agent.as_str().as_bytes());
        text.extend_from_slice(b"\":{\"cpu\":");
        push_figures(&mut text, steps.iter().map(|step| step.map(|sample| sample.cpu)));
        text.extend_from_slice(b",\"memory\":");
        push_figures(&mut text, steps.iter().map(|step| step.map(|sample| sample.memory)));
        text.push(b'}');
    }
    text.extend_from_slice(b"}}");
    text
}

fn push_figures(text: &mut Vec<u8>, figures: impl Iterator<Item = Option<u16>>) {
    let mut open = b'[';
    for tenths in figures {
        text.push(open);
        open = b',';
        match tenths {
            Some(tenths) => push_tenths(text, tenths),
            None => text.extend_from_slice(b"null"),
        }
    }
    text.push(b']');
}

/// With one decimal.
fn push_tenths(text: &mut Vec<u8>, tenths: u16) {
    let digit = |unit: u16| b"0123456789"[usize::from(tenths / unit % 10)];
    let digits = [digit(1_000), digit(100), digit(10), b'.', digit(1)];
    let zeros = match tenths {
        1_000.. => 0,
        100.. => 1,
        _ => 2,
    };
    text.extend_from_slice(&digits[zeros..]);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn figures_have_one_decimal() {
        let text = |tenths| {
            let mut text = Vec::new();
            push_tenths(&mut text, tenths);
            String::from_utf8(text).unwrap()
        };
        for tenths in 0..=1_000 {
            assert_eq!(text(tenths), format!("{}.{}", tenths / 10, tenths % 10));
        }
    }

    #[test]
    fn a_body_has_what_the_contract_says() {
        let id = |text| AgentId::parse(text).unwrap();
        let (pool, first, second) = (PoolId::parse("p").unwrap(), id("a"), id("b"));
        let mut steps = [None; STEPS];
        steps[STEPS - 1] = Some(Sample { cpu: 125, memory: 1_000 });
        let head =
            HistoryHead { pool: &pool, server_time: UnixMillis(1), epoch: "e", end: UnixMillis(2) };
        let agents = [(&first, steps), (&second, [None; STEPS])];
        let body: Value = serde_json::from_slice(&history(&head, agents.into_iter())).unwrap();
        let unknown = || vec![Value::Null; STEPS];
        let figures = |last: f64| [&unknown()[1..], &[json!(last)]].concat();
        let expected = json!({
            "pool_id": "p", "server_time": "1970-01-01T00:00:00.001Z", "epoch": "e",
            "step_ms": 10_000, "end": "1970-01-01T00:00:00.002Z",
            "agents": {
                "a": {"cpu": figures(12.5), "memory": figures(100.0)},
                "b": {"cpu": unknown(), "memory": unknown()},
            },
        });
        assert_eq!(body, expected);
        let empty: Value = serde_json::from_slice(&history(&head, [].into_iter())).unwrap();
        assert_eq!(empty["agents"], json!({}));
    }
}
