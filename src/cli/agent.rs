//! `agent-metrics agent`: reports this machine until a signal ends it, or once, or to standard
//! output.

use std::sync::Arc;

use crossbeam_channel::{bounded, select};

use super::args::AgentArgs;
use super::{Failure, logged, print};
use crate::agent::task_files::TaskDirs;
use crate::agent::{self, Answer, Secret, Settings, settings::default_id};
use crate::runtime::clock::Clock;
use crate::runtime::signals::Signals;
use crate::runtime::threads::{Crew, Role};

pub(super) fn run(args: AgentArgs) -> Result<(), Failure> {
    agent::forget_empty_cert_file()?;
    if args.print {
        return show_heartbeat(args);
    }
    let secret = Secret::from_env_or_file(args.app_secret_file.as_deref())?;
    let id = args.id.unwrap_or_else(default_id);
    // clap has seen to it that both are there.
    let (server, app_key) = (args.server.unwrap_or_default(), args.app_key.unwrap_or_default());
    let settings = Settings::new(&server, &app_key, secret, args.interval, id, args.name)?
        .with_status(args.status)?
        .with_task_dirs(args.tasks_dir);
    if args.once {
        return beat_once(&settings);
    }
    logged(&Arc::default(), || {
        let signals = Signals::start()?;
        let (stop, stopped) = bounded(1);
        let (crew, ends) = Crew::new(1);
        crew.spawn("agent", Role::Vital, move || {
            agent::run(settings, stopped, Clock::start()).map_err(|error| error.to_string())
        })?;
        let ended = select! {
            recv(ends) -> ended => ended?,
            recv(signals.first()) -> _ => {
                drop(stop);
                ends.recv()?
            }
        };
        crew.join(&ended);
        ended.outcome?;
        signals.close();
        Ok(())
    })
}

fn show_heartbeat(args: AgentArgs) -> Result<(), Failure> {
    let dirs = TaskDirs::new(args.tasks_dir);
    let json = agent::show(dirs, args.status.as_deref(), args.name.as_deref(), Clock::start())?;
    Ok(print(&format!("{json}\n"))?)
}

fn beat_once(settings: &Settings) -> Result<(), Failure> {
    let (id, server) = (settings.id(), settings.server());
    match agent::ask_once(settings, Clock::start())? {
        Answer::Received => Ok(print(&format!("{server} received the heartbeat of agent {id}\n"))?),
        Answer::Not(why) => Err(format!("no heartbeat of agent {id} at {server}: {why}").into()),
    }
}
