//! The map of a pool's agents: links or one canvas, what cells look like, keys, pulses.

use serde_json::{Value, json};

use super::hooks::{IS_LIVE, pool_url};
use crate::support::tools::needs;
use crate::support::{Browser, Server, Setup};

/// A page with a map in an element 1,200 pixels wide, and the cells that are in it: `a0` and so on,
/// of all kinds in turn.
const MAKE: &str = r"(async count => {
    const { FleetMap } = await import('/fleet-map.js');
    const { KINDS } = await import('/map-paint.js');
    document.querySelector('#fleet')?.remove();
    const place = document.createElement('section');
    place.id = 'fleet';
    place.style.setProperty('width', '1200px');
    document.querySelector('main').prepend(place);
    window.cells = Array.from({ length: count }, (_, index) => ({
        id: `a${index}`, name: `Agent ${index}`, kind: KINDS[index % KINDS.length],
        load: index * 37 % 101, words: () => `load ${window.cells[index].load}`,
    }));
    window.shown?.stop();
    window.shown = new FleetMap(place, { label: 'The agents', hrefOf: id => `/pools/pool-a/agents/${id}` });
    shown.show(cells);
    return place.querySelectorAll('.cell-links a').length;
})";

/// The agent of the link that has the focus.
const FOCUSED: &str = "document.activeElement.dataset.agent ?? ''";

fn page() -> (Server, Browser) {
    let server = Server::start(&Setup::open().toml());
    let browser = Browser::open(&pool_url(server.addr()));
    browser.size(1280, 800);
    browser.until("the page is live", IS_LIVE);
    (server, browser)
}

fn make(browser: &Browser, count: usize) -> Value {
    let links = browser.eval(&format!("{MAKE}({count})"));
    browser
        .until("the map is laid out", "shown && document.querySelector('#fleet').clientHeight > 5");
    links
}

/// What keyboards, pointers and screen readers get, which is the same of both drawings.
fn assert_can_be_used(browser: &Browser, last: usize, columns: u64) {
    let tab_stops = "document.querySelectorAll('#fleet a:not([tabindex=\"-1\"])').length";
    assert_eq!(browser.eval(tab_stops), 1, "tab stops");
    browser.eval("document.querySelector('#fleet a:not([tabindex=\"-1\"])').focus()");
    assert_eq!(browser.text(FOCUSED), "a0");
    let down = format!("a{}", columns + 2);
    let steps = [
        ("ArrowLeft", "a0"),
        ("ArrowRight", "a1"),
        ("ArrowRight", "a2"),
        ("ArrowUp", "a2"),
        ("ArrowDown", down.as_str()),
        ("ArrowUp", "a2"),
    ];
    for (key, expected) in steps {
        browser.press(key);
        assert_eq!(browser.text(FOCUSED), expected, "after {key}");
    }
    browser.press("End");
    assert_eq!(browser.text(FOCUSED), format!("a{last}"));
    assert_eq!(browser.eval(tab_stops), 1, "tab stops after the keys");
    let label = "document.activeElement.getAttribute('aria-label')";
    let load = last * 37 % 101;
    assert_eq!(browser.text(label), format!("Agent {last}: load {load}"));
    let detail = "(element => element.checkVisibility() ? element.textContent : null)
        (document.querySelector('#fleet .cell-detail'))";
    assert_eq!(browser.text(detail), format!("Agent {last}load {load}"));
    let inside = "(box => box.right <= 1280 && box.left >= 0)
        (document.querySelector('#fleet .cell-detail').getBoundingClientRect())";
    assert_eq!(browser.eval(inside), true, "details stick out");
    // A change is told of the cell that is looked at.
    browser.eval(&format!(
        "cells[{last}] = {{...cells[{last}], load: 3}}, shown.change([cells[{last}]])"
    ));
    assert_eq!(browser.text(detail), format!("Agent {last}load 3"));
    // Others come and go: the focus stays with its agent.
    browser.eval("shown.show(cells.filter(({ id }) => id !== 'a1'))");
    assert_eq!(browser.text(FOCUSED), format!("a{last}"));
    browser.eval("shown.show(cells)");
    browser.press("Escape");
    assert_eq!(browser.eval(detail), Value::Null, "Escape hides the details");
    browser.press("Home");
    assert_eq!(browser.text(FOCUSED), "a0");
}

