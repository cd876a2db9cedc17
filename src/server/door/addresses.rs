//! Counts by client address: the unit that caps and delays go by, and permits for connections and
//! for dashboards. Counts; closes nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::runtime::counters::{Count, Counters};

/// What counts as one address: an IPv4 address (written as IPv6 or not), or an IPv6 /64, since
/// that is what one subscriber gets (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

/// A semaphore with a second bound, for each address. Subscriber and fanout threads release permits
/// that the door acquired, hence the lock.
#[derive(Debug)]
pub(super) struct Permits {
    held: Mutex<Held>,
    max: usize,
    max_per_address: usize,
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &Count,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_address: HashMap<Address, usize>,
}

/// Which bound is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    Total,
    Address,
}

impl Permits {
    pub(super) fn new(
        max: usize,
        max_per_address: usize,
        counters: Arc<Counters>,
        gauge: fn(&Counters) -> &Count,
    ) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), max, max_per_address, counters, gauge })
    }

    /// Without an `address` only the total is bounded.
    pub(super) fn acquire(self: &Arc<Self>, address: Option<Address>) -> Result<Permit, Full> {
        let mut held = self.held();
        if let Some(address) = address {
            let here = held.by_address.get(&address).copied().unwrap_or_default();
            if here >= self.max_per_address {
                return Err(Full::Address);
            }
        }
        if held.total >= self.max {
            return Err(Full::Total);
        }
        held.total += 1;
        if let Some(address) = address {
            *held.by_address.entry(address).or_default() += 1;
        }
        (self.gauge)(&self.counters).add_one();
        Ok(Permit { permits: Arc::clone(self), address })
    }

    /// A panic elsewhere cannot leave the counts inconsistent, so a poisoned lock is usable.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Released when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    pub(super) address: Option<Address>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.permits.held();
        held.total -= 1;
        if let Some(address) = self.address
            && let Some(here) = held.by_address.get_mut(&address)
        {
            *here -= 1;
            if *here == 0 {
                held.by_address.remove(&address);
            }
        }
        (self.permits.gauge)(&self.permits.counters).remove_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8::1"));
        assert_eq!(address("::ffff:192.0.2.7"), address("192.0.2.7"));
        assert_ne!(address("192.0.2.8"), address("192.0.2.7"));
    }

    #[test]
    fn permits_are_bounded_in_all_and_by_address_and_come_back() {
        let counters = Arc::new(Counters::default());
        let permits = Permits::new(3, 2, Arc::clone(&counters), |it| &it.dashboards);
        let (here, there) = (Some(address("192.0.2.1")), Some(address("192.0.2.2")));
        let first = permits.acquire(here).unwrap();
        let _second = permits.acquire(here).unwrap();
        assert_eq!(permits.acquire(here).unwrap_err(), Full::Address);
        let third = permits.acquire(there).unwrap();
        assert_eq!(permits.acquire(there).unwrap_err(), Full::Total);
        assert_eq!(permits.acquire(None).unwrap_err(), Full::Total);
        assert_eq!(counters.dashboards.get(), 3);
        drop(first);
        let again = permits.acquire(here).unwrap();
        drop(third);
        assert_eq!(counters.dashboards.get(), 2);
        assert_eq!(permits.held().by_address.len(), 1);
        drop(again);
        let _exempt = [permits.acquire(None).unwrap(), permits.acquire(None).unwrap()];
        assert_eq!(counters.dashboards.get(), 3);
    }
}
