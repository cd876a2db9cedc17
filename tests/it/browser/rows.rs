//! What agents say is what the page shows, from an empty pool to the last goodbye.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::hooks::{self, Bar, CURL, IS_LIVE, pool_url, row_with, wait_for_exactly};
use crate::support::http::heartbeat;
use crate::support::setup::KEY_A;
use crate::support::tools::needs;
use crate::support::wait::{eventually, wall};
use crate::support::{Browser, Conn, Launch, Request, Server, Setup};

#[test]
fn an_empty_pool_shows_the_line_that_fills_it() {
    needs!(Chromium, Program("curl"));
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the line is there", &hooks::is_shown(CURL));
    browser.shot("empty");
    let line = browser.text(&hooks::text_of(CURL)).replace("KEY", KEY_A.key);
    let line = line.replace("SECRET", KEY_A.secret);
    let output = Command::new("sh").args(["-c", &line]).env("no_proxy", "*").output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout);
    assert!(answer.contains("ping received"), "{line}: {answer}");

    let row = row_with(&browser, "my-agent", "is there", |_| true);
    assert_eq!((row.cpu.value.as_str(), row.memory.value.as_str()), ("12.5 %", "40.0 %"));
    assert_eq!((row.badge.as_str(), row.kind.as_str()), ("idle", "idle"));
    browser.until("the line is gone", &hooks::is_hidden(CURL));
    assert_eq!(browser.faults(), []);
}

/// A load, how it is written, and its level.
const LOADS: [(f64, &str, &str); 8] = [
    (0.0, "0.0 %", "ok"),
    (33.333, "33.3 %", "ok"),
    (69.9, "69.9 %", "ok"),
    (70.0, "70.0 %", "warm"),
    (89.9, "89.9 %", "warm"),
    (89.99, "89.9 %", "warm"),
    (90.0, "90.0 %", "hot"),
    (100.0, "100.0 %", "hot"),
];

#[test]
fn bars_have_the_width_the_words_and_the_colour_of_their_values() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    let mut conn = Conn::open(server.addr());
    for (index, (load, ..)) in LOADS.iter().enumerate() {
        let body = json!({ "status": "busy", "cpu_usage": load, "memory_usage": 100.0 - load });
        assert_eq!(conn.ping(&format!("agent-{index}"), &body).status, 200);
    }
    for dark in [false, true] {
        browser.dark(dark);
        let rows = LOADS.iter().enumerate().map(|(index, (load, value, level))| {
            let id = format!("agent-{index}");
            let row = row_with(&browser, &id, "is there", |row| row.cpu.value == *value);
            check(&row.cpu, "CPU", *load);
            check(&row.memory, "Memory", 100.0 - load);
            assert_eq!(row.cpu.level, *level, "{load}");
            row
        });
        for row in rows {
            let [red, green, blue] = rgb(&row.cpu.color);
            // Far apart also for who is not looking closely.
            let as_seen = match (red > green + 60, green > red + 60) {
                (true, _) if blue < red => "hot",
                (_, true) if blue < green => "ok",
                (false, false) if blue + 60 < red.min(green) => "warm",
                _ => "neither green nor yellow nor red",
            };
            assert_eq!(as_seen, row.cpu.level, "{} (dark: {dark})", row.cpu.color);
        }
    }
    assert_eq!(browser.faults(), []);
}

fn check(bar: &Bar, label: &str, load: f64) {
    assert_eq!(bar.label, label);
    assert_eq!(bar.words, bar.value);
    assert!((bar.now.parse::<f64>().unwrap() - load).abs() <= 0.1, "{bar:?} for {load}");
    assert!((bar.filled * 100.0 - load).abs() <= 1.0, "{bar:?} for {load}");
}

