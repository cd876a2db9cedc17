//! The seed's two examples, unchanged in `tests/it/seed/`, run by curl and by Node with the package
//! `ws`.

use std::process::Command;

use serde_json::Value;

use super::child::Process;
use super::setup::Key;
use super::tools::Tool;

const HEARTBEAT: &str = include_str!("../seed/heartbeat.sh");
const SUBSCRIBE: &str = include_str!("../seed/subscribe.ts");

/// Runs the seed's curl line with this host, id and key; returns the response's body.
pub(crate) fn heartbeat(host: &str, agent: &str, key: Key) -> Value {
    let line = replace(HEARTBEAT, "localhost:8080", host);
    let line = replace(&line, "{agent_id}", agent);
    let line = replace(&line, "X-App-Key: xxx", &format!("X-App-Key: {}", key.key));
    let line = replace(&line, "X-App-Secret: xxx", &format!("X-App-Secret: {}", key.secret));
    // The machine may have a proxy for all hosts.
    let output = Command::new("sh").args(["-c", &line]).env("no_proxy", "*").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The seed's front end in Node. Prints `call NAME JSON` for each function of the page that the
/// snippet calls, and `raw TEXT` for each message.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) process: Process,
}

impl Subscriber {
    /// Runs the snippet against `host`, with `poolId` set.
    pub(crate) fn start(host: &str, pool: &str) -> Self {
        let ws = Tool::Package("ws").path();
        let snippet = replace(SUBSCRIBE, "localhost:8080", host);
        let script = format!(
            "const WebSocket = require({ws:?});\n\
             const poolId = {pool:?};\n\
             const call = name => value => console.log('call', name, JSON.stringify(value));\n\
             const setAgentMetrics = call('setAgentMetrics');\n\
             const updateAgentMetrics = call('updateAgentMetrics');\n\
             const markAgentOffline = call('markAgentOffline');\n\
             {snippet}\n\
             ws.addEventListener('message', event => console.log('raw', event.data));\n\
             ws.addEventListener('error', event => console.log('error', event.message));\n\
             ws.addEventListener('close', event => console.log('close', event.code));\n"
        );
        Self { process: Process::start(Command::new("node").args(["-e", &script])) }
    }

    /// Waits for the snippet's call of `function`; returns its argument, and the text of the
    /// message.
    pub(crate) fn wait_for_call(&self, function: &str, kind: &str) -> (Value, String) {
        let line = self.process.stdout.wait_for(&format!("call {function} "));
        let (_, argument) = line.split_once(&format!("call {function} ")).unwrap();
        let raw = self.process.stdout.wait_for(&format!("raw {{\"type\":\"{kind}\""));
        (serde_json::from_str(argument).unwrap(), raw.strip_prefix("raw ").unwrap().to_owned())
    }
}

/// Panics if `text` does not contain `from`: then the example has been edited.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} in {text}");
    text.replace(from, to)
}
