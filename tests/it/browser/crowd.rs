//! A crowd: 2,000 agents with 500 heartbeats a second for a minute. The page keeps up, and costs
//! at the end what it cost at the beginning.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::hooks::{self, IS_LIVE, pool_url, row_with};
use crate::support::crowd::{Crowd, Stop, beat, paced};
use crate::support::flood::heavy;
use crate::support::tools::needs;
use crate::support::wait::{now, pause, wall};
use crate::support::{Browser, Conn, Server, Setup};

const AGENTS_IN_ALL: usize = 2_000;
const HEARTBEATS_PER_SECOND: u64 = 500;
/// Of these, the watched agent's.
const WATCHED_PER_SECOND: u64 = 10;
const TIME: Duration = Duration::from_secs(60);
/// When the page is measured first.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// The oldest that anything on the page may be.
const OLDEST_MS: u64 = 2_000;
/// The first by its name, and so in sight. Its task's id rises with every heartbeat.
const WATCHED: &str = "0-watched";

/// What the page costs: elements, all nodes, and the heap in bytes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    elements: u64,
    nodes: f64,
    heap: f64,
}

impl Cost {
    fn of(browser: &Browser) -> Self {
        let metrics = browser.metrics();
        Self {
            elements: browser.get("document.querySelectorAll('*').length"),
            nodes: metrics["Nodes"],
            heap: metrics["JSHeapUsedSize"],
        }
    }
}

#[test]
fn the_page_keeps_up_with_2000_agents_and_500_heartbeats_a_second() {
    needs!(Chromium);
    let _alone = heavy();
    let server = Server::start(&Setup::open().toml());
    let addr = server.addr();
    let browser = Browser::start();
    browser.ignore_network();
    browser.go(&pool_url(addr));
    let sent_at = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Stop(&stop);
        scope.spawn(|| watched(addr, &sent_at, &stop));
        let others = Crowd {
            agents: AGENTS_IN_ALL - 1,
            per_second: HEARTBEATS_PER_SECOND - WATCHED_PER_SECOND,
        };
        others.start(scope, addr, &stop);
        browser.until("all agents are there", &hooks::has_agents(AGENTS_IN_ALL));
        row_with(&browser, WATCHED, "is in sight", |_| true);

        let begun = now();
        let mut settled = None;
        let mut oldest = 0;
        while begun.elapsed() < TIME {
            pause(Duration::from_secs(1));
            let age = age_ms(&browser, &sent_at);
            assert!(age <= OLDEST_MS, "{age} ms old after {:?}", begun.elapsed());
            oldest = oldest.max(age);
            if begun.elapsed() >= SETTLED_AFTER && settled.is_none() {
                settled = Some(Cost::of(&browser));
            }
        }
        let (settled, end) = (settled.unwrap(), Cost::of(&browser));
        let beats = sent_at.lock().unwrap().len();
        let measured = format!("{settled:?}, then {end:?}; {beats} watched, {oldest} ms at worst");
        println!("{measured}");
        assert!(beats as u64 >= WATCHED_PER_SECOND * TIME.as_secs() / 2, "too slow: {measured}");
        assert_eq!(settled.elements, end.elements, "{measured}");
        assert!((end.nodes / settled.nodes - 1.0).abs() <= 0.01, "{measured}");
        assert!(end.heap <= settled.heap * 1.2, "{measured}");
        scrolls(&browser);
        drop(ends);
    });
    browser.until("the page is live", IS_LIVE);
    assert_eq!(browser.faults(), []);
}

/// Down to the last agent, drawn there and kept up to date, and back.
fn scrolls(browser: &Browser) {
    let last = format!("agent-{:04}", AGENTS_IN_ALL - 2);
    let in_sight = format!(
        "(row => row?.querySelector('.cpu .value') != null
             && row.getBoundingClientRect().top < innerHeight
             && row.getBoundingClientRect().bottom > 0)(document.querySelector({:?}))",
        hooks::agent(&last)
    );
    assert_eq!(browser.eval(&in_sight), false, "there is nothing to scroll");
    browser.until("the last is in sight", &format!("scrollTo(0, 1e9), {in_sight}"));
    browser.shot("crowd-bottom");
    let before = row_with(browser, &last, "is drawn", |_| true);
    row_with(browser, &last, "is kept up to date", |row| row.cpu.value != before.cpu.value);
    browser.eval("scrollTo(0, 0)");
    let before = row_with(browser, WATCHED, "is drawn", |_| true);
    row_with(browser, WATCHED, "is kept up to date", |row| row.tasks[0].id != before.tasks[0].id);
}

/// How long ago the oldest heartbeat was sent that the page, which shows an older one, should show.
fn age_ms(browser: &Browser, sent_at: &Mutex<Vec<u64>>) -> u64 {
    let task = format!("{} .task-id", hooks::agent(WATCHED));
    let (shown, at): (String, f64) =
        browser.get(&format!("[{}, Date.now()]", hooks::text_of(&task)));
    let shown: usize = shown.trim_start_matches('#').parse().unwrap();
    // Task ids begin with 1: index `shown` is of the one after the shown.
    let next = sent_at.lock().unwrap().get(shown).copied();
    next.map_or(0, |sent| (at as u64).saturating_sub(sent))
}

fn wall_ms() -> u64 {
    let now = humantime::parse_rfc3339(&wall()).unwrap();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn say_number(conn: &mut Conn, sent_at: &Mutex<Vec<u64>>) {
    let number = {
        let mut sent_at = sent_at.lock().unwrap();
        sent_at.push(wall_ms());
        sent_at.len()
    };
    beat(conn, WATCHED, number, (number % 80) as f64);
}

/// The agent that is looked at.
fn watched(addr: SocketAddr, sent_at: &Mutex<Vec<u64>>, stop: &AtomicBool) {
    let mut conn = Conn::open(addr);
    paced(WATCHED_PER_SECOND as f64, stop, |_| say_number(&mut conn, sent_at));
}
