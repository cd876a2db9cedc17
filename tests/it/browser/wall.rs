//! The wall view: everything fits the screen and can be read, whatever its size and the number of
//! agents; trouble and a lost connection are said in large letters.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::hooks::{IS_LIVE, STALE, is_shown, pool_url};
use crate::support::flood::heavy;
use crate::support::setup::{KEY_A, KEY_B};
use crate::support::tools::needs;
use crate::support::{Browser, Conn, Server, Setup};

const SCREENS: [(u32, u32); 3] = [(1280, 720), (1920, 1080), (3840, 2160)];
/// The longest name that an agent may have, in three scripts.
const LONG_NAMES: [&str; 3] = ["builder-without-a-break-", "构建机器人", "عامل البناء "];

/// What is outside the screen, or cut off without a sign that it is.
const OVERFLOWS: &str = r"(() => {
    const found = [];
    const { scrollWidth, scrollHeight } = document.documentElement;
    if (scrollWidth > innerWidth || scrollHeight > innerHeight) found.push(`scrolls: ${scrollWidth}×${scrollHeight}`);
    const boxes = '.wall-panel, .wall-panel canvas, .wall-line, .wall-agents > *, .tile, .tile *, .wall-foot, .top';
    for (const element of document.querySelectorAll(boxes)) {
        if (!element.checkVisibility() || getComputedStyle(element).clipPath !== 'none') continue;
        const { left, top, right, bottom } = element.getBoundingClientRect();
        if (left < -3 || top < -3 || right > innerWidth + 3 || bottom > innerHeight + 3) {
            found.push(`${element.outerHTML.slice(0, 80)}: ${left}, ${top} to ${right}, ${bottom}`);
        }
        const { textOverflow } = getComputedStyle(element);
        if (element.childElementCount > 0 || textOverflow === 'ellipsis') continue;
        if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0) {
            found.push(`${element.outerHTML.slice(0, 80)}: cut off`);
        }
    }
    for (const tile of document.querySelectorAll('.tile')) {
        const outer = tile.getBoundingClientRect();
        for (const part of tile.querySelectorAll('.name, .tile-value, .tile-tasks')) {
            if (!part.checkVisibility()) continue;
            const { right, bottom, top } = part.getBoundingClientRect();
            if (right > outer.right || bottom > outer.bottom + 1 || top < outer.top - 1) found.push(`out of its tile: ${part.outerHTML}`);
        }
    }
    return found.slice(0, 5);
})()";

fn wall_url(server: &Server) -> String {
    format!("{}?view=wall", pool_url(server.addr()))
}

/// Agents from `first` up to `count`; some with long names.
fn agents(conn: &mut Conn, first: usize, count: usize) {
    for index in first..count {
        let name = match index % 20 {
            0 => LONG_NAMES[index / 20 % 3].repeat(128).chars().take(40).collect(),
            _ => format!("builder-{index}"),
        };
        let tasks: Vec<Value> = (0..index % 4)
            .map(|task| {
                json!({ "task_id": task, "task_type": "compile", "workspace_id": "shop", "started_at": "2025-01-07T10:30:00Z" })
            })
            .collect();
        let body = json!({
            "status": if tasks.is_empty() { "idle" } else { "busy" }, "agent_name": name,
            "cpu_usage": index % 101, "memory_usage": 50, "running_tasks": tasks,
        });
        assert_eq!(conn.ping(&format!("agent-{index:04}"), &body).status, 200);
    }
}

