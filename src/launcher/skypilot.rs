//! The clouds that Oumi reaches through SkyPilot: launched by `oumi launch up`, queried and changed through `sky`, or through
//! SkyPilot's API server where it is up on this machine.

mod api;
mod change;
mod endpoint;
mod http;
mod questions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::cloud::{
    CancelRun, CloudBackend, CloudLauncher, CloudLaunches, QueueScope, failure_text, log_file,
    no_such_job,
};
use super::job_yaml::{self, JobConfig};
use super::overrides;
use super::{ClusterAction, JobIdentity, JobLog, LaunchPlan, LaunchSpec, LogContent};
use crate::error::JobError;
use crate::parse::costs::{self, ClusterCost};
use crate::parse::gpus::{self, CatalogMachine};
use crate::parse::sky::{self, ClusterList, Queue, TeardownResult};
use crate::parse::{self, OutputError};
use crate::process::runner::{Cli, CliCall, Output, call_deadline};
use crate::process::{blocking, find};
use api::{Api, Question};
pub use change::change;

/// The timeout of a run of `sky`: the first one starts SkyPilot's API server.
const TIMEOUT: Duration = Duration::from_secs(120);
const LOGS_TIMEOUT: Duration = Duration::from_secs(30);
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(900);
/// The number of lines of a log that are fetched for every call, so that equal calls share one run, and a cursor finds its
/// place again. SkyPilot counts each state of a progress bar as a line.
const LOG_LINES: &str = "10000";
/// The age of the oldest clusters in a report of costs, in days: SkyPilot's own default.
const COST_DAYS: u32 = 30;

/// Asks SkyPilot's API server, or runs `sky`.
#[derive(Debug)]
pub(crate) struct SkyPilot {
    cli: Cli,
    api: Api,
}

/// Reaches clouds through SkyPilot.
pub(crate) type SkyPilotLauncher = CloudLauncher<SkyPilot>;

