//! The list of agents as a person arranges it: sorted, filtered, as a table or a grid; kept in the
//! address; by keyboard alone; in English and Chinese.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::hooks::{self, AGENTS, IS_LIVE, is_hidden, is_shown, pool_url, row_with};
use crate::support::http::heartbeat;
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup, eventually};

const SEARCH: &str = "#search";
const SORT: &str = "#sort";
const ORDER: &str = "#order";
const HIDE_OFFLINE: &str = "#offline";
const COUNT: &str = "#count";
const NOTHING: &str = "#nothing";
const CLEAR: &str = "#clear";

/// Four agents that every sort puts into another order, and one that departed.
fn start() -> (Server, Browser) {
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (id, status, cpu, memory, tasks) in [
        ("ant", "idle", 30.0, 20.0, 0),
        ("bee", "busy", 10.0, 40.0, 5),
        ("cat", "busy", 40.0, 10.0, 1),
        ("dog", "draining", 20.0, 30.0, 2),
        ("gone", "busy", 99.0, 99.0, 0),
    ] {
        let tasks: Vec<Value> = (0..tasks)
            .map(|task| {
                json!({
                    "task_id": task, "task_type": format!("chore-of-{id}"),
                    "workspace_id": "shop", "started_at": "2025-01-07T10:30:00Z",
                })
            })
            .collect();
        let body = json!({
            "status": status, "cpu_usage": cpu, "memory_usage": memory, "running_tasks": tasks,
        });
        assert_eq!(conn.ping(id, &body).status, 200);
    }
    assert_eq!(conn.ping("gone", &json!({ "status": "offline" })).status, 200);
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    browser.until("the toolbar is there", &is_shown("#toolbar"));
    wait_for(&browser, "ant bee cat dog", "gone");
    (server, browser)
}

/// Ids of the agents that can be seen, in the order in which they are read.
fn seen(browser: &Browser) -> Vec<String> {
    browser.get(&format!(
        "[...document.querySelectorAll({AGENTS:?})]
            .filter(row => row.checkVisibility())
            .map(row => [row.dataset.agent, row.getBoundingClientRect()])
            .sort(([, a], [, b]) => Math.abs(a.top - b.top) > 2 ? a.top - b.top : a.left - b.left)
            .map(([id]) => id)"
    ))
}

/// Waits until these live agents are seen, in this order, and these departed ones, anywhere.
fn wait_for(browser: &Browser, live: &str, departed: &str) {
    let expected: Vec<&str> = live.split_whitespace().collect();
    let gone: Vec<&str> = departed.split_whitespace().collect();
    eventually(&format!("{live}, and {departed}"), || {
        let (off, on): (Vec<_>, Vec<_>) = seen(browser).into_iter().partition(|id| id == "gone");
        (on == expected && off == gone).then_some(())
    });
}

fn header(key: &str) -> String {
    format!("[role=columnheader] button[data-sort={key}]")
}

/// The button that shows only agents in a state.
fn chip(state: &str) -> String {
    format!("#chips [data-state={state:?}]")
}

fn is_pressed(selector: &str) -> String {
    format!("document.querySelector({selector:?})?.ariaPressed === 'true'")
}

fn aria_sort(browser: &Browser, key: &str) -> Value {
    browser.eval(&format!(
        "document.querySelector({:?}).closest('[role=columnheader]').getAttribute('aria-sort')",
        header(key)
    ))
}

/// A parameter of the address, or null.
fn parameter(name: &str) -> String {
    format!("new URLSearchParams(location.search).get({name:?})")
}

/// Chooses in a `select`, as a person would have it done.
fn choose(browser: &Browser, selector: &str, value: &str) {
    browser.eval(&format!(
        "(select => {{ select.value = {value:?};
             select.dispatchEvent(new Event('input', {{ bubbles: true }}));
             select.dispatchEvent(new Event('change', {{ bubbles: true }})); }})
         (document.querySelector({selector:?}))"
    ));
    assert_eq!(browser.eval(&value_of(selector)), value, "no such choice");
}

fn value_of(selector: &str) -> String {
    format!("document.querySelector({selector:?}).value")
}

