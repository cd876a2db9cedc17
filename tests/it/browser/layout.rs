//! The page fits its window, from a telephone to a wall.

use serde_json::{Value, json};

use super::hooks::{AGENTS, CARD, IS_LIVE, has_agents, is_shown, pool_url, roomy};
use crate::support::flood::heavy;
use crate::support::setup::{KEY_A, KEY_B};
use crate::support::tools::needs;
use crate::support::wait::wall;
use crate::support::{Browser, Conn, Server, Setup};

/// Width and height of a telephone, a laptop and a wall.
pub(super) const PEOPLES_WIDTHS: [(u32, u32); 3] = [(360, 740), (1280, 800), (3840, 2160)];

/// What sticks out of the window at its sides. What scrolls by itself may, and so may what is cut with
/// an ellipsis, and what is there for screen readers only.
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
            found.push(`${element.outerHTML.slice(0, 120).toWellFormed()}: ${box.left} to ${box.right} of ${width}`);
        }
        if (style.overflowX === 'auto' || style.overflowX === 'scroll') return;
        if (style.overflowX === 'hidden' && style.textOverflow === 'ellipsis') return;
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
            if *name == "pool" {
                roomy(&browser, true);
                assert_fits(&browser, &format!("{name} at {width}, roomy"));
                browser.shot(&format!("{name}-{width}-roomy"));
                roomy(&browser, false);
            }
        }
    }
    assert_eq!(browser.faults(), []);
}

/// What breaks a row: another height than the others', a line that is wrapped, something cut below or
/// beside, a hole before an age.
const BROKEN_ROWS: &str = r"(() => {
    const found = [];
    const rows = [...document.querySelectorAll('.agent')].filter(row => row.querySelector('.badge'));
    const heights = new Set(rows.map(row => row.getBoundingClientRect().height));
    if (heights.size !== 1) found.push(`heights ${[...heights]} of ${rows.length} rows`);
    for (const row of rows) {
        const of = row.getBoundingClientRect();
        const line = 2 * parseFloat(getComputedStyle(row).fontSize);
        for (const part of row.querySelectorAll('.name, .badge, .heard, .value, .reason, .none, .what, .age, .more')) {
            const { top, bottom, left, right, width, height } = part.getBoundingClientRect();
            if (width === 0) continue;
            const what = `${row.dataset.agent} ${part.className} '${part.textContent}'`;
            if (height > line) found.push(`${what} has two lines`);
            if (top < of.top || bottom > of.bottom || left < of.left || right > of.right) found.push(`${what} is cut`);
        }
        for (const item of row.querySelectorAll('.tasks li')) {
            const [what, age] = [...item.children].map(part => part.getBoundingClientRect());
            if (age.width > 0 && age.left - what.right > 12) found.push(`${row.dataset.agent} has a hole before an age`);
        }
    }
    return found;
})()";

#[test]
fn every_row_has_one_height_and_nothing_in_it_is_wrapped_or_cut() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    crowd(&server);
    let mut conn = Conn::open(server.addr());
    for (agent, status) in [("builder-20", "maintenance"), ("builder-21", "warming-up-the-caches")]
    {
        let body = json!({
            "status": status, "cpu_usage": 100, "memory_usage": 100, "disk_usage": 100,
            "running_tasks": [task_of(4_000_000, 3)],
        });
        assert_eq!(conn.ping(agent, &body).status, 200);
    }
    let browser = Browser::start();
    for (width, height) in [(1440, 900), (1280, 800), (900, 800), (360, 740)] {
        browser.size(width, height);
        for view in ["", "?view=grid"] {
            browser.go(&format!("{}{view}", pool_url(server.addr())));
            browser.until("all is there", &has_agents(40));
            for is_roomy in [false, true] {
                roomy(&browser, is_roomy);
                for place in ["0", "1e9"] {
                    browser.eval(&format!(
                        "scrollTo(0, {place}), new Promise(done =>
                             requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"
                    ));
                    let what = format!("{width} {view}, roomy: {is_roomy}, at {place}");
                    assert_eq!(browser.eval(BROKEN_ROWS), json!([]), "{what}");
                }
            }
        }
    }
    assert_eq!(browser.faults(), []);
}

/// How many agents are wholly in sight.
const WHOLE: &str = "[...document.querySelectorAll('.agent .badge')]
    .map(badge => badge.closest('.agent').getBoundingClientRect())
    .filter(({ top, bottom }) => top >= 0 && bottom <= innerHeight).length";

