//! A heartbeat's body: parsed, checked, and turned into the JSON that dashboards get.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::object::Object;
use super::to_json;
use crate::runtime::clock::UnixMillis;
use crate::wire::id::AgentId;

/// Characters of `agent_name`, `task_type`, `workspace_id`, `started_at`.
pub(crate) const MAX_TEXT_CHARS: usize = 128;

/// Running tasks in one heartbeat; beyond it 400. Part of the protocol.
pub(crate) const MAX_TASKS: usize = 256;

/// Characters of `status`.
const MAX_STATUS_CHARS: usize = 32;

/// The memory that the registry takes for what an agent reported in the last 15 minutes.
pub(crate) const HISTORY_BYTES: usize = 400;

/// The status that says goodbye.
pub(crate) const GOODBYE: &str = "offline";

#[derive(Debug)]
pub(crate) enum Ping {
    Metrics(Metrics),
    Goodbye,
}

/// One agent's state: what the registry sorts and sums by, and the JSON that dashboards get.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics {
    /// The agent id where the agent sent none.
    pub name: Box<str>,
    /// Percent.
    pub cpu: f64,
    /// Percent.
    pub memory: f64,
    /// Of running tasks.
    pub task_count: usize,
    /// The seed's seven members, as an object without its closing brace, so that ours can follow.
    open_object: Box<str>,
}

impl Metrics {
    pub(super) fn open_object(&self) -> &str {
        &self.open_object
    }

    /// The last member's value, which has no escapes.
    pub(crate) fn status(&self) -> &str {
        self.open_object.rsplit('"').nth(1).unwrap_or_default()
    }

    /// The JSON array of running tasks, for longer than the metrics are kept.
    pub(crate) fn tasks_text(&self) -> Arc<str> {
        // A string cannot contain these: its quotes are escaped.
        let (start, end) = ("\"running_tasks\":", ",\"last_update_time\":");
        let tasks = self.open_object.split_once(start).and_then(|(_, rest)| rest.rsplit_once(end));
        tasks.map_or("[]", |(tasks, _)| tasks).into()
    }

    /// The memory that this takes, with an estimate of the registry's bookkeeping.
    pub(crate) fn cost_bytes(&self) -> usize {
        const BOOKKEEPING_BYTES: usize = 512;
        self.open_object.len() + self.name.len() + BOOKKEEPING_BYTES + HISTORY_BYTES
    }
}

/// A heartbeat as it is read, and as dashboards get it: the seed's members in its order. The
/// parameters are the members' types: what they must be, or [`Raw`] to find those that are not.
#[derive(Deserialize, Serialize)]
struct Heartbeat<'a, Text, Percent, Tasks> {
    #[serde(skip_deserializing)]
    agent_id: &'a str,
    agent_name: Option<Text>,
    cpu_usage: Option<Percent>,
    memory_usage: Option<Percent>,
    running_tasks: Option<Tasks>,
    #[serde(skip_deserializing)]
    last_update_time: UnixMillis,
    status: Text,
}

#[derive(Deserialize, Serialize)]
struct Task<Id, Text> {
    task_id: Id,
    task_type: Text,
    workspace_id: Text,
    started_at: Text,
}

/// Borrowed where it has no escapes.
#[derive(Deserialize, Serialize)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

type TaskList<'a> = Vec<Object<Task<u64, Str<'a>>>>;

/// JSON of any type, or nothing.
type Raw<'a> = Option<&'a RawValue>;

/// Parses the body of `POST /api/v1/agents/{agent}/ping` (PROTOCOL.md section 1).
///
/// # Errors
/// A sentence that names the member and the rule.
pub(crate) fn read_ping(
    body: &[u8],
    agent: &AgentId,
    received: UnixMillis,
) -> Result<Ping, String> {
    let read: Heartbeat<'_, Str<'_>, f64, TaskList<'_>> = match serde_json::from_slice(body) {
        Ok(Object(heartbeat)) => heartbeat,
        Err(error) => return diagnose(body, &error),
    };
    let status = read.status;
    if status.0 == GOODBYE {
        return Ok(Ping::Goodbye);
    }
    check(is_valid_status(&status.0), || {
        format!("status must be 1 to {MAX_STATUS_CHARS} characters of a-z 0-9 _ -")
    })?;
    let cpu = check_percent("cpu_usage", read.cpu_usage)?;
    let memory = check_percent("memory_usage", read.memory_usage)?;
    let tasks = read.running_tasks.unwrap_or_default();
    check_tasks(&tasks)?;
    let name = read.agent_name.filter(|name| !name.0.is_empty());
    let name = name.unwrap_or(Str(agent.as_str().into()));
    check_text(&name, || "agent_name".to_owned())?;

    let task_count = tasks.len();
    let capacity = 256 + 128 * task_count;
    let shown = Heartbeat {
        agent_id: agent.as_str(),
        agent_name: Some(&name),
        cpu_usage: Some(cpu),
        memory_usage: Some(memory),
        running_tasks: Some(tasks),
        last_update_time: received,
        status: &status,
    };
    let mut json = to_json(&shown, capacity);
    json.pop();
    Ok(Ping::Metrics(Metrics {
        name: name.0.into(),
        cpu,
        memory,
        task_count,
        // serde_json writes UTF-8 only.
        open_object: String::from_utf8(json).unwrap_or_default().into(),
    }))
}