fn columns(browser: &Browser, count: usize) -> u64 {
    browser.get(&format!(
        "import('/map-layout.js').then(({{ packCells, MAP_HEIGHT }}) => packCells(1200, MAP_HEIGHT, {count}).columns)"
    ))
}

#[test]
fn up_to_400_agents_are_links() {
    needs!(Chromium);
    let (_server, browser) = page();
    assert_eq!(make(&browser, 400), 400);
    let columns = columns(&browser, 400);
    assert_can_be_used(&browser, 399, columns);
    browser.point_at("#fleet [data-agent=a7]");
    browser.until(
        "the details",
        "document.querySelector('#fleet .cell-detail bdi').textContent === 'Agent 7'",
    );
    browser.click("#fleet [data-agent=a7]");
    browser.until("the agent's page", "location.pathname === '/pools/pool-a/agents/a7'");
}

#[test]
fn above_400_one_canvas_has_one_link_and_says_what_it_is_at() {
    needs!(Chromium);
    let (_server, browser) = page();
    assert_eq!(make(&browser, 401), 0);
    let parts = "['canvas', 'a', '[aria-live=polite]'].map(part => document.querySelectorAll(`#fleet ${part}`).length)";
    assert_eq!(browser.eval(parts), json!([1, 1, 1]));
    let columns = columns(&browser, 401);
    assert_can_be_used(&browser, 400, columns);
    let live = "document.querySelector('#fleet [aria-live]').textContent";
    browser.press("ArrowRight");
    assert_eq!(browser.text(live), "Agent 1: load 37");
    // A pointer brings the link along, so that a click is a link's own.
    browser.point_at("#fleet canvas");
    let under = browser.text("document.querySelector('#fleet .cell-cursor a').dataset.agent");
    assert_ne!(under, "a1", "the link is not under the pointer");
    browser.click("#fleet .cell-cursor a");
    let there = format!("location.pathname === '/pools/pool-a/agents/{under}'");
    browser.until("the agent's page", &there);
}

#[test]
fn cells_have_the_colour_of_their_kind_in_both_schemes() {
    needs!(Chromium);
    let (_server, browser) = page();
    // What the style sheet says, as the browser understands it, and what is drawn at full load.
    let wanted = "(async () => {
        const { KINDS } = await import('/map-paint.js');
        const probe = document.querySelector('#fleet').appendChild(document.createElement('i'));
        return KINDS.map(kind => {
            probe.style.setProperty('color', `var(--kind-${kind === 'unheard' ? 'other' : kind})`);
            return getComputedStyle(probe).color;
        });
    })()";
    let full = "shown.show(cells = cells.map(cell => ({...cell, load: 100})))";
    for (dark, count) in [(false, 16), (false, 1_000), (true, 16), (true, 1_000)] {
        browser.dark(dark);
        make(&browser, count);
        browser.eval(full);
        let colours: Vec<String> = browser.get(wanted);
        // Of a lost agent the frame is drawn; in the middle of the lower edge all have their colour.
        let drawn: Vec<String> = browser.get(&format!(
            "(async () => {{
                const {{ packCells, MAP_HEIGHT }} = await import('/map-layout.js');
                const {{ cell, gap }} = packCells(1200, MAP_HEIGHT, {count});
                const context = document.querySelector('#fleet canvas').getContext('2d');
                return Array.from({{ length: 8 }}, (_, index) => {{
                    const x = index * (cell + gap) + Math.floor(cell / 2);
                    return `rgb(${{[...context.getImageData(x, cell - 1, 1, 1).data].slice(0, 3).join(', ')}})`;
                }});
            }})()"
        ));
        for (index, colour) in colours.iter().enumerate() {
            let what =
                format!("cell {index} of {count}, dark {dark}: {} is not {colour}", drawn[index]);
            assert!(is_near(&drawn[index], colour), "{what}");
        }
    }
    // Another scheme while the map is shown: it is drawn anew.
    let pixel = "[...document.querySelector('#fleet canvas').getContext('2d').getImageData(2, 2, 300, 1).data].join()";
    let before = browser.text(pixel);
    browser.dark(false);
    browser.until("other colours", &format!("{pixel} !== {before:?}"));
}

