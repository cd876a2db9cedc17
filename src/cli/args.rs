//! The command line: subcommands, flags, and the environment variables for them; those that stand for
//! entries of the file are in [`crate::server::config`]. Only parses. Secrets
//! come from the environment or from files, never from a flag, since other users can read a process's
//! arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use super::recipe::Recipe;
use crate::agent::task_command::probe;
use crate::agent::{settings, task_files};
use crate::server::config::{self, Config, ConfigError, Overrides};
use crate::wire::id::AgentId;

/// Names the configuration file where no flag does.
const CONFIG_VARIABLE: &str = "AGENT_METRICS_CONFIG";

#[derive(Debug, Parser)]
#[command(name = "agent-metrics", version, about, arg_required_else_help = true)]
#[command(after_help = "First look: agent-metrics serve --dev")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Write a configuration file with new random secrets, and print the secrets once
    Init {
        /// File to write, readable only by you; an existing file is never changed
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
        output: PathBuf,
    },
    /// Explain a configuration file, or list its mistakes with line and column
    Check(ConfigFile),
    /// Report this machine's CPU, memory and running tasks to a server, until stopped
    Agent(AgentArgs),
    /// Run a command as a task that this machine's agent reports
    Task(TaskArgs),
    /// Print a heartbeat script that needs no installation, or a systemd unit for the agent
    Recipe {
        /// Which one to print
        #[arg(value_enum, value_name = "RECIPE")]
        recipe: Recipe,
    },
    /// Tell a task's wrapper which signals its process group got
    #[command(name = probe::SUBCOMMAND, hide = true)]
    SignalProbe,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Run without a file: on loopback only, with key "dev", secret "dev" and open viewing, and with
    /// this machine as the first agent
    #[arg(long, conflicts_with = "config")]
    pub dev: bool,

    #[command(flatten)]
    pub file: ConfigFile,

    #[command(flatten)]
    overrides: Overrides,
}

impl ServeArgs {
    /// The configuration from flags, environment and file together.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        // CONFIG_VARIABLE may be set for all shells, and does not disable --dev.
        if self.dev {
            return Config::dev(&self.overrides);
        }
        Config::load(&self.file.path()?, &self.overrides)
    }
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// Configuration file, TOML [env: AGENT_METRICS_CONFIG] [default: agent-metrics.toml in the
    /// working directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        let variable = std::env::var_os(CONFIG_VARIABLE);
        config::find(self.config.clone(), variable, Path::new(config::DEFAULT_FILE))
    }
}

/// The secret is no part of it: the agent takes it from the environment.
#[derive(Debug, Args)]
#[command(after_help = "The secret comes from AGENT_METRICS_APP_SECRET, or from the file that \
                        --app-secret-file or AGENT_METRICS_APP_SECRET_FILE names.")]
pub(super) struct AgentArgs {
    /// The server's URL, http or https
    #[arg(long, value_name = "URL", env = "AGENT_METRICS_SERVER")]
    #[arg(required_unless_present = "print")]
    pub server: Option<String>,

    /// App key; it decides the pool
    #[arg(long, value_name = "KEY", env = "AGENT_METRICS_APP_KEY")]
    #[arg(required_unless_present = "print")]
    pub app_key: Option<String>,

    /// File that contains the app secret; overrides both environment variables
    // The agent reads its variable together with the secret's own: it is an error if both are set.
    #[arg(long, value_name = "FILE")]
    pub app_secret_file: Option<PathBuf>,

    /// Time between heartbeats, with a unit; 1s to 1day, 30 to 60 s is usual
    #[arg(long, value_name = "TIME", env = "AGENT_METRICS_INTERVAL", default_value = "30s")]
    #[arg(value_parser = parse_interval)]
    pub interval: Duration,

    /// Agent id within the pool: 1 to 128 of A-Z a-z 0-9 . _ - [default: the host name]
    #[arg(long, value_name = "ID", env = "AGENT_METRICS_ID", value_parser = AgentId::parse)]
    pub id: Option<AgentId>,

    /// Name that dashboards show, 1 to 128 characters [default: the id]
    #[arg(long, value_name = "NAME", env = "AGENT_METRICS_NAME", value_parser = settings::parse_name)]
    pub name: Option<String>,

    /// Status to report, 1 to 32 of a-z 0-9 _ - [default: busy while tasks run, else idle]
    #[arg(long, value_name = "STATUS", env = "AGENT_METRICS_STATUS")]
    #[arg(value_parser = settings::parse_status)]
    pub status: Option<String>,

    /// Directory whose *.json files are the running tasks; repeat for several
    #[arg(long, value_name = "DIR", env = task_files::DIR_VARIABLE, value_parser = tasks_dir())]
    #[arg(default_value = task_files::DEFAULT_DIR)]
    pub tasks_dir: Vec<PathBuf>,

    /// Send one heartbeat, print the server's response, and exit with 0 if it was received
    #[arg(long, conflicts_with = "print")]
    pub once: bool,

