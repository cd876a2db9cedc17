//! A heartbeat's body: parsed, checked, and turned into the JSON that dashboards get.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::object::Object;
use super::push_json;
use crate::runtime::clock::UnixMillis;
use crate::wire::id::AgentId;

/// Characters of `agent_name`, `task_type`, `workspace_id`, `started_at`.
pub(crate) const MAX_TEXT_CHARS: usize = 128;

/// Characters of `status`.
pub(super) const MAX_STATUS_CHARS: usize = 32;

/// The status that says goodbye.
pub(crate) const GOODBYE: &str = "offline";

#[derive(Debug)]
pub(crate) enum Ping {
    Metrics(Metrics),
    Goodbye,
}

/// Why a body is invalid: a sentence that names the member and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Rejected(pub String);

/// One agent's state: what the registry sorts and sums by, and the JSON that dashboards get.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics {
    /// The agent id where the agent sent none.
    pub name: Box<str>,
    pub status: Box<str>,
    /// Percent.
    pub cpu: f64,
    /// Percent.
    pub memory: f64,
    /// The seed's seven members, as an object without its closing brace, so that ours can follow.
    open_object: Box<str>,
    /// The bytes of the array of running tasks in `open_object`.
    tasks: Range<usize>,
}

impl Metrics {
    pub(super) fn open_object(&self) -> &str {
        &self.open_object
    }

    /// The JSON array of running tasks.
    pub(super) fn tasks(&self) -> &str {
        &self.open_object[self.tasks.clone()]
    }

    /// [`Metrics::tasks`], for longer than the metrics are kept.
    pub(crate) fn tasks_text(&self) -> Arc<str> {
        self.tasks().into()
    }

    /// The memory that this takes, with an estimate of the registry's bookkeeping.
    pub(crate) fn cost_bytes(&self) -> usize {
        const BOOKKEEPING_BYTES: usize = 512;
        self.open_object.len() + self.name.len() + self.status.len() + BOOKKEEPING_BYTES
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    cpu_usage: Option<f64>,
    memory_usage: Option<f64>,
    #[serde(borrow, default)]
    running_tasks: Option<Vec<Object<Task<'a>>>>,
    #[serde(borrow, default)]
    agent_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Serialize)]
struct Task<'a> {
    task_id: u64,
    #[serde(borrow)]
    task_type: Cow<'a, str>,
    #[serde(borrow)]
    workspace_id: Cow<'a, str>,
    #[serde(borrow)]
    started_at: Cow<'a, str>,
}

/// Parses the body of `POST /api/v1/agents/{agent}/ping` (PROTOCOL.md section 1).
pub(crate) fn read_ping(
    body: &[u8],
    agent: &AgentId,
    received: UnixMillis,
    max_tasks: usize,
) -> Result<Ping, Rejected> {
    let body: Body<'_> = match serde_json::from_slice(body) {
        Ok(Object(body)) => body,
        Err(error) => return diagnose(body, &error),
    };
    if body.status == GOODBYE {
        return Ok(Ping::Goodbye);
    }
    check_status(&body.status)?;
    let cpu = check_percent("cpu_usage", body.cpu_usage)?;
    let memory = check_percent("memory_usage", body.memory_usage)?;
    let tasks = body.running_tasks.unwrap_or_default();
    check_tasks(&tasks, max_tasks)?;
    let name = match &body.agent_name {
        Some(name) => {
            check_text("agent_name", name)?;
            if name.is_empty() { agent.as_str() } else { name }
        }
        None => agent.as_str(),
    };
    Ok(Ping::Metrics(assemble(agent, name, &body.status, cpu, memory, &tasks, received)))
}

/// The seed's seven members in the seed's order.
fn assemble(
    agent: &AgentId,
    name: &str,
    status: &str,
    cpu: f64,
    memory: f64,
    tasks: &[Object<Task<'_>>],
    received: UnixMillis,
) -> Metrics {
    let mut text = Vec::with_capacity(256 + 128 * tasks.len());
    text.extend_from_slice(b"{\"agent_id\":");
    push_json(&mut text, agent.as_str());
    text.extend_from_slice(b",\"agent_name\":");
    push_json(&mut text, name);
    text.extend_from_slice(b",\"cpu_usage\":");
    push_json(&mut text, &cpu);
    text.extend_from_slice(b",\"memory_usage\":");
    push_json(&mut text, &memory);
    text.extend_from_slice(b",\"running_tasks\":");
    let tasks_start = text.len();
    push_json(&mut text, tasks);
    let tasks_end = text.len();
    text.extend_from_slice(format!(",\"last_update_time\":\"{received}\",\"status\":").as_bytes());
    push_json(&mut text, status);
    Metrics {
        name: name.into(),
        status: status.into(),
        cpu,
        memory,
        // serde_json writes UTF-8 only.
        open_object: String::from_utf8(text).unwrap_or_default().into(),
        tasks: tasks_start..tasks_end,
    }
}

/// [`GOODBYE`] is one, too.
pub(crate) fn is_valid_status(status: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_STATUS_CHARS).contains(&status.len()) && status.bytes().all(allowed)
}

