//! An agent's own page: all of its tasks, a quarter of an hour of loads, and the truth about where it is.

use serde_json::{Value, json};

use super::connection::{LONGEST_WAIT, STILL_CLOCKS, assert_grey, kill, start_at};
use super::hooks::{IS_LIVE, IS_WAITING, RESTARTED, agent, is_hidden, is_shown, pool_url, text_of};
use super::layout::{PEOPLES_WIDTHS, assert_fits};
use crate::support::http::heartbeat;
use crate::support::tools::needs;
use crate::support::wait::{ago, wall};
use crate::support::{Browser, Conn, Server, Setup};

/// The agent's name, its state, and what is said beside it.
const NAME: &str = ".agent-name";
const BADGE: &str = "#agent .badge";
const ABOUT: &str = ".about-state";
/// Each task's type, id, and whether it has an age.
const TASKS: &str = "[...document.querySelectorAll('.agent-tasks li')].map(item => [
    item.querySelector('.type').textContent,
    item.querySelector('.task-id').textContent,
    item.querySelector('.age').textContent !== '',
])";
/// The chart's two lines, as path data.
const LINES: &str = "[...document.querySelectorAll('.load-chart .line')].map(
    line => line.getAttribute('d') ?? '')";

/// Counts the page's ticks.
const TICKING: &str = "window.ticks = 0;
    const every = setInterval;
    window.setInterval = (tick, ms) => every(() => (tick(), ticks += 1), ms);";

/// Puts the page's clocks forward, and waits until it has seen that.
fn moves_on(browser: &Browser, ms: u32) {
    let ticks: u64 = browser.get(&format!("window.skew += {ms}, ticks"));
    browser.until("it ticks", &format!("{IS_LIVE} && ticks > {}", ticks + 1));
}

fn agent_url(server: &Server, id: &str) -> String {
    format!("{}/agents/{id}", pool_url(server.addr()))
}

fn task(id: u64, kind: &str, started_at: &str) -> Value {
    json!({ "task_id": id, "task_type": kind, "workspace_id": "shop", "started_at": started_at })
}

fn says(selector: &str, words: &str) -> String {
    format!("{}.includes({words:?})", text_of(selector))
}

#[test]
fn an_agent_has_a_page_with_all_it_does() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let tasks: Vec<Value> =
        (1..=6).map(|n| task(n, "build", &ago(n * 60))).chain([task(7, "odd", "soon")]).collect();
    let body = json!({
        "status": "busy", "agent_name": "Builder one", "cpu_usage": 37.5, "memory_usage": 64,
        "running_tasks": tasks,
    });
    assert_eq!(conn.ping("builder-1", &body).status, 200);

    let browser = Browser::open(&agent_url(&server, "builder-1"));
    browser.until("its page is there", &says(NAME, "Builder one"));
    browser.until("the page is live", IS_LIVE);
    let title = "document.title === 'Builder one · Pool A · agent-metrics'";
    browser.until("it has its title", title);
    assert_eq!(
        browser
            .eval("[...document.querySelectorAll('nav a, #crumbs > *')].map(e => e.textContent)"),
        json!(["agent-metrics", "Pool A", "Builder one"]),
    );
    assert_eq!(browser.text(&text_of(BADGE)), "busy");
    // The longest first, those without a readable start last; all of them.
    let expected: Vec<Value> = [6, 5, 4, 3, 2, 1]
        .map(|n| json!(["build", format!("#{n}"), true]))
        .into_iter()
        .chain([json!(["odd", "#7", false])])
        .collect();
    assert_eq!(browser.eval(TASKS), json!(expected));
    assert_eq!(browser.text(&text_of("#agent .cpu .value")), "37.5 %");
    assert_eq!(browser.text(&text_of("#agent .memory .value")), "64.0 %");
    browser.until("the chart has its lines", &format!("{LINES}.every(line => line !== '')"));
    browser.until("the id is told", &says(".facts", "builder-1"));
    for (width, height) in PEOPLES_WIDTHS.into_iter().chain([(320, 640)]) {
        browser.size(width, height);
        browser.shot(&format!("agent-{width}"));
        assert_fits(&browser, &format!("an agent's page at {width}"));
    }

    // It goes on: another heartbeat, and its departure with what it held.
    let error = json!({
        "status": "error", "agent_name": "Builder one", "cpu_usage": 1, "memory_usage": 2,
        "running_tasks": [task(6, "build", &wall())],
    });
    assert_eq!(conn.ping("builder-1", &error).status, 200);
    browser.until("it is in error", &says(BADGE, "error"));
    browser.until("the title says so", "document.title.startsWith('error · Builder one')");
    assert_eq!(browser.eval(TASKS), json!([["build", "#6", true]]));
    assert_eq!(conn.ping("builder-1", &json!({ "status": "offline" })).status, 200);
    browser.until("it is lost", &says(BADGE, "lost"));
    browser.until("how is said", &says(ABOUT, "said goodbye"));
    browser.until("what it held is said", &says(".agent-tasks h2", "Was running 1 task"));
    browser.until("its loads are not said", &is_hidden(".agent-loads"));
    // A tab that is not looked at tells by its title.
    let cover = browser.cover();
    browser.until("the page is covered", "document.hidden");
    assert_eq!(conn.ping("builder-1", &error).status, 200);
    browser.until("the title tells", "document.title.startsWith('error · Builder one')");
    drop(cover);
    assert_eq!(browser.faults(), []);
}

