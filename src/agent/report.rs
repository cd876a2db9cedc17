//! The agent's half of the wire: a heartbeat as JSON (PROTOCOL.md section 1) and the answers'
//! problem details. Shapes only; it opens no connection.

use serde::{Deserialize, Serialize};

use super::machine::Reading;
use crate::agent::task_files::Task;

/// A heartbeat, its members in the seed's order.
#[derive(Debug, Serialize)]
struct Heartbeat<'a> {
    status: &'a str,
    cpu_usage: f64,
    memory_usage: f64,
    running_tasks: &'a [Task],
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<&'a str>,
}

/// The JSON of a heartbeat. Without a `status` of its own the agent is busy while tasks run.
///
/// # Errors
/// serde_json's, which these shapes never cause.
pub(super) fn heartbeat(
    reading: Reading,
    tasks: &[Task],
    status: Option<&str>,
    name: Option<&str>,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Heartbeat {
        status: status.unwrap_or(if tasks.is_empty() { "idle" } else { "busy" }),
        cpu_usage: reading.cpu_percent,
        memory_usage: reading.memory_percent,
        running_tasks: tasks,
        agent_name: name,
    })
}

/// The JSON of a goodbye: nothing but the status is asked for.
pub(super) const GOODBYE: &[u8] = br#"{"status":"offline"}"#;

/// RFC 9457, and the one member of the original system's errors.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: Option<String>,
    error: Option<String>,
}

/// What an error answer says of itself, if it is JSON that says anything.
pub(super) fn detail(body: &[u8]) -> Option<String> {
    let problem: Problem = serde_json::from_slice(body).ok()?;
    problem.detail.or(problem.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_the_seeds_members_in_its_order() {
        let reading = Reading { cpu_percent: 45.5, memory_percent: 62.25 };
        let json = |tasks: &[Task], status, name| {
            String::from_utf8(heartbeat(reading, tasks, status, name).unwrap()).unwrap()
        };
        assert_eq!(
            json(&[], None, None),
            r#"{"status":"idle","cpu_usage":45.5,"memory_usage":62.25,"running_tasks":[]}"#
        );
        let task = Task {
            task_id: u64::MAX,
            task_type: "plan".to_owned(),
            workspace_id: "ws-1".to_owned(),
            started_at: "2025-01-07T10:30:00Z".to_owned(),
        };
        assert_eq!(
            json(&[task], None, Some("agent-1")),
            r#"{"status":"busy","cpu_usage":45.5,"memory_usage":62.25,"running_tasks":[{"task_id":18446744073709551615,"task_type":"plan","workspace_id":"ws-1","started_at":"2025-01-07T10:30:00Z"}],"agent_name":"agent-1"}"#
        );
        assert!(json(&[], Some("draining"), None).starts_with(r#"{"status":"draining","#));
    }

    #[test]
    fn a_problem_says_its_detail_and_anything_else_nothing() {
        assert_eq!(detail(br#"{"detail":"d","error":"e"}"#).as_deref(), Some("d"));
        assert_eq!(detail(br#"{"error":"e"}"#).as_deref(), Some("e"));
        assert_eq!(detail(b"<html>"), None);
    }
}
