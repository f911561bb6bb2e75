//! The command line: serve (the default), the commands for a person, and the hidden supervise.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oumi_mcp_server::commands::jobs::{self, JobCommand};
use oumi_mcp_server::commands::setup;
use oumi_mcp_server::{change, demo, env_vars, log_to_stderr, serve, supervise};

#[derive(Parser)]
#[command(version, about = "Starts, watches and stops Oumi training jobs for MCP clients. Without a command it serves MCP on stdio.", after_help = environment_help())]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve MCP on standard input and output (the default)
    Serve,
    #[command(flatten)]
    Job(JobCommand),
    /// Run the main job for real, as a client would, and print every call and answer
    Demo,
    /// Show how to add this server to a client, or add it
    Setup {
        client: setup::Client,
        /// Add it to the client's file, of which a copy is kept
        #[arg(long)]
        write: bool,
    },
    /// The parent of one job
    #[command(hide = true)]
    Supervise { dir: PathBuf },
    /// What `sky` would do, through SkyPilot's API server where it is up
    #[command(hide = true)]
    Change {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn environment_help() -> String {
    let names = env_vars::ALL.iter().map(|variable| variable.name.len());
    let width = names.max().unwrap_or(0);
    let lines = env_vars::ALL
        .iter()
        .map(|variable| format!("  {:width$}  {}\n", variable.name, variable.meaning));
    format!("Environment:\n{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    match run(arguments.command) {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<Command>) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match command {
        None | Some(Command::Serve) => serve(&own_program()?)?,
        Some(Command::Demo) => demo::run(&own_program()?)?,
        Some(Command::Supervise { dir }) => supervise(&dir)?,
        Some(Command::Change { program, arguments }) => return Ok(change(&program, &arguments)?),
        Some(Command::Job(command)) => return Ok(jobs::run(command, &own_program()?)),
        Some(Command::Setup { client, write }) => {
            writeln!(io::stdout(), "{}", setup::run(client, write)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the path of this program, to run it again: through /proc where there is one, so that an upgrade of the file under a
/// running server does no harm.
fn own_program() -> io::Result<PathBuf> {
    let linux = PathBuf::from("/proc/self/exe");
    if linux.exists() {
        Ok(linux)
    } else {
        std::env::current_exe()
    }
}
