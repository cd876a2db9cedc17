//! `agent-metrics serve`: starts the server, and with `--dev` this machine's agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::args::ServeArgs;
use super::{Failure, logged};
use crate::agent::task_files::DEFAULT_DIR;
use crate::agent::{self, Profile, Secret, Settings, settings::default_id};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::server::config::{DEV_KEY, DEV_POOL, DEV_SECRET};
use crate::server::{Server, Sizes};

/// Interval of the agent of `--dev`: short enough to see changes.
const DEV_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let counters = Arc::new(Counters::default());
    logged(&counters, |signals| {
        let pools: Vec<_> = config.pools.iter().map(|pool| pool.id.to_string()).collect();
        let is_open = config.gate.is_open;
        let clock = Clock::start();
        let mut server = Server::start(config, Sizes::default(), clock, Arc::clone(&counters))?;
        for address in &server.addresses {
            log::info!("listening on http://{address}");
        }
        log::info!("pools: {}", pools.join(", "));
        if is_open {
            log::info!(
                "viewing is open: whoever can connect to an address above may see the dashboards"
            );
        } else {
            log::info!("viewing needs a token");
        }
        let address = *server.addresses.first().ok_or("no address to listen on")?;
        let first = if args.dev { "  (this machine is its first agent)" } else { "" };
        log::info!("the page: {}{first}", page_url(address));
        if args.dev {
            start_dev_agent(&mut server, address, clock)?;
        }
        Ok(server.run(signals)?)
    })
}

/// A browser cannot open the unspecified address.
fn page_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}/", address.port());
    }
    format!("http://{address}/")
}

fn start_dev_agent(server: &mut Server, address: SocketAddr, clock: Clock) -> Result<(), Failure> {
    log::info!(
        "to report as another agent: curl -X POST http://{address}/api/v1/agents/my-agent/ping \
         -H 'X-App-Key: {DEV_KEY}' -H 'X-App-Secret: {DEV_SECRET}' \
         -d '{{\"status\":\"busy\",\"cpu_usage\":45.5,\"memory_usage\":62.3}}'"
    );
    log::info!("live feed: ws://{address}/ws/agent-pools/{DEV_POOL}/metrics");
    log::info!("stop with Ctrl-C");
    let secret = Secret::new(DEV_SECRET)?;
    let url = format!("http://{address}");
    let profile = Profile { task_dirs: vec![DEFAULT_DIR.into()], ..Profile::default() };
    let settings = Settings::new(&url, DEV_KEY, secret, default_id()?, DEV_INTERVAL, profile)?;
    server.spawn_agent(move |stopped| {
        agent::run(settings, &stopped, clock).map_err(|error| error.to_string())
    })?;
    Ok(())
}