#[test]
fn all_agents_fit_every_screen() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    let browser = Browser::start();
    browser.size(1280, 720);
    browser.go(&wall_url(&server));
    browser.until("the page is live", IS_LIVE);
    let mut known = 0;
    for (count, level) in [(12, "full"), (40, "full"), (400, "named"), (2_000, "heat")] {
        agents(&mut conn, known, count);
        known = count;
        for (width, height) in SCREENS {
            browser.size(width, height);
            let what = format!("{count} agents at {width}×{height}");
            let total = "[...document.querySelectorAll('.wall-legend li')].reduce((sum, item) => sum + parseInt(item.textContent), 0)";
            browser.until(&what, &format!("{total} === {count}"));
            browser.until(
                &what,
                &format!("document.querySelector('.wall-agents')?.dataset.level === {level:?}"),
            );
            // The layout of another size comes with the next frames.
            browser.until(&what, &format!("{OVERFLOWS}.length === 0"));
            let shown: Value = browser.eval(
                "['.tile', '.tile .name', '.tile .tile-value', '.tile .tile-tasks', '.wall-panel canvas'].map(part =>
                    [...document.querySelectorAll(part)].filter(found =>
                        found.checkVisibility() && (found.tagName === 'CANVAS' || found.textContent !== '')).length)",
            );
            let expected = match level {
                "full" => json!([count, count, 2 * count, count, 0]),
                "named" => json!([count, count, 0, 0, 0]),
                _ => json!([0, 0, 0, 0, 1]),
            };
            assert_eq!(shown, expected, "{what}");
            // What is on the screen fills most of it, in type that can be read from afar.
            let filled: f64 = browser.get(
                "(() => {
                    const boxes = [...document.querySelectorAll('.tile, .wall-panel canvas')].map(tile => tile.getBoundingClientRect());
                    return (Math.max(...boxes.map(({ bottom }) => bottom)) - Math.min(...boxes.map(({ top }) => top))) / innerHeight;
                })()",
            );
            assert!(filled > 0.6, "{what}: {filled}");
            if level == "named" {
                // Of a long name both ends are seen: the last letters tell agents apart.
                let tail: f64 = browser.get(
                    "(tile => tile.getBoundingClientRect().right - tile.querySelector('.name').lastElementChild.getBoundingClientRect().right)
                     ([...document.querySelectorAll('.tile')].find(tile => tile.textContent.includes('builder-without')))",
                );
                assert!(tail >= 0.0, "{what}: the end of a name is {tail} px out of its tile");
            }
            if level != "heat" {
                let type_px: f64 = browser.get(
                    "parseFloat(getComputedStyle(document.querySelector('.tile .name')).fontSize)",
                );
                assert!(type_px >= f64::from(height) / 80.0, "{what}: {type_px} px");
            }
            browser.shot(&format!("wall-{count}-{width}"));
        }
        assert_eq!(
            browser
                .eval("document.querySelectorAll('main button, main input, main select').length"),
            json!(2),
            "controls other than the login's"
        );
    }
    assert_eq!(browser.faults(), []);
}