/// A round cell's edge is mixed with the ground.
fn is_near(one: &str, other: &str) -> bool {
    let parts = |colour: &str| -> Vec<i32> {
        let inside = colour.trim_start_matches("rgb(").trim_end_matches(')');
        inside.split(", ").map(|part| part.parse().unwrap()).collect()
    };
    parts(one).iter().zip(parts(other)).all(|(one, other)| (one - other).abs() <= 40)
}

#[test]
fn a_heartbeat_pulses_unless_motion_is_unwanted() {
    needs!(Chromium);
    let (_server, browser) = page();
    let pixels = "[...document.querySelector('#fleet canvas').getContext('2d').getImageData(0, 0, 400, 10).data].join()";
    let beat = "shown.change([], { beats: ['a0', 'a5', 'nobody'] })";
    for count in [40, 500] {
        browser.reduced_motion(false);
        make(&browser, count);
        let calm = browser.eval(pixels);
        let pulsing = browser.eval(&format!("({beat}, {pixels})"));
        assert_ne!(pulsing, calm, "no pulse in {count}");
        browser.until("the pulse ends", &format!("{pixels} === {calm}"));

        browser.reduced_motion(true);
        make(&browser, count);
        let calm = browser.eval(pixels);
        assert_eq!(browser.eval(&format!("({beat}, {pixels})")), calm, "a pulse in {count}");
    }
}

#[test]
fn only_changed_cells_are_drawn() {
    needs!(Chromium);
    let (_server, browser) = page();
    make(&browser, 2_000);
    let drawn: u64 = browser.get(
        "(() => {
            const { prototype } = CanvasRenderingContext2D;
            const { clearRect } = prototype;
            let drawn = 0;
            prototype.clearRect = function(...box) { drawn += 1; return clearRect.apply(this, box); };
            for (const index of [5, 77, 1999]) cells[index] = {...cells[index], load: (cells[index].load + 50) % 100};
            shown.show(cells);
            prototype.clearRect = clearRect;
            return drawn;
        })()",
    );
    // Kinds in turn: 5 is `other`, 77 `late`, 1999 `idle`.
    assert_eq!(drawn, 3);
}

#[test]
fn a_canvas_has_the_pixels_of_the_screen() {
    needs!(Chromium);
    let (_server, browser) = page();
    browser.eval(
        "Object.defineProperty(window, 'devicePixelRatio', { value: 2, configurable: true }), 0",
    );
    make(&browser, 1_000);
    let [pixels, size]: [f64; 2] = browser.get(
        "(canvas => [canvas.width, canvas.clientWidth])(document.querySelector('#fleet canvas'))",
    );
    assert!((pixels - 2.0 * size).abs() <= 2.0, "{pixels} for {size}");
    // Another width: another layout, which fits as well.
    browser.eval("document.querySelector('#fleet').style.setProperty('width', '500px')");
    browser.until(
        "it fits",
        "document.querySelector('#fleet canvas').clientWidth <= 500
         && document.querySelector('#fleet canvas').clientWidth > 450",
    );
}

#[test]
fn on_a_screen_of_another_ratio_a_map_is_laid_out_anew() {
    needs!(Chromium);
    let (_server, browser) = page();
    make(&browser, 1_000);
    // Looks elsewhere first, so that the link moves.
    let under = "[30, 205].map(x => {
        const canvas = document.querySelector('#fleet canvas');
        const { left, top } = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: left + x, clientY: top + 53, bubbles: true }));
        return document.querySelector('#fleet .cell-cursor a').dataset.agent;
    })";
    let before = browser.eval(under);
    assert_ne!(before[0], before[1]);
    browser.eval(
        "Object.defineProperty(window, 'devicePixelRatio', { value: 2, configurable: true }), 0",
    );
    assert_eq!(browser.eval(under), before, "drawn for the screen before");
    browser.eval("shown.show(cells), 0");
    let [pixels, size]: [f64; 2] = browser.get(
        "(canvas => [canvas.width, canvas.clientWidth])(document.querySelector('#fleet canvas'))",
    );
    assert!((pixels - 2.0 * size).abs() <= 2.0, "{pixels} for {size}");
    assert_eq!(browser.eval(under), before, "drawn for the new one");
}