    /// Print the heartbeat that would be sent now, and send nothing
    #[arg(long)]
    pub print: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code, signals and output are the command's own. It also runs when there is \
                  no agent, or no place for the task's file."
)]
pub(super) struct TaskArgs {
    /// Type of the task, such as plan or build, at most 128 characters
    #[arg(long = "type", value_name = "TYPE", value_parser = task_files::parse_text)]
    pub task_type: String,

    /// Workspace of the task, at most 128 characters
    #[arg(long, value_name = "WORKSPACE", default_value = "", hide_default_value = true)]
    #[arg(value_parser = task_files::parse_text)]
    pub workspace: String,

    /// Task id, a number [default: the process id]
    #[arg(long, value_name = "N")]
    pub id: Option<u64>,

    /// Directory that the agent watches
    #[arg(long, value_name = "DIR", env = task_files::DIR_VARIABLE, value_parser = tasks_dir())]
    #[arg(default_value = task_files::DEFAULT_DIR)]
    pub tasks_dir: PathBuf,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A directory of tasks. An empty variable counts as unset.
fn tasks_dir() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|name| match name.is_empty() {
        true => PathBuf::from(task_files::DEFAULT_DIR),
        false => PathBuf::from(name),
    })
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = config::parse_time(text)?;
    if settings::INTERVALS.contains(&interval) {
        return Ok(interval);
    }
    Err("must be 1s to 1day".to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    fn serve(line: &str) -> ServeArgs {
        match parse(line) {
            Ok(Command::Serve(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_help_and_no_flag_takes_a_secret() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{} {}", command.get_name(), arg.get_id());
                let name = arg.get_id().as_str();
                let takes_one = name.contains("secret") || name.contains("token");
                assert!(!takes_one || name.ends_with("_file"), "{name}");
            }
        }
        let error = parse("agent-metrics agent --server http://x --app-key k --app-secret s");
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn serve_takes_addresses_again_or_by_comma() {
        let expected: Vec<SocketAddr> =
            vec!["127.0.0.1:0".parse().unwrap(), "[::1]:80".parse().unwrap()];
        for line in [
            "agent-metrics serve --listen 127.0.0.1:0 --listen [::1]:80",
            "agent-metrics serve --listen 127.0.0.1:0,[::1]:80",
            "agent-metrics serve --listen 127.0.0.1:0 [::1]:80 --evict-after 2s",
        ] {
            assert_eq!(serve(line).overrides.listen, expected, "{line}");
        }
        let args = serve("agent-metrics serve --dev --listen=127.0.0.1:0 --evict-after=2s");
        assert_eq!(args.overrides.evict_after, Some(Duration::from_secs(2)));
        assert_eq!(args.load().unwrap().evict_after, Duration::from_secs(2));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, words) in [
            ("serve --listen localhost:80", "an IP address and a port, such as"),
            ("serve --evict-after 5", "a time with a unit, such as 10s or 5m"),
            ("serve --dev --config x", "cannot be used with"),
            ("agent --server http://x --app-key k --id a/b", "an id is 1 to 128"),
            ("agent --app-key k", "--server <URL>"),
            ("agent --print --once", "cannot be used with"),
            ("agent --print --interval 999ms", "'--interval <TIME>': must be 1s to 1day"),
            ("agent --print --interval 86400001ms", "'--interval <TIME>': must be 1s to 1day"),
            ("agent --print --status Busy", "'--status <STATUS>': must be 1 to 32 of a-z"),
            ("agent --print --name=", "'--name <NAME>'"),
            ("task --type plan", "<COMMAND>"),
            ("task -- true", "--type <TYPE>"),
            ("task --type plan --id=-1 -- true", "--id"),
            (&format!("task --type {} -- true", "x".repeat(129)), "at most 128 characters"),
            ("serve --nope", "--nope"),
        ] {
            let error = parse(&format!("agent-metrics {line}")).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn an_agent_has_defaults() {
        let Ok(Command::Agent(args)) = parse("agent-metrics agent --server http://x --app-key k")
        else {
            panic!("no agent")
        };
        assert_eq!(args.interval, Duration::from_secs(30));
        assert_eq!(args.tasks_dir, [Path::new(task_files::DEFAULT_DIR)]);
        assert!(args.id.is_none() && args.name.is_none() && args.app_secret_file.is_none());
    }

    #[test]
    fn a_heartbeat_is_shown_without_a_server() {
        assert!(matches!(parse("agent-metrics agent --print"), Ok(Command::Agent(_))));
    }

    #[test]
    fn a_commands_own_flags_are_the_commands() {
        let line = "agent-metrics task --type plan -- sh -c --type";
        let Ok(Command::Task(args)) = parse(line) else { panic!("no task") };
        assert_eq!(args.command, ["sh", "-c", "--type"]);
        assert_eq!((args.workspace.as_str(), args.id), ("", None));
        assert_eq!(args.tasks_dir, Path::new(task_files::DEFAULT_DIR));
    }

    #[test]
    fn there_is_a_version() {
        let error = parse("agent-metrics --version").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")));
    }
}
