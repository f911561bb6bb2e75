//! The command line: serve (the default), demo, and the hidden supervise.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oumi_mcp_server::launcher::local::LocalLauncher;
use oumi_mcp_server::launcher::supervisor;
use oumi_mcp_server::paths::DataFolder;
use oumi_mcp_server::server::Server;
use oumi_mcp_server::server::stderr::Stderr;
use oumi_mcp_server::server::stdio::Stdio;
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::{demo, env_vars};
use rmcp::service::serve_directly;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// How long the calls under way get to be answered once the client is gone or the server is asked to end. Clients send
/// SIGTERM 2 s after they have closed our input.
const DRAIN: Duration = Duration::from_millis(1200);

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
    /// Run the main job for real, as a client would, and print every call and answer
    Demo,
    /// The parent of one job
    #[command(hide = true)]
    Supervise { dir: PathBuf },
}

fn environment_help() -> String {
    let width = env_vars::ALL
        .iter()
        .map(|variable| variable.name.len())
        .max()
        .unwrap_or(0);
    let lines = env_vars::ALL
        .iter()
        .map(|variable| format!("  {:width$}  {}\n", variable.name, variable.meaning));
    format!("Environment:\n{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    let done = match arguments.command {
        None | Some(Command::Serve) => serve(),
        Some(Command::Demo) => own_program()
            .map_err(|error| error.to_string())
            .and_then(|program| demo::run(&program).map_err(|error| error.to_string())),
        Some(Command::Supervise { dir }) => {
            supervisor::supervise(&dir).map_err(|error| error.to_string())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let wanted = std::env::var(env_vars::LOG.name).unwrap_or_default();
    let level = wanted.parse::<LevelFilter>().unwrap_or(LevelFilter::WARN);
    // Clients show it raw: no colours.
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// This program, to run it again: through /proc where there is one, so that an upgrade of the file under a running server
/// does no harm.
fn own_program() -> io::Result<PathBuf> {
    let linux = PathBuf::from("/proc/self/exe");
    if linux.exists() {
        Ok(linux)
    } else {
        std::env::current_exe()
    }
}

fn serve() -> Result<(), String> {
    let folder = DataFolder::from_environment().map_err(|error| error.to_string())?;
    folder.create().map_err(|error| error.to_string())?;
    let local = LocalLauncher::new(
        folder.clone(),
        own_program().map_err(|error| error.to_string())?,
    );
    let service = JobService::new(folder, vec![Arc::new(local)]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let served = runtime.block_on(serve_until_the_end(service));
    // A read of standard input cannot be called off; waiting for it would wait for the client.
    runtime.shutdown_background();
    served
}

async fn serve_until_the_end(service: JobService) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    service.recover().await;
    let asked_to_end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (stdio, ending) = Stdio::new(tokio::io::stdin(), tokio::io::stdout(), asked_to_end);
    // Directly: `Stdio` sees to what may come before `initialize`, and both lifecycles work on one process.
    let server = serve_directly(Server::new(service), stdio, None);
    tokio::select! {
        served = server.waiting() => served.map(|_| ()).map_err(|error| error.to_string()),
        () = async { ending.await.ok(); tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}
