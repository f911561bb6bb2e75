//! The command line: serve (the default), the commands for a person, and the hidden supervise.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::CompleteEnv;
use oumi_mcp_server::commands::jobs::{self, Format, JobCommand};
use oumi_mcp_server::commands::{self, completions, doctor, print, setup};
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
    /// Check the settings, programs, clouds, folders and jobs; exits with 1 where something has failed
    Doctor(Format),
    /// Run small jobs for real, as a client would, and show a line a call
    Demo(Format),
    /// Print the script that completes commands and ids of jobs: bash, zsh or fish
    #[command(
        after_help = "For bash: source <(oumi-mcp-server completions bash). For zsh likewise, after compinit. For fish: oumi-mcp-server completions fish | source."
    )]
    Completions {
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    /// Show how to add this server to a client, or add it
    Setup {
        client: setup::Client,
        /// Add it to the client's file, of which a copy is kept
        #[arg(long)]
        write: bool,
    },
    /// What `sky` would do, through SkyPilot's API server where it is up
    #[command(hide = true)]
    Change {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn environment_help() -> String {
    let width = env_vars::all().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default();
    let lines = env_vars::all().map(|(name, meaning)| format!("  {name:width$}  {meaning}\n"));
    format!("Environment:\n{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let ran = match words.next() {
        // The parent of one job. Parsing a command line would take most of the time of a start, for which others wait.
        Some(word) if word == "supervise" => {
            log_to_stderr();
            let supervised = supervise(Path::new(&words.next().unwrap_or_default()));
            supervised.map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        None if std::env::var_os(completions::VARIABLE).is_none() => run(None),
        _ => {
            CompleteEnv::with_factory(Arguments::command)
                .var(completions::VARIABLE)
                .complete();
            run(Arguments::parse().command)
        }
    };
    ran.unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}

fn run(command: Option<Command>) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    log_to_stderr();
    let own = own_program()?;
    let ran = match command {
        None | Some(Command::Serve) => {
            commands::greet();
            return serve(&own).map(|()| ExitCode::SUCCESS);
        }
        Some(Command::Change { program, arguments }) => return Ok(change(&program, &arguments)?),
        Some(Command::Job(command)) => jobs::run(command, &own),
        Some(Command::Doctor(output)) => doctor::run(output, &own),
        Some(Command::Demo(output)) => demo::run(output, &own),
        Some(Command::Completions { shell }) => completions::print_script(&own, &shell),
        Some(Command::Setup { client, write }) => {
            setup::set_up(client, write).and_then(|text| print(&text))
        }
    };
    Ok(commands::exit_code(ran))
}

/// Returns the path of this program. The one in /proc stays valid when the file is replaced under a running server.
fn own_program() -> io::Result<PathBuf> {
    let linux = PathBuf::from("/proc/self/exe");
    match linux.exists() {
        true => Ok(linux),
        false => std::env::current_exe(),
    }
}
