//! Jobs on the clouds that Oumi drives itself, such as a Slurm cluster: launched and asked about through `oumi launch`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::cloud::{CloudLaunch, Launched};
use super::job_yaml::JobConfig;
use super::{
    CancelOutcome, ClusterAction, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec,
    Launcher, ListedJob, Listing, LogContent,
};
use crate::error::{ErrorKind, JobError};
use crate::parse;
use crate::parse::oumi::{self as printed, OumiStatusRow};
use crate::process::find;
use crate::process::job_dir::JobLock;
use crate::process::runner::{Cli, CliCall, call_deadline};
use crate::settings::data_dir::DataDir;
use crate::settings::env_vars::SLURM_CONNECTIONS;
use tokio::time::Instant;

/// The clouds that Oumi 0.9 drives itself, besides `local`, which is ours to run.
const CLOUDS: &[&str] = &["slurm", "modal", "polaris", "frontier", "perlmutter"];
/// Those on which Oumi writes the job's variables into a shell script without quoting them.
const SHELL_ENVS: &[&str] = &["slurm", "polaris", "frontier", "perlmutter"];
/// The cloud whose clusters Oumi must be told of in every call.
const SLURM: &str = "slurm";
/// How long a run of `oumi launch` may take: it imports the training stack, which takes half a minute on an idle machine.
const DEADLINE: Duration = Duration::from_secs(180);
/// How long logs are read for; `oumi launch logs` follows a job until it ends, and most of this goes into its start.
const LOGS_DEADLINE: Duration = Duration::from_secs(75);

/// Reaches clusters through `oumi launch`.
#[derive(Debug, Clone)]
pub(crate) struct OumiCloudLauncher {
    launch: CloudLaunch,
    cli: Cli,
}