#[test]
fn agents_are_sorted_by_what_is_pressed_and_the_address_keeps_it() {
    needs!(Chromium);
    let (_server, browser) = start();
    assert_eq!(browser.eval("location.search"), "", "defaults are left out");
    assert_eq!(browser.eval(&value_of(SORT)), "trouble");
    for (key, order) in
        [("cpu", "cat ant dog bee"), ("memory", "bee dog ant cat"), ("tasks", "bee dog cat ant")]
    {
        browser.click(&header(key));
        wait_for(&browser, order, "gone");
        assert_eq!(browser.eval(&parameter("sort")), key);
        assert_eq!(browser.eval(&value_of(SORT)), key);
        assert_eq!(aria_sort(&browser, key), "descending");
        assert_eq!(aria_sort(&browser, "name"), aria_sort(&browser, "state"), "only one sorts");
        browser.reload();
        wait_for(&browser, order, "gone");

        // The other way round, by the same button.
        let address = browser.text("location.search");
        let backwards: Vec<&str> = order.split(' ').rev().collect();
        browser.click(&header(key));
        wait_for(&browser, &backwards.join(" "), "gone");
        assert_eq!(aria_sort(&browser, key), "ascending");
        assert_ne!(browser.text("location.search"), address);
        browser.reload();
        wait_for(&browser, &backwards.join(" "), "gone");
        assert_eq!(
            browser.text(&format!("document.querySelector('{ORDER}').dataset.order")),
            "asc"
        );
    }
    choose(&browser, SORT, "name");
    wait_for(&browser, "ant bee cat dog", "gone");
    browser.click(ORDER);
    wait_for(&browser, "dog cat bee ant", "gone");
    assert_eq!(browser.eval(&parameter("order")), "desc");
    for key in ["state", "heard"] {
        choose(&browser, SORT, key);
        browser.until("the address tells", &format!("{} === {key:?}", parameter("sort")));
    }
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_row_moves_when_its_figures_say_so() {
    needs!(Chromium);
    let (server, browser) = start();
    browser.click(&header("cpu"));
    wait_for(&browser, "cat ant dog bee", "gone");
    let bee = hooks::agent("bee");
    browser.eval(&format!("document.querySelector({bee:?}).tag = 'kept'"));
    assert_eq!(Conn::open(server.addr()).ping("bee", &heartbeat(95.0)).status, 200);
    wait_for(&browser, "bee cat ant dog", "gone");
    assert_eq!(row_with(&browser, "bee", "is drawn", |_| true).tag, "kept", "another element");
}

#[test]
fn agents_are_filtered_by_text_and_state_and_the_address_keeps_it() {
    needs!(Chromium);
    let (_server, browser) = start();
    browser.click(SEARCH);
    // Names, ids and tasks are searched, whatever the case.
    browser.type_text("CAT");
    wait_for(&browser, "cat", "");
    browser.until("the count says so", &format!("{}.startsWith('1 ')", hooks::text_of(COUNT)));
    assert_eq!(browser.eval(&parameter("q")), "CAT");
    browser.reload();
    wait_for(&browser, "cat", "");
    assert_eq!(browser.eval(&value_of(SEARCH)), "CAT");

    browser.until("states are offered", &is_shown(&chip("idle")));
    browser.click(&chip("idle"));
    browser.until("nothing is left", &is_shown(NOTHING));
    assert_eq!(seen(&browser), Vec::<String>::new());
    browser.click(CLEAR);
    wait_for(&browser, "ant bee cat dog", "gone");
    browser.until("it is gone", &is_hidden(NOTHING));
    assert_eq!(browser.eval("location.search"), "");
    assert_eq!(browser.eval(&value_of(SEARCH)), "");

    for (state, live, departed) in [
        ("busy", "bee cat", ""),
        ("idle", "ant", ""),
        ("draining", "dog", ""),
        ("offline", "", "gone"),
    ] {
        browser.until("states are offered", &is_shown(&chip(state)));
        browser.click(&chip(state));
        wait_for(&browser, live, departed);
        assert_eq!(browser.eval(&parameter("state")), state);
        browser.reload();
        wait_for(&browser, live, departed);
        browser.until("the choice is back", &is_pressed(&chip(state)));
    }
    browser.click(&chip("offline"));
    wait_for(&browser, "ant bee cat dog", "gone");
    assert_eq!(browser.eval("location.search"), "");
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_state_that_is_new_can_be_filtered_by() {
    needs!(Chromium);
    let (server, browser) = start();
    let says = |text: &str| {
        format!("document.querySelector({:?})?.textContent === {text:?}", chip("constructor"))
    };
    assert_eq!(browser.eval(&says("1 constructor")), false);
    let body = json!({ "status": "constructor", "cpu_usage": 1, "memory_usage": 1 });
    assert_eq!(Conn::open(server.addr()).ping("ant", &body).status, 200);
    browser.until("it is offered", &says("1 constructor"));
    browser.click(&chip("constructor"));
    wait_for(&browser, "ant", "");
    // It vanishes, and stays the choice.
    assert_eq!(Conn::open(server.addr()).ping("ant", &heartbeat(1.0)).status, 200);
    browser.until("nothing is left", &is_shown(NOTHING));
    browser.until("nobody is in it", &says("0 constructor"));
    assert_eq!(browser.eval(&is_pressed(&chip("constructor"))), true);
    assert_eq!(browser.faults(), []);
}

#[test]
fn what_was_typed_counts_though_another_control_was_faster() {
    needs!(Chromium);
    let (_server, browser) = start();
    browser.eval(&format!(
        "(search => {{ search.value = 'cat'; search.dispatchEvent(new Event('input'));
             document.querySelector({:?}).click(); }})(document.querySelector({SEARCH:?}))",
        header("cpu")
    ));
    wait_for(&browser, "cat", "");
    assert_eq!(browser.eval(&value_of(SEARCH)), "cat");
    assert_eq!(browser.eval(&parameter("q")), "cat");
    assert_eq!(browser.eval(&parameter("sort")), "cpu");
    assert_eq!(browser.faults(), []);
}

