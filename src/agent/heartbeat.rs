//! The JSON that an agent sends (PROTOCOL.md section 1).

use std::path::PathBuf;

use serde::Serialize;

use super::machine::Reading;
use super::task_files::Task;

/// What is reported beside measurements.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    /// What dashboards show instead of the id.
    pub name: Option<String>,
    /// Without one it is `busy` while tasks run, else `idle`.
    pub status: Option<String>,
    pub task_dirs: Vec<PathBuf>,
}

/// Its members in the seed's order.
#[derive(Serialize)]
struct Heartbeat<'a> {
    status: &'a str,
    cpu_usage: f64,
    memory_usage: f64,
    running_tasks: &'a [Task],
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<&'a str>,
}

impl Profile {
    pub(super) fn heartbeat(&self, reading: Reading, tasks: &[Task]) -> Vec<u8> {
        let default_status = if tasks.is_empty() { "idle" } else { "busy" };
        let heartbeat = Heartbeat {
            status: self.status.as_deref().unwrap_or(default_status),
            cpu_usage: reading.cpu_percent,
            memory_usage: reading.memory_percent,
            running_tasks: tasks,
            agent_name: self.name.as_deref(),
        };
        // Writing strings and numbers to memory cannot fail.
        serde_json::to_vec(&heartbeat).unwrap_or_default()
    }
}

/// A goodbye needs no other member.
pub(super) const GOODBYE: &[u8] = br#"{"status":"offline"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_the_seeds_members_in_its_order() {
        let reading = Reading { cpu_percent: 45.5, memory_percent: 62.25 };
        let json = |tasks: &[Task], status: Option<&str>, name: Option<&str>| {
            let (status, name) = (status.map(str::to_owned), name.map(str::to_owned));
            let profile = Profile { status, name, ..Profile::default() };
            String::from_utf8(profile.heartbeat(reading, tasks)).unwrap()
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
}