/// [`GOODBYE`] is one, too.
pub(crate) fn is_valid_status(status: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_STATUS_CHARS).contains(&status.len()) && status.bytes().all(allowed)
}

fn check(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

fn check_percent(member: &str, value: Option<f64>) -> Result<f64, String> {
    let value = value.ok_or_else(|| format!("{member} is required: a number from 0 to 100"))?;
    check((0.0..=100.0).contains(&value), || percent_rule(member))?;
    // Turns a negative zero into a positive one.
    Ok(value + 0.0)
}

fn percent_rule(member: &str) -> String {
    format!("{member} must be a number from 0 to 100")
}

fn check_text(Str(text): &Str<'_>, member: impl FnOnce() -> String) -> Result<(), String> {
    // A string has at most as many characters as bytes, so most need no counting.
    let fits = text.len() <= MAX_TEXT_CHARS || text.chars().count() <= MAX_TEXT_CHARS;
    check(fits, || format!("{} must be at most {MAX_TEXT_CHARS} characters", member()))
}

fn check_tasks(tasks: &TaskList<'_>) -> Result<(), String> {
    check(tasks.len() <= MAX_TASKS, || {
        format!("running_tasks must have at most {MAX_TASKS} entries")
    })?;
    for (index, Object(task)) in tasks.iter().enumerate() {
        let member = |name| move || format!("running_tasks[{index}].{name}");
        check_text(&task.task_type, member("task_type"))?;
        check_text(&task.workspace_id, member("workspace_id"))?;
        check_text(&task.started_at, member("started_at"))?;
    }
    Ok(())
}

/// The slow path, for bodies that did not parse: finds the member that is invalid. A goodbye needs
/// nothing but its status, so the body may still be one.
fn diagnose(body: &[u8], error: &serde_json::Error) -> Result<Ping, String> {
    let raw: Heartbeat<'_, Raw<'_>, Raw<'_>, Raw<'_>> = match serde_json::from_slice(body) {
        Ok(Object(raw)) => raw,
        Err(error) if error.is_data() => {
            return Err(duplicate(&error).unwrap_or("the body must be a JSON object".to_owned()));
        }
        Err(error) => return Err(format!("the body is not valid JSON: {error}")),
    };
    let array = raw.running_tasks.flatten().map_or("[]", RawValue::get);
    let array: Option<Vec<&RawValue>> = serde_json::from_str(array).ok();
    // A duplicate member, and an array for an object, are invalid in a goodbye too.
    let tasks = array.iter().flatten().enumerate().map(|(index, task)| raw_task(index, task));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    let status = raw.status.ok_or("status is required: a string")?;
    let status: String =
        serde_json::from_str(status.get()).map_err(|_| "status must be a string")?;
    if status == GOODBYE {
        return Ok(Ping::Goodbye);
    }
    for (member, value) in [("cpu_usage", raw.cpu_usage), ("memory_usage", raw.memory_usage)] {
        check(value.flatten().is_none_or(is_a::<f64>), || percent_rule(member))?;
    }
    let name = raw.agent_name.flatten();
    check(name.is_none_or(is_a::<String>), || "agent_name must be a string".to_owned())?;
    check(array.is_some(), || "running_tasks must be an array or null".to_owned())?;
    for (index, task) in tasks.iter().enumerate() {
        let required =
            |name, what| move || format!("running_tasks[{index}].{name} is required: {what}");
        let is_id = task.task_id.is_some_and(is_a::<u64>);
        check(is_id, required("task_id", "an unsigned integer below 2^64"))?;
        for (name, value) in [
            ("task_type", task.task_type),
            ("workspace_id", task.workspace_id),
            ("started_at", task.started_at),
        ] {
            check(value.is_some_and(is_a::<String>), required(name, "a string"))?;
        }
    }
    Err(format!("the body is not a heartbeat: {error}"))
}

fn raw_task<'a>(index: usize, task: &'a RawValue) -> Result<Task<Raw<'a>, Raw<'a>>, String> {
    match serde_json::from_str(task.get()) {
        Ok(Object(task)) => Ok(task),
        Err(error) => Err(match duplicate(&error) {
            Some(duplicate) => format!("running_tasks[{index}]: {duplicate}"),
            None => format!("running_tasks[{index}] must be an object"),
        }),
    }
}

