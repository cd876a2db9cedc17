//! A page that is left open all day: it says when it is not connected, comes back by itself, and
//! then shows exactly what is so.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::hooks::{
    self, IS_LIVE, IS_WAITING, RESTARTED, STALE, is_hidden, is_shown, pool_url, row_with,
    wait_for_exactly,
};
use super::layout::{PEOPLES_WIDTHS, assert_fits};
use super::window::OLD_HISTORY;
use crate::support::http::heartbeat;
use crate::support::tools::needs;
use crate::support::wait::{Deadline, now, wall};
use crate::support::{Browser, Conn, Launch, Proxy, Server, Setup};

/// The longest that a page may take to see that nothing arrives any more, and a little.
const SILENCE_LIMIT: Duration = Duration::from_secs(45 + 10);
/// The longest that a page may wait before it tries again, and a little.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30 + 10);

/// Something that makes a page look whether its server is back.
type Wake = fn(&Browser);

pub(super) fn start_at(addr: SocketAddr) -> Server {
    Launch::config(&Setup::open().toml()).listen(Some(&addr.to_string())).start()
}

pub(super) fn kill(mut server: Server) -> SocketAddr {
    server.signal(Signal::KILL);
    server.wait();
    server.addr()
}

fn says(addr: SocketAddr, agent: &str, cpu: f64) {
    assert_eq!(Conn::open(addr).ping(agent, &heartbeat(cpu)).status, 200);
}

fn leaves(addr: SocketAddr, agent: &str) {
    assert_eq!(Conn::open(addr).ping(agent, &json!({ "status": "offline" })).status, 200);
}

/// What is shown of another time has hardly any colour.
pub(super) fn assert_grey(browser: &Browser, selector: &str) {
    let filter = format!("getComputedStyle(document.querySelector({selector:?})).filter");
    assert_eq!(browser.text(&filter), "grayscale(0.85)", "{selector}");
}

/// The page says that what it shows is not live.
fn assert_says_so(browser: &Browser) {
    browser.until("it says that it is stale", &is_shown(STALE));
    browser.until("the title says so", "document.title.startsWith('Disconnected')");
    assert_ne!(browser.text(&hooks::text_of(STALE)), "");
}