#[test]
fn who_is_offline_can_be_hidden_until_it_returns() {
    needs!(Chromium);
    let (server, browser) = start();
    browser.click(HIDE_OFFLINE);
    wait_for(&browser, "ant bee cat dog", "");
    assert_eq!(browser.eval(&parameter("offline")), "hide");
    browser.reload();
    wait_for(&browser, "ant bee cat dog", "");
    let leave = json!({ "status": "offline" });
    assert_eq!(Conn::open(server.addr()).ping("ant", &leave).status, 200);
    wait_for(&browser, "bee cat dog", "");
    assert_eq!(Conn::open(server.addr()).ping("ant", &heartbeat(1.0)).status, 200);
    wait_for(&browser, "ant bee cat dog", "");
    browser.click(HIDE_OFFLINE);
    wait_for(&browser, "ant bee cat dog", "gone");
    assert_eq!(browser.eval("location.search"), "");
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_grid_shows_the_same_agents_and_the_address_keeps_it() {
    needs!(Chromium);
    let (_server, browser) = start();
    let is = |view: &str| {
        format!(
            "document.querySelector('.agents').dataset.view === '{view}'
             && document.querySelector('#view-{view}').ariaPressed === 'true'
             && document.querySelectorAll('#view [aria-pressed=true]').length === 1"
        )
    };
    browser.until("it is a table", &is("table"));
    browser.click("#view-grid");
    browser.until("it is a grid", &is("grid"));
    wait_for(&browser, "ant bee cat dog", "gone");
    assert_eq!(browser.eval(&parameter("view")), "grid");
    browser.shot("grid");
    browser.reload();
    browser.until("it is a grid still", &is("grid"));
    let row = row_with(&browser, "cat", "is drawn", |_| true);
    assert_eq!(row.cpu.value, "40.0 %");
    browser.click("#view-table");
    browser.until("it is a table again", &is("table"));
    assert_eq!(browser.eval("location.search"), "");
    assert_eq!(browser.faults(), []);
}

#[test]
fn an_address_opens_the_view_that_it_describes() {
    needs!(Chromium);
    let (server, browser) = start();
    let query = "q=chore&state=busy&sort=tasks&order=asc&offline=hide&view=grid";
    browser.go(&format!("{}?{query}", pool_url(server.addr())));
    wait_for(&browser, "cat bee", "");
    // What nobody could have chosen is left aside.
    let odd = "q=&state=&sort=__proto__&order=up&offline=1&view=cube&other=1";
    browser.go(&format!("{}?{odd}", pool_url(server.addr())));
    wait_for(&browser, "ant bee cat dog", "gone");
    assert_eq!(browser.faults(), []);
}

#[test]
fn all_of_it_is_reached_by_keyboard() {
    needs!(Chromium);
    let (_server, browser) = start();
    let stops = [SEARCH, HIDE_OFFLINE, SORT, ORDER, "#view-table", "#view-wall", "#density"];
    let stops = [chip("busy")].into_iter().chain(stops.map(str::to_owned));
    let more = format!("{} .tasks .more", hooks::agent("bee"));
    let stops = stops.chain([header("name"), header("tasks"), more.clone()]);
    for stop in stops {
        tab_to(&browser, &stop);
    }
    for link in [".who a", ".tasks .more"] {
        let path = format!(
            "document.querySelector('{} {link}').pathname",
            hooks::agent("bee").replace('\'', "")
        );
        assert_eq!(browser.eval(&path), "/pools/pool-a/agents/bee");
    }

    browser.eval("document.activeElement.blur(), scrollTo(0, 0)");
    tab_to(&browser, &header("cpu"));
    browser.press("Enter");
    wait_for(&browser, "cat ant dog bee", "gone");
    assert_eq!(
        browser.eval(&format!("document.activeElement.matches({:?})", header("cpu"))),
        true,
        "the focus was lost"
    );

    // Where no table header is, its buttons can be seen for as long as they have the focus.
    for (view, width) in [("grid", 1280), ("table", 800)] {
        browser.click(&format!("#view-{view}"));
        browser.size(width, 800);
        browser.until("the header is out of sight", &format!("!{HEADER_SHOWS}"));
        tab_to(&browser, &header("name"));
        tab_to(&browser, &more);
        browser.until("the header is out of sight again", &format!("!{HEADER_SHOWS}"));
    }
    assert_eq!(browser.faults(), []);
}

const HEADER_SHOWS: &str =
    "(getComputedStyle(document.querySelector('.agents .head')).clipPath === 'none')";

/// Presses Tab until `selector` has the focus, which must be seen there.
fn tab_to(browser: &Browser, selector: &str) {
    let mut passed = Vec::new();
    for _ in 0..40 {
        browser.press("Tab");
        if browser.eval(&format!("document.activeElement.matches({selector:?})")) == true {
            let outline = "(style => style.outlineStyle !== 'none' || style.boxShadow !== 'none')
                (getComputedStyle(document.activeElement))";
            assert_eq!(browser.eval(outline), true, "{selector} shows no focus");
            let on_top = "(({ left, top, width, height }) => document.activeElement.contains(
                document.elementFromPoint(left + width / 2, top + height / 2)))
                (document.activeElement.getBoundingClientRect())";
            assert_eq!(browser.eval(on_top), true, "{selector} has the focus unseen");
            return;
        }
        passed.push(browser.text("document.activeElement.outerHTML.slice(0, 60)"));
    }
    panic!("no Tab leads to {selector}: {passed:#?}");
}

