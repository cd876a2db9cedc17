//! All pools on one page: over one connection, those that need someone first.

use serde_json::{Value, json};

use super::hooks::{CARD, IS_LIVE, is_hidden, is_shown, text_of};
use super::layout::assert_fits;
use crate::support::http::heartbeat;
use crate::support::setup::KEY_B;
use crate::support::tools::needs;
use crate::support::wait::wall;
use crate::support::{Browser, Conn, Server, Setup};

/// Ids of the pools whose cards can be seen, in their order.
const SHOWN: &str = "[...document.querySelectorAll('.card[data-pool]')]
    .filter(card => !card.hidden).map(card => card.dataset.pool)";

fn overview(server: &Server) -> Browser {
    let browser = Browser::open(&format!("http://{}/", server.addr()));
    browser.until("the page is live", IS_LIVE);
    browser
}

fn card(pool: &str) -> String {
    format!(".card[data-pool={pool:?}]")
}

/// True when the card of `pool` has this tone and says this.
fn says(pool: &str, tone: &str, words: &str) -> String {
    let card = card(pool);
    format!(
        "document.querySelector({card:?}).dataset.tone === {tone:?} && {} === {words:?}",
        text_of(&format!("{card} .sentence"))
    )
}

#[test]
fn two_hundred_pools_come_over_one_connection() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().more_pools(198).toml());
    let browser = overview(&server);
    browser.until("all are there", &format!("document.querySelectorAll('{CARD}').length === 200"));
    let sockets: Vec<String> =
        browser.requests().into_iter().filter(|url| url.starts_with("ws:")).collect();
    assert_eq!(sockets, [format!("ws://{}/ws/agent-pools", server.addr())]);
    // In the configuration's order, and live.
    let first: Vec<String> = browser.get(&format!("{SHOWN}.slice(0, 3)"));
    assert_eq!(first, ["pool-a", "pool-b", "more-000"]);
    let mut conn = Conn::open(server.addr());
    assert_eq!(conn.ping("agent", &heartbeat(37.5)).status, 200);
    browser.until("the agent is counted", &says("pool-a", "calm", "The one agent is well"));
    let cpu = text_of(&format!("{} .cpu .value", card("pool-a")));
    browser.until("its load is shown", &format!("{cpu} === '37.5 %'"));

    // The filter is in the address.
    browser.press("/");
    browser.type_text("more 19");
    browser.until("the rest is hidden", &format!("{SHOWN}.length === 8"));
    assert!(browser.text(&text_of("#count")).starts_with("8 of 200"));
    browser.reload();
    browser.until("the filter stays", &format!("{SHOWN}.length === 8"));
    browser.click("#search");
    browser.until("the filter has the focus", "document.activeElement.id === 'search'");
    browser.type_text(" no such");
    let typed = "document.querySelector('#search').value.includes(' no such')";
    browser.until("what was typed is there", typed);
    browser.until("nothing is left", &is_shown("#nothing"));
    browser.click("#clear");
    browser.until("all are back", &format!("{SHOWN}.length === 200"));
    browser.until("nothing is missing", &is_hidden("#nothing"));
    assert_eq!(browser.text("document.activeElement.id"), "search");
    assert_eq!(browser.faults(), []);
}

/// A card is red only for what needs someone, and then it comes first.
#[test]
fn pools_that_need_someone_come_first() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let browser = overview(&server);
    let mut conn = Conn::open(server.addr());
    let mut beat = |status: &str, cpu: f64, memory: f64, tasks: &Value| {
        let body = json!({
            "status": status, "cpu_usage": cpu, "memory_usage": memory, "running_tasks": tasks,
        });
        assert_eq!(conn.ping_as("b", KEY_B, &body).status, 200);
    };
    let none = json!([]);
    let order =
        |ids: [&str; 2]| format!("JSON.stringify({SHOWN}) === {:?}", json!(ids).to_string());

    // A machine that works as hard as it can is having a good day.
    beat("busy", 100.0, 50.0, &none);
    browser.until("it is well", &says("pool-b", "calm", "The one agent is well"));
    beat("maintenance", 1.0, 1.0, &none);
    browser.until("it is paused", &says("pool-b", "calm", "1 paused"));
    browser.until("none comes first", &order(["pool-a", "pool-b"]));
    browser.until("the title is calm", "document.title === 'agent-metrics'");
    for (status, memory) in [("error", 1.0), ("busy", 95.0)] {
        beat(status, 1.0, memory, &none);
        browser.until("someone is needed", &says("pool-b", "trouble", "1 needs attention"));
        browser.until("it comes first", &order(["pool-b", "pool-a"]));
        browser
            .until("the title says so", "document.title === '1 needs attention · agent-metrics'");
        beat("idle", 1.0, 1.0, &none);
        browser.until("it is well again", &says("pool-b", "calm", "The one agent is well"));
        browser.until("the order is as before", &order(["pool-a", "pool-b"]));
    }

    // A tab that is not looked at tells by its title.
    let cover = browser.cover();
    browser.until("the page is covered", "document.hidden");
    beat("error", 1.0, 1.0, &none);
    browser.until("the title tells", "document.title === '1 needs attention · agent-metrics'");
    drop(cover);
    beat("idle", 1.0, 1.0, &none);
    browser.until("it is well again", &says("pool-b", "calm", "The one agent is well"));

    // A goodbye with running tasks lost them, until someone has seen it.
    let task = json!([{
        "task_id": 1, "task_type": "plan", "workspace_id": "shop", "started_at": wall(),
    }]);
    beat("busy", 1.0, 1.0, &task);
    beat("offline", 1.0, 1.0, &task);
    browser.until("it is lost", &says("pool-b", "trouble", "1 needs attention, 1 task lost"));
    assert_eq!(
        browser.text(&text_of("#headline")),
        "1 agent needs attention in 1 pool, 1 task was lost"
    );
    for width in [320, 1280] {
        browser.size(width, 800);
        browser.shot(&format!("overview-{width}"));
        assert_fits(&browser, &format!("the overview at {width}"));
    }
    // In another tab: only there does the mark come as an event.
    browser.eval(
        "fetch('/api/v1/agent-pools/pool-b/metrics').then(answer => answer.json()).then(({ departed }) => {
             const frame = document.body.appendChild(document.createElement('iframe'));
             frame.contentWindow.localStorage.setItem('agent-metrics-seen',
                 JSON.stringify(departed.map(({ agent_id, at }) => `${at} pool-b ${agent_id}`)));
             frame.remove();
         })",
    );
    browser.until(
        "it is calm",
        &format!("document.querySelector({:?}).dataset.tone !== 'trouble'", card("pool-b")),
    );
    assert_eq!(browser.faults(), []);
}