#[async_trait]
impl CloudBackend for SkyPilot {
    /// The clouds that Oumi 0.9 reaches through SkyPilot, by Oumi's names.
    const CLOUDS: &'static [&'static str] = &[
        "aws",
        "azure",
        "gcp",
        "k8s",
        "lambda",
        "nebius",
        "runpod",
        "sky-slurm",
    ];
    const IDS_RESTART: bool = true;

    fn new(cli: Cli) -> Self {
        let api = Api::default();
        Self { cli, api }
    }

    fn find_program() -> Result<PathBuf, JobError> {
        find::find_sky().map_err(JobError::program_not_found)
    }

    fn validate_cluster(_cloud: &str, cluster: &str) -> Result<(), JobError> {
        if parse::is_valid_cluster_name(cluster) {
            return Ok(());
        }
        let error = JobError::failed(format!(
            "`cluster_name` {cluster:?} is not a name that SkyPilot accepts: a letter, then letters, digits, `-`, `_` and \
             `.`, and a letter or digit at the end"
        ));
        Err(error.with_hint("call list_jobs for the clusters that exist"))
    }

    async fn plan(
        &self,
        launches: &CloudLaunches,
        spec: &LaunchSpec,
    ) -> Result<LaunchPlan, JobError> {
        let named = &spec.identity.cluster;
        let cluster = if !named.is_empty() {
            Self::validate_cluster(&spec.identity.cloud, named)?;
            named.clone()
        } else if let Some(own) = launches.cluster_of(&spec.identity).await {
            // A job that was launched already is refused as that, not for the name of another cluster.
            own
        } else {
            let clusters = self.clusters(call_deadline()).await;
            new_cluster_name(&spec.identity.job_id, clusters.ok().flatten().as_ref())
        };
        let config = JobConfig::new(spec, false);
        let has_gpu = config.names_accelerators();
        let mut plan = launches.plan(spec, cluster, config, BTreeMap::new())?;
        launches.add_autostop(&mut plan, spec, &Self::find_program()?)?;
        let project = spec.client_cwd.clone();
        let beside = blocking(move || Ok::<_, JobError>(overrides::warnings(&project)));
        plan.warnings.extend(beside.await?);
        if !has_gpu {
            let unless = if named.is_empty() {
                ""
            } else {
                ", unless the cluster is there already"
            };
            plan.warnings.push(format!(
                "a machine without a GPU is asked for{unless}: for one with GPUs pass `accelerators`, such as A100:1"
            ));
        }
        if !named.is_empty() {
            plan.warnings.push(format!(
                "if cluster {named} is there already, the job is added to it and SkyPilot skips its `setup`"
            ));
        }
        Ok(plan)
    }

    async fn queue(
        &self,
        scope: &QueueScope,
        deadline: Option<Instant>,
    ) -> Result<Queue, JobError> {
        self.queues(&scope.clusters, deadline).await
    }

    async fn clusters(&self, deadline: Option<Instant>) -> Result<Option<ClusterList>, JobError> {
        self.list_clusters(deadline).await.map(Some)
    }

    /// Not where SkyPilot lists what is free instead.
    fn has_prices(&self, cloud: &str) -> bool {
        !matches!(cloud, "k8s" | "sky-slurm")
    }

    async fn catalog(
        &self,
        cloud: &str,
        accelerators: &str,
        all_regions: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<CatalogMachine>, JobError> {
        let mut arguments = vec!["gpus", "list", accelerators, "--infra", cloud, "-o", "json"];
        arguments.extend(all_regions.then_some("--all-regions"));
        let call = call(&arguments, TIMEOUT)?;
        let (name, count) = accelerators.split_once(':').unwrap_or((accelerators, ""));
        let question = Question {
            path: "/list_accelerators",
            body: json!({
                "name_filter": name, "quantity_filter": count.parse::<u64>().ok(), "clouds": cloud,
                "all_regions": all_regions, "gpus_only": true, "case_sensitive": false,
            }),
        };
        let asked = self.ask(&call, question, deadline).await;
        if let Some(output) = asked.map_err(JobError::unavailable)?
            && output.code == Some(0)
            && let Ok(catalog) = gpus::catalog(&output.stdout)
        {
            return Ok(gpus::machines(&catalog, name));
        }
        let output = self.cli.query(&call, deadline).await;
        let output = output.map_err(JobError::unavailable)?;
        if output.code != Some(0) {
            // On stdout in a sentence, on stderr as the error of a library.
            let printed = parse::last_line(&output.stdout);
            let reason = printed.unwrap_or_else(|| failure_text(&output));
            let error = format!("`sky gpus list` failed: {}", reason.trim_end_matches('.'));
            return Err(JobError::failed(error).with_hint(sky::remedy(&output.stderr)));
        }
        let catalog = gpus::catalog(&output.stdout);
        let catalog = catalog.map_err(|error| unreadable("sky gpus list", &error, &output))?;
        Ok(gpus::machines(&catalog, name))
    }

    /// Asks the API server: `sky cost-report` prints a table, in which clusters of one name cannot be told apart.
    async fn costs(&self, deadline: Option<Instant>) -> Result<Vec<ClusterCost>, JobError> {
        let question = Question {
            path: "/cost_report",
            body: json!({ "days": COST_DAYS }),
        };
        let call = call(&["cost-report"], TIMEOUT)?;
        let output = self.ask(&call, question, deadline).await?;
        Ok(output.map_or_else(Vec::new, |output| costs::report(&output.stdout)))
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let (cluster, id) = (&identity.cluster, &identity.oumi_job_id);
        let arguments = ["logs", cluster, id, "--no-follow", "--tail", LOG_LINES];
        let mut call = call(&arguments, LOGS_TIMEOUT)?;
        call.is_log = true;
        let deadline = Instant::now() + LOGS_TIMEOUT + Duration::from_secs(5);
        // To the API server no number is the latest job.
        let question = id.parse::<u64>().ok().map(|number| Question {
            path: "/logs",
            body: json!({
                "cluster_name": cluster, "job_id": number, "follow": false,
                "tail": LOG_LINES.parse::<u64>().ok(),
            }),
        });
        let output = self.query(&call, question, Some(deadline)).await;
        let output = output.map_err(JobError::failed)?;
        match output.code {
            // The job runs or succeeded, failed, has not finished, was cancelled.
            Some(0 | 100 | 101 | 103) => {}
            Some(102) => return Err(no_such_job(identity)),
            _ if output.timed_out => {}
            _ => return Err(JobError::unavailable(failure_text(&output))),
        }
        let is_all = output.stdout.matches('\n').count() < LOG_LINES.parse().unwrap_or(0);
        let slow = || {
            format!(
                "This is the log that arrived within {} s.",
                LOGS_TIMEOUT.as_secs()
            )
        };
        Ok(JobLog {
            log_file: log_file(identity),
            content: LogContent::Text {
                text: sky::log_lines(&output.stdout),
                complete: is_all && !output.front_truncated && !output.timed_out,
                timed_out: output.timed_out,
            },
            // SkyPilot itself ends the last line of a job that has ended.
            ended: false,
            message: output.timed_out.then(slow),
        })
    }

    fn cancel_call(&self, identity: &JobIdentity) -> Result<CliCall, JobError> {
        let arguments = ["cancel", "-y", &identity.cluster, &identity.oumi_job_id];
        change_call(&arguments, TIMEOUT)
    }

    fn cancel_result(&self, output: &Output) -> CancelRun {
        CancelRun {
            // The exit code is 0 in any case.
            accepted: sky::accepted_cancel(&output.stdout),
            reason: parse::last_line(&output.stdout).unwrap_or_default(),
        }
    }

    fn teardown_call(
        &self,
        _cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<CliCall, JobError> {
        change_call(&[action.verb(), "-y", cluster], TEARDOWN_TIMEOUT)
    }

    async fn teardown_result(
        &self,
        cluster: &str,
        action: ClusterAction,
        output: &Output,
        deadline: Option<Instant>,
    ) -> Result<String, JobError> {
        let verb = action.verb();
        let reason = match sky::teardown(&output.stdout) {
            TeardownResult::ClusterNotFound => {
                let error = JobError::not_found(format!("SkyPilot knows no cluster {cluster:?}"));
                return Err(error.with_hint("call list_jobs for the clusters it knows"));
            }
            TeardownResult::CannotStop(reason) => {
                let error = format!("cluster {cluster} cannot be stopped: {reason}");
                return Err(JobError::failed(error).with_hint("call down_cluster to delete it"));
            }
            TeardownResult::Done => "done".to_owned(),
            TeardownResult::Failed(reason) => reason,
        };
        // The exit code is 0 in any case: the status afterwards counts.
        let clusters = self.clusters(deadline).await?.unwrap_or_default();
        let after = clusters.get(cluster);
        if let (None, Some(left_out)) = (after, clusters.left_out.first()) {
            // What could not be read may be this cluster.
            return Err(JobError::unavailable(left_out).with_hint("call list_jobs to see"));
        }
        match (action, after.map(|cluster| cluster.status.as_str())) {
            (ClusterAction::Down, None) => Ok(format!("cluster {cluster} was deleted")),
            (ClusterAction::Stop, Some("STOPPED")) => Ok(format!(
                "cluster {cluster} was stopped; its disks are kept and cost a little"
            )),
            (ClusterAction::Stop, None) => Ok(format!("cluster {cluster} is gone")),
            (_, Some(status)) => Err(JobError::failed(format!(
                "`sky {verb}` ended and cluster {cluster} is {status}: {reason}"
            ))
            .with_hint("see list_jobs, and try again")),
        }
    }
}

fn call(arguments: &[&str], timeout: Duration) -> Result<CliCall, JobError> {
    Ok(CliCall::new(&SkyPilot::find_program()?, arguments, timeout))
}

/// A change, over the API server where that can be asked for it.
fn change_call(arguments: &[&str], timeout: Duration) -> Result<CliCall, JobError> {
    let mut call = call(arguments, timeout)?;
    call.over_http = change::is_known(&call.arguments);
    Ok(call)
}

/// Makes a name for a new cluster of a job's id that none of the clusters has. Where the id is no such name as it stands, some
/// digits of its digest follow, so that two jobs never share a name; also where the clusters are not known.
fn new_cluster_name(job_id: &str, clusters: Option<&ClusterList>) -> String {
    let plain = job_yaml::plain_name(job_id)
        .to_ascii_lowercase()
        .replace(['_', '.'], "-");
    let plain = if plain.starts_with(|first: char| first.is_ascii_alphabetic()) {
        plain
    } else {
        format!("oumi-{plain}")
    };
    let is_free = |name: &String| clusters.is_none_or(|list| list.get(name).is_none());
    if plain == job_id && clusters.is_some() && is_free(&plain) {
        return plain;
    }
    let name = |number: u32| {
        let digest = Sha256::digest(format!("{job_id}{}", "+".repeat(number as usize)));
        let digits = digest.iter().take(3).map(|byte| format!("{byte:02x}"));
        format!("{plain}-{}", digits.collect::<String>())
    };
    (0..).map(name).find(is_free).unwrap_or(plain)
}

/// The failure of a program by its own reason, and what to do about it.
fn failed(command: &str, output: &Output) -> JobError {
    let printed = format!("{}\n{}", output.stdout, output.stderr);
    JobError::failed(format!("`{command}` failed: {}", failure_text(output)))
        .with_hint(sky::remedy(&printed))
}

fn unreadable(command: &str, error: &OutputError, output: &Output) -> JobError {
    if output.code.is_some_and(|code| code != 0) {
        return failed(command, output);
    }
    let reason = failure_text(output);
    JobError::failed(format!(
        "`{command}` could not be understood: {error} (it printed: {reason})"
    ))
    .with_hint(sky::remedy(&format!(
        "{}\n{}",
        output.stdout, output.stderr
    )))
}
