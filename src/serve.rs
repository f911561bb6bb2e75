//! Builds the launchers, the service and the server, and runs them until the client leaves.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rmcp::service::serve_directly;
use rmcp::transport::stdio_pipes;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::launcher::Launcher;
use crate::launcher::cloud::CloudLauncher;
use crate::launcher::local::LocalLauncher;
use crate::launcher::oumi::Oumi;
use crate::launcher::skypilot::SkyPilot;
use crate::process::runner::Cli;
use crate::server::transport::Stdio;
use crate::server::{Dispatcher, Server};
use crate::service::JobService;
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;

/// The time for the last answers once the server is to end. Clients send SIGTERM 2 s after they have closed our input.
const DRAIN: Duration = Duration::from_millis(1200);

/// The most threads for files, each of a megabyte. More than those whose read may hang: three of output folders, and standard input.
const FILE_THREADS: usize = 6;

/// Builds the launchers and the service. `program` is this program, which jobs are supervised with.
pub(crate) fn wire(program: &Path) -> Result<JobService, Box<dyn Error + Send + Sync>> {
    let data_dir = DataDir::from_environment()?;
    // An error is reported by each call that needs the folder.
    if let Err(error) = data_dir.create() {
        tracing::warn!("{error}");
    }
    let (program, cli) = (program.to_owned(), Cli::default());
    let cloud =
        |backend| CloudLauncher::new(data_dir.clone(), program.clone(), cli.clone(), backend);
    let launchers: Vec<Arc<dyn Launcher>> = vec![
        Arc::new(LocalLauncher::new(data_dir.clone(), program.clone())),
        Arc::new(cloud(Arc::new(SkyPilot::new(cli.clone())))),
        Arc::new(cloud(Arc::new(Oumi(cli.clone())))),
    ];
    let clouds = launchers.iter().flat_map(|launcher| launcher.clouds());
    let policy = Policy::from_environment(&clouds.copied().collect::<Vec<_>>())?;
    Ok(JobService::with_policy(data_dir, launchers, policy))
}

/// Serves MCP on standard input and output.
pub fn serve(program: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let service = wire(program)?;
    // Messages are read and written on this thread, calls run on those for files: a call that hangs holds no message up.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(FILE_THREADS)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve_until_the_end(service));
    // In the background: neither a read of standard input nor one of a file that hangs can be cancelled.
    runtime.shutdown_background();
    result
}

async fn serve_until_the_end(service: JobService) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Handled, so that writing too large a file fails, and does not kill the server.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // Two pipes are read and written without a thread for each; anything else on threads.
    let (input, output) = stdio_pipes();
    let (stdio, ended) = Stdio::new(input, output, stop);
    // Directly: `Stdio` handles what may come before `initialize`, for clients with and without a handshake.
    let server = Server::new(service);
    let running = serve_directly(Dispatcher(server.clone()), stdio, None);
    // In a task of its own: dropping it would cancel the calls under way.
    let serving = tokio::spawn(running.waiting());
    tokio::select! {
        served = serving => {
            served??;
        }
        () = async {
            ended.await.ok();
            tokio::time::sleep(DRAIN).await;
        } => {}
    }
    // Also for a client that made no call.
    server.recovered().await;
    Ok(())
}
