//! From a configuration to a running server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded, tick};
use socket2::{Domain, Protocol, Socket, Type};

use super::config::Config;
use super::descriptors::fit_to_descriptors;
use super::door::{Door, DoorParts};
use super::event::Control;
use super::fanout;
use super::hub::{self, HubHandle};
use super::limits::{FANOUT_BATCHES, Limits, MAX_EVICTION_TICK, MAX_UNSENT_BYTES};
use super::registry::Rules;
use super::relay::Responder;
use super::sockets::{INGEST, READS, SocketDirectory};
use super::subscriber::Subscribers;
use super::workers::{Handle, Handlers, SnapshotBody, Workers};
use super::{Server, Sizes, StartError};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::{Outcome, Role, Threads};
use crate::wire::id::PoolId;

/// Connections that wait to be accepted; the system may have a lower limit.
const BACKLOG: i32 = 1_024;

/// Upper bound of threads other than the dashboards'.
const OTHER_THREADS: usize = 64;

/// What many parts of the server need.
struct Shared {
    clock: Clock,
    counters: Arc<Counters>,
    threads: Threads,
    epoch: Arc<str>,
    pools: Arc<[PoolId]>,
    names: Arc<[String]>,
    limits: Limits,
}

impl Server {
    /// When this returns, heartbeats and dashboards are served. After an error only threads without
    /// work are left, which end with the process.
    pub(crate) fn start(
        config: Config,
        sizes: Sizes,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Result<Self, StartError> {
        let limits = fit_to_descriptors(config.limits);
        let (listeners, addresses) = listen(&config.listen)?;
        let directory = SocketDirectory::create(&std::env::temp_dir())
            .map_err(|error| StartError::Resource("the directory of the private sockets", error))?;
        let (threads, ends) = Threads::new(limits.max_dashboards + OTHER_THREADS);
        let pools = config.pools.iter().map(|pool| pool.id.clone()).collect();
        let names = config.pools.iter().map(|pool| pool.name.clone()).collect();
        let shared = Shared { clock, counters, threads, epoch: epoch()?, pools, names, limits };
        let rules = Rules {
            evict_after: config.evict_after,
            tick: MAX_EVICTION_TICK.min(config.evict_after / 4),
            max_agents_per_pool: shared.limits.max_agents_per_pool,
            max_pool_bytes: shared.limits.max_pool_bytes,
            max_updates_per_second: shared.limits.max_agent_updates_per_second,
        };
        let (hub, fanouts) = shared.spawn_core(rules, sizes.fanouts)?;
        let gate = Arc::new(config.gate);
        let handlers: Arc<dyn Handle> = Arc::new(Handlers {
            hub: hub.clone(),
            snapshot_bodies: config.pools.iter().map(|_| SnapshotBody::default()).collect(),
            pools: config.pools,
            gate: Arc::clone(&gate),
            epoch: Arc::clone(&shared.epoch),
            started_at: clock.wall(),
            counters: Arc::clone(&shared.counters),
        });
        let ingest = bind_backend(&directory, INGEST)?;
        let reads = bind_backend(&directory, READS)?;
        #[cfg(test)]
        let for_tests = fanouts.clone();
        let subscribers = Subscribers::new(shared.threads.clone(), hub.clone(), fanouts, clock);
        let (door, door_handle, [ingest_responder, reads_responder]) = Door::new(DoorParts {
            listeners,
            backends: [directory.socket(INGEST), directory.socket(READS)],
            gate,
            pools: shared.pools.to_vec(),
            limits: shared.limits.clone(),
            clock,
            counters: Arc::clone(&shared.counters),
            open_feed: Box::new(move |upgrade| subscribers.open(upgrade)),
        })
        .map_err(|error| StartError::Resource("the door", error))?;
        let backends = [
            shared.spawn_workers(INGEST, sizes.workers, ingest, ingest_responder, &handlers)?,
            shared.spawn_workers(READS, 1, reads, reads_responder, &handlers)?,
        ];
        shared.spawn("door", move || door.run().map_err(|error| error.to_string()))?;
        Ok(Self {
            addresses,
            clock,
            threads: shared.threads,
            ends,
            door: door_handle,
            hub,
            backends,
            agent: None,
            #[cfg(test)]
            fanouts: for_tests,
            _directory: directory,
        })
    }
}

impl Shared {
    /// Starts an essential thread.
    fn spawn(
        &self,
        name: impl Into<String>,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Result<(), StartError> {
        let spawned = self.threads.spawn(name, Role::Essential, work);
        spawned.map_err(|error| StartError::Resource("a thread", error))
    }

    fn spawn_core(
        &self,
        rules: Rules,
        fanouts: usize,
    ) -> Result<(HubHandle, Vec<Sender<Control>>), StartError> {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..fanouts).map(|_| bounded(FANOUT_BATCHES)).unzip();
        let (hub, hub_handle) = hub::hub(hub::Parts {
            pools: Arc::clone(&self.pools),
            names: Arc::clone(&self.names),
            epoch: Arc::clone(&self.epoch),
            rules,
            timeout: self.limits.hub_timeout(),
            ticks: tick(rules.tick),
            windows: tick(hub::HUB_WINDOW),
            fanouts: senders,
            clock: self.clock,
            counters: Arc::clone(&self.counters),
        });
        let mut handles = Vec::with_capacity(fanouts);
        for (index, batches) in receivers.into_iter().enumerate() {
            let (fanout, handle) = fanout::fanout(fanout::Parts {
                batches,
                hub: hub_handle.clone(),
                pools: Arc::clone(&self.pools),
                epoch: Arc::clone(&self.epoch),
                times: fanout::Times::from(&self.limits),
                clock: self.clock,
                counters: Arc::clone(&self.counters),
            });
            handles.push(handle);
            self.spawn(format!("fanout-{index}"), move || {
                fanout.run();
                Ok(())
            })?;
        }
        self.spawn("hub", move || hub.run().map_err(|error| error.to_string()))?;
        Ok((hub_handle, handles))
    }