#[test]
fn a_server_that_was_killed_and_came_back_is_shown_as_it_is_now() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let working = json!({
        "status": "busy", "cpu_usage": 10, "memory_usage": 10,
        "running_tasks": [{
            "task_id": 41, "task_type": "plan", "workspace_id": "shop", "started_at": wall(),
        }],
    });
    assert_eq!(Conn::open(server.addr()).ping("before", &working).status, 200);
    says(server.addr(), "both", 10.0);
    says(server.addr(), "gone", 10.0);
    leaves(server.addr(), "gone");
    let browser = Browser::open(&pool_url(server.addr()));
    wait_for_exactly(&browser, &[("before", false), ("both", false), ("gone", true)]);
    browser.until("the page is live", IS_LIVE);
    let live_icon = browser.text("document.querySelector('#icon').href");
    browser.eval("window.sameDocument = true");

    let addr = kill(server);
    browser.until("the page waits", IS_WAITING);
    assert_says_so(&browser);
    for part in [".agents", ".fleet-map", ".about"] {
        assert_grey(&browser, part);
    }
    browser.shot("disconnected");
    assert_ne!(browser.text("document.querySelector('#icon').href"), live_icon);
    let retry = "(button => (button.focus(), button.click(), document.activeElement.id))(
        document.querySelector('#retry'))";
    assert_eq!(browser.eval(retry), "main", "the focus was lost");
    browser.until("the page waits again", IS_WAITING);
    // What was known stays to be seen.
    wait_for_exactly(&browser, &[("before", false), ("both", false), ("gone", true)]);

    let server = start_at(addr);
    says(server.addr(), "both", 20.0);
    says(server.addr(), "after", 20.0);
    browser.until_within(LONGEST_WAIT, "the page is live again", IS_LIVE);
    // What the new server has not heard is kept, and is told apart from what left.
    let expected = [("after", false), ("before", true), ("both", false), ("gone", true)];
    wait_for_exactly(&browser, &expected);
    row_with(&browser, "both", "is new", |row| row.cpu.value == "20.0 %");
    let before = row_with(&browser, "before", "is not heard", |row| row.kind == "unheard");
    assert!(before.reason.starts_with("since the restart at "), "{before:?}");
    assert!(before.heard.starts_with("last heard "), "{before:?}");
    assert_eq!((before.tasks.len(), before.tasks[0].id.as_str()), (1, "#41"), "{before:?}");
    assert_eq!(row_with(&browser, "gone", "is drawn", |_| true).kind, "offline");
    let notice = |words: &str| {
        let says = format!("{}.includes({words:?})", hooks::text_of(RESTARTED));
        browser.until(words, &format!("{} && {says}", is_shown(RESTARTED)));
    };
    notice("1 agent has not been heard since");
    for (width, height) in PEOPLES_WIDTHS {
        browser.size(width, height);
        browser.shot(&format!("restarted-{width}"));
        assert_fits(&browser, &format!("after a restart at {width}"));
    }
    browser.dark(true);
    browser.shot("restarted-dark");
    browser.dark(false);
    browser.size(1280, 800);
    browser.until("it is stale no longer", &is_hidden(STALE));
    browser.until("the title is as before", "!document.title.startsWith('Disconnected')");

    assert_eq!(Conn::open(addr).ping("before", &working).status, 200);
    row_with(&browser, "before", "is back", |row| row.kind == "busy" && !row.is("departed"));
    notice("Every agent that was live before has been heard again");
    browser.click(&format!("{RESTARTED} button"));
    browser.until("the notice is gone", &is_hidden(RESTARTED));
    assert_eq!(browser.eval("document.activeElement.id"), "main", "the focus was lost");
    wait_for_exactly(&browser, &[("after", false), ("before", false), ("both", false)]);
    assert_eq!(browser.eval("window.sameDocument"), true, "the page was loaded anew");
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn charts_in_sight_are_asked_for_again_after_a_reconnect() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    says(server.addr(), "agent", 10.0);
    let browser = Browser::start();
    browser.before_scripts(OLD_HISTORY);
    browser.go(&pool_url(server.addr()));
    browser.until("its history is asked for", "asked.length === 1");
    let addr = kill(server);
    browser.until("the page waits", IS_WAITING);
    let server = start_at(addr);
    says(server.addr(), "agent", 20.0);
    browser.until_within(LONGEST_WAIT, "it is asked for again", "asked.length === 2");
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn a_network_cut_without_a_word_is_noticed_and_its_healing_too() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let proxy = Proxy::to(server.addr());
    for agent in ["leaves", "stays"] {
        says(server.addr(), agent, 10.0);
    }
    let browser = Browser::open(&pool_url(proxy.addr()));
    browser.until("the page is live", IS_LIVE);
    wait_for_exactly(&browser, &[("leaves", false), ("stays", false)]);

    proxy.cut();
    leaves(server.addr(), "leaves");
    says(server.addr(), "stays", 20.0);
    says(server.addr(), "comes", 20.0);
    browser.until_within(SILENCE_LIMIT, "the page waits", IS_WAITING);
    assert_says_so(&browser);
    wait_for_exactly(&browser, &[("leaves", false), ("stays", false)]);

    proxy.heal();
    browser.until_within(LONGEST_WAIT, "the page is live again", IS_LIVE);
    wait_for_exactly(&browser, &[("comes", false), ("leaves", true), ("stays", false)]);
    row_with(&browser, "stays", "is new", |row| row.cpu.value == "20.0 %");
    browser.until("it is stale no longer", &is_hidden(STALE));
    assert_eq!(browser.eval(&is_shown(RESTARTED)), false, "the server did not restart");
    assert_eq!(browser.faults_of_its_own(), []);
}

/// The page's clocks stand still, and are moved on by `window.skew` milliseconds.
pub(super) const STILL_CLOCKS: &str = "window.skew = 0;
    for (const clock of [performance, Date]) {
        const start = clock.now();
        clock.now = () => start + skew;
    }";

#[test]
fn a_server_that_is_silent_makes_no_agent_late_and_the_page_not_live() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.before_scripts(STILL_CLOCKS);
    browser.go(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    // A rhythm of at most two seconds: late after seven.
    let started_at = wall();
    for cpu in [10.0, 20.0, 30.0] {
        let body = json!({
            "status": "busy", "cpu_usage": cpu, "memory_usage": 10,
            "running_tasks": [{
                "task_id": 1, "task_type": "plan", "workspace_id": "shop", "started_at": started_at,
            }],
        });
        assert_eq!(Conn::open(server.addr()).ping("agent", &body).status, 200);
    }
    row_with(&browser, "agent", "is in time", |row| row.cpu.value == "30.0 %" && !row.late);
    let assert_nobody_late = || {
        let row = hooks::row(&browser, "agent").unwrap();
        assert!(!row.late && !row.is("overdue"), "{row:?}");
        assert_eq!(browser.eval("sentence.dataset.tone"), "calm", "the pool is in trouble");
    };

    server.signal(Signal::STOP);
    browser.eval("window.skew = 9_000");
    let is_old = |row: &hooks::Row| {
        let age = row.tasks[0].age.strip_suffix('s').and_then(|age| age.parse().ok());
        age.is_some_and(|age: u64| age >= 9)
    };
    row_with(&browser, "agent", "is old", is_old);
    assert_eq!(browser.eval(IS_LIVE), true);
    assert_nobody_late();
    browser.eval("window.skew = 12_000, document.dispatchEvent(new Event('visibilitychange'))");
    browser.until("the page is not live", "connection.dataset.state === 'silent'");
    browser.until("it says so", &is_shown(STALE));
    browser.until("the title says so", "document.title.startsWith('Not live')");
    assert_nobody_late();
    browser.shot("silent");

    browser.eval("window.skew = 0");
    server.signal(Signal::CONT);
    says(server.addr(), "agent", 40.0);
    row_with(&browser, "agent", "is new", |row| row.cpu.value == "40.0 %");
    browser.until("the page is live again", IS_LIVE);
    browser.until("it is stale no longer", &is_hidden(STALE));
    assert_eq!(browser.faults(), []);
}