/// Who opens the page later sees what was before: the server remembers, not the page.
#[test]
fn the_chart_shows_what_was_before_the_page_was_opened() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(80.0)).status, 200);
    // From here on nothing of it can be in the feed's figures.
    assert_eq!(conn.ping("agent", &json!({ "status": "offline" })).status, 200);
    let browser = Browser::open(&agent_url(&server, "agent"));
    browser.until("a point of the server's", &format!("{LINES}.every(line => line !== '')"));
    let label = "document.querySelector('.load-chart svg').ariaLabel";
    browser
        .until("the chart is told in words", &format!("{label}.includes('CPU 80.0 % to 80.0 %')"));
    // What is pointed at is read out beside it.
    let point = "(plot => {
        const { left, top, width, height } = plot.getBoundingClientRect();
        plot.dispatchEvent(new PointerEvent('pointermove', {
            clientX: left + width, clientY: top + height / 2,
        }));
        return document.querySelector('.load-chart .cpu-value').textContent;
    })(document.querySelector('.plot'))";
    assert_eq!(browser.text(point), "80.0 %");
    assert_eq!(browser.eval(&is_shown(".plot .pointer")), true);
    assert_eq!(browser.faults(), []);
}

/// What is known of an agent that a restarted server has not heard is of before, and is so for an hour.
#[test]
fn after_a_restart_an_agent_is_shown_as_it_was_last_known() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let body = json!({
        "status": "busy", "cpu_usage": 10, "memory_usage": 10,
        "running_tasks": [task(1, "build", &wall()), task(2, "test", &wall())],
    });
    assert_eq!(Conn::open(server.addr()).ping("agent", &body).status, 200);
    let browser = Browser::start();
    browser.before_scripts(&format!("{STILL_CLOCKS} {TICKING}"));
    browser.go(&agent_url(&server, "agent"));
    browser.until("its tasks", &says(".agent-tasks h2", "2 running tasks"));
    assert_eq!(browser.eval(&is_shown(".agent-loads")), true);
    let addr = kill(server);
    browser.until("the page waits", IS_WAITING);
    assert_grey(&browser, ".agent-page");
    let _back = start_at(addr);
    browser.until_within(LONGEST_WAIT, "the page is live again", IS_LIVE);
    browser.until("it is said", &says(ABOUT, "not heard since the server restarted"));
    browser.until("its tasks are of before", &says(".agent-tasks h2", "Was running 2 tasks"));
    assert_eq!(browser.eval(&is_hidden(".agent-loads")), true);
    // The notice stays as long as the agent: both can be dismissed.
    moves_on(&browser, 3_600_000);
    let missing = says(RESTARTED, "1 agent has not been heard");
    let both =
        format!("{IS_LIVE} && {missing} && {} && {}", is_shown(RESTARTED), is_shown("#agent"));
    browser.until("it is still missing", &both);
    moves_on(&browser, 1);
    browser.until("the agent is forgotten", &is_shown("#unknown"));
    browser.until("the notice is gone", &format!("{IS_LIVE} && {}", is_hidden(RESTARTED)));
    assert_eq!(browser.faults_of_its_own(), []);
}

/// Counts the questions for a history, which are answered as `window.answer` says.
const COUNTED: &str = "window.asked = 0;
    const send = fetch;
    window.fetch = (url, ...more) => {
        if (!String(url).includes('/history')) return send(url, ...more);
        asked += 1;
        return new Promise(resolve => window.answer = status => resolve(new Response('{}', { status })));
    };";

/// A history that is slow is waited for, and a server that keeps none is not asked for ever.
#[test]
fn the_history_is_asked_for_once_at_a_time_and_only_where_there_is_one() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    assert_eq!(Conn::open(server.addr()).ping("agent", &heartbeat(1.0)).status, 200);
    let browser = Browser::start();
    browser.before_scripts(&format!("{STILL_CLOCKS} {TICKING} {COUNTED}"));
    browser.go(&agent_url(&server, "agent"));
    browser.until("the agent is shown", &is_shown("#agent"));
    moves_on(&browser, 11_000);
    assert_eq!(browser.eval("asked"), 1, "it did not wait for its answer");
    browser.eval("answer(503)");
    moves_on(&browser, 11_000);
    assert_eq!(browser.eval("asked"), 2, "a failure ended it");
    browser.eval("answer(404)");
    moves_on(&browser, 11_000);
    moves_on(&browser, 11_000);
    assert_eq!(browser.eval("asked"), 2, "it asks where there is no history");
}

#[test]
fn an_agent_that_nobody_knows_is_said_to_be_unknown() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&agent_url(&server, "nobody"));
    browser.until("it says so", &is_shown("#unknown"));
    assert!(browser.text(&text_of("#unknown")).contains("“nobody”"));
    assert_eq!(browser.eval(&is_shown("#agent")), false);
    browser.shot("agent-unknown");
    // It comes, and the page is there.
    assert_eq!(Conn::open(server.addr()).ping("nobody", &heartbeat(1.0)).status, 200);
    browser.until("the agent is shown", &is_shown("#agent"));
    browser.until("it is known", &is_hidden("#unknown"));
    // The way back leads to its pool.
    browser.click("#crumbs a");
    browser.until("its row is there", &format!("document.querySelector({:?})", agent("nobody")));
    assert_eq!(browser.text("location.pathname"), "/pools/pool-a");
    assert_eq!(browser.faults(), []);
}
