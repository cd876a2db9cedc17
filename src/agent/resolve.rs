//! Names to addresses for the agent's one server. Remembers the answer while it serves, so
//! that a kept-alive connection needs no name server, and forgets it on failure.
//!
//! ureq's own resolver asks before every request, connection or not, and starts an unnamed
//! thread each time to bound the wait. Ours blocks: it runs on the posting thread, which the
//! agent never waits for longer than it wants to.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How many addresses of one name are tried; ureq's array holds no more.
const MAX_ADDRESSES: usize = 16;

/// A resolver whose clones share one memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembering {
    last: Arc<Mutex<Option<Known>>>,
}

#[derive(Debug)]
struct Known {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
}

impl Remembering {
    /// The next request asks anew.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ureq::Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*last
            && known.host == host
            && known.port == port
        {
            return Ok(known.addresses.clone());
        }
        let addresses: Vec<_> =
            format!("{host}:{port}").to_socket_addrs()?.take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        *last = Some(Known { host: host.to_owned(), port, addresses: addresses.clone() });
        Ok(addresses)
    }
}

impl Resolver for Remembering {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let addresses = self.addresses(host, uri.port_u16().unwrap_or(default_port))?;
        let mut resolved = self.empty();
        for address in addresses {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_remembered_until_it_is_forgotten() {
        let resolver = Remembering::default();
        let found = resolver.addresses("127.0.0.1", 80).unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(resolver.addresses("[::1]", 81).unwrap(), ["[::1]:81".parse().unwrap()]);
        // An answer that no lookup would give shows that the memory is used.
        let planted: SocketAddr = "192.0.2.1:7".parse().unwrap();
        resolver.last.lock().unwrap().as_mut().unwrap().addresses = vec![planted];
        assert_eq!(resolver.clone().addresses("[::1]", 81).unwrap(), [planted]);
        resolver.forget();
        assert_eq!(resolver.addresses("[::1]", 81).unwrap(), ["[::1]:81".parse().unwrap()]);
    }
}
