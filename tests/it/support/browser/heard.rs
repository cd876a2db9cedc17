//! A page's requests and errors.

use std::sync::{Condvar, Mutex};

use headless_chrome::browser::tab::EventListener;
use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Log, Runtime};

use crate::support::wait::DEADLINE;

/// Runs in the page: logs policy violations on the console.
pub(super) const LISTEN: &str = r"{
    const say = console.error.bind(console);
    addEventListener('securitypolicyviolation', event =>
        say('policy violated:', event.effectiveDirective, event.blockedURI, event.sample));
}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `console.error` or a failed `console.assert`.
    Console,
    /// An uncaught exception or rejected promise.
    Exception,
    /// A violation of the content security policy.
    Policy,
    /// A failed request or WebSocket.
    Network,
    /// Another error of the browser.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// The events of one page.
#[derive(Debug, Default)]
pub(super) struct Heard {
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Notes {
    faults: Vec<Fault>,
    requests: Vec<String>,
    /// The number of the last mark, and the last mark that was received.
    marks: u32,
    marked: Option<String>,
}

impl Heard {
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.notes.lock().unwrap().faults.clone()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.notes.lock().unwrap().requests.clone()
    }

    /// A text for `console.debug`, which [`Heard::wait_for`] waits for.
    pub(super) fn next_mark(&self) -> String {
        let mut notes = self.notes.lock().unwrap();
        notes.marks += 1;
        format!("mark {}", notes.marks)
    }

    pub(super) fn wait_for(&self, mark: &str) {
        let notes = self.notes.lock().unwrap();
        let unheard = |notes: &mut Notes| notes.marked.as_deref() != Some(mark);
        let (_notes, timeout) = self.changed.wait_timeout_while(notes, DEADLINE, unheard).unwrap();
        assert!(!timeout.timed_out(), "the browser sends no events any more");
    }

    fn fault(&self, kind: Kind, text: String) {
        self.notes.lock().unwrap().faults.push(Fault { kind, text });
    }

    fn request(&self, url: &str) {
        if !url.starts_with("data:") {
            self.notes.lock().unwrap().requests.push(url.to_owned());
        }
    }

    fn console(&self, kind: &Runtime::ConsoleAPICalledEventTypeOption, text: String) {
        use Runtime::ConsoleAPICalledEventTypeOption as Type;
        match kind {
            Type::Error | Type::Assert if text.starts_with("policy violated:") => {
                self.fault(Kind::Policy, text);
            }
            Type::Error | Type::Assert => self.fault(Kind::Console, text),
            Type::Debug => {
                self.notes.lock().unwrap().marked = Some(text);
                self.changed.notify_all();
            }
            _ => {}
        }
    }

    fn entry(&self, entry: &Log::LogEntry) {
        let kind = match entry.source {
            Log::LogEntrySource::Security => Kind::Policy,
            Log::LogEntrySource::Network => Kind::Network,
            _ => Kind::Other,
        };
        if kind == Kind::Policy || entry.level == Log::LogEntryLevel::Error {
            let url = entry.url.as_deref().unwrap_or_default();
            self.fault(kind, format!("{} {url}", entry.text));
        }
    }
}

impl EventListener<Event> for Heard {
    fn on_event(&self, event: &Event) {
        match event {
            Event::RuntimeConsoleAPICalled(event) => {
                let words = event.params.args.iter().map(words);
                self.console(&event.params.Type, words.collect::<Vec<_>>().join(" "));
            }
            Event::RuntimeExceptionThrown(event) => {
                let details = &event.params.exception_details;
                let thrown = details.exception.as_ref().map(words).unwrap_or_default();
                self.fault(Kind::Exception, format!("{} {thrown}", details.text));
            }
            Event::LogEntryAdded(event) => self.entry(&event.params.entry),
            Event::NetworkRequestWillBeSent(event) => self.request(&event.params.request.url),
            Event::NetworkWebSocketCreated(event) => self.request(&event.params.url),
            _ => {}
        }
    }
}

fn words(object: &Runtime::RemoteObject) -> String {
    match (&object.value, &object.description) {
        (Some(serde_json::Value::String(text)), _) | (None, Some(text)) => text.clone(),
        (Some(value), _) => value.to_string(),
        (None, None) => String::new(),
    }
}
