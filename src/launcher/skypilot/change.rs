//! A change of a job or a cluster over SkyPilot's API server, in a process in place of `sky`: under the supervisor of changes it
//! goes on when the server ends, and prints for it what `sky` would.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::json;

use super::api::{Api, Question};
use crate::process::runner::Output;

/// The clusters that `sky down` deletes only after a look at what they control.
const CONTROLLERS: [&str; 2] = ["sky-jobs-controller", "sky-serve-controller"];

/// Makes the change that these arguments of `sky` mean, and prints the result as `sky` does. Blocks until it has ended. Becomes
/// the `program` where the API server cannot be used.
pub fn change(program: &Path, arguments: &[String]) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(question) = question(arguments)
        && let Some(output) = runtime.block_on(ask(&question))
    {
        io::stdout().write_all(printed(&question, &output).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Command::new(program).args(arguments).exec())
}

/// Tells if the API server can be asked for a change in place of `sky`.
pub(super) fn is_known(arguments: &[String]) -> bool {
    question(arguments).is_some()
}

fn question(arguments: &[String]) -> Option<Question> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, body) = match arguments[..] {
        ["cancel", "-y", cluster, id] => {
            let ids = [id.parse::<u64>().ok()?];
            let body = json!({ "cluster_name": cluster, "job_ids": ids, "all": false, "all_users": false });
            ("/cancel", body)
        }
        [verb @ ("stop" | "down"), "-y", cluster]
            if !CONTROLLERS.iter().any(|name| cluster.starts_with(name)) =>
        {
            let path = if verb == "stop" { "/stop" } else { "/down" };
            (path, json!({ "cluster_name": cluster, "purge": false }))
        }
        _ => return None,
    };
    Some(Question { path, body })
}

async fn ask(question: &Question) -> Option<Output> {
    let server = Api::default().server().await?;
    let answered = server.change(question).await;
    let refused = |problem: &_| {
        tracing::warn!("SkyPilot's API server did not do it: {problem}; `sky` is run")
    };
    answered.inspect_err(refused).ok()
}

/// Writes a result as `sky` prints it.
fn printed(question: &Question, output: &Output) -> String {
    let (_, message) = output.stderr.split_once(": ").unwrap_or_default();
    match (question.path, output.code) {
        ("/cancel", _) => format!("{}{message}", output.stdout),
        (_, Some(0)) => format!("{}\nThe change of the cluster...done.\n", output.stdout),
        _ if output.stderr.contains("ClusterDoesNotExist") => "Cluster(s) not found.\n".to_owned(),
        _ => message.to_owned(),
    }
}