#[test]
fn a_laptop_shows_36_agents_as_a_grid_and_a_line_each_as_a_table() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    crowd(&server);
    let browser = Browser::start();
    browser.size(1440, 900);
    browser.go(&format!("{}?view=grid", pool_url(server.addr())));
    browser.until("36 are in sight", &format!("{WHOLE} >= 36"));
    browser.go(&pool_url(server.addr()));
    browser.until("all is there", &has_agents(40));
    let height: f64 = browser.get("document.querySelector('.agent').offsetHeight");
    assert!((32.0..=36.0).contains(&height), "a row of {height} px");
    // Not the cards' columns: each figure below its header.
    let columns = "(cells => cells.every(([head, cell]) =>
        Math.abs(head.getBoundingClientRect().left - cell.getBoundingClientRect().left) <= 1))
        (['cpu', 'memory'].map(key => [
            document.querySelector(`[data-sort=${key}]`).parentElement,
            document.querySelector(`.agent .load.${key}`)]))";
    for width in [900, 1280, 1440] {
        browser.size(width, 900);
        browser.until(&format!("columns at {width}"), columns);
    }
    assert_eq!(browser.faults(), []);
}

#[test]
fn the_header_of_the_table_stays_below_the_header_of_the_page() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    crowd(&server);
    let browser = Browser::start();
    browser.size(1280, 400);
    browser.go(&pool_url(server.addr()));
    browser.until("all is there", &has_agents(40));
    browser.eval("scrollTo(0, 700)");
    browser.until(
        "it sticks",
        "(([page, table]) => scrollY === 700 && Math.abs(table.top - page.bottom) <= 1)
             (['.top', '.agents .head'].map(part => document.querySelector(part).getBoundingClientRect()))",
    );
    // And it can be pressed there.
    browser.until(
        "it is on top",
        "(({ left, top }) => document.elementFromPoint(left + 4, top + 4)?.dataset.sort === 'cpu')
             (document.querySelector('[data-sort=cpu]').getBoundingClientRect())",
    );
    assert_eq!(browser.faults(), []);
}

/// What agents say of their disks, which the server does not pass on yet.
const DISKS: &str = "const parse = JSON.parse;
    JSON.parse = text => {
        const message = parse(text);
        for (const agent of message?.metrics ?? []) if (agent.agent_id === 'full') agent.disk_usage = 95;
        return message;
    };";

#[test]
fn a_disk_has_a_bar_where_someone_reports_one() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let body = json!({ "status": "idle", "cpu_usage": 1, "memory_usage": 1 });
    assert_eq!(conn.ping("agent", &body).status, 200);
    let browser = Browser::start();
    browser.before_scripts(DISKS);
    browser.go(&pool_url(server.addr()));
    browser.until("all is there", &has_agents(1));
    let shown =
        "[...document.querySelectorAll('.agents .disk')].map(part => part.checkVisibility())";
    assert_eq!(browser.eval(shown), json!([false, false]));
    assert_eq!(conn.ping("full", &body).status, 200);
    browser.until("all is there", &has_agents(2));
    assert_eq!(browser.eval(shown), json!([true, true, true]));
    let disk = "[...document.querySelectorAll('.load.disk')].map(disk => [
        disk.querySelector('.value').textContent, disk.querySelector('.meter').dataset.level])";
    browser.until("its bar is red", &format!("JSON.stringify({disk}).includes('95.0 %\",\"hot')"));
    for width in [1440, 900, 360] {
        browser.size(width, 800);
        browser.until("the layout is new", &has_agents(2));
        assert_eq!(browser.eval(BROKEN_ROWS), json!([]), "{width}");
        assert_fits(&browser, &format!("disks at {width}"));
    }
    assert_eq!(browser.faults(), []);
}

#[test]
fn how_an_agent_was_lost_is_told_whole_or_not_at_all() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let working = json!({
        "status": "busy", "cpu_usage": 1, "memory_usage": 1,
        "running_tasks": [{
            "task_id": 700_010, "task_type": "integration-tests", "started_at": wall(),
            "workspace_id": "a-quite-long-workspace-name-of-payments-production-eu",
        }],
    });
    assert_eq!(conn.ping("lost", &working).status, 200);
    assert_eq!(conn.ping("lost", &json!({ "status": "offline" })).status, 200);
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("it is drawn", "document.querySelector('.reason')?.textContent");
    let cut =
        "(reason => reason.scrollWidth > reason.clientWidth)(document.querySelector('.reason'))";
    for (width, is_told) in [(1024, false), (1440, false), (1920, true), (2560, true)] {
        browser.size(width, 900);
        browser.until("told", &format!("{} === {is_told}", is_shown(".reason")));
        browser.shot(&format!("lost-{width}"));
        assert_eq!(browser.eval(cut), false, "cut at {width}");
    }
    assert_eq!(browser.faults(), []);
}