impl OumiCloudLauncher {
    /// A launcher whose launches live in `folder`, under `supervisor`, and which runs programs through `cli`.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf, cli: Cli) -> Self {
        Self {
            // Oumi shows no names by which a job could be found.
            launch: CloudLaunch::new(folder, supervisor, None),
            cli,
        }
    }

    /// What all jobs of a cloud, or of one of its clusters, are doing.
    async fn jobs(
        &self,
        cloud: &str,
        clusters: &BTreeSet<&str>,
        deadline: Option<Instant>,
    ) -> Result<Vec<OumiStatusRow>, JobError> {
        let mut arguments = vec!["launch", "status", "--cloud", cloud];
        if let (1, Some(cluster)) = (clusters.len(), clusters.first()) {
            arguments.extend(["--cluster", cluster]);
        }
        let call = oumi_call(cloud, clusters, &arguments, DEADLINE)?;
        let answered = self.cli.query(&call, deadline).await;
        let output = answered.map_err(|error| JobError::unavailable(error.to_string()))?;
        if output.code == Some(0) {
            return Ok(printed::status_rows(&output.stdout));
        }
        Err(JobError::failed(format!(
            "`oumi launch status` failed: {}; run it in a terminal to see why",
            reason(&output.stdout, &output.stderr)
        )))
    }

    async fn status_of(
        &self,
        identity: &JobIdentity,
        deadline: Option<Instant>,
    ) -> Result<JobStatus, JobError> {
        if identity.oumi_job_id.is_empty() {
            return self.launch.status(identity).await;
        }
        let jobs = self
            .jobs(
                &identity.cloud,
                &BTreeSet::from([identity.cluster.as_str()]),
                deadline,
            )
            .await?;
        let job = jobs
            .iter()
            .find(|job| is_it(job, identity))
            .ok_or_else(|| no_such_job(identity))?;
        Ok(status_of_row(job, identity))
    }

    async fn listing(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        let mut listing = Listing::default();
        let (settled, launching): (Vec<_>, Vec<_>) = known
            .iter()
            .partition(|identity| !identity.oumi_job_id.is_empty());
        let mut lost = Vec::new();
        for identity in launching {
            match self.launch.status(identity).await {
                Ok(status) => {
                    if status.state == JobState::Unknown {
                        lost.push(identity);
                    }
                    listing.jobs.push(ListedJob {
                        identity: identity.clone(),
                        status,
                    });
                }
                Err(error) => listing
                    .warnings
                    .push(format!("job {}: {error}", identity.job_id)),
            }
        }
        // A registry may have been written by anyone: what is no name is no argument.
        let (settled, odd): (Vec<_>, Vec<_>) = settled
            .into_iter()
            .partition(|identity| check(identity).is_ok());
        for identity in odd {
            if let Err(error) = check(identity) {
                listing
                    .warnings
                    .push(format!("job {}: {error}", identity.job_id));
            }
        }
        let mut asked = tokio::task::JoinSet::new();
        // A job whose launch was cut off may be on its cluster: it is then seen there.
        let mut clouds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for identity in settled.iter().chain(&lost) {
            let clusters = clouds.entry(identity.cloud.as_str()).or_default();
            clusters.insert(identity.cluster.clone());
        }
        for (cloud, clusters) in clouds {
            let known: Vec<JobIdentity> = settled
                .iter()
                .filter(|identity| identity.cloud == cloud)
                .map(|&identity| identity.clone())
                .collect();
            let (launcher, cloud) = (self.clone(), cloud.to_owned());
            asked.spawn(async move { launcher.list_cloud(&cloud, &clusters, known).await });
        }
        for listed in asked.join_all().await {
            listing.jobs.extend(listed.jobs);
            listing.warnings.extend(listed.warnings);
            listing.incomplete.extend(listed.incomplete);
        }
        Ok(listing)
    }

    async fn list_cloud(
        &self,
        cloud: &str,
        clusters: &BTreeSet<String>,
        known: Vec<JobIdentity>,
    ) -> Listing {
        let clusters = clusters.iter().map(String::as_str).collect();
        let mut listing = Listing::default();
        let jobs = match self.jobs(cloud, &clusters, call_deadline()).await {
            Ok(jobs) => jobs,
            Err(error) => {
                let ids: Vec<&str> = known
                    .iter()
                    .map(|identity| identity.job_id.as_str())
                    .collect();
                listing
                    .warnings
                    .push(format!("not asked about: {}; {error}", ids.join(", ")));
                listing.incomplete.push(format!("{cloud}: {error}"));
                return listing;
            }
        };
        for job in &jobs {
            let identity = known
                .iter()
                .find(|identity| is_it(job, identity))
                .cloned()
                .unwrap_or_else(|| JobIdentity {
                    job_id: String::new(),
                    cloud: cloud.to_owned(),
                    cluster: job.cluster.clone(),
                    oumi_job_id: job.oumi_job_id.clone(),
                });
            let mut status = status_of_row(job, &identity);
            listing.warnings.append(&mut status.warnings);
            listing.jobs.push(ListedJob { identity, status });
        }
        for identity in known {
            if !listing.jobs.iter().any(|job| job.identity == identity) {
                listing.warnings.push(format!(
                    "job {}: {}",
                    identity.job_id,
                    no_such_job(&identity)
                ));
            }
        }
        listing
    }

    async fn read_logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        if identity.oumi_job_id.is_empty() {
            return self.launch.logs(identity).await;
        }
        let arguments = [
            "launch",
            "logs",
            "--cloud",
            &identity.cloud,
            "--cluster",
            &identity.cluster,
            "--job-id",
            &identity.oumi_job_id,
        ];
        let clusters = BTreeSet::from([identity.cluster.as_str()]);
        let mut call = oumi_call(&identity.cloud, &clusters, &arguments, LOGS_DEADLINE)?;
        call.is_log = true;
        call.log_marker = Some(printed::LOG_BEGINS);
        let output = self
            .cli
            .query(&call, call_deadline())
            .await
            .map_err(JobError::failed)?;
        if !output.timed_out && output.code != Some(0) {
            return Err(JobError::failed(format!(
                "the log could not be read: {}; call poll_status to see whether the job is known",
                reason(&output.stdout, &output.stderr)
            )));
        }
        if output.timed_out && !output.stdout.contains(printed::LOG_BEGINS) {
            return Err(JobError::failed(format!(
                "nothing of the log came within {} s; try again, or call poll_status to see how the job is",
                LOGS_DEADLINE.as_secs()
            )));
        }
        let goes_on = || "The job goes on: this is its log so far.".to_owned();
        Ok(JobLog {
            log_file: format!("cloud:{}/{}", identity.cloud, identity.cluster),
            content: LogContent::Text {
                text: printed::log_lines(&output.stdout),
                complete: !output.front_truncated,
                timed_out: output.timed_out,
            },
            ended: !output.timed_out,
            message: output.timed_out.then(goes_on),
        })
    }

    async fn cancel_job(&self, identity: &JobIdentity) -> Result<CancelOutcome, JobError> {
        if identity.oumi_job_id.is_empty() {
            return self.launch.cancel(identity).await;
        }
        match self.status_of(identity, None).await {
            Ok(before) if before.is_done => {
                return Ok(CancelOutcome::AlreadyFinished {
                    status: before.status,
                    state: before.state,
                    message: before.message,
                });
            }
            Err(error)
                if matches!(error.kind, ErrorKind::NotFound | ErrorKind::ProgramNotFound) =>
            {
                return Err(error);
            }
            // Who cannot be asked can still be told to stop.
            Ok(_) | Err(_) => {}
        }
        let arguments = [
            "launch",
            "cancel",
            "--cloud",
            &identity.cloud,
            "--cluster",
            &identity.cluster,
            "--id",
            &identity.oumi_job_id,
        ];
        let clusters = BTreeSet::from([identity.cluster.as_str()]);
        let call = oumi_call(&identity.cloud, &clusters, &arguments, DEADLINE)?;
        let output = self.cli.run(&call).await.map_err(JobError::failed)?;
        let after = self.status_of(identity, None).await?;
        match after.state {
            JobState::Cancelled => Ok(CancelOutcome::Cancelled { message: None }),
            _ if after.is_done => Ok(CancelOutcome::AlreadyFinished {
                status: after.status,
                state: after.state,
                message: after.message,
            }),
            _ if output.code == Some(0) => Ok(CancelOutcome::Stopping {
                message: "the cancel was taken; call poll_status to see the job end".to_owned(),
            }),
            _ => Err(JobError::failed(format!(
                "the job was not cancelled and is {}: {}; call cancel_job again",
                after.status,
                reason(&output.stdout, &output.stderr)
            ))),
        }
    }

    async fn change(
        &self,
        cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String, JobError> {
        let verb = match action {
            ClusterAction::Stop => "stop",
            ClusterAction::Down => "down",
        };
        let arguments = ["launch", verb, "--cloud", cloud, "--cluster", cluster];
        let call = oumi_call(cloud, &BTreeSet::from([cluster]), &arguments, DEADLINE)?;
        let output = self.cli.run(&call).await.map_err(JobError::failed)?;
        let said = parse::last_line(&output.stdout).unwrap_or_default();
        if output.code == Some(0) && !output.timed_out {
            // Nobody can be asked whether it is true, and Oumi says so of any cluster.
            return Ok(format!("Oumi says: {said}"));
        }
        Err(JobError::failed(format!(
            "`oumi launch {verb}` failed: {}",
            reason(&output.stdout, &output.stderr)
        )))
    }
}

