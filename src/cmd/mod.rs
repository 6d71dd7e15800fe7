//! What a person at the keyboard can ask for: the argument grammar, one file a subcommand.

pub mod check_config;
pub mod classify;
pub mod demo;
pub mod exit;
pub mod explain;
pub mod explained;
pub mod paint;
pub mod run;
pub mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cmd::exit::Exit;
use crate::config::{Config, World};
use crate::guard::clock::Clock;
use crate::serve::usual_state_dir;

/// An SMTP proxy that keeps automatic replies and bounces from reaching forged senders.
#[derive(Parser, Debug)]
#[command(name = "replyguard", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon.
    Run(ConfigFile),
    /// See it at work: the real daemon on loopback, with mail, a next hop and a DNS zone of its own.
    Demo,
    /// Find every fault of a configuration at once; exit 78 when there is any.
    CheckConfig {
        #[command(flatten)]
        config: ConfigFile,
        /// Print the configuration in force.
        #[arg(long)]
        print: bool,
    },
    /// Say what kind of messages files, folders or mboxes hold; no network, no state.
    Classify {
        /// Files, folders, mbox files; `-` is standard input.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ClassifyFormat::Text)]
        format: ClassifyFormat,
    },
    /// Say of one message what the daemon would do, and why; exit 1 when it would not be delivered.
    Explain(explain::Question),
    /// Say how the running daemon is; exit 69 when it is away, 1 when something needs somebody.
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = StatusFormat::Text)]
        format: StatusFormat,
    },
    /// Print a schema.
    Schema {
        /// Of what.
        #[arg(value_enum)]
        of: SchemaOf,
    },
}

/// Which configuration.
#[derive(Args, Debug, Clone)]
pub struct ConfigFile {
    /// The configuration file; without it the built-in defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum ClassifyFormat {
    Text,
    Jsonl,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum StatusFormat {
    Text,
    Json,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum SchemaOf {
    Audit,
}

/// Reads the arguments and does what they ask for.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(fault) => {
            let _ = fault.print();
            let wanted = !fault.use_stderr();
            return if wanted { Exit::Done.into() } else { Exit::Usage.into() };
        }
    };
    let exit = match arguments.command {
        Command::Run(config) => run::run(&config),
        Command::Demo => demo::demo(),
        Command::CheckConfig { config, print } => check_config::check(&config, print),
        Command::Classify { paths, format } => {
            classify::classify(&paths, format == ClassifyFormat::Jsonl)
        }
        Command::Explain(question) => explain::explain(&question),
        Command::Status { config, format } => status::status(&config, format == StatusFormat::Json),
        Command::Schema { of: SchemaOf::Audit } => {
            print!("{}", crate::audit::record::SCHEMA);
            Exit::Done
        }
    };
    exit.into()
}

impl ConfigFile {
    /// The configuration; its faults go to standard error.
    pub fn load(&self) -> Result<Config, Exit> {
        Config::load(self.config.as_deref(), &world()).map_err(|faults| {
            check_config::print_faults(&faults);
            Exit::Configuration
        })
    }
}

/// What a configuration needs of this system.
pub fn world() -> World {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let xdg = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    World {
        hostname: if name.is_empty() { "localhost".to_owned() } else { name },
        state_dir: usual_state_dir(xdg.as_deref()),
        now: Clock::System.now(),
    }
}
