//! Refusals: which 401 must wait, and what the log says, once a minute and cause, without secrets.
//! Pure: addresses, refusals and instants in, decisions and lines out; delays nothing and writes no
//! log itself.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::addresses::Address;
use crate::runtime::counters::{Count, Counters};
use crate::runtime::logging::printable;
use crate::server::auth::Gate;
use crate::wire::id::AgentId;

/// 401s that one address gets at once within [`WINDOW`]; a person who mistypes needs a few, a
/// misconfigured agent that retries once a minute never more.
const AT_ONCE: usize = 20;

const WINDOW: Duration = Duration::from_secs(60);

/// Addresses that are remembered, about 600 bytes each; beyond it the oldest is forgotten.
const MAX_ADDRESSES: usize = 4_096;

/// Time between two lines of one cause.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Of an app key that is not configured, the log shows so many characters.
const UNKNOWN_KEY_CHARS: usize = 4;

/// When each address was refused with 401, as far as it decides whether the next one waits.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    recent: HashMap<Address, VecDeque<Instant>>,
    /// In the order in which they came into the table.
    order: VecDeque<Address>,
}

impl Guesses {
    /// Notes a 401; true when it must wait.
    pub(super) fn note(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = Address::from(address);
        if !self.recent.contains_key(&address) {
            if self.order.len() == MAX_ADDRESSES
                && let Some(oldest) = self.order.pop_front()
            {
                self.recent.remove(&oldest);
            }
            self.order.push_back(address);
        }
        let recent = self.recent.entry(address).or_default();
        let oldest = if recent.len() == AT_ONCE { recent.pop_front() } else { None };
        recent.push_back(now);
        oldest.is_some_and(|oldest| now.saturating_duration_since(oldest) < WINDOW)
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    MissingHeader,
    UnknownKey,
    WrongSecret,
    MissingToken,
    WrongToken,
    ForeignHost,
    ForeignOrigin,
    BadHeartbeat,
    Flood,
}

impl Cause {
    /// Its words in the log, and its counter.
    pub(super) fn parts(self) -> (&'static str, fn(&Counters) -> &Count) {
        match self {
            Self::MissingHeader => ("credentials missing", |it| &it.refused_missing_header),
            Self::UnknownKey => ("unknown app key", |it| &it.refused_unknown_key),
            Self::WrongSecret => ("wrong secret", |it| &it.refused_wrong_secret),
            Self::MissingToken => ("no viewer token", |it| &it.refused_missing_token),
            Self::WrongToken => ("wrong viewer token", |it| &it.refused_wrong_token),
            Self::ForeignHost => ("foreign Host", |it| &it.refused_foreign_host),
            Self::ForeignOrigin => ("foreign Origin", |it| &it.refused_foreign_origin),
            Self::BadHeartbeat => ("bad heartbeat", |it| &it.refused_bad_heartbeat),
            Self::Flood => ("too many heartbeats a second", |it| &it.refused_flood),
        }
    }
}

/// The agent that a request names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Requester {
    /// As sent, known or not.
    pub(super) app_key: Option<Box<str>>,
    pub(super) agent: Option<AgentId>,
}

/// One refused request.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) cause: Cause,
    pub(super) address: IpAddr,
    pub(super) requester: Requester,
    /// What exactly; may hold what the client sent.
    pub(super) why: Option<String>,
}

impl Refusal {
    /// For the log, with `last` before the address. A secret may come in a wrong header or in the
    /// path.
    pub(super) fn show(&self, last: &str, gate: &Gate) -> impl fmt::Display {
        let Self { cause, address, requester: Requester { app_key, agent }, why } = self;
        fmt::from_fn(move |f| {
            f.write_str(cause.parts().0)?;
            if let Some(why) = why {
                let shown = if gate.is_secret(why) { "(a secret)" } else { why };
                write!(f, " ({})", printable(shown))?;
            }
            write!(f, "; {last}from {address}")?;
            match app_key.as_deref() {
                None => {}
                Some(key) if gate.has_key(key) => write!(f, ", app key \"{}\"", printable(key))?,
                Some(key) if gate.is_secret(key) => f.write_str(", app key (a secret)")?,
                // It may be a secret that was rotated or mistyped.
                Some(key) => {
                    let start: String = key.chars().take(UNKNOWN_KEY_CHARS).collect();
                    let (start, length) = (printable(&start), key.chars().count());
                    write!(f, ", app key \"{start}...\" ({length} characters)")?;
                }
            }
            match agent {
                None => Ok(()),
                Some(agent) if gate.is_secret(agent.as_str()) => f.write_str(", agent (a secret)"),
                Some(agent) => write!(f, ", agent \"{agent}\""),
            }
        })
    }
}