fn check_status(status: &str) -> Result<(), Rejected> {
    if is_valid_status(status) {
        return Ok(());
    }
    Err(Rejected(format!("status must be 1 to {MAX_STATUS_CHARS} characters of a-z 0-9 _ -")))
}

/// `+ 0.0` turns a negative zero into a positive one.
fn check_percent(member: &str, value: Option<f64>) -> Result<f64, Rejected> {
    match value {
        Some(value) if (0.0..=100.0).contains(&value) => Ok(value + 0.0),
        Some(_) => Err(Rejected(percent_rule(member))),
        None => Err(Rejected(format!("{member} is required: a number from 0 to 100"))),
    }
}

fn percent_rule(member: &str) -> String {
    format!("{member} must be a number from 0 to 100")
}

fn check_text(member: &str, text: &str) -> Result<(), Rejected> {
    // A string has at most as many characters as bytes, so most need no counting.
    if text.len() <= MAX_TEXT_CHARS || text.chars().count() <= MAX_TEXT_CHARS {
        return Ok(());
    }
    Err(Rejected(format!("{member} must be at most {MAX_TEXT_CHARS} characters")))
}

fn check_tasks(tasks: &[Object<Task<'_>>], max_tasks: usize) -> Result<(), Rejected> {
    if tasks.len() > max_tasks {
        return Err(Rejected(format!("running_tasks must have at most {max_tasks} entries")));
    }
    for (index, Object(task)) in tasks.iter().enumerate() {
        let texts = [
            ("task_type", &task.task_type),
            ("workspace_id", &task.workspace_id),
            ("started_at", &task.started_at),
        ];
        for (member, text) in texts {
            check_text(&format_args!("running_tasks[{index}].{member}").to_string(), text)?;
        }
    }
    Ok(())
}

/// [`Body`] with members of any type.
#[derive(Deserialize)]
struct RawBody<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    cpu_usage: Option<&'a RawValue>,
    #[serde(borrow)]
    memory_usage: Option<&'a RawValue>,
    #[serde(borrow)]
    running_tasks: Option<&'a RawValue>,
    #[serde(borrow)]
    agent_name: Option<&'a RawValue>,
}

/// [`Task`] with members of any type.
#[derive(Deserialize)]
struct RawTask<'a> {
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    task_type: Option<&'a RawValue>,
    #[serde(borrow)]
    workspace_id: Option<&'a RawValue>,
    #[serde(borrow)]
    started_at: Option<&'a RawValue>,
}

/// The slow path, for bodies that did not parse: finds the member that is invalid. A goodbye needs
/// nothing but its status, so the body may still be one.
fn diagnose(body: &[u8], error: &serde_json::Error) -> Result<Ping, Rejected> {
    let raw: RawBody<'_> = match serde_json::from_slice(body) {
        Ok(Object(raw)) => raw,
        Err(error) if !error.is_data() => {
            return Err(Rejected(format!("the body is not valid JSON: {error}")));
        }
        Err(error) => return Err(no_object("the body must be a JSON object", body, &error)),
    };
    // A duplicate member, and an array for an object, are invalid in a goodbye too.
    let tasks = raw.running_tasks.map(raw_tasks).transpose()?;
    let Some(status) = raw.status else {
        return Err(Rejected("status is required: a string".to_owned()));
    };
    match serde_json::from_str::<Cow<'_, str>>(status.get()) {
        Ok(status) if status == GOODBYE => return Ok(Ping::Goodbye),
        Ok(_) => {}
        Err(_) => return Err(Rejected("status must be a string".to_owned())),
    }
    for (member, value) in [("cpu_usage", raw.cpu_usage), ("memory_usage", raw.memory_usage)] {
        if value.is_some_and(|value| !is_a::<f64>(value)) {
            return Err(Rejected(percent_rule(member)));
        }
    }
    if raw.agent_name.is_some_and(|name| !is_a::<Cow<'_, str>>(name)) {
        return Err(Rejected("agent_name must be a string".to_owned()));
    }
    match tasks {
        None => {}
        Some(None) => return Err(Rejected("running_tasks must be an array or null".to_owned())),
        Some(Some(tasks)) => {
            for (index, task) in tasks.iter().enumerate() {
                diagnose_task(index, task)?;
            }
        }
    }
    Err(Rejected(format!("the body is not a heartbeat: {error}")))
}