#[test]
fn the_page_speaks_the_languages_of_its_readers() {
    needs!(Chromium);
    let (server, browser) = start();
    assert_eq!(browser.eval("document.documentElement.lang"), "en");
    let english = words(&browser);
    for (languages, lang) in
        [("zh-CN,zh,en", "zh-CN"), ("zh", "zh-CN"), ("de,fr", "en"), ("en,zh-CN", "en")]
    {
        browser.languages(languages);
        browser.go(&pool_url(server.addr()));
        browser.until("the page is live", IS_LIVE);
        wait_for(&browser, "ant bee cat dog", "gone");
        assert_eq!(browser.eval("document.documentElement.lang"), lang, "{languages}");
        let words = words(&browser);
        if lang == "en" {
            assert_eq!(words, english, "{languages}");
        } else {
            browser.shot("chinese");
            for word in words.iter().filter(|word| !["CPU", "Agent"].contains(&word.as_str())) {
                let has_han = word.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
                assert!(has_han, "{word} in {languages}");
            }
        }
    }
    assert_eq!(browser.faults(), []);
}

/// Words of the page's own, here and there.
fn words(browser: &Browser) -> Vec<String> {
    let gone = format!("{} .reason", hooks::agent("gone"));
    browser.get(&format!(
        "['#connection-text', '#toolbar label', '#view-grid', {gone:?},
          '[role=columnheader] button'].flatMap(selector =>
              [...document.querySelectorAll(selector)].map(
                  element => [...element.childNodes].filter(node => node.nodeName !== 'SELECT')
                      .map(node => node.textContent).join('').trim()))
             .filter(text => text !== '')"
    ))
}

#[test]
fn a_chart_follows_the_heartbeats_and_grows_with_time() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    says(server.addr(), 10.0);
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    let line = |line: &str| {
        let selector = format!("{} .chart svg {line}", hooks::agent("agent"));
        browser.text(&format!("document.querySelector({selector:?})?.getAttribute('d') ?? ''"))
    };
    // A height is the percentage down from the top. The load before was perhaps of another step.
    says(server.addr(), 40.0);
    eventually("both lines are where the loads are", || {
        (line(".line.cpu").contains(" 60.0") && line(".line.memory").contains(" 40.0"))
            .then_some(())
    });
    eventually("the next step has its point", || {
        says(server.addr(), 70.0);
        (line(".line.cpu").contains(" 30.0") && line(".line.cpu").contains('L')).then_some(())
    });
    browser.shot("chart");
    assert_eq!(browser.faults(), []);
}

fn says(addr: SocketAddr, load: f64) {
    let body = json!({ "status": "busy", "cpu_usage": load, "memory_usage": 100.0 - load });
    assert_eq!(Conn::open(addr).ping("agent", &body).status, 200);
}
