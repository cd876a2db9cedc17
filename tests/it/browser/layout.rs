//! The page fits its window, from a telephone to a wall.

use serde_json::{Value, json};

use super::hooks::{AGENTS, CARD, IS_LIVE, pool_url};
use crate::support::flood::heavy;
use crate::support::setup::{KEY_A, KEY_B};
use crate::support::tools::needs;
use crate::support::wait::wall;
use crate::support::{Browser, Conn, Server, Setup};

/// Width and height of a telephone, a laptop and a wall.
pub(super) const PEOPLES_WIDTHS: [(u32, u32); 3] = [(360, 740), (1280, 800), (3840, 2160)];

/// What sticks out of the window at its sides. What scrolls by itself may, and so may what is
/// there for screen readers only.
const STICKING_OUT: &str = r"(() => {
    const width = document.documentElement.clientWidth;
    const found = [];
    if (document.documentElement.scrollWidth > width) found.push(`the document: ${
        document.documentElement.scrollWidth} of ${width}`);
    const look = element => {
        const style = getComputedStyle(element);
        if (!element.checkVisibility() || style.clipPath !== 'none') return;
        const box = element.getBoundingClientRect();
        if (box.width > 0 && box.height > 0 && (box.left < -0.5 || box.right > width + 0.5)) {
            found.push(`${element.outerHTML.slice(0, 120)}: ${box.left} to ${box.right} of ${width}`);
        }
        if (style.overflowX === 'auto' || style.overflowX === 'scroll') return;
        for (const child of element.children) look(child);
    };
    look(document.body);
    return found;
})()";

/// Nothing sticks out, wherever the page is scrolled to.
pub(super) fn assert_fits(browser: &Browser, what: &str) {
    for place in ["0", "document.documentElement.scrollHeight / 2", "1e9", "0"] {
        // What comes into sight is drawn with the next frame.
        browser.eval(&format!(
            "scrollTo(0, {place}), new Promise(done =>
                 requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"
        ));
        assert_eq!(browser.eval(STICKING_OUT), json!([]), "{what}, scrolled to {place}");
    }
}

/// 40 agents with up to six tasks each, in two pools.
pub(super) fn crowd(server: &Server) {
    let mut conn = Conn::open(server.addr());
    for index in 0..40_u32 {
        let tasks: Vec<Value> = (0..index % 7).map(|task| task_of(index, task)).collect();
        let load = f64::from(index * 37 % 101);
        let body = json!({
            "status": if tasks.is_empty() { "idle" } else { "busy" },
            "cpu_usage": load, "memory_usage": 100.0 - load, "running_tasks": tasks,
            "agent_name": format!("Builder {index} of the eastern hall"),
        });
        assert_eq!(conn.ping(&format!("builder-{index:02}"), &body).status, 200);
    }
    for gone in ["builder-05", "builder-06"] {
        assert_eq!(conn.ping_as(gone, KEY_A, &json!({ "status": "offline" })).status, 200);
    }
    let body = json!({ "status": "draining", "cpu_usage": 5, "memory_usage": 5 });
    assert_eq!(conn.ping_as("other", KEY_B, &body).status, 200);
}

fn task_of(agent: u32, task: u32) -> Value {
    let kinds = ["compile", "integration-tests", "deploy", "a-task-of-a-long-name-without-a-break"];
    json!({
        "task_id": u64::from(agent) * 1_000_000_007 + u64::from(task),
        "task_type": kinds[(task % 4) as usize],
        "workspace_id": "workspace/of-some-length",
        "started_at": wall(),
    })
}

#[test]
fn forty_agents_fit_a_telephone_and_a_wall() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    crowd(&server);
    let browser = Browser::start();
    let pages = [
        ("pools", format!("http://{}/", server.addr()), format!("'{CARD}').length === 2")),
        ("pool", pool_url(server.addr()), format!("'{AGENTS}').length === 40")),
    ];
    for (width, height) in PEOPLES_WIDTHS {
        browser.size(width, height);
        for (name, url, there) in &pages {
            browser.go(url);
            browser.until("all is there", &format!("document.querySelectorAll({there}"));
            browser.until("the page is live", IS_LIVE);
            for dark in [false, true] {
                browser.dark(dark);
                assert_fits(&browser, &format!("{name} at {width}"));
                let scheme = if dark { "dark" } else { "light" };
                browser.shot(&format!("{name}-{width}-{scheme}"));
            }
            more_tasks(&browser);
            assert_fits(&browser, &format!("{name} at {width} with all tasks"));
        }
    }
    assert_eq!(browser.faults(), []);
}

/// Presses every "more tasks" in sight.
fn more_tasks(browser: &Browser) {
    browser.eval("document.querySelectorAll('.more:not([hidden])').forEach(more => more.click())");
}
