//! The controls above the agents: states that filter, a telephone's fold, keys, what is announced,
//! density; and the commands of an empty pool.

use serde_json::json;

use super::hooks::{self, AGENTS, CURL, IS_LIVE, is_hidden, is_shown, pool_url};
use super::layout::crowd;
use crate::support::http::heartbeat;
use crate::support::setup::{KEY_A, TOKEN_A};
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup};

fn start() -> (Server, Browser) {
    let server = Server::start(&Setup::open().toml());
    crowd(&server);
    let browser = Browser::start();
    browser.size(1440, 900);
    browser.go(&pool_url(server.addr()));
    browser.until("the page is live", IS_LIVE);
    browser.until("the agents are there", &is_shown(AGENTS));
    (server, browser)
}

fn first_top(browser: &Browser) -> f64 {
    browser.get(&format!("document.querySelector({AGENTS:?}).getBoundingClientRect().top"))
}

#[test]
fn states_are_counted_the_worst_first_and_each_filters() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for (id, status) in [
        ("a", "idle"),
        ("b", "busy"),
        ("c", "busy"),
        ("d", "maintenance"),
        ("e", "warming-up"),
        ("f", "unhealthy"),
        ("g", "idle"),
    ] {
        let body = json!({ "status": status, "cpu_usage": 1, "memory_usage": 95 });
        assert_eq!(conn.ping(id, &body).status, 200);
    }
    assert_eq!(conn.ping("g", &json!({ "status": "offline" })).status, 200);
    let browser = Browser::open(&pool_url(server.addr()));
    let chips = "[...document.querySelectorAll('#chips button')]";
    let expected = json!([
        "1 unhealthy",
        "6 at 90 % memory or disk",
        "1 maintenance",
        "1 warming-up",
        "2 busy",
        "1 idle",
        "1 offline"
    ]);
    browser.until("all states are counted", &format!("{chips}.length === 7"));
    assert_eq!(browser.eval(&format!("{chips}.map(chip => chip.textContent)")), expected);
    let pressed = format!(
        "{chips}.filter(chip => chip.ariaPressed === 'true').map(chip => chip.dataset.state)"
    );
    let rows = format!("document.querySelectorAll('{AGENTS}').length");
    for (state, left) in [("busy", 2), ("high", 6), ("offline", 1), ("unhealthy", 1)] {
        browser.click(&format!("#chips [data-state={state}]"));
        browser.until(state, &format!("{rows} === {left}"));
        assert_eq!(browser.eval(&pressed), json!([state]));
        assert_eq!(browser.eval("new URLSearchParams(location.search).get('state')"), state);
    }
    browser.click("#chips [data-state=unhealthy]");
    browser.until("all are back", &format!("{rows} === 7"));
    assert_eq!(browser.eval(&pressed), json!([]));
    // A count changes in place: the button that has the focus keeps it.
    browser.eval("document.querySelector('#chips [data-state=busy]').focus(), 0");
    let busy = json!({ "status": "busy", "cpu_usage": 1, "memory_usage": 1 });
    assert_eq!(conn.ping("a", &busy).status, 200);
    let focused = "document.activeElement.textContent";
    browser.until("it counts on", &format!("{focused} === '3 busy'"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn agents_are_in_sight_under_little_and_on_a_telephone_the_controls_are_folded() {
    needs!(Chromium);
    let (_server, browser) = start();
    assert!(first_top(&browser) <= 220.0, "{}", first_top(&browser));
    assert_eq!(browser.eval(&is_shown("#fold")), false);
    browser.size(360, 740);
    browser.until("it is folded", &is_hidden("#search"));
    assert!(first_top(&browser) <= 300.0, "{}", first_top(&browser));
    let expanded = "document.querySelector('#fold').ariaExpanded";
    assert_eq!(browser.eval(expanded), "false");
    browser.click("#fold");
    for control in
        ["#search", "#sort", "#order", "#offline", "#view-grid", "#view-wall", "#density"]
    {
        browser.until(control, &is_shown(control));
    }
    assert_eq!(browser.eval(expanded), "true");
    browser.size(320, 600);
    let outside = "[...document.querySelectorAll('.top *, #about > *, #tools *')].filter(
        element => element.getBoundingClientRect().right > document.documentElement.clientWidth)
        .map(element => element.outerHTML)";
    assert_eq!(browser.eval(outside), json!([]));
    let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.eval(wide), 0);
    browser.shot("unfolded");
    browser.size(360, 740);
    browser.eval("scrollTo(0, 0), 0");
    browser.click("#fold");
    browser.until("it is folded again", &is_hidden("#search"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn the_wall_is_reached_from_the_address_without_a_pool_too() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    assert_eq!(Conn::open(server.addr()).ping("agent", &heartbeat(1.0)).status, 200);
    // A viewer of one pool has it there.
    let browser = Browser::open(&format!("http://{}/?token={TOKEN_A}", server.addr()));
    browser.until("the link is there", &is_shown("#view-wall"));
    browser.click("#view-wall");
    browser.until("the wall is there", &is_shown(".wall-panel"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_slash_leads_to_the_filter_and_what_it_leaves_is_announced() {
    needs!(Chromium);
    let (_server, browser) = start();
    let announced = hooks::text_of("#results");
    assert_eq!(browser.text(&announced), "");
    browser.size(360, 740);
    browser.press("/");
    browser.until("it is unfolded", &is_shown("#search"));
    assert_eq!(browser.eval("document.activeElement.id"), "search");
    browser.type_text("builder 7 of");
    browser.until("it is told", &format!("{announced} === '1 of 40 shown'"));
    browser.until("it is seen", &format!("{} === '1 of 40 shown'", hooks::text_of("#count")));
    // In a field a slash is a slash.
    browser.press("/");
    browser.until("none is left", &format!("{announced} === '0 of 40 shown'"));
    assert_eq!(browser.eval("document.querySelector('#search').value"), "builder 7 of/");
    browser.press("Escape");
    browser.until("all are told", &format!("{announced} === 'All 40 shown'"));
    assert_eq!(browser.eval("document.querySelector('#search').value"), "");
    assert_eq!(browser.text(&hooks::text_of("#count")), "");

    // The button that clears the filters goes with them; the focus stays near.
    browser.type_text("no such agent");
    browser.until("nothing is left", &is_shown("#nothing"));
    browser.click("#clear");
    browser.until("all are back", &is_hidden("#nothing"));
    assert_eq!(browser.eval("document.activeElement.id"), "search");
    assert_eq!(browser.faults(), []);
}

#[test]
fn density_is_a_choice_that_is_remembered() {
    needs!(Chromium);
    let (_server, browser) = start();
    let is = |roomy: bool| {
        let name = if roomy { "roomy" } else { "compact" };
        format!(
            "document.querySelector('#density').ariaPressed === '{roomy}'
             && document.querySelector('.agents').dataset.density === '{name}'"
        )
    };
    browser.until("it is compact", &is(false));
    browser.click("#density");
    browser.until("it is roomy", &is(true));
    browser.reload();
    browser.until("it is roomy still", &is(true));
    browser.until("the agents are there", &is_shown(AGENTS));
    browser.click("#density");
    browser.until("it is compact again", &is(false));
    browser.reload();
    browser.until("it is compact still", &is(false));
    assert_eq!(browser.faults(), []);
}

#[test]
fn an_empty_pools_commands_are_copied_with_its_key() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.before_scripts(
        "Object.defineProperty(navigator, 'clipboard', { value: {
             writeText: async text => { window.copied = text; } } })",
    );
    browser.go(&pool_url(server.addr()));
    browser.until("the line is there", &is_shown(CURL));
    let line = browser.text(&hooks::text_of(CURL));
    assert!(line.contains(&format!("X-App-Key: {}", KEY_A.key)), "{line}");
    assert!(line.contains("X-App-Secret: SECRET"), "{line}");
    browser.click(".command button");
    browser.until("it is copied", "window.copied");
    assert_eq!(browser.text("copied"), line);
    let told = hooks::text_of(".command [role=status]");
    browser.until("it says so", &format!("{told} === 'Copied'"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn where_the_clipboard_is_closed_a_command_is_selected() {
    needs!(Chromium);
    let server = Server::start(&Setup::guarded().toml());
    let browser = Browser::start();
    // As on plain http from another machine.
    browser.before_scripts("Object.defineProperty(navigator, 'clipboard', { value: undefined })");
    // A viewer of one pool is not told its keys.
    browser.go(&format!("{}?token={TOKEN_A}", pool_url(server.addr())));
    browser.until("the line is there", &is_shown(CURL));
    browser.click(".command button");
    let told = hooks::text_of(".command [role=status]");
    browser.until("it says what to press", &format!("{told} === 'Selected: press Ctrl+C'"));
    let line = browser.text(&hooks::text_of(CURL));
    assert!(line.contains("X-App-Key: KEY"), "{line}");
    assert_eq!(browser.text("getSelection().toString()"), line);
    assert_eq!(browser.faults(), []);
}
