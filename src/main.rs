//! The command line: serve (the default), demo, and the hidden supervise.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oumi_mcp_server::demo;
use oumi_mcp_server::launcher::Launcher;
use oumi_mcp_server::launcher::local::LocalLauncher;
use oumi_mcp_server::launcher::oumi::OumiCloudLauncher;
use oumi_mcp_server::launcher::skypilot::SkyPilotLauncher;
use oumi_mcp_server::process::runner::Cli;
use oumi_mcp_server::process::supervisor;
use oumi_mcp_server::server::Server;
use oumi_mcp_server::server::stderr_log::Stderr;
use oumi_mcp_server::server::transport::Stdio;
use oumi_mcp_server::service::JobService;
use oumi_mcp_server::settings::data_dir::DataDir;
use oumi_mcp_server::settings::env_vars;
use oumi_mcp_server::settings::policy::Policy;
use rmcp::service::serve_directly;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::writer::MakeWriterExt;

/// How long the calls under way get to be answered once the client is gone or the server is asked to end. Clients send
/// SIGTERM 2 s after they have closed our input.
const DRAIN: Duration = Duration::from_millis(1200);

/// How long the first answer waits until what an earlier server left is taken up. With [`DRAIN`] it is less than the 2 s.
const RECOVERY_WAIT: Duration = Duration::from_millis(700);

/// How many threads may do file work at a time. Each that ever was costs some 40 KB for as long as there is work; with tokio's
/// own limit of 512, a client that asks much would have the server grow by 20 MB.
const FILE_THREADS: usize = 32;

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
    let level = std::env::var(env_vars::LOG.name)
        .ok()
        // An empty text would parse, as `error`.
        .filter(|wanted| !wanted.is_empty())
        .and_then(|wanted| wanted.parse::<LevelFilter>().ok())
        .unwrap_or(LevelFilter::WARN);
    // Clients show it raw: no colours.
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer((|| Stderr).with_filter(holds_no_message))
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// From debug on the protocol library logs the messages themselves, and those of `run_job` hold the values of `envs`.
fn holds_no_message(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("oumi_mcp_server") || *metadata.level() <= Level::INFO
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
    let folder = DataDir::from_environment().map_err(|error| error.to_string())?;
    // What fails here fails again at the call that needs it, and is said there.
    if let Err(error) = folder.create() {
        tracing::warn!("{error}");
    }
    let (program, cli) = (
        own_program().map_err(|error| error.to_string())?,
        Cli::default(),
    );
    let launchers: Vec<Arc<dyn Launcher>> = vec![
        Arc::new(LocalLauncher::new(folder.clone(), program.clone())),
        Arc::new(SkyPilotLauncher::new(
            folder.clone(),
            program.clone(),
            cli.clone(),
        )),
        Arc::new(OumiCloudLauncher::new(folder.clone(), program, cli)),
    ];
    let clouds = launchers.iter().flat_map(|launcher| launcher.clouds());
    let clouds: Vec<&str> = clouds.copied().collect();
    let policy = Policy::from_environment(&clouds).map_err(|error| error.to_string())?;
    let service = JobService::with_policy(folder, launchers, policy);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(FILE_THREADS)
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
    let recovering = service.clone();
    // Mostly it takes milliseconds; where another server holds the registry, no client is kept waiting for it.
    let recovered = tokio::spawn(async move { recovering.recover().await });
    tokio::time::timeout(RECOVERY_WAIT, recovered).await.ok();
    let asked_to_end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (stdio, ending) = Stdio::new(tokio::io::stdin(), tokio::io::stdout(), asked_to_end);
    // Directly: `Stdio` sees to what may come before `initialize`, and both lifecycles work on one process.
    let server = Server::new(service);
    let server = serve_directly(server, stdio, None);
    // In a task of its own: dropped, it would tell the calls under way that the client has given them up.
    let serving = tokio::spawn(server.waiting());
    tokio::select! {
        served = serving => served.and_then(|served| served).map(|_| ()).map_err(|error| error.to_string()),
        () = async {
            ending.await.ok();
            tokio::time::sleep(DRAIN).await
        } => Ok(()),
    }
}