#[async_trait::async_trait]
impl Launcher for OumiCloudLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        CLOUDS
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        let cloud = spec.identity.cloud.as_str();
        let cluster = spec.identity.cluster.clone();
        check_cluster(cloud, &cluster)?;
        let mut config = JobConfig::new(spec, SHELL_ENVS.contains(&cloud));
        if let Some((user, _)) = cluster.split_once('@')
            && config.document.get("user").is_none_or(Value::is_null)
        {
            config.document.insert("user".to_owned(), user.into());
        }
        self.launch.plan(
            spec,
            cluster.clone(),
            config,
            envs(cloud, &BTreeSet::from([cluster.as_str()])),
        )
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        self.launch.start(identity, plan, lock).await
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        match self.launch.wait_for_launch(identity).await? {
            Launched::As(settled) => Ok(settled),
            Launched::Failed(reason) => Err(JobError::failed(reason)),
            Launched::Cancelled => Err(JobError::failed("it was cancelled before it was launched")),
            Launched::CutOff { .. } => Err(JobError::failed(
                "its launch was cut off and left no id; call list_jobs: a job that is on the cluster is listed there",
            )),
        }
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        check(identity)?;
        self.status_of(identity, call_deadline()).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        if known.is_empty() {
            return Ok(Listing::default());
        }
        find_oumi()?;
        self.listing(known).await
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        check(identity)?;
        self.read_logs(identity).await
    }

    async fn cancel(
        &self,
        identity: &JobIdentity,
        _force: bool,
    ) -> Result<CancelOutcome, JobError> {
        check(identity)?;
        self.cancel_job(identity).await
    }

    async fn teardown_cluster(
        &self,
        cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String, JobError> {
        check_cluster(cloud, cluster)?;
        self.change(cloud, cluster, action).await
    }
}