/// The member that comes twice, if that is the error. Without the place, which for a task would count
/// from where the task begins.
fn duplicate(error: &serde_json::Error) -> Option<String> {
    let error = error.to_string();
    let (what, _place) = error.split_once(" at line ")?;
    what.starts_with("duplicate field").then(|| what.to_owned())
}

fn is_a<'a, T: Deserialize<'a>>(value: &'a RawValue) -> bool {
    serde_json::from_str::<T>(value.get()).is_ok()
}

/// The body of a heartbeat's 200.
pub(crate) fn ping_received(received: UnixMillis) -> Vec<u8> {
    format!("{{\"message\":\"ping received\",\"last_ping_at\":\"{received}\"}}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_736_246_100_123);

    fn read(body: &str) -> Result<Ping, String> {
        read_ping(body.as_bytes(), &AgentId::parse("a-1").unwrap(), AT)
    }

    fn metrics(body: &str) -> Metrics {
        match read(body) {
            Ok(Ping::Metrics(metrics)) => metrics,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn why(body: &str) -> String {
        read(body).expect_err(body)
    }

    #[test]
    fn the_seeds_heartbeat_becomes_the_seeds_metrics() {
        let metrics = metrics(
            r#"{"status":"busy","cpu_usage":45.5,"memory_usage":62.3,"running_tasks":[{"task_id":123,
            "task_type":"plan","workspace_id":"ws-xxx","started_at":"2025-01-07T10:30:00Z"}],"x":[1]}"#,
        );
        assert_eq!(
            metrics.open_object(),
            "{\"agent_id\":\"a-1\",\"agent_name\":\"a-1\",\"cpu_usage\":45.5,\"memory_usage\":62.3,\
             \"running_tasks\":[{\"task_id\":123,\"task_type\":\"plan\",\"workspace_id\":\"ws-xxx\",\
             \"started_at\":\"2025-01-07T10:30:00Z\"}],\"last_update_time\":\"2025-01-07T10:35:00.123Z\",\
             \"status\":\"busy\""
        );
        assert_eq!(metrics.status(), "busy");
        let tasks = metrics.tasks_text();
        assert!(tasks.starts_with("[{\"task_id\":123"), "{tasks}");
        assert!(tasks.ends_with("}]"));
    }

    /// Texts that look like the members that are searched for.
    #[test]
    fn no_text_passes_for_a_member() {
        let name = r#"","running_tasks":[7],"last_update_time":""#;
        let task = serde_json::json!({
            "task_id": 1,
            "task_type": r#"],"last_update_time":""#,
            "workspace_id": "running_tasks",
            "started_at": r#"\","status":"no"#,
        });
        let body = serde_json::json!({
            "agent_name": name, "status": "busy", "cpu_usage": 1, "memory_usage": 1,
            "running_tasks": [task],
        });
        let metrics = metrics(&body.to_string());
        let tasks: serde_json::Value = serde_json::from_str(&metrics.tasks_text()).unwrap();
        assert_eq!(tasks, serde_json::json!([task]));
        assert_eq!((metrics.status(), &*metrics.name), ("busy", name));
    }

    #[test]
    fn what_may_be_left_out_may_also_be_null() {
        for tasks in ["", ",\"running_tasks\":null", ",\"running_tasks\":[]"] {
            let metrics = metrics(&format!(
                "{{\"status\":\"idle\",\"cpu_usage\":0,\"memory_usage\":100,\"agent_name\":\"\"{tasks}}}"
            ));
            assert_eq!(&*metrics.tasks_text(), "[]");
            assert_eq!(&*metrics.name, "a-1");
        }
    }

    #[test]
    fn a_goodbye_needs_nothing_but_its_status() {
        for body in [
            r#"{"status":"offline"}"#,
            r#"{"status":"offline","cpu_usage":"?"}"#,
            r#"{"status":"offline","cpu_usage":999}"#,
        ] {
            assert!(matches!(read(body), Ok(Ping::Goodbye)), "{body}");
        }
    }

    #[test]
    fn an_array_is_no_object_and_a_known_member_comes_once() {
        let base = r#""cpu_usage":1,"memory_usage":1"#;
        let task = r#""task_id":1,"task_type":"t","workspace_id":"w","started_at":"s""#;
        let with = |task: &str| format!(r#"{{"status":"s",{base},"running_tasks":[{task}]}}"#);
        let goodbye = |task: &str| format!(r#"{{"status":"offline","running_tasks":[{task}]}}"#);
        let twice = format!(r#"{{{task},"started_at":null}}"#);
        let array = r#"[1,"t","w","s"]"#;
        for (body, said) in [
            (r#"["a",1,1]"#.to_owned(), "the body must be a JSON object"),
            (r#"["offline"]"#.to_owned(), "the body must be a JSON object"),
            (r#"{"status":"busy","status":"offline"}"#.to_owned(), "`status`"),
            (r#"{"status":"offline","status":"offline"}"#.to_owned(), "`status`"),
            (r#"{"status":"offline","cpu_usage":"?","cpu_usage":1}"#.to_owned(), "`cpu_usage`"),
            (format!(r#"{{"status":"s",{base},"memory_usage":2}}"#), "`memory_usage`"),
            (format!(r#"{{"status":"s",{base},"agent_name":7,"agent_name":""}}"#), "`agent_name`"),
            (
                format!(r#"{{"status":"s",{base},"running_tasks":null,"running_tasks":[]}}"#),
                "`running_tasks`",
            ),
            (with(array), "running_tasks[0] must be an object"),
            (goodbye(array), "running_tasks[0] must be an object"),
            (
                with(&format!("{{{task}}},{twice}")),
                "running_tasks[1]: duplicate field `started_at`",
            ),
            (goodbye(&twice), "running_tasks[0]: duplicate field `started_at`"),
        ] {
            let why = why(&body);
            assert!(why.contains(said), "{body}: {why}");
        }
        // Unknown members are ignored, wherever they are.
        let unknown = r#""x":1,"x":[1e999,"\ud800"]"#;
        for body in [
            format!(r#"{{{unknown},"status":"offline","cpu_usage":"?"}}"#),
            format!(r#"{{"status":"s",{base},{unknown},"running_tasks":[{{{unknown},{task}}}]}}"#),
        ] {
            assert!(read(&body).is_ok(), "{body}");
        }
    }

    #[test]
    fn percentages_hold_at_their_edges() {
        let with =
            |cpu: &str| read(&format!(r#"{{"status":"s","cpu_usage":{cpu},"memory_usage":1}}"#));
        for good in ["0", "-0.0", "100", "1e2", "99.999"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in ["-0.001", "100.001", "null", "\"5\"", "true"] {
            let why = with(bad).expect_err(bad);
            assert!(why.contains("cpu_usage") && why.contains("0 to 100"), "{bad}: {why}");
        }
    }

    #[test]
    fn an_error_names_the_member_and_the_rule() {
        let base = r#""cpu_usage":1,"memory_usage":1"#;
        let task = |task: &str| format!(r#"{{"status":"s",{base},"running_tasks":[{task}]}}"#);
        let good = r#"{"task_id":1,"task_type":"t","workspace_id":"w","started_at":"s"}"#;
        let long = "é".repeat(MAX_TEXT_CHARS + 1);
        for (body, said) in [
            ("".to_owned(), "not valid JSON"),
            ("[]".to_owned(), "must be a JSON object"),
            (format!("{{{base}}}"), "status is required"),
            (format!(r#"{{"status":"Busy",{base}}}"#), "status must be 1 to 32"),
            (format!(r#"{{"status":"",{base}}}"#), "status must be 1 to 32"),
            (format!(r#"{{"status":7,{base}}}"#), "status must be a string"),
            (format!(r#"{{"status":"s","status":"s",{base}}}"#), "duplicate field `status`"),
            (
                format!(r#"{{"status":"s",{base},"running_tasks":7}}"#),
                "running_tasks must be an array",
            ),
            (format!(r#"{{"status":"s",{base},"agent_name":7}}"#), "agent_name must be a string"),
            (
                format!(r#"{{"status":"s",{base},"agent_name":"{long}"}}"#),
                "agent_name must be at most 128",
            ),
            (task("7"), "running_tasks[0] must be an object"),
            (task(&good.replace("1", "-1")), "running_tasks[0].task_id is required"),
            (task(&good.replace("1", "1.5")), "running_tasks[0].task_id"),
            (task(&good.replace("1", "18446744073709551616")), "running_tasks[0].task_id"),
            (task(&good.replace("\"w\"", "null")), "running_tasks[0].workspace_id is required"),
            (
                task(&good.replace("\"w\"", &format!("\"{long}\""))),
                "running_tasks[0].workspace_id must be",
            ),
            (task(&[good; MAX_TASKS + 1].join(",")), "running_tasks must have at most 256"),
        ] {
            let why = why(&body);
            assert!(why.contains(said), "{body}: {why}");
        }
        assert!(read(&task(&good.replace("1", "18446744073709551615"))).is_ok());
        assert!(read(&task(&[good; MAX_TASKS].join(","))).is_ok());
        assert!(
            read(&task(&good.replace("\"w\"", &format!("\"{}\"", "é".repeat(MAX_TEXT_CHARS)))))
                .is_ok()
        );
    }
}
