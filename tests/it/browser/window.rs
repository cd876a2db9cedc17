//! Of thousands of agents only those in sight are in the document; all can be reached, charts are full
//! when the page opens, and the keyboard's focus stays where it is.

use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::hooks::{self, AGENTS, IS_LIVE, has_agents, pool_url, row_with, scroll_to};
use crate::support::crowd::{Crowd, Stop};
use crate::support::flood::heavy;
use crate::support::http::heartbeat;
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup};

/// As many as a pool holds by default.
const MOST_AGENTS: usize = 10_000;
/// Elements of agents in the document, at the most, in a window of 1280 by 800.
const MOST_ROWS: usize = 60;
/// The largest heap of the page with that many agents.
const MOST_HEAP: f64 = 60e6;

/// Agents in the document, and their numbers in the list as screen readers hear them.
fn numbers(browser: &Browser) -> Vec<usize> {
    browser.get(&format!(
        "[...document.querySelectorAll({AGENTS:?})].map(row => Number(row.ariaRowIndex))"
    ))
}

/// Agents in the middle of the window show what they are, and stand in their order without a hole.
fn assert_full(browser: &Browser, what: &str) {
    browser.until(
        what,
        "(rows => rows.length > 0
             && rows.every(row => row.querySelector('.cpu .value') !== null)
             && rows.every((row, index) => index === 0
                 || row.getBoundingClientRect().top === rows[index - 1].getBoundingClientRect().bottom)
             && rows.at(-1).getBoundingClientRect().bottom > Math.min(innerHeight,
                 document.querySelector('.body').getBoundingClientRect().bottom) - 1)
         ([...document.querySelectorAll('.agent')])",
    );
    let numbers = numbers(browser);
    assert!(numbers.len() <= MOST_ROWS, "{} rows {what}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?} {what}");
}

#[test]
fn ten_thousand_agents_are_all_reached_and_a_screenful_is_there() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::start();
    browser.ignore_network();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        Crowd { agents: MOST_AGENTS, per_second: 100 }.start(scope, server.addr(), &stop);
        browser.go(&format!("{}?sort=name", pool_url(server.addr())));
        browser.until("all agents are there", &has_agents(MOST_AGENTS));
        for place in ["0", "0.25", "0.5", "0.75", "1", "0"] {
            browser.eval(&format!("scrollTo(0, document.documentElement.scrollHeight * {place})"));
            assert_full(&browser, &format!("at {place}"));
        }
        for index in [0, 1, 4_999, MOST_AGENTS - 1] {
            let name = format!("agent-{index:04}");
            browser.eval(&format!(
                "scrollTo(0, document.querySelector('.body').offsetTop + {index} *
                     document.querySelector('.agent').offsetHeight - innerHeight / 2)"
            ));
            row_with(&browser, &name, "is reached", |_| true);
        }
        let heap = browser.metrics()["JSHeapUsedSize"];
        assert!(heap <= MOST_HEAP, "a heap of {heap}");
        drop(ends);
    });
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.faults(), []);
}

#[test]
fn what_is_scrolled_to_keeps_up_and_what_left_does_not_come_back_old() {
    needs!(Chromium);
    const AGENTS_IN_ALL: usize = 1_000;
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut says = |index: usize, cpu: f64| {
        assert_eq!(conn.ping(&format!("agent-{index:04}"), &heartbeat(cpu)).status, 200);
    };
    (0..AGENTS_IN_ALL).for_each(|index| says(index, 10.0));
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("all agents are there", &has_agents(AGENTS_IN_ALL));
    row_with(&browser, "agent-0000", "is drawn", |row| row.cpu.value == "10.0 %");
    scroll_to(&browser, "agent-0600");
    says(600, 20.0);
    row_with(&browser, "agent-0600", "keeps up", |row| row.cpu.value == "20.0 %");
    assert!(hooks::row(&browser, "agent-0000").is_none(), "it is in the document out of sight");
    says(0, 30.0);
    browser.eval("scrollTo(0, 0)");
    let row = row_with(&browser, "agent-0000", "is there again", |_| true);
    assert_eq!(row.cpu.value, "30.0 %", "old figures were shown");
    assert_full(&browser, "at the top");
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_row_that_another_agent_gets_never_shows_the_chart_of_the_one_before() {
    needs!(Chromium);
    const AGENTS_IN_ALL: usize = 600;
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for index in 0..AGENTS_IN_ALL {
        let cpu = (index % 100) as f64;
        assert_eq!(conn.ping(&format!("agent-{index:04}"), &heartbeat(cpu)).status, 200);
    }
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("all agents are there", &has_agents(AGENTS_IN_ALL));
    browser.until("charts are drawn", "document.querySelector('.line.cpu')?.getAttribute('d')");
    // Each agent has had one load: its chart is at the height of that.
    let (charts, wrong): (usize, Vec<String>) = browser.get(&format!(
        "(async () => {{
            const frame = () => new Promise(requestAnimationFrame);
            const wrong = [];
            let charts = 0;
            for (let screens = 0; screens < 10; screens += 1) {{
                scrollBy(0, innerHeight);
                await frame();
                await frame();
                for (const row of document.querySelectorAll({AGENTS:?})) {{
                    const path = row.querySelector('.line.cpu')?.getAttribute('d') ?? '';
                    const load = Number(row.dataset.agent.slice(-2));
                    const heights = [...path.matchAll(/ ([0-9.]+)/g)].map(([, y]) => 100 - Number(y));
                    charts += heights.length;
                    if (heights.some(height => height !== load)) wrong.push(`${{load}}: ${{path}}`);
                }}
            }}
            return [charts, wrong];
        }})()"
    ));
    assert!(charts > 100, "{charts} charts");
    assert_eq!(wrong, [""; 0]);
    assert_eq!(browser.faults(), []);
}

