//! Whatever an agent calls itself and its work is text: it makes no element, runs no script, asks
//! for nothing, and pushes nothing out of the window.

use serde_json::{Value, json};

use super::hooks::{self, AGENTS, Row, pool_url, row_with};
use super::layout::{PEOPLES_WIDTHS, assert_fits};
use crate::support::flood::heavy;
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup};

/// Each at most 128 characters, as the server demands.
fn hostile_texts() -> Vec<String> {
    let texts = [
        r#"<img src=x onerror="window.owned=1">"#,
        "</script><script>window.owned=1</script>",
        "</template></title></style><svg onload=window.owned=1>",
        "<a href=javascript:window.owned=1>click</a><iframe src=//127.0.0.2:9/>",
        r#"" onmouseover="window.owned=1" x=""#,
        "' autofocus onfocus='window.owned=1' x='",
        "`${window.owned=1}` {{constructor.constructor('window.owned=1')()}}",
        "javascript:window.owned=1",
        "\u{202e}gnp.exe \u{2066}\u{2067}\u{202d}turned around",
        "nul \0 bell \u{7} escape \u{1b}[31m delete \u{7f} next \u{85} line \u{2028} end \u{2029}",
        "tab\tline\nreturn\r",
        "&lt;img src=x onerror=window.owned=1&gt; &amp; &#x3c;",
        r"\u003cimg src=x onerror=window.owned=1\u003e \",
        "__proto__",
        "",
        " ",
    ];
    let wide = ["漢", "👩", "W", "\u{5d0}", "a\u{301}", "\u{200b}", "\u{fdfd}"];
    let wide = wide.iter().map(|text| text.repeat(128 / text.chars().count()));
    texts.into_iter().map(str::to_owned).chain(wide).collect()
}

#[test]
fn whatever_an_agent_says_is_text() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let origin = format!("http://{}", server.addr());
    let browser = Browser::open(&pool_url(server.addr()));
    let texts = hostile_texts();
    let mut conn = Conn::open(server.addr());
    for (index, text) in texts.iter().enumerate() {
        let body = heartbeat_full_of(text);
        let answer = conn.ping(&format!("agent-{index:02}"), &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    browser.until("all are there", &count(texts.len()));
    hooks::roomy(&browser, true);
    for (index, text) in texts.iter().enumerate() {
        assert_is_text(&drawn(&browser, &format!("agent-{index:02}")), text);
    }
    for (width, height) in PEOPLES_WIDTHS {
        browser.size(width, height);
        browser.shot(&format!("hostile-{width}"));
        assert_fits(&browser, &format!("hostile texts at {width}"));
    }
    // Their goodbyes leave the texts there, and so does a page that was loaded later.
    for index in 0..texts.len() {
        conn.ping(&format!("agent-{index:02}"), &json!({ "status": "offline" }));
    }
    // Rows out of sight are not drawn anew; the title counts all.
    let told = format!("document.title.startsWith('{} ')", texts.len());
    browser.until("all have departed", &told);
    browser.reload();
    browser.until("all are there again", &count(texts.len()));
    for (index, text) in texts.iter().enumerate() {
        assert_is_text(&drawn(&browser, &format!("agent-{index:02}")), text);
    }
    assert_harmless(&browser, &origin);
}

/// Ids and states are of few characters, but long and odd ones all the same.
#[test]
fn the_longest_and_oddest_ids_and_states_are_shown() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    let mut conn = Conn::open(server.addr());
    let ids = ["__proto__", "constructor", "...", "-", "0", &"W".repeat(128), &"-.".repeat(64)];
    let states = ["__proto__", "constructor", "tostring", "-", "0", &"w".repeat(32), "late"];
    for (id, state) in ids.iter().zip(states) {
        let body = json!({ "status": state, "cpu_usage": 1, "memory_usage": 1 });
        assert_eq!(conn.ping(id, &body).status, 200, "{id}");
    }
    for (id, state) in ids.iter().zip(states) {
        let row = drawn(&browser, id);
        // An agent's own word is marked where the page says the same of others.
        let shown = if state == "late" { "“late”" } else { state };
        assert_eq!((row.name.as_str(), row.badge.as_str()), (*id, shown));
    }
    for (width, height) in PEOPLES_WIDTHS {
        browser.size(width, height);
        browser.shot(&format!("ids-{width}"));
        assert_fits(&browser, &format!("ids at {width}"));
    }
    assert_harmless(&browser, &format!("http://{}", server.addr()));
}