#[test]
fn the_notice_of_a_restart_goes_by_itself_once_all_are_back() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    says(server.addr(), "agent", 10.0);
    let browser = Browser::start();
    browser.before_scripts(STILL_CLOCKS);
    browser.go(&pool_url(server.addr()));
    wait_for_exactly(&browser, &[("agent", false)]);
    let addr = kill(server);
    browser.until("the page waits", IS_WAITING);
    let _back = start_at(addr);
    browser.until_within(LONGEST_WAIT, "the page is live again", IS_LIVE);
    browser.until("it tells of the restart", &is_shown(RESTARTED));
    let moves_on = |ms: u32| browser.eval(&format!("window.skew += {ms}"));
    // Who is missing is looked for longer, but not for ever.
    moves_on(60_000);
    let incomplete = format!("{}.includes('not been heard')", hooks::text_of(RESTARTED));
    browser
        .until("one is missing", &format!("{IS_LIVE} && {} && {incomplete}", is_shown(RESTARTED)));
    says(addr, "agent", 20.0);
    let complete = format!("{}.includes('heard again')", hooks::text_of(RESTARTED));
    browser.until("all are back", &format!("{IS_LIVE} && {} && {complete}", is_shown(RESTARTED)));
    moves_on(21_000);
    browser.until("the notice is gone", &format!("{IS_LIVE} && {}", is_hidden(RESTARTED)));
    wait_for_exactly(&browser, &[("agent", false)]);
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn a_page_that_was_frozen_shows_the_truth_when_it_goes_on() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    for agent in ["leaves", "returns", "stays"] {
        says(server.addr(), agent, 10.0);
    }
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    wait_for_exactly(&browser, &[("leaves", false), ("returns", false), ("stays", false)]);
    browser.eval("window.sameDocument = true");

    let cover = browser.cover();
    browser.freeze(true);
    for agent in ["leaves", "returns"] {
        leaves(server.addr(), agent);
    }
    says(server.addr(), "returns", 20.0);
    says(server.addr(), "stays", 20.0);
    says(server.addr(), "comes", 20.0);
    // Time enough for a page that is not frozen.
    let still = Deadline::after(Duration::from_secs(2));
    while still.left().is_some() {
        assert!(!hooks::agents(&browser).contains_key("comes"), "it was not frozen");
    }

    browser.freeze(false);
    drop(cover);
    let expected = [("comes", false), ("leaves", true), ("returns", false), ("stays", false)];
    wait_for_exactly(&browser, &expected);
    for agent in ["stays", "returns"] {
        row_with(&browser, agent, "is new", |row| row.cpu.value == "20.0 %");
    }
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.eval("window.sameDocument"), true, "the page was loaded anew");
    assert_eq!(browser.faults_of_its_own(), []);
}

#[test]
fn a_page_that_waits_tries_at_once_when_network_or_tab_come_back() {
    needs!(Chromium);
    let mut server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    let wakes: [(&str, Wake); 2] = [
        ("the network is back", |browser| {
            browser.offline(true);
            browser.offline(false);
        }),
        ("the tab is back", |browser| {
            let cover = browser.cover();
            browser.until("the page is covered", "document.hidden");
            drop(cover);
        }),
    ];
    for (what, wake) in wakes {
        browser.until_within(LONGEST_WAIT, "the page is live", IS_LIVE);
        let addr = kill(server);
        // The waits double; only in a long one does it show that the page did not wait for its end.
        let enough = Duration::from_secs(8);
        let left = format!(
            "{IS_WAITING} && (left => left >= {} ? left : 0)(
                 parseInt(document.querySelector('#connection-text').textContent.match(/\\d+/)))",
            enough.as_secs()
        );
        browser.until_within(LONGEST_WAIT, "a long wait", &left);
        let waits = now();
        server = start_at(addr);
        says(addr, "agent", 10.0);
        assert_eq!(browser.eval(IS_WAITING), true, "the wait was too short for this machine");
        wake(&browser);
        browser.until(what, IS_LIVE);
        assert!(waits.elapsed() < enough, "{what}, and the page waited to the end");
        wait_for_exactly(&browser, &[("agent", false)]);
    }
    assert_eq!(browser.faults_of_its_own(), []);
}
