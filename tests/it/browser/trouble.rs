//! Trouble first: the sentence on top, what it names, losses until they are seen, and the order.

use serde_json::{Value, json};

use super::hooks::{self, AGENTS, IS_LIVE, is_hidden, is_shown, pool_url};
use crate::support::http::heartbeat;
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup, eventually};

const HEADLINE: &str = "#sentence .headline";
const SEEN: &str = "#sentence .seen";

fn says(text: &str) -> String {
    format!("document.querySelector({HEADLINE:?})?.textContent === {text:?}")
}

/// A heartbeat with so many tasks.
fn working(status: &str, memory: f64, tasks: u64) -> Value {
    let task = |id| {
        json!({
            "task_id": id, "task_type": "build", "workspace_id": "web",
            "started_at": "2025-01-07T10:30:00Z",
        })
    };
    let tasks: Vec<Value> = (0..tasks).map(task).collect();
    json!({ "status": status, "cpu_usage": 100, "memory_usage": memory, "running_tasks": tasks })
}

/// `a-calm` and `d-calm` are well, `b-full` and `c-error` are not, `e-lost` left with two tasks and
/// `f-done` with none.
fn start() -> (Server, Conn, Browser) {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (id, status, memory, tasks) in [
        ("a-calm", "busy", 10.0, 1),
        ("b-full", "idle", 90.0, 0),
        ("c-error", "failed", 10.0, 0),
        ("d-calm", "idle", 89.9, 0),
        ("e-lost", "busy", 10.0, 2),
        ("f-done", "idle", 10.0, 0),
    ] {
        assert_eq!(conn.ping(id, &working(status, memory, tasks)).status, 200);
    }
    for id in ["e-lost", "f-done"] {
        assert_eq!(conn.ping(id, &json!({ "status": "offline" })).status, 200);
    }
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    (server, conn, browser)
}

fn wait_for_order(browser: &Browser, expected: &[&str]) {
    eventually(&format!("{expected:?}"), || {
        let seen: Vec<String> = browser.get(&format!(
            "[...document.querySelectorAll({AGENTS:?})].filter(row => row.checkVisibility())
                .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
                .map(row => row.dataset.agent)"
        ));
        (seen == expected).then_some(())
    });
}

/// The names in the sentence, each with what it is said to be, and where it leads.
fn named(browser: &Browser) -> Vec<(String, String)> {
    browser.get(
        "[...document.querySelectorAll('#sentence .named li')].map(
             item => [[...item.children].map(part => part.textContent).join(' '), item.querySelector('a').getAttribute('href')])",
    )
}

