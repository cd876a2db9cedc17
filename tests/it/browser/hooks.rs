//! Where things are on the page: every selector that the tests use, and what they read there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::support::{Browser, eventually};

/// All agents' rows or cards.
pub(super) const AGENTS: &str = ".agent[data-agent]";
/// What an empty pool shows, and within it the line to paste.
pub(super) const CURL: &str = ".empty .curl";
/// A pool's card.
pub(super) const CARD: &str = ".card[data-pool]";
/// The login, its field, and what went wrong there.
pub(super) const LOGIN: &str = "#login";
/// See [`LOGIN`].
pub(super) const TOKEN: &str = "#token";
/// See [`LOGIN`].
pub(super) const LOGIN_PROBLEM: &str = "#login-problem";
/// Logs out; shown after a login.
pub(super) const LOGOUT: &str = "#logout";
/// Shown while the page is not connected.
pub(super) const STALE: &str = "#stale";
/// Shown once the server has restarted.
pub(super) const RESTARTED: &str = "#restarted";
/// True once the page is connected.
pub(super) const IS_LIVE: &str = "document.querySelector('#connection')?.dataset.state === 'live'";
/// True while the page waits for its next attempt to connect.
pub(super) const IS_WAITING: &str =
    "document.querySelector('#connection')?.dataset.state === 'waiting'";

/// The address of the page of `pool-a`.
pub(super) fn pool_url(addr: SocketAddr) -> String {
    format!("http://{addr}/pools/pool-a")
}

/// True when what `selector` finds is there and can be seen.
pub(super) fn is_shown(selector: &str) -> String {
    format!("document.querySelector({selector:?})?.checkVisibility() === true")
}

/// True when nothing that `selector` finds can be seen.
pub(super) fn is_hidden(selector: &str) -> String {
    format!("document.querySelector({selector:?})?.checkVisibility() !== true")
}

/// The text of what `selector` finds.
pub(super) fn text_of(selector: &str) -> String {
    format!("document.querySelector({selector:?}).textContent")
}

/// The element of an agent.
pub(super) fn agent(id: &str) -> String {
    format!("{AGENTS}[data-agent={id:?}]")
}

/// What the page shows of one agent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) classes: Vec<String>,
    pub(super) badge: String,
    pub(super) kind: String,
    /// Whether the badge says so.
    pub(super) late: bool,
    pub(super) cpu: Bar,
    pub(super) memory: Bar,
    pub(super) tasks: Vec<Task>,
    /// What stands where tasks would, or above those of a departed agent.
    pub(super) none: String,
    /// Of tasks that have no room; empty if all have.
    pub(super) more: String,
    /// When it was heard last or went, in words, where that is told.
    pub(super) heard: String,
    pub(super) reason: String,
    /// The colour of its name, which is greyed when it departed.
    pub(super) color: String,
    /// What a test has tied to its element.
    pub(super) tag: Value,
}

impl Row {
    /// Whether its element has this class.
    pub(super) fn is(&self, class: &str) -> bool {
        self.classes.iter().any(|present| present == class)
    }
}

/// A bar and the value beside it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Bar {
    pub(super) level: String,
    /// `aria-valuenow`.
    pub(super) now: String,
    /// `aria-valuetext`.
    pub(super) words: String,
    /// `aria-label`.
    pub(super) label: String,
    pub(super) value: String,
    /// The filled part of the track, measured in pixels: 0 to 1.
    pub(super) filled: f64,
    /// As computed, such as `rgb(31, 157, 85)`.
    pub(super) color: String,
}

/// A running task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Task {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) workspace: String,
    pub(super) age: String,
    pub(super) longest: bool,
}

/// How many agents the list has, drawn or not. Its header counts as a row.
pub(super) fn has_agents(count: usize) -> String {
    format!("document.querySelector('.agents')?.ariaRowCount === '{}'", count + 1)
}

/// Gives the agents room for three tasks each and a larger chart, or takes it; the browser keeps it.
pub(super) fn roomy(browser: &Browser, is_roomy: bool) {
    browser.eval(&format!(
        "(button => button.ariaPressed === '{is_roomy}' || button.click())
             (document.querySelector('#density'))"
    ));
    let density = if is_roomy { "roomy" } else { "compact" };
    browser.until(
        density,
        &format!("document.querySelector('.agents').dataset.density === '{density}'"),
    );
}