/// What the log has yet to say, by cause.
#[derive(Debug, Default)]
pub(super) struct Refusals([Tally; Cause::Flood as usize + 1]);

#[derive(Debug, Default)]
struct Tally {
    /// Since the last line.
    count: u64,
    last: Option<Refusal>,
    told: Option<Instant>,
    /// When the next line is due; none while there is nothing to say.
    due: Option<Instant>,
}

impl Refusals {
    pub(super) fn note(&mut self, refusal: Refusal, now: Instant) {
        let tally = &mut self.0[refusal.cause as usize];
        tally.count += 1;
        tally.last = Some(refusal);
        tally.due.get_or_insert(tally.told.map_or(now, |told| now.max(told + LINE_EVERY)));
    }

    /// When [`Refusals::lines`] has something next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|tally| tally.due).min()
    }

    /// The lines that are due, or at the end `all` that is left.
    pub(super) fn lines(&mut self, now: Instant, all: bool, gate: &Gate) -> Vec<String> {
        let tallies = self.0.iter_mut();
        let due = tallies.filter(|tally| tally.due.is_some_and(|due| all || due <= now));
        due.filter_map(|tally| tally.line(now, gate)).collect()
    }
}

impl Tally {
    fn line(&mut self, now: Instant, gate: &Gate) -> Option<String> {
        let refusal = self.last.take()?;
        let count = std::mem::take(&mut self.count);
        self.due = None;
        let since = self.told.replace(now).map(|told| now.saturating_duration_since(told));
        let (requests, last) = if count == 1 { ("request", "") } else { ("requests", "last ") };
        let time = since.map(|since| format!(" in {} s", since.as_secs())).unwrap_or_default();
        let refusal = refusal.show(last, gate);
        Some(format!("refused {count} {requests}{time}: {refusal}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;
    use crate::server::auth::SecretDigest;
    use crate::wire::id::PoolIndex;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A table, and the start of its time.
    fn guesses() -> (Guesses, impl Fn(u64) -> Instant) {
        let start = Clock::start().now();
        (Guesses::default(), move |millis| start + Duration::from_millis(millis))
    }

    #[test]
    fn the_twenty_first_in_a_minute_waits_and_the_twentieth_does_not() {
        let (mut guesses, at) = guesses();
        let address = ip("192.0.2.1");
        for number in 0..20 {
            assert!(!guesses.note(address, at(1_000 * number)), "{number}");
        }
        assert!(guesses.note(address, at(19_000)), "the 21st");
        assert!(guesses.note(address, at(20_000)), "those that waited count as well");
        assert!(!guesses.note(ip("192.0.2.2"), at(20_000)), "another address");
    }

    #[test]
    fn the_minute_slides() {
        let (mut guesses, at) = guesses();
        let address = ip("192.0.2.1");
        for number in 0..20 {
            assert!(!guesses.note(address, at(1_000 * number)));
        }
        // Within the minute behind it are those of 1 s to 19 s, then itself and those of 2 s on.
        assert!(!guesses.note(address, at(60_000)), "the first is a minute old");
        assert!(guesses.note(address, at(60_999)), "the second is not quite");
        assert!(!guesses.note(address, at(62_000)), "the third is");
        assert!(!guesses.note(address, at(200_000)), "all are");
    }

    #[test]
    fn ipv6_is_refused_by_its_network_and_mapped_ipv4_as_ipv4() {
        let (mut guesses, at) = guesses();
        for host in 0..20 {
            assert!(!guesses.note(ip(&format!("2001:db8:0:1::{host:x}")), at(host)));
            assert!(!guesses.note(ip("::ffff:192.0.2.1"), at(host)));
        }
        assert!(guesses.note(ip("2001:db8:0:1:ffff::"), at(20)));
        assert!(!guesses.note(ip("2001:db8:0:2::1"), at(20)));
        assert!(guesses.note(ip("192.0.2.1"), at(20)));
    }

    #[test]
    fn of_4097_addresses_the_oldest_is_forgotten() {
        let (mut guesses, at) = guesses();
        let address = |number: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
        for _ in 0..20 {
            guesses.note(address(0), at(0));
            guesses.note(address(1), at(0));
        }
        for number in 2..4_096 {
            guesses.note(address(number), at(1));
        }
        assert!(guesses.note(address(0), at(2)), "4,096 are remembered");
        guesses.note(address(4_096), at(3));
        assert!(guesses.note(address(1), at(4)), "the second oldest still is");
        assert!(!guesses.note(address(0), at(4)), "the oldest is not");
        assert_eq!((guesses.recent.len(), guesses.order.len()), (4_096, 4_096));
    }

    fn gate() -> Gate {
        Gate::default().with_key("k", PoolIndex(0), SecretDigest::of("s3cret"))
    }

    fn refusal(cause: Cause, key: &str, agent: &str) -> Refusal {
        let requester = Requester { app_key: Some(key.into()), agent: AgentId::parse(agent).ok() };
        Refusal { cause, address: ip("192.0.2.1"), requester, why: None }
    }

    #[test]
    fn a_cause_has_one_line_a_minute() {
        let start = Clock::start().now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut refusals = Refusals::default();
        let gate = gate();
        let lines = |refusals: &mut Refusals, millis| refusals.lines(at(millis), false, &gate);
        assert_eq!(refusals.due(), None);
        refusals.note(refusal(Cause::UnknownKey, "k", "a"), at(0));
        assert_eq!(refusals.due(), Some(at(0)));
        let first =
            "refused 1 request: unknown app key; from 192.0.2.1, app key \"k\", agent \"a\"";
        assert_eq!(lines(&mut refusals, 0), [first]);
        for number in 1..=3 {
            refusals.note(refusal(Cause::UnknownKey, "k", &format!("a-{number}")), at(number));
        }
        refusals.note(refusal(Cause::WrongSecret, "k", "b"), at(5));
        assert_eq!(lines(&mut refusals, 5).len(), 1, "another cause has its own line");
        assert_eq!(refusals.due(), Some(at(60_000)));
        assert!(lines(&mut refusals, 59_999).is_empty());
        let second = "refused 3 requests in 60 s: unknown app key; last from 192.0.2.1, app key \"k\", agent \"a-3\"";
        assert_eq!(lines(&mut refusals, 60_000), [second]);
        assert_eq!(refusals.due(), None);
        // Long after the last line the next comes at once.
        refusals.note(refusal(Cause::UnknownKey, "k", "a"), at(500_000));
        assert_eq!(refusals.due(), Some(at(500_000)));
        assert_eq!(lines(&mut refusals, 500_000).len(), 1);
        refusals.note(refusal(Cause::UnknownKey, "k", "a"), at(500_001));
        assert_eq!(refusals.lines(at(500_001), true, &gate).len(), 1, "at the end");
    }

    #[test]
    fn what_clients_send_is_escaped_and_bounded_and_secrets_are_withheld() {
        let mut refused = refusal(Cause::ForeignHost, &format!("a\"\n{}", "x".repeat(9_000)), "a");
        refused.why = Some("evil\u{1b}[2J".to_owned());
        let line = refused.show("", &gate()).to_string();
        assert!(line.starts_with(r"foreign Host (evil\u{1b}[2J); from 192.0.2.1"), "{line}");
        assert!(line.contains(r#"app key "a\"\nx..." (9003 characters)"#), "{line}");
        let mut swapped = refusal(Cause::UnknownKey, "s3cret", "s3cret");
        swapped.why = Some("s3cret".to_owned());
        let line = swapped.show("", &gate()).to_string();
        let withheld =
            "unknown app key ((a secret)); from 192.0.2.1, app key (a secret), agent (a secret)";
        assert_eq!(line, withheld);
        let rotated =
            refusal(Cause::UnknownKey, "s3cret-of-may", "a").show("", &gate()).to_string();
        assert!(rotated.ends_with(r#"app key "s3cr..." (13 characters), agent "a""#), "{rotated}");
    }
}