#[test]
fn the_focus_stays_on_its_agent_when_rows_move_and_when_it_leaves_the_window() {
    needs!(Chromium);
    const AGENTS_IN_ALL: usize = 300;
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for index in 0..AGENTS_IN_ALL {
        let cpu = 10.0 + index as f64 / 10.0;
        assert_eq!(conn.ping(&format!("agent-{index:04}"), &heartbeat(cpu)).status, 200);
    }
    let browser = Browser::open(&format!("{}?sort=cpu", pool_url(server.addr())));
    browser.until("all agents are there", &has_agents(AGENTS_IN_ALL));
    let link = format!("{} .who a", hooks::agent("agent-0297"));
    browser.until(
        "it is third",
        &format!(
            "document.querySelectorAll('.agent')[2]?.matches({:?})",
            hooks::agent("agent-0297")
        ),
    );
    browser.eval(&format!("document.querySelector({link:?}).focus()"));
    let is_focused = format!("document.activeElement.matches({link:?})");
    assert_eq!(conn.ping("agent-0297", &heartbeat(99.0)).status, 200);
    browser.until(
        "it is first",
        &format!("document.querySelector('.agent').matches({:?})", hooks::agent("agent-0297")),
    );
    assert_eq!(browser.eval(&is_focused), true, "moved up");
    assert_eq!(conn.ping("agent-0297", &heartbeat(1.0)).status, 200);
    browser.until("it is last", &format!("[...document.querySelectorAll('.agent')].at(-1).matches({:?}) && [...document.querySelectorAll('.agent')].at(-1).ariaRowIndex === '301'", hooks::agent("agent-0297")));
    assert_eq!(browser.eval(&is_focused), true, "moved out of the window");
    // Without the focus the row may go at any time; given it anew, it is scrolled to.
    browser
        .eval(&format!("(link => (link.blur(), link.focus()))(document.querySelector({link:?}))"));
    browser.until("it is in sight", "scrollY > 1000");
    assert_full(&browser, "at the end");
    assert_eq!(browser.faults(), []);
}

/// Answers every question for histories as a server does that has run for long: 90 steps of 10 s of
/// all agents that were asked for. `window.asked` counts the agents.
pub(super) const OLD_HISTORY: &str = "window.asked = [];
    const real = window.fetch;
    window.fetch = (input, options) => {
        const url = new URL(input, location.href);
        if (!url.pathname.endsWith('/history')) return real(input, options);
        const ids = url.searchParams.getAll('agent');
        asked.push(...ids);
        const series = { cpu: Array.from({ length: 90 }, (_, step) => step), memory: new Array(90).fill(50) };
        const body = {
            pool_id: 'pool-a', server_time: new Date().toISOString(), epoch: 'x', step_ms: 10_000,
            end: new Date(Math.ceil(Date.now() / 10_000) * 10_000).toISOString(),
            agents: Object.fromEntries(ids.map(id => [id, series])),
        };
        return Promise.resolve(new Response(JSON.stringify(body), { status: 200 }));
    };";

#[test]
fn charts_are_full_when_the_page_opens_and_are_asked_for_once() {
    needs!(Chromium);
    const AGENTS_IN_ALL: usize = 300;
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    for index in 0..AGENTS_IN_ALL {
        assert_eq!(conn.ping(&format!("agent-{index:04}"), &heartbeat(10.0)).status, 200);
    }
    let browser = Browser::start();
    browser.before_scripts(OLD_HISTORY);
    browser.go(&pool_url(server.addr()));
    // From the left edge to the right one, in one piece.
    let is_full = |id: &str| {
        format!(
            "(line => {{
                 if (line === null) return false;
                 const {{ x, width }} = line.getBBox();
                 return x <= 3 && x + width >= 297 && line.getAttribute('d').match(/M/g).length === 1;
             }})(document.querySelector({:?}))",
            format!("{} .line.cpu", hooks::agent(id))
        )
    };
    for agent in ["agent-0000", "agent-0005"] {
        browser.until("its chart is full", &is_full(agent));
    }
    let asked: usize = browser.get("asked.length");
    assert!(asked <= MOST_ROWS, "asked for {asked} agents");
    scroll_to(&browser, "agent-0150");
    browser.until("its chart is full too", &is_full("agent-0150"));
    scroll_to(&browser, "agent-0000");
    browser.until("its chart is full still", &is_full("agent-0000"));
    assert_eq!(browser.eval("asked.length === new Set(asked).size"), true, "asked twice");
    browser.shot("charts");
    assert_eq!(browser.faults(), []);
}

#[test]
fn an_agent_of_one_heartbeat_has_a_line() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let body = json!({ "status": "idle", "cpu_usage": 40, "memory_usage": 60 });
    assert_eq!(Conn::open(server.addr()).ping("agent", &body).status, 200);
    let browser = Browser::open(&pool_url(server.addr()));
    let line = format!("{} .line.memory", hooks::agent("agent"));
    let width = format!("document.querySelector({line:?})?.getBBox().width > 5");
    browser.until("it can be seen", &width);
}