fn rgb(color: &str) -> [i32; 3] {
    let inside = color.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let parts = inside.unwrap_or_else(|| panic!("{color}")).split(", ");
    parts.map(|part| part.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn a_heartbeat_changes_the_row_that_is_there() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for agent in ["agent-1", "agent-2"] {
        assert_eq!(conn.ping(agent, &heartbeat(10.0)).status, 200);
    }
    let browser = Browser::open(&pool_url(server.addr()));
    row_with(&browser, "agent-1", "is there", |_| true);
    let tag = |part: &str| {
        let selector = format!("{}{part}", hooks::agent("agent-1"));
        browser.eval(&format!("document.querySelector({selector:?}).tag = 'kept'"));
    };
    let parts = ["", " .badge", " .cpu .meter", " .cpu .fill", " .cpu .value", " .who a"];
    parts.into_iter().for_each(tag);
    let body = json!({
        "status": "busy", "cpu_usage": 95.5, "memory_usage": 1.0,
        "running_tasks": [task(7, "build", "shop", "2025-01-07T10:30:00Z")],
    });
    assert_eq!(conn.ping("agent-1", &body).status, 200);
    let row = row_with(&browser, "agent-1", "is changed", |row| row.cpu.value == "95.5 %");
    assert_eq!((row.kind.as_str(), row.tasks.len()), ("busy", 1));
    for part in parts {
        let selector = format!("{}{part}", hooks::agent("agent-1"));
        let kept = browser.eval(&format!("document.querySelector({selector:?}).tag ?? null"));
        assert_eq!(kept, "kept", "another element at {selector}");
    }
    let other = row_with(&browser, "agent-2", "is there", |_| true);
    assert_eq!((other.cpu.value.as_str(), other.tag), ("10.0 %", Value::Null));
    assert_eq!(browser.faults(), []);
}

fn task(id: u64, kind: &str, workspace: &str, started_at: &str) -> Value {
    json!({
        "task_id": id, "task_type": kind, "workspace_id": workspace, "started_at": started_at
    })
}

/// A moment so long ago, in RFC 3339.
fn ago(time: Duration) -> String {
    let now = humantime::parse_rfc3339(&wall()).unwrap();
    humantime::format_rfc3339_millis(now - time).to_string()
}

#[test]
fn tasks_are_shown_with_their_ages_which_count_up() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let longest_id = u64::MAX;
    let tasks = json!([
        task(2, "deploy", "site", &ago(Duration::from_secs(5))),
        task(longest_id, "compile", "shop", &ago(Duration::from_secs(2 * 3600 + 10))),
        task(3, "odd", "yard", "yesterday"),
    ]);
    let body = json!({
        "status": "busy", "cpu_usage": 5, "memory_usage": 5, "running_tasks": tasks,
        "agent_name": "Builder One",
    });
    assert_eq!(conn.ping("agent", &body).status, 200);
    let browser = Browser::open(&pool_url(server.addr()));
    let compact = row_with(&browser, "agent", "is there", |row| row.tasks.len() == 1);
    assert_eq!((compact.tasks[0].kind.as_str(), compact.more.as_str()), ("compile", "+2"));
    hooks::roomy(&browser, true);
    let first = row_with(&browser, "agent", "has all tasks", |row| row.tasks.len() == 3);
    assert_eq!(first.more, "");
    assert_eq!((first.name.as_str(), first.id.as_str()), ("Builder One", "agent"));
    let shown: Vec<_> = first
        .tasks
        .iter()
        .map(|task| (task.kind.as_str(), task.id.as_str(), task.workspace.as_str(), task.longest))
        .collect();
    // Not rounded, though JavaScript's numbers would.
    let longest_shown = format!("#{longest_id}");
    let expected = [
        ("compile", longest_shown.as_str(), "shop", true),
        ("deploy", "#2", "site", false),
        ("odd", "#3", "yard", false),
    ];
    assert_eq!(shown, expected);
    assert!(first.tasks[0].age.starts_with("2h 0m"), "{:?}", first.tasks);
    assert_eq!(first.tasks[2].age, "", "of a start that is no time");
    let later =
        row_with(&browser, "agent", "grows older", |row| row.tasks[1].age != first.tasks[1].age);
    let seconds = |age: &str| age.strip_suffix('s').unwrap().parse::<u32>().unwrap();
    assert!(seconds(&later.tasks[1].age) > seconds(&first.tasks[1].age), "{later:?}");
    assert_eq!(browser.faults(), []);
}

