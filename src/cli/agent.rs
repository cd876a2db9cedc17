//! `agent-metrics agent`: reports this machine until a signal ends it, or once, or to standard
//! output.

use std::sync::Arc;

use super::args::AgentArgs;
use super::{Failure, logged, print};
use crate::agent::{self, Profile, Secret, Settings, settings::default_id};
use crate::runtime::clock::Clock;

pub(super) fn run(args: AgentArgs) -> Result<(), Failure> {
    agent::ignore_empty_cert_file()?;
    let profile = Profile { name: args.name, status: args.status, task_dirs: args.tasks_dir };
    if args.print {
        let json = String::from_utf8(agent::measure_once(&profile, Clock::start())?)?;
        return Ok(print(&format!("{json}\n"))?);
    }
    let secret = Secret::from_env_or_file(args.app_secret_file.as_deref())?;
    let id = args.id.map_or_else(default_id, Ok)?;
    // clap requires both without --print.
    let (server, app_key) = (args.server.unwrap_or_default(), args.app_key.unwrap_or_default());
    let settings = Settings::new(&server, &app_key, secret, id, args.interval, profile)?;
    if args.once {
        let (id, server) = (&settings.id, &settings.server);
        return match agent::send_once(&settings, Clock::start())? {
            Ok(()) => Ok(print(&format!("{server} received the heartbeat of agent {id}\n"))?),
            Err(error) => Err(format!("no heartbeat of agent {id} at {server}: {error}").into()),
        };
    }
    logged(&Arc::default(), |signals| Ok(agent::run(settings, signals, Clock::start())?))
}
