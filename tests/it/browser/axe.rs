//! What axe-core, a checker of accessibility, finds on each of the page's faces.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::hooks::{AGENTS, CARD, CURL, IS_LIVE, LOGIN, RESTARTED, STALE, is_shown, pool_url};
use super::layout::crowd;
use crate::support::flood::heavy;
use crate::support::setup::{KEY_B, TOKEN_A};
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Launch, Server, Setup};

/// Agents of which a wall of any size shows a heat map.
const TOO_MANY_FOR_TILES: usize = 1_000;

/// Every serious fault, with where it is.
const RUN: &str = r"axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
    violations
        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, impact, help, nodes }) => ({
            id, impact, help,
            nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => [html, failureSummary]),
        })))";

fn axe() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/test-tools/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("the npm package axe-core, run `make test-tools`: {error}"))
}

/// Checks the page as it is, by day and by night, on a laptop and on a telephone.
fn assert_accessible(browser: &Browser, axe: &str, what: &str) {
    browser.eval(&format!("{axe}; 0"));
    for (width, height) in [(1280, 800), (360, 740)] {
        browser.size(width, height);
        for dark in [false, true] {
            browser.dark(dark);
            assert_eq!(browser.eval(RUN), json!([]), "{what} at {width}, dark: {dark}");
        }
    }
    browser.size(1280, 800);
    browser.dark(false);
}

#[test]
fn no_serious_fault_of_accessibility() {
    needs!(Chromium, Package("axe-core"));
    let _alone = heavy();
    let axe = axe();
    let browser = Browser::start();
    let mut open = Server::start(&Setup::open().toml());
    let look = |url: &str, there: &str, what: &str| {
        browser.go(url);
        browser.until(what, there);
        assert_accessible(&browser, &axe, what);
    };
    look(&pool_url(open.addr()), &is_shown(CURL), "an empty pool");
    crowd(&open);
    let agents = format!("document.querySelectorAll('{AGENTS}').length === 40 && {IS_LIVE}");
    look(&pool_url(open.addr()), &agents, "a crowded pool");
    let wall = format!("{}?view=wall", pool_url(open.addr()));
    let tiles = format!("document.querySelectorAll('.tile').length > 30 && {IS_LIVE}");
    look(&wall, &tiles, "a pool on a wall");
    let panels = format!("document.querySelectorAll('.wall-panel .tile').length > 30 && {IS_LIVE}");
    look(&format!("http://{}/wall", open.addr()), &panels, "all pools on a wall");
    let mut conn = Conn::open(open.addr());
    let body = json!({ "status": "idle", "cpu_usage": 5, "memory_usage": 5 });
    for index in 0..TOO_MANY_FOR_TILES {
        assert_eq!(conn.ping_as(&format!("agent-{index}"), KEY_B, &body).status, 200);
    }
    let heat = format!("{} && {IS_LIVE}", is_shown(".wall-panel canvas"));
    let wall = format!("http://{}/wall?pools=pool-b", open.addr());
    look(&wall, &heat, "a wall's heat map");
    let cards = format!("document.querySelectorAll('{CARD}').length === 2 && {IS_LIVE}");
    look(&format!("http://{}/", open.addr()), &cards, "all pools");

    let of_an_agent = |id: &str| format!("{}/agents/{id}", pool_url(open.addr()));
    let has_line = "document.querySelector('.load-chart .line')?.getAttribute('d')";
    look(&of_an_agent("builder-20"), has_line, "an agent with tasks");
    look(&of_an_agent("builder-05"), &is_shown("#agent"), "an agent that is lost");
    look(&of_an_agent("nobody"), &is_shown("#unknown"), "an agent that nobody knows");
    look(&format!("http://{}/no/such/path", open.addr()), &is_shown(".message"), "no page");

    browser.go(&pool_url(open.addr()));
    browser.until("a crowded pool", &agents);
    open.signal(Signal::KILL);
    open.wait();
    browser.until("the page waits", &is_shown(STALE));
    assert_accessible(&browser, &axe, "a pool whose server is away");
    let addr = open.addr().to_string();
    let _back = Launch::config(&Setup::open().toml()).listen(Some(&addr)).start();
    browser.eval("document.querySelector('#retry').click()");
    browser.until("the page knows of the restart", &is_shown(RESTARTED));
    assert_accessible(&browser, &axe, "a pool whose server restarted");

    let guarded = Server::start(&Setup::guarded().toml());
    look(&format!("http://{}/", guarded.addr()), &is_shown(LOGIN), "the login");
    look(&format!("http://{}/login", guarded.addr()), &is_shown(LOGIN), "the login's own page");
    let missing = format!("http://{}/pools/no-such-pool?token={TOKEN_A}", guarded.addr());
    look(&missing, &is_shown("#message"), "a pool that is not there");
    assert_eq!(browser.faults_of_its_own(), []);
}

/// The checker itself: a fault that is there is found.
#[test]
fn a_serious_fault_would_be_found() {
    needs!(Chromium, Package("axe-core"));
    let browser = Browser::open("data:text/html,<html lang=en><title>x</title><button></button>");
    browser.eval(&format!("{}; 0", axe()));
    let found: Vec<Value> = browser.get(RUN);
    assert!(found.iter().any(|fault| fault["id"] == "button-name"), "{found:?}");
}
