//! The clouds that Oumi drives itself, such as a Slurm cluster: launched, queried and changed through `oumi launch`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::cloud::{Change, CloudBackend, failure_text, is_plain, log_file};
use super::job_yaml::JobConfig;
use super::{JobIdentity, JobLog, LaunchSpec, LogContent};
use crate::error::{JobError, Result};
use crate::parse;
use crate::parse::oumi::{LOG_BEGINS, log_lines, status_rows};
use crate::parse::sky::Queue;
use crate::process::find;
use crate::process::runner::{Cli, CliCall, Output, in_budget};
use crate::settings::env_vars::SLURM_CONNECTIONS;

/// The cloud whose clusters every call of Oumi must name.
const SLURM: &str = "slurm";
/// The cloud whose clusters are names alone. Oumi 0.9 launches onto none of them (`NotImplementedError`), which a launch there tells.
const MODAL: &str = "modal";
/// The timeout of a run of `oumi launch`: it imports the training stack, which takes half a minute on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(180);
/// `oumi launch logs` follows a job until it ends, and most of this goes into its start.
const LOGS_TIMEOUT: Duration = Duration::from_secs(75);

#[derive(Debug)]
pub(crate) struct Oumi(pub(crate) Cli);

#[async_trait]
impl CloudBackend for Oumi {
    /// The clouds that Oumi 0.9 drives itself, besides `local`.
    fn clouds(&self) -> &'static [&'static str] {
        &["slurm", MODAL, "polaris", "frontier", "perlmutter"]
    }

    fn ids_restart(&self) -> bool {
        false
    }

    fn find_program(&self) -> Result<PathBuf> {
        find::find_any_oumi()
    }

    fn validate_cluster(&self, cloud: &str, cluster: &str) -> Result<()> {
        let (is_valid, expected) = match cloud {
            SLURM => (
                parse::is_valid_slurm_cluster_name(cluster),
                "user@host of the Slurm login node",
            ),
            MODAL => (
                !cluster.is_empty() && is_plain(cluster, "-_.@"),
                "the cluster's name",
            ),
            _ => (
                is_plain(cluster, "-_.")
                    && !cluster.starts_with('.')
                    && user(cloud, cluster).is_some_and(|user| !user.is_empty()),
                "queue.user, such as debug.jane",
            ),
        };
        if is_valid {
            return Ok(());
        }
        Err(JobError::failed(format!(
            "`cluster_name` {cluster:?} does not fit: on {cloud} it is {expected}"
        )))
    }

    fn envs(&self, cloud: &str, cluster: &str) -> BTreeMap<String, String> {
        envs(cloud, &[cluster])
    }

    async fn prepare(
        &self,
        spec: &LaunchSpec,
        _own: Option<String>,
    ) -> Result<(String, JobConfig)> {
        let (cloud, cluster) = (spec.identity.cloud.as_str(), spec.identity.cluster.clone());
        self.validate_cluster(cloud, &cluster)?;
        let user = user(cloud, &cluster);
        // For these clouds Oumi writes the job's variables into a shell script without quoting them.
        let mut config = JobConfig::new(spec, user.is_some());
        if let Some(user) = user {
            let named = config.document.insert("user".to_owned(), user.into());
            if let Some(other) = named.filter(|named| !named.is_null() && named != user) {
                config.warnings.push(format!(
                    "the config has `user: {other}`; the job is launched as {user}, the user in `cluster_name`"
                ));
            }
        }
        if spec.resources.autostop_minutes.is_some() {
            let warning = format!("`autostop_minutes` has no meaning on {cloud} and is ignored");
            config.warnings.push(warning);
        }
        Ok((cluster, config))
    }

    async fn queue(&self, cloud: &str, clusters: &BTreeSet<String>) -> Result<Queue> {
        let names: Vec<&str> = clusters.iter().map(String::as_str).collect();
        let call = call("status", cloud, &names, &[])?;
        let answered = self.0.query(&call).await;
        let output = answered.map_err(JobError::unavailable)?;
        if output.code != Some(0) {
            let error = format!("`oumi launch status` failed: {}", failure_text(&output));
            return Err(JobError::failed(error).with_hint("run it in a terminal to see why"));
        }
        let none = |cluster: &String| (cluster.clone(), Vec::new());
        let mut queue: BTreeMap<_, _> = clusters.iter().map(none).collect();
        for (cluster, job) in status_rows(&output.stdout) {
            queue.entry(cluster).or_default().push(job);
        }
        let queue = queue.into_iter().map(|(name, jobs)| (name, Ok(jobs)));
        Ok(queue.collect())
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog> {
        let job = ["--job-id", &identity.oumi_job_id];
        let mut call = call("logs", &identity.cloud, &[&identity.cluster], &job)?;
        call.timeout = LOGS_TIMEOUT;
        call.is_log = true;
        call.log_marker = Some(LOG_BEGINS);
        let output = in_budget(self.0.query(&call)).await;
        let output = output.map_err(JobError::failed)?;
        let problem = match output.code {
            Some(0) if !output.timed_out => None,
            _ if !output.timed_out => Some(failure_text(&output)),
            _ if output.stdout.contains(LOG_BEGINS) => None,
            _ => Some(format!("none arrived within {} s", LOGS_TIMEOUT.as_secs())),
        };
        if let Some(problem) = problem {
            let error = JobError::failed(format!("the log could not be read: {problem}"));
            return Err(error.with_hint("call poll_status for the job's status"));
        }
        let running = || "The job still runs: this is its log so far.".to_owned();
        Ok(JobLog {
            log_file: log_file(identity),
            content: LogContent::Text {
                text: log_lines(&output.stdout),
                complete: !output.front_truncated,
            },
            ended: !output.timed_out,
            message: output.timed_out.then(running),
        })
    }

    fn change_call(&self, change: &Change) -> Result<CliCall> {
        let job = ["--id", &change.oumi_job_id];
        call(&change.verb, &change.cloud, &[&change.cluster], &job)
    }

    async fn change_result(&self, _: &Change, output: &Output) -> Result<String> {
        let is_done = output.code == Some(0);
        let refused = || JobError::failed(failure_text(output));
        is_done.then(String::new).ok_or_else(refused)
    }
}

fn user<'c>(cloud: &str, cluster: &'c str) -> Option<&'c str> {
    match cloud {
        SLURM => cluster.split_once('@').map(|(user, _)| user),
        MODAL => None,
        // Elsewhere a cluster is a queue and a user, `debug.jane`.
        _ => cluster.split_once('.').map(|(_, user)| user),
    }
}

/// A run of `oumi launch`, which names the cluster where it is one.
fn call(verb: &str, cloud: &str, clusters: &[&str], job: &[&str]) -> Result<CliCall> {
    let mut arguments = vec!["launch", verb, "--cloud", cloud];
    if let [cluster] = clusters {
        arguments.extend(["--cluster", cluster]);
    }
    arguments.extend(job);
    let mut call = CliCall::new(&find::find_any_oumi()?, &arguments, TIMEOUT);
    call.envs.extend(envs(cloud, clusters));
    Ok(call)
}

/// Names the Slurm clusters of a call to Oumi, and no others of the server's environment: it connects to each one that is named, and
/// fails where one cannot be reached.
fn envs(cloud: &str, clusters: &[&str]) -> BTreeMap<String, String> {
    let connections = (SLURM_CONNECTIONS.to_owned(), clusters.join(","));
    (cloud == SLURM)
        .then_some(connections)
        .into_iter()
        .collect()
}