fn find_oumi() -> Result<PathBuf, JobError> {
    find::find_oumi(Path::new("/"))
        .map_err(|missing| JobError::program_not_found(missing.to_string()))
}

fn oumi_call(
    cloud: &str,
    clusters: &BTreeSet<&str>,
    arguments: &[&str],
    timeout: Duration,
) -> Result<CliCall, JobError> {
    let mut call = CliCall::new(&find_oumi()?, arguments, timeout);
    call.envs.extend(envs(cloud, clusters));
    Ok(call)
}

/// What Oumi must be told beside: the Slurm clusters, those of the server's environment first.
fn envs(cloud: &str, clusters: &BTreeSet<&str>) -> BTreeMap<String, String> {
    if cloud != SLURM {
        return BTreeMap::new();
    }
    let inherited = std::env::var(SLURM_CONNECTIONS.name).unwrap_or_default();
    let mut connections: Vec<&str> = inherited
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    for &cluster in clusters {
        if !connections.contains(&cluster) {
            connections.push(cluster);
        }
    }
    BTreeMap::from([(SLURM_CONNECTIONS.name.to_owned(), connections.join(","))])
}

/// Slurm clusters are `user@host`; no name may be taken for an option.
fn check_cluster(cloud: &str, cluster: &str) -> Result<(), JobError> {
    let wanted = if cloud == SLURM {
        "user@host of the Slurm login node"
    } else {
        "the cluster's name"
    };
    if cluster.is_empty() {
        return Err(JobError::failed(format!(
            "`cluster_name` is missing: on {cloud} it is {wanted}"
        )));
    }
    let fits = if cloud == SLURM {
        parse::is_valid_slurm_cluster_name(cluster)
    } else {
        let plain = |other: char| other.is_ascii_alphanumeric() || "-_.@".contains(other);
        !cluster.starts_with('-') && cluster.chars().all(plain)
    };
    if fits {
        return Ok(());
    }
    Err(JobError::failed(format!(
        "`cluster_name` {cluster:?} does not fit: on {cloud} it is {wanted}"
    )))
}

fn check(identity: &JobIdentity) -> Result<(), JobError> {
    check_cluster(&identity.cloud, &identity.cluster)?;
    let plain = |other: char| other.is_ascii_alphanumeric() || "-_.".contains(other);
    if identity.oumi_job_id.starts_with('-') || !identity.oumi_job_id.chars().all(plain) {
        return Err(JobError::failed(format!(
            "`oumi_job_id` {:?} is no id of a job",
            identity.oumi_job_id
        )));
    }
    Ok(())
}

fn is_it(job: &OumiStatusRow, identity: &JobIdentity) -> bool {
    job.cluster == identity.cluster && job.oumi_job_id == identity.oumi_job_id
}

fn status_of_row(job: &OumiStatusRow, identity: &JobIdentity) -> JobStatus {
    let mut status = match parse::state_of(&job.status) {
        Some((state, is_done)) => JobStatus::new(&job.status, state, is_done),
        None => {
            let mut status = JobStatus::new(&job.status, JobState::Unknown, false);
            status.warnings.push(format!(
                "{} says {:?}, a word that is not known here",
                identity.cloud, job.status
            ));
            status
        }
    };
    status.log_file = format!("cloud:{}/{}", identity.cloud, identity.cluster);
    status
}

fn no_such_job(identity: &JobIdentity) -> JobError {
    JobError::not_found(format!(
        "{} does not know a job {:?} on {} any more; call list_jobs for those it knows",
        identity.cloud, identity.oumi_job_id, identity.cluster
    ))
}

fn reason(stdout: &str, stderr: &str) -> String {
    parse::failure_reason(stdout)
        .or_else(|| parse::failure_reason(stderr))
        .or_else(|| parse::last_line(stderr))
        .or_else(|| parse::last_line(stdout))
        .unwrap_or_else(|| "it said nothing".to_owned())
}