/// A key may invent a state for each agent and heartbeat: what the page makes of them is bounded,
/// and is not made anew for each.
#[test]
fn invented_states_cost_the_page_little() {
    needs!(Chromium);
    const AGENTS_IN_ALL: usize = 300;
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let mut round = |round: usize| {
        for agent in 0..AGENTS_IN_ALL {
            let status = format!("invented-{round}-{agent}");
            let body = json!({ "status": status, "cpu_usage": 1, "memory_usage": 1 });
            assert_eq!(conn.ping(&format!("agent-{agent:03}"), &body).status, 200);
        }
    };
    round(0);
    let browser = Browser::open(&pool_url(server.addr()));
    browser.until("all are there", &hooks::has_agents(AGENTS_IN_ALL));
    browser.until("some are offered", "document.querySelectorAll('#chips button').length > 5");
    let assert_bounded = || {
        let made: usize = browser.get("document.querySelectorAll('#chips > *').length");
        assert!(made <= 25, "{made} states");
    };
    assert_bounded();

    browser.eval(
        "window.rebuilds = 0, window.begun = performance.now(),
         new MutationObserver(() => rebuilds += 1).observe(
             document.querySelector('#chips'), { childList: true }), 0",
    );
    round(1);
    // Each draw takes all that came before it.
    let last = AGENTS_IN_ALL - 1;
    drawn(&browser, &format!("agent-{last:03}"));
    let newest = format!("invented-1-{last}");
    row_with(&browser, &format!("agent-{last:03}"), "is new", |row| row.badge == newest);
    assert_bounded();
    let (rebuilds, ms): (f64, f64) = browser.get("[rebuilds, performance.now() - begun]");
    // The buttons settle once in two seconds.
    assert!(rebuilds <= 2.0 + ms / 2_000.0, "{rebuilds} rebuilds in {ms} ms");
    assert_eq!(browser.faults(), []);
}

fn heartbeat_full_of(text: &str) -> Value {
    let task = |id: u64| json!({ "task_id": id, "task_type": text, "workspace_id": text, "started_at": text });
    json!({
        "status": "busy", "cpu_usage": 50, "memory_usage": 95, "agent_name": text,
        "running_tasks": [task(1), task(2)],
    })
}

fn count(agents: usize) -> String {
    format!("document.querySelectorAll('{AGENTS}').length === {agents}")
}

/// Scrolls to an agent, since only what is in sight is drawn.
fn drawn(browser: &Browser, id: &str) -> Row {
    hooks::scroll_to(browser, id);
    row_with(browser, id, "is drawn", |_| true)
}

fn assert_is_text(row: &Row, text: &str) {
    // Nobody goes without a name.
    assert!(row.name == text || (text.is_empty() && row.name.starts_with("agent-")), "{row:?}");
    assert_eq!(row.tasks.len(), 2, "{row:?}");
    for task in &row.tasks {
        assert_eq!((task.kind.as_str(), task.workspace.as_str()), (text, text));
        assert_eq!(task.age, "", "of a start that is no time");
    }
}

fn assert_harmless(browser: &Browser, origin: &str) {
    assert_eq!(browser.eval("window.owned ?? null"), Value::Null, "a script ran");
    let made = browser.eval(&format!(
        "[...document.querySelectorAll('{AGENTS} :is(img, script, style, a, iframe, object, link)'),
          ...document.querySelectorAll('{AGENTS} :is(.name, .type, .workspace) *')]
             .filter(element => !(element.matches('.who > a:not([onclick]), a.more')
                 && (element.hidden || element.pathname === '/pools/pool-a/agents/' + element.closest('.agent').dataset.agent)))
             .map(element => element.outerHTML)"
    ));
    assert_eq!(made, json!([]));
    assert_eq!(browser.faults(), []);
    let [http, ws] = [origin.to_owned(), origin.replacen("http", "ws", 1)];
    for url in browser.requests() {
        let path = url.strip_prefix(&http).or_else(|| url.strip_prefix(&ws));
        assert!(path.is_some_and(|path| path.starts_with('/')), "asked for {url}");
    }
}