#[test]
fn trouble_and_losses_are_seen_and_stay_by_age_alone() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    agents(&mut conn, 1, 4);
    let browser = Browser::open(&wall_url(&server));
    let headline = "document.querySelector('.wall-headline').textContent";
    browser.until("all is well", &format!("{headline} === 'All 3 well'"));
    let calm = browser.text("getComputedStyle(document.querySelector('.wall-headline')).color");
    // The third holds three tasks; the second says that it is in error.
    assert_eq!(conn.ping_as("agent-0003", KEY_A, &json!({ "status": "offline" })).status, 200);
    let failed =
        json!({ "status": "failed", "agent_name": "builder-2", "cpu_usage": 1, "memory_usage": 1 });
    assert_eq!(conn.ping("agent-0002", &failed).status, 200);
    browser.until("trouble", &format!("{headline} === '2 need attention, 3 tasks were lost'"));
    assert_ne!(
        browser.text("getComputedStyle(document.querySelector('.wall-headline')).color"),
        calm
    );
    let kinds = "[...document.querySelectorAll('.tile')].map(tile => tile.dataset.kind)";
    browser.until("their tiles", &format!("{kinds}.join() === 'busy,error,lost'"));
    let named = browser.text("document.querySelector('.wall-named').textContent");
    assert!(named.contains("builder-3") && named.contains("builder-2"), "{named}");
    browser.until("the title", "document.title.startsWith('2 need attention')");

    // Marked as seen on the pool's page: a wall shows it nevertheless.
    browser.go(&pool_url(server.addr()));
    browser.until("the button", &is_shown(".seen"));
    browser.click(".seen");
    browser.until(
        "it is seen",
        "document.querySelector('.headline').textContent.startsWith('1 needs')",
    );
    browser.go(&wall_url(&server));
    browser.until("trouble", &format!("{headline} === '2 need attention, 3 tasks were lost'"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_wall_that_is_not_live_says_so_in_large_letters() {
    needs!(Chromium);
    let mut server = Server::start(&Setup::open().toml());
    agents(&mut Conn::open(server.addr()), 1, 3);
    let browser = Browser::start();
    browser.ignore_network();
    browser.size(1920, 1080);
    browser.go(&wall_url(&server));
    browser.until("the agents", "document.querySelectorAll('.tile').length === 2");
    browser.until("the page is live", IS_LIVE);
    let size = |selector: &str| -> f64 {
        browser.get(&format!(
            "parseFloat(getComputedStyle(document.querySelector({selector:?})).fontSize)"
        ))
    };
    let small = size("#connection-text");
    let clock = "document.querySelector('.wall-clock').textContent";
    let before = browser.text(clock);
    browser.until("the clock goes", &format!("{clock} !== {before:?}"));
    server.signal(Signal::KILL);
    server.wait();
    browser.until("it says so", &is_shown(STALE));
    assert!(size("#connection-text") > 1.5 * small && size(STALE) > 1.5 * small);
    browser.until("the pool too", "document.querySelector('.wall-panel').dataset.tone === 'stale'");
    browser.until("nothing is cut off", &format!("{OVERFLOWS}.length === 0"));
    assert_eq!(browser.eval("document.querySelectorAll('.tile').length"), 2, "what was known");
    browser.shot("wall-not-live");
}

#[test]
fn several_pools_share_a_wall_and_keys_lead_back() {
    needs!(Chromium);
    let server = Server::start(&Setup::open().toml());
    let mut conn = Conn::open(server.addr());
    agents(&mut conn, 1, 3);
    let other = json!({ "status": "idle", "cpu_usage": 1, "memory_usage": 1 });
    assert_eq!(conn.ping_as("other", KEY_B, &other).status, 200);
    let browser = Browser::start();
    let origin = format!("http://{}", server.addr());
    let panels = "[...document.querySelectorAll('.wall-panel')].map(panel => `${panel.dataset.pool} ${panel.querySelectorAll('.tile').length}`).join()";
    for (address, expected, back) in [
        ("/wall", "pool-a 2,pool-b 1", "/"),
        ("/wall?pools=pool-b,pool-a", "pool-b 1,pool-a 2", "/"),
        ("/wall?pools=pool-b", "pool-b 1", "/pools/pool-b"),
        ("/pools/pool-a?view=wall", "pool-a 2", "/pools/pool-a"),
    ] {
        for key in ["Escape", "w"] {
            browser.go(&format!("{origin}{address}"));
            browser.until(address, &format!("{panels} === {expected:?}"));
            browser.until("nothing is cut off", &format!("{OVERFLOWS}.length === 0"));
            browser.press(key);
            let left = format!("{key} leads from {address} to {back}");
            browser.until(&left, &format!("location.pathname + location.search === {back:?}"));
        }
    }
    // A pool that is not there is missed, and the others are shown.
    for (pools, expected, missing) in [
        ("pool-b,typo,pool-a,other", "pool-b 1,pool-a 2", "no pool “typo, other”"),
        ("typo,pool-b", "pool-b 1", "no pool “typo”"),
    ] {
        browser.go(&format!("{origin}/wall?pools={pools}"));
        browser.until(pools, &format!("{panels} === {expected:?}"));
        assert_eq!(browser.eval(&is_shown(".wall-more")), true);
        let said = browser.text("document.querySelector('.wall-more').textContent");
        assert!(said.contains(missing), "{said}");
        browser.until("nothing is cut off", &format!("{OVERFLOWS}.length === 0"));
    }
    browser.go(&format!("{origin}/wall?pools=pool-b,{}", "x".repeat(1_000)));
    browser.until("one long name", &format!("{panels} === 'pool-b 1'"));
    let foot = "document.querySelector('.wall-foot').offsetHeight < innerHeight / 8";
    assert_eq!(browser.eval(foot), true, "it takes the agents' place");
    // For those who cannot guess the keys: a link that comes with the focus.
    browser.go(&format!("{origin}/wall"));
    browser.until("the panels", &format!("{panels} !== ''"));
    browser.eval("document.querySelector('.wall-exit').focus()");
    let top = "document.querySelector('.wall-exit').getBoundingClientRect().top";
    browser.until("it is on the screen", &format!("{top} >= 0"));
    assert_eq!(browser.faults(), []);
}

#[test]
fn a_wall_has_twelve_pools_at_most_and_says_so() {
    needs!(Chromium);
    let mut toml = String::from("[viewers]\nopen = true\n");
    for pool in 0..14 {
        toml += &format!(
            "[[pools]]\nid = \"pool-{pool:02}\"\nkeys = [{{ app_key = \"key-{pool}\", app_secret_sha256 = \"{}\" }}]\n",
            crate::support::setup::sha256("secret")
        );
    }
    let server = Server::start(&toml);
    let browser = Browser::start();
    browser.size(1280, 720);
    browser.go(&format!("http://{}/wall", server.addr()));
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.eval("document.querySelectorAll('.wall-panel').length"), 12);
    let more = browser.text("document.querySelector('.wall-more').textContent");
    assert!(more.starts_with("The first 12 of 14 pools"), "{more}");
    browser.until("nothing is cut off", &format!("{OVERFLOWS}.length === 0"));
    browser.shot("wall-twelve");
}