#[test]
fn the_sentence_says_who_needs_attention_and_the_list_begins_with_them() {
    needs!(Chromium);
    let (_server, mut conn, browser) = start();
    browser.until("it is said", &says("3 need attention, 2 tasks were lost"));
    let at = |id: &str| format!("/pools/pool-a/agents/{id}");
    let expected = [
        ("e-lost lost with 2 tasks".to_owned(), at("e-lost")),
        ("c-error failed".to_owned(), at("c-error")),
        ("b-full memory 90.0 %".to_owned(), at("b-full")),
    ];
    assert_eq!(named(&browser), expected);
    wait_for_order(&browser, &["e-lost", "c-error", "b-full", "a-calm", "d-calm", "f-done"]);
    browser.until("the title says so", "document.title.startsWith('3 need attention')");
    browser.shot("trouble");

    // A fourth is counted, not named, and all four are one press away.
    assert_eq!(conn.ping("d-calm", &working("idle", 95.0, 0)).status, 200);
    browser.until("it is counted", &says("4 need attention, 2 tasks were lost"));
    browser.until(
        "all are offered",
        &format!("{} === 'show all 4'", hooks::text_of(".sentence .rest")),
    );
    browser.click(".sentence .rest");
    wait_for_order(&browser, &["e-lost", "c-error", "b-full", "d-calm"]);
    browser.eval("history.replaceState(null, '', location.pathname), 0");
    browser.reload();

    // Once nothing is wrong it is calm, whatever the CPU.
    for id in ["b-full", "c-error", "d-calm", "e-lost"] {
        assert_eq!(conn.ping(id, &working("busy", 10.0, 1)).status, 200);
    }
    browser.until("all is well", &says("All 5 well"));
    assert_eq!(browser.eval("sentence.dataset.tone"), "calm");
    assert_eq!(named(&browser), []);
    let quiet = "#sentence .goodbyes";
    assert_eq!(browser.text(&hooks::text_of(quiet)), "1 said goodbye");
    assert_eq!(browser.eval(&is_shown(quiet)), true);
    browser.until("nothing to mark", &is_hidden(SEEN));
    wait_for_order(&browser, &["a-calm", "b-full", "c-error", "d-calm", "e-lost", "f-done"]);
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_loss_is_red_until_someone_has_seen_it_in_any_tab() {
    needs!(Chromium);
    let (server, mut conn, browser) = start();
    browser.until("it can be marked", &is_shown(SEEN));
    browser.click(SEEN);
    browser.until("it is calm", &says("2 need attention"));
    browser.until("nothing to mark", &is_hidden(SEEN));
    assert_eq!(browser.eval(&format!("document.activeElement.matches({HEADLINE:?})")), true);
    wait_for_order(&browser, &["c-error", "b-full", "a-calm", "d-calm", "e-lost", "f-done"]);
    browser.reload();
    browser.until("it stays so", &says("2 need attention"));
    wait_for_order(&browser, &["c-error", "b-full", "a-calm", "d-calm", "e-lost", "f-done"]);

    // Another loss of the same agent is news; here another tab marks it.
    let lost_again = says("3 need attention, 1 task was lost");
    eventually("it is lost again", || {
        assert_eq!(conn.ping("e-lost", &working("busy", 10.0, 1)).status, 200);
        assert_eq!(conn.ping("e-lost", &json!({ "status": "offline" })).status, 200);
        browser.eval(&lost_again).as_bool().filter(|&is_told| is_told)
    });
    let idle = "#chips [data-state=idle]";
    browser.eval(&format!("document.querySelector({idle:?}).focus(), 0"));
    let other = browser.cover();
    other.go(&pool_url(server.addr()));
    let button = format!("document.querySelector({SEEN:?})");
    other.until("the other tab has it too", &format!("{button}?.hidden === false"));
    other.until("it is pressed", &format!("{button}.click(), true"));
    browser.until("this tab knows", &says("2 need attention"));
    // What is calm stands further back: buttons that move keep the focus.
    let order = "[...document.querySelectorAll('#chips button')].map(chip => chip.dataset.state)";
    let calm = json!(["failed", "high", "busy", "idle", "lost", "offline"]);
    assert_eq!(browser.eval(order), calm);
    assert_eq!(browser.eval(&format!("document.activeElement.matches({idle:?})")), true);
    assert_eq!(browser.faults(), []);
}

#[test]
fn an_agents_own_words_are_not_the_pages() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for status in ["late", "lost", "unheard"] {
        assert_eq!(conn.ping(status, &working(status, 10.0, 0)).status, 200);
    }
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("nothing is wrong", &says("All 3 well"));
    let chips = "[...document.querySelectorAll('#chips button')].map(
        chip => [chip.textContent, chip.dataset.kind])";
    let expected = json!([["1 “late”", "other"], ["1 “lost”", "other"], ["1 “unheard”", "other"]]);
    assert_eq!(browser.eval(chips), expected);
    browser.click("#chips [data-state='own.late']");
    wait_for_order(&browser, &["late"]);
    browser.go(&format!("{}?state=late", pool_url(server.addr())));
    browser.until("nobody is late", &is_shown("#nothing"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_pool_whose_agents_all_left_says_so() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("nothing yet", &says("Nothing reported yet"));
    assert_eq!(conn.ping("agent", &heartbeat(1.0)).status, 200);
    browser.until("one", &says("The one agent is well"));
    assert_eq!(conn.ping("agent", &json!({ "status": "offline" })).status, 200);
    browser.until("none", &says("No agent reports any more"));
    assert_eq!(browser.eval("sentence.dataset.tone"), "vacant");
    assert_eq!(browser.faults(), []);
}

#[test]
fn the_map_holds_who_is_there_and_losses_until_they_are_seen() {
    needs!(Chromium);
    let (_server, mut conn, browser) = start();
    let cells = "[...document.querySelectorAll('#map [data-agent]')].map(
        cell => `${cell.dataset.agent} ${cell.dataset.kind} ${cell.getAttribute('href')}`)";
    let expect = |what: &str, expected: &[(&str, &str)]| {
        let expected: Vec<String> = expected
            .iter()
            .map(|(id, kind)| format!("{id} {kind} /pools/pool-a/agents/{id}"))
            .collect();
        eventually(what, || (browser.get::<Vec<String>>(cells) == expected).then_some(()));
    };
    let live = [("a-calm", "busy"), ("b-full", "idle"), ("c-error", "error"), ("d-calm", "idle")];
    expect(
        "all that need someone, and all that live",
        &[&live[..], &[("e-lost", "lost")]].concat(),
    );
    browser.click(SEEN);
    expect("without what was seen", &live);
    assert_eq!(conn.ping("aa-new", &heartbeat(1.0)).status, 200);
    let [first, rest @ ..] = live;
    expect("with who is new", &[&[first, ("aa-new", "idle")][..], &rest[..]].concat());
    assert_eq!(conn.ping("aa-new", &working("paused", 1.0, 0)).status, 200);
    expect("as it is now", &[&[first, ("aa-new", "paused")][..], &rest[..]].concat());
    assert_eq!(conn.ping("aa-new", &json!({ "status": "offline" })).status, 200);
    expect("without who left", &live);
    assert_eq!(browser.faults(), []);
}
