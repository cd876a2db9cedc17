//! From a configuration to a running server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crossbeam_channel::{bounded, tick};
use socket2::{Domain, Protocol, Socket, Type};

use super::sockets::{INGEST, READS, SocketDirectory};
use super::{Server, Sizes, StartError};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::threads::{Outcome, Role, Threads};
use crate::server::config::{Config, PoolConfig};
use crate::server::descriptors::{fit_to_descriptors, raise_descriptor_limit};
use crate::server::door::{Dashboards, Door, DoorParts};
use crate::server::event::FanoutIndex;
use crate::server::fanout::{self, FanoutHandle};
use crate::server::hub::{self, HubHandle};
use crate::server::limits::{FANOUT_BATCHES, Limits, MAX_UNSENT_BYTES, eviction_tick};
use crate::server::registry::Rules;
use crate::server::relay::Responder;
use crate::server::subscriber::Subscribers;
use crate::server::workers::{Handlers, SnapshotBody, Workers};
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
        let limits = fitted(config.limits);
        let (listeners, addresses) = listen(&config.listen)?;
        let directory = SocketDirectory::create(&std::env::temp_dir())
            .map_err(|error| StartError::Resource("the directory of the private sockets", error))?;
        let (threads, ends) = Threads::new(limits.max_dashboards + OTHER_THREADS);
        let pools = config.pools.iter().map(|pool| pool.id.clone()).collect();
        let shared = Shared { clock, counters, threads, epoch: epoch()?, pools, limits };
        let rules = Rules {
            evict_after: config.evict_after,
            tick: eviction_tick(config.evict_after),
            max_agents_per_pool: shared.limits.max_agents_per_pool,
            max_pool_bytes: shared.limits.max_pool_bytes,
        };
        let (hub, fanouts) = shared.spawn_core(rules, sizes.fanouts)?;
        let gate = Arc::new(config.gate);
        let handlers = Arc::new(shared.handlers(&hub, config.pools, &gate));
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
            dashboards: Dashboards::new(&shared.limits, Arc::clone(&shared.counters)),
            limits: shared.limits.clone(),
            clock,
            counters: Arc::clone(&shared.counters),
            feed: Box::new(subscribers),
        })
        .map_err(|error| StartError::Resource("the door", error))?;
        let ingest = shared.workers(ingest, Arc::clone(&handlers), ingest_responder);
        let reads = shared.workers(reads, handlers, reads_responder);
        let backends = vec![(ingest, sizes.workers), (reads, 1)];
        for ((workers, count), name) in backends.iter().zip([INGEST, READS]) {
            shared.spawn_workers(workers, *count, name)?;
        }
        shared.spawn("door".to_owned(), move || door.run().map_err(|error| error.to_string()))?;
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
        name: String,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Result<(), StartError> {
        self.threads
            .spawn(name, Role::Essential, work)
            .map_err(|error| StartError::Resource("a thread", error))
    }

    fn spawn_core(
        &self,
        rules: Rules,
        fanouts: usize,
    ) -> Result<(HubHandle, Vec<FanoutHandle>), StartError> {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..fanouts).map(|_| bounded(FANOUT_BATCHES)).unzip();
        let (hub, hub_handle) = hub::hub(hub::Parts {
            pools: Arc::clone(&self.pools),
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
                index: FanoutIndex(index),
                batches,
                hub: hub_handle.clone(),
                pools: Arc::clone(&self.pools),
                epoch: Arc::clone(&self.epoch),
                times: fanout::Times::from(&self.limits),
                clock: self.clock,
                counters: Arc::clone(&self.counters),
            });
            self.spawn(format!("fanout-{index}"), move || {
                fanout.run();
                Ok(())
            })?;
            handles.push(handle);
        }
        self.spawn("hub".to_owned(), move || hub.run().map_err(|error| error.to_string()))?;
        Ok((hub_handle, handles))
    }

    fn handlers(
        &self,
        hub: &HubHandle,
        pools: Vec<PoolConfig>,
        gate: &Arc<crate::server::auth::Gate>,
    ) -> Handlers {
        Handlers {
            hub: hub.clone(),
            snapshot_bodies: pools.iter().map(|_| SnapshotBody::default()).collect(),
            pools,
            gate: Arc::clone(gate),
            epoch: Arc::clone(&self.epoch),
            started_at: self.clock.wall(),
            max_tasks: self.limits.max_tasks_per_heartbeat,
            counters: Arc::clone(&self.counters),
        }
    }

    fn workers(
        &self,
        server: tiny_http::Server,
        handlers: Arc<Handlers>,
        responder: Responder,
    ) -> Arc<Workers> {
        let counters = Arc::clone(&self.counters);
        Arc::new(Workers::new(server, handlers, responder, self.clock, counters))
    }

    fn spawn_workers(
        &self,
        workers: &Arc<Workers>,
        count: usize,
        name: &str,
    ) -> Result<(), StartError> {
        for number in 0..count {
            let workers = Arc::clone(workers);
            self.spawn(format!("{name}-{number}"), move || {
                workers.work().map_err(|error| format!("tiny_http no longer accepts: {error}"))
            })?;
        }
        Ok(())
    }
}

/// Each kind of work has its own tiny_http server, so that snapshots do not delay heartbeats.
fn bind_backend(directory: &SocketDirectory, name: &str) -> Result<tiny_http::Server, StartError> {
    tiny_http::Server::http_unix(&directory.socket(name))
        .map_err(|error| StartError::Resource("a private socket", io::Error::other(error)))
}

/// The limits, reduced to the descriptors that this process may have.
fn fitted(limits: Limits) -> Limits {
    match raise_descriptor_limit() {
        Ok(descriptors) => {
            let (limits, changed) = fit_to_descriptors(limits, descriptors);
            if let Some(changed) = changed {
                log::warn!("{changed}");
            }
            limits
        }
        Err(error) => {
            log::warn!("cannot read the limit of descriptors: {error}");
            limits
        }
    }
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
    let mut listeners = Vec::with_capacity(wanted.len());
    let mut addresses = Vec::with_capacity(wanted.len());
    for address in wanted {
        let bound = bind(*address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => {
                addresses.push(address);
                listeners.push(listener);
            }
            Err(error) if wanted.len() > 1 && is_missing_ipv6(*address, &error) => {
                log::warn!("not listening on {address}, which this machine does not have: {error}");
            }
            Err(error) => return Err(StartError::Listen(*address, error)),
        }
    }
    Ok((listeners, addresses))
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
    // Accepted sockets inherit it.
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