/// Runners with a new id for each job: the page forgets them as the server does, or it would grow
/// for as long as it is open.
#[test]
fn only_the_last_fifty_departures_stay() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    let mut conn = Conn::open(server.addr());
    for job in 0..60 {
        let agent = format!("job-{job:02}");
        assert_eq!(conn.ping(&agent, &heartbeat(1.0)).status, 200);
        assert_eq!(conn.ping(&agent, &json!({ "status": "offline" })).status, 200);
    }
    let expected: Vec<_> = (10..60).map(|job| format!("job-{job:02}")).collect();
    let expected: Vec<_> = expected.iter().map(|agent| (agent.as_str(), true)).collect();
    wait_for_exactly(&browser, &expected);
}

#[test]
fn who_departs_stays_grey_with_reason_and_tasks_until_it_returns() {
    needs!(Chromium);
    let server = Launch::config(&Setup::open().toml()).arg("--evict-after").arg("2s").start();
    let mut conn = Conn::open(server.addr());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    let working = json!({
        "status": "busy", "cpu_usage": 5, "memory_usage": 5,
        "running_tasks": [task(41, "compile", "shop", "2025-01-07T10:30:00Z")],
    });
    for agent in ["polite", "silent"] {
        assert_eq!(conn.ping(agent, &working).status, 200);
    }
    row_with(&browser, "silent", "is there", |row| !row.is("departed"));
    assert_eq!(conn.ping("polite", &json!({ "status": "offline" })).status, 200);
    let polite = row_with(&browser, "polite", "departed", |row| row.is("departed"));
    let silent = eventually("the silent one is evicted", || {
        assert_eq!(conn.ping("steady", &heartbeat(1.0)).status, 200);
        hooks::row(&browser, "silent").filter(|row| row.is("departed"))
    });
    let steady = row_with(&browser, "steady", "is there", |row| !row.is("departed"));
    for row in [&polite, &silent] {
        assert_eq!((row.kind.as_str(), row.cpu.level.as_str()), ("lost", "none"));
        assert_eq!(row.tasks.len(), 1, "{row:?}");
        assert_eq!((row.tasks[0].kind.as_str(), row.tasks[0].id.as_str()), ("compile", "#41"));
        assert!(!row.reason.is_empty() && !row.none.is_empty(), "{row:?}");
        assert_ne!(row.color, steady.color, "not greyed");
    }
    assert_ne!(polite.reason, silent.reason);
    assert!(silent.is("lost") && polite.is("lost"), "each was lost with its task");
    assert!(silent.heard.starts_with("offline for "), "{silent:?}");
    browser.until("the title tells", "document.title.startsWith('2 ')");
    browser.shot("departed");

    // Whoever opens the page later still sees it, once the steady one is gone as well.
    assert_eq!(Request::delete("steady", KEY_A).send(server.addr()).status, 200);
    browser.reload();
    wait_for_exactly(&browser, &[("polite", true), ("silent", true), ("steady", true)]);
    for (id, before) in [("polite", &polite), ("silent", &silent)] {
        let after = row_with(&browser, id, "is drawn", |_| true);
        assert_eq!((&after.reason, after.tasks.len()), (&before.reason, 1), "{id}");
    }
    for agent in ["polite", "silent"] {
        assert_eq!(conn.ping(agent, &working).status, 200);
    }
    let back = row_with(&browser, "silent", "is back", |row| !row.is("departed"));
    assert_eq!((back.reason.as_str(), back.kind.as_str()), ("", "busy"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn who_is_late_by_its_own_rhythm_is_marked_long_before_it_is_offline() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    // Two quick ones, then nothing: the page holds nobody to less than two seconds.
    for _ in 0..3 {
        assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    }
    let in_time = row_with(&browser, "agent", "is in time", |row| !row.late && !row.is("overdue"));
    assert_eq!(in_time.heard, "", "a moment ago is not told");
    let late = row_with(&browser, "agent", "is late", |row| row.late && row.is("overdue"));
    assert!(!late.is("departed"));
    assert!(late.heard.starts_with("last heard "), "{late:?}");
    row_with(&browser, "agent", "grows older", |row| row.late && row.heard != late.heard);
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    row_with(&browser, "agent", "is in time again", |row| {
        !row.late && !row.is("overdue") && row.heard.is_empty()
    });
    assert_eq!(browser.faults(), []);
}
