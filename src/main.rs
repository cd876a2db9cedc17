//! Arguments to configuration to server to exit code. Everything else is in the library.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_metrics::agent::{self, Answer, Secret, Settings, settings::default_id};
use agent_metrics::cli::{self, AgentArgs, Cli, Command, ServeArgs, TaskArgs};
use agent_metrics::clock::Clock;
use agent_metrics::config::{Config, DEV_KEY, DEV_POOL, DEV_SECRET};
use agent_metrics::counters::Counters;
use agent_metrics::crew::{Crew, Role};
use agent_metrics::logging::{self, Logging};
use agent_metrics::server::{STOP_WITHIN, Server, Sizes};
use agent_metrics::signals::Signals;
use agent_metrics::task::{self, Job};
use agent_metrics::tasks::TaskDirs;
use agent_metrics::{check, init};
use clap::Parser as _;
use crossbeam_channel::{bounded, select};

/// How long the last log lines may take to get out.
const LOG_GRACE: Duration = Duration::from_millis(150);

// What a supervisor of processes can be promised.
const _: () = assert!(STOP_WITHIN.as_millis() + LOG_GRACE.as_millis() < 2_000);

/// Rhythm of the agent of `--dev`: quick enough to see it move.
const DEV_INTERVAL: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Agent(args) => run_agent(args),
        Command::Task(args) => return run_task(args),
        Command::Recipe(args) => cli::print(args.recipe.text()).map_err(Failure::from),
        Command::Init(args) => init::run(&args).map_err(Failure::from),
        Command::Check(args) => check::run(&args).map_err(Failure::from),
        Command::SignalProbe => task::probe::serve().map_err(Failure::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

/// Says why, where standard error is still there to hear it.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "agent-metrics: {error}");
    ExitCode::FAILURE
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let counters = Arc::new(Counters::default());
    logged(&counters, || {
        let signals = Signals::start()?;
        let introduction = Introduction::of(&config);
        let clock = Clock::start();
        let mut server = Server::start(config, Sizes::default(), clock, Arc::clone(&counters))?;
        introduction.log(&server);
        let first = if args.dev { "  (this machine is its first agent)" } else { "" };
        if let Some(address) = server.addresses().first() {
            log::info!("the page: {}{first}", page_url(*address));
        }
        if args.dev {
            log_dev_hints(&server);
            server.spawn_agent(dev_agent(&server)?)?;
        }
        server.run(signals.first())?;
        signals.close();
        Ok(())
    })
}

/// Runs `work` with the log on, and logs its failure: while the log's thread may be stuck on
/// standard error, nobody else should write there.
fn logged(
    counters: &Arc<Counters>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let logging: Logging = logging::start(logging::level_from_env()?, Arc::clone(counters))?;
    let result = work();
    if let Err(error) = &result {
        log::error!("{error}");
    }
    logging.finish(LOG_GRACE);
    // It has been said, and there may be nobody left to say it to.
    result.or_else(|_| std::process::exit(1))
}

/// What start-up says of the configuration, which the server then takes.
struct Introduction {
    pools: Vec<String>,
    open: bool,
}

impl Introduction {
    fn of(config: &Config) -> Self {
        let pools = config.pools.iter().map(|pool| pool.id.to_string()).collect();
        Self { pools, open: config.open }
    }

    fn log(&self, server: &Server) {
        for address in server.addresses() {
            log::info!("listening on http://{address}");
        }
        log::info!("pools: {}", self.pools.join(", "));
        if self.open {
            log::info!("viewing is open: whoever reaches an address above may look");
        } else {
            log::info!("viewing needs a token");
        }
    }
}

/// An address of all interfaces is none to go to.
fn page_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}/", address.port());
    }
    format!("http://{address}/")
}

/// What a newcomer does next.
fn log_dev_hints(server: &Server) {
    let Some(address) = server.addresses().first() else { return };
    log::info!(
        "be another agent: curl -X POST http://{address}/api/v1/agents/my-agent/ping \
         -H 'X-App-Key: {DEV_KEY}' -H 'X-App-Secret: {DEV_SECRET}' \
         -d '{{\"status\":\"busy\",\"cpu_usage\":45.5,\"memory_usage\":62.3}}'"
    );
    log::info!("the feed: ws://{address}/ws/agent-pools/{DEV_POOL}/metrics");
    log::info!("stop with Ctrl-C");
}

fn dev_agent(server: &Server) -> Result<Settings, Failure> {
    let address = server.addresses().first().ok_or("no address to beat to")?;
    let secret = Secret::new(DEV_SECRET)?;
    let url = format!("http://{address}");
    Ok(Settings::new(&url, DEV_KEY, secret, DEV_INTERVAL, default_id(), None)?)
}

fn run_agent(args: AgentArgs) -> Result<(), Failure> {
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
    Ok(cli::print(&format!("{json}\n"))?)
}

fn beat_once(settings: &Settings) -> Result<(), Failure> {
    let (id, server) = (settings.id(), settings.server());
    match agent::ask_once(settings, Clock::start())? {
        Answer::Received => {
            Ok(cli::print(&format!("{server} received the heartbeat of agent {id}\n"))?)
        }
        Answer::Not(why) => Err(format!("no heartbeat of agent {id} at {server}: {why}").into()),
    }
}

fn run_task(args: TaskArgs) -> ExitCode {
    let TaskArgs { task_type, workspace, id, tasks_dir: dir, command } = args;
    match task::run(&Job { task_type, workspace, id, dir, command }, Clock::start().wall()) {
        Ok(ended) => ended.imitate(),
        Err(error) => {
            fail(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