    fn spawn_workers(
        &self,
        name: &str,
        count: usize,
        server: tiny_http::Server,
        responder: Responder,
        handlers: &Arc<dyn Handle>,
    ) -> Result<Arc<Workers>, StartError> {
        let (handlers, counters) = (Arc::clone(handlers), Arc::clone(&self.counters));
        let timeout = self.limits.worker_timeout;
        let workers =
            Arc::new(Workers::new(server, handlers, responder, self.clock, timeout, counters));
        for number in 0..count {
            let workers = Arc::clone(&workers);
            self.spawn(format!("{name}-{number}"), move || {
                workers.work().map_err(|error| format!("tiny_http no longer accepts: {error}"))
            })?;
        }
        Ok(workers)
    }
}

/// Each kind of work has its own tiny_http server, so that snapshots do not delay heartbeats.
fn bind_backend(directory: &SocketDirectory, name: &str) -> Result<tiny_http::Server, StartError> {
    tiny_http::Server::http_unix(&directory.socket(name))
        .map_err(|error| StartError::Resource("a private socket", io::Error::other(error)))
}

/// Identifies this run of the server: random, so that no two starts share it.
fn epoch() -> Result<Arc<str>, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| StartError::Resource("a random epoch", io::Error::other(error)))?;
    Ok(hex::encode(bytes).into())
}

/// Binds every address. The IPv6 loopback of a machine without IPv6 is skipped if there are others.
fn listen(wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let mut bound = Vec::with_capacity(wanted.len());
    for &address in wanted {
        match bind(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => bound.push((listener, address)),
            Err(error) if wanted.len() > 1 && is_missing_ipv6(address, &error) => {
                log::warn!("not listening on {address}, which this machine does not have: {error}");
            }
            Err(error) => return Err(StartError::Listen(address, error)),
        }
    }
    Ok(bound.into_iter().unzip())
}

fn is_missing_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    address.is_ipv6()
        && address.ip().is_loopback()
        && (error.kind() == io::ErrorKind::AddrNotAvailable
            || error.raw_os_error() == Some(unsupported))
}

/// Listens on exactly this address: `[::]` does not include IPv4, for which the list has an address of
/// its own.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit both. Responses and frames go out whole, in one write: waiting for more
    // to send would only delay them.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_have_the_options_of_the_listener() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), MAX_UNSENT_BYTES);
    }
}