/// Scrolls until an agent has an element, and that into the middle: only agents in sight are drawn.
pub(super) fn scroll_to(browser: &Browser, id: &str) {
    let selector = agent(id);
    browser.until(
        &format!("{id} is in sight"),
        &format!(
            "(element => {{
                 const end = document.documentElement.scrollHeight - innerHeight - 1;
                 if (element !== null) element.scrollIntoView({{ block: 'center' }});
                 else if (scrollY >= end) scrollTo(0, 0);
                 else scrollBy(0, innerHeight / 2);
                 return element !== null;
             }})(document.querySelector({selector:?}))"
        ),
    );
}

/// What the page shows of an agent; `None` while it isn't there, or only its name is.
pub(super) fn row(browser: &Browser, id: &str) -> Option<Row> {
    let read = r"(element => {
        if (element?.querySelector('.cpu .value') == null) return null;
        const text = (at, selector) => at.querySelector(selector)?.textContent ?? '';
        const bar = place => {
            const meter = place.querySelector('.meter[role=meter]');
            const fill = place.querySelector('.fill');
            const style = getComputedStyle(fill);
            return {
                level: meter.dataset.level,
                now: meter.getAttribute('aria-valuenow'),
                words: meter.getAttribute('aria-valuetext'),
                label: meter.getAttribute('aria-label'),
                value: text(place, '.value'),
                filled: fill.getBoundingClientRect().width / meter.getBoundingClientRect().width,
                color: style.backgroundColor,
            };
        };
        return {
            name: text(element, '.name'),
            id: text(element, '.id'),
            classes: [...element.classList],
            badge: text(element, '.badge[data-kind]'),
            kind: element.querySelector('.badge[data-kind]').dataset.kind,
            late: element.querySelector('.badge').dataset.kind === 'late',
            cpu: bar(element.querySelector('.cpu')),
            memory: bar(element.querySelector('.memory')),
            tasks: [...element.querySelectorAll('.tasks li')].map(item => ({
                kind: text(item, '.type'),
                id: text(item, '.task-id'),
                workspace: text(item, '.workspace'),
                age: text(item, '.age'),
                longest: item.classList.contains('longest'),
            })),
            none: element.querySelector('.tasks .none')?.checkVisibility()
                ? text(element, '.tasks .none') : '',
            more: (more => more?.checkVisibility() ? more.textContent : '')(element.querySelector('.more')),
            heard: (time => time?.checkVisibility() ? time.title : '')(element.querySelector('.heard')),
            reason: text(element, '.reason'),
            color: getComputedStyle(element.querySelector('.name')).color,
            tag: element.tag ?? null,
        };
    })";
    browser.get(&format!("{read}(document.querySelector({:?}))", agent(id)))
}

/// Waits until what the page shows of an agent satisfies `wanted`.
pub(super) fn row_with(
    browser: &Browser,
    id: &str,
    what: &str,
    wanted: impl Fn(&Row) -> bool,
) -> Row {
    eventually(&format!("{id} {what}"), || row(browser, id).filter(&wanted))
}

/// Ids of all agents on the page, with whether they departed (which the page draws only in sight).
pub(super) fn agents(browser: &Browser) -> BTreeMap<String, bool> {
    browser.get(&format!(
        "Object.fromEntries([...document.querySelectorAll({AGENTS:?})].map(
            row => [row.dataset.agent, row.classList.contains('departed')]))"
    ))
}

/// Waits until the page shows exactly these agents, `true` for those that departed.
pub(super) fn wait_for_exactly(browser: &Browser, expected: &[(&str, bool)]) {
    let expected: BTreeMap<String, bool> =
        expected.iter().map(|&(id, departed)| (id.to_owned(), departed)).collect();
    let mut shown = BTreeMap::new();
    let _ = crate::support::wait::within(crate::support::DEADLINE, || {
        shown = agents(browser);
        (shown == expected).then_some(())
    });
    assert_eq!(shown, expected);
}
