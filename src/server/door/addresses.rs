//! Counts by client address: the unit that caps and delays go by, and the places for dashboards.
//! Counts; closes nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::runtime::counters::Counters;
use crate::server::limits::Limits;

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

/// How many of something each address has.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    total: usize,
    by_address: HashMap<Address, usize>,
}

impl Occupancy {
    pub(super) fn of(&self, address: Address) -> usize {
        self.by_address.get(&address).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, address: Address) {
        self.total += 1;
        *self.by_address.entry(address).or_default() += 1;
    }

    pub(super) fn remove(&mut self, address: Address) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.by_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// The places for dashboards, shared by the door, which gives them out, and the dashboards'
/// threads, which give them back.
#[derive(Debug)]
pub(crate) struct Dashboards {
    taken: Mutex<Occupancy>,
    max: usize,
    max_per_address: usize,
    counters: Arc<Counters>,
}

impl Dashboards {
    /// As many places as `limits` says, all free; taken ones show in the gauge `dashboards`.
    #[must_use]
    pub(crate) fn new(limits: &Limits, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            max: limits.max_dashboards,
            max_per_address: limits.max_dashboards_per_address,
            counters,
        })
    }

    /// A place for a dashboard at `address`, if there is one.
    #[must_use]
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let address = Address::from(address);
        let mut taken = self.taken();
        if taken.total >= self.max || taken.of(address) >= self.max_per_address {
            return None;
        }
        taken.add(address);
        self.counters.dashboards.add_one();
        Some(Permit { places: Arc::clone(self), address })
    }

    /// A panic elsewhere cannot leave the counts inconsistent, so a poisoned lock is usable.
    fn taken(&self) -> MutexGuard<'_, Occupancy> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dashboard's place; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit {
    places: Arc<Dashboards>,
    address: Address,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places.taken().remove(self.address);
        self.places.counters.dashboards.remove_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_counts_by_its_network_and_mapped_ipv4_as_ipv4() {
        let unit = |text| Address::from(address(text));
        assert_eq!(unit("2001:db8::1"), unit("2001:db8::ffff:0:0:2"));
        assert_ne!(unit("2001:db8:0:1::1"), unit("2001:db8::1"));
        assert_eq!(unit("::ffff:192.0.2.7"), unit("192.0.2.7"));
        assert_ne!(unit("192.0.2.8"), unit("192.0.2.7"));
    }

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let limits =
            Limits { max_dashboards: 3, max_dashboards_per_address: 2, ..Limits::default() };
        let counters = Arc::new(Counters::default());
        let places = Dashboards::new(&limits, Arc::clone(&counters));
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = places.admit(here).unwrap();
        let _second = places.admit(here).unwrap();
        assert!(places.admit(here).is_none(), "the address has all of its places");
        let third = places.admit(there).unwrap();
        assert!(places.admit(there).is_none(), "all places are taken");
        assert_eq!(counters.dashboards.get(), 3);
        drop(first);
        let _again = places.admit(here).unwrap();
        drop(third);
        assert_eq!(counters.dashboards.get(), 2);
        assert_eq!(places.taken().by_address.len(), 1);
    }
}