fn is_a<'a, T: Deserialize<'a>>(value: &'a RawValue) -> bool {
    serde_json::from_str::<T>(value.get()).is_ok()
}

/// Why `json`, whose members may have any type, did not parse: it is not an object, which `what` says,
/// or a member is a duplicate.
fn no_object(what: &str, json: &[u8], error: &serde_json::Error) -> Rejected {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Rejected(what.to_owned());
    }
    let error = error.to_string();
    // Without the place, which for a task would count from where the task begins.
    Rejected(error.split(" at line ").next().unwrap_or_default().to_owned())
}

/// None where `tasks` is no array.
fn raw_tasks(tasks: &RawValue) -> Result<Option<Vec<RawTask<'_>>>, Rejected> {
    let Ok(tasks) = serde_json::from_str::<Vec<&RawValue>>(tasks.get()) else { return Ok(None) };
    let mut objects = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.into_iter().map(RawValue::get).enumerate() {
        let place = format!("running_tasks[{index}]");
        match serde_json::from_str(task) {
            Ok(Object(task)) => objects.push(task),
            Err(error) => {
                let Rejected(why) = no_object("must be an object", task.as_bytes(), &error);
                let colon = if why.starts_with("must") { "" } else { ":" };
                return Err(Rejected(format!("{place}{colon} {why}")));
            }
        }
    }
    Ok(Some(objects))
}

fn diagnose_task(index: usize, task: &RawTask<'_>) -> Result<(), Rejected> {
    let at = |member| format!("running_tasks[{index}].{member} is required:");
    if !task.task_id.is_some_and(is_a::<u64>) {
        return Err(Rejected(format!("{} an unsigned integer below 2^64", at("task_id"))));
    }
    for (member, value) in [
        ("task_type", task.task_type),
        ("workspace_id", task.workspace_id),
        ("started_at", task.started_at),
    ] {
        if !value.is_some_and(is_a::<Cow<'_, str>>) {
            return Err(Rejected(format!("{} a string", at(member))));
        }
    }
    Ok(())
}

/// The body of a heartbeat's 200.
pub(crate) fn ping_received(received: UnixMillis) -> Vec<u8> {
    format!("{{\"message\":\"ping received\",\"last_ping_at\":\"{received}\"}}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_736_246_100_123);

    fn read(body: &str) -> Result<Ping, Rejected> {
        read_ping(body.as_bytes(), &AgentId::parse("a-1").unwrap(), AT, 2)
    }

    fn metrics(body: &str) -> Metrics {
        match read(body) {
            Ok(Ping::Metrics(metrics)) => metrics,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn why(body: &str) -> String {
        read(body).expect_err(body).0
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
        assert!(metrics.tasks().starts_with("[{\"task_id\":123"), "{}", metrics.tasks());
        assert!(metrics.tasks().ends_with("}]"));
    }

    #[test]
    fn what_may_be_left_out_may_also_be_null() {
        for tasks in ["", ",\"running_tasks\":null", ",\"running_tasks\":[]"] {
            let metrics = metrics(&format!(
                "{{\"status\":\"idle\",\"cpu_usage\":0,\"memory_usage\":100,\"agent_name\":\"\"{tasks}}}"
            ));
            assert_eq!(metrics.tasks(), "[]");
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
            let why = with(bad).expect_err(bad).0;
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
            (task(&[good; 3].join(",")), "running_tasks must have at most 2"),
        ] {
            let why = why(&body);
            assert!(why.contains(said), "{body}: {why}");
        }
        assert!(read(&task(&good.replace("1", "18446744073709551615"))).is_ok());
        assert!(
            read(&task(&good.replace("\"w\"", &format!("\"{}\"", "é".repeat(MAX_TEXT_CHARS)))))
                .is_ok()
        );
    }
}
