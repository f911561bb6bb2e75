//! Jobs on the clouds that Oumi reaches through SkyPilot: launched by `oumi launch up`, asked about through `sky`.

mod cancel;
mod clusters;
mod logs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use clusters::{
    cloud_of, cluster_details, cluster_facts, cluster_gone, cluster_made_anew, cluster_not_up,
    mention_clusters, setup_is_skipped, setup_skipped, still_up,
};

use super::cloud::{CloudLaunch, Launched, Trace};
use super::job_yaml::{self, JobConfig};
use super::{
    CancelOutcome, ClusterAction, ClusterInfo, JobDetails, JobIdentity, JobLog, JobState,
    JobStatus, LaunchPlan, LaunchSpec, Launcher, ListedJob, Listing,
};
use crate::error::JobError;
use crate::parse::sky::{self as printed, Cluster, Queue, QueueFailure, QueuedJob};
use crate::parse::{self, OutputError};
use crate::process::find;
use crate::process::job_dir::JobLock;
use crate::process::runner::{Cli, CliCall, Output, call_deadline};
use crate::settings::data_dir::DataDir;
use tokio::time::Instant;

/// The clouds that Oumi 0.9 reaches through SkyPilot, by Oumi's names.
const CLOUDS: &[&str] = &[
    "aws",
    "azure",
    "gcp",
    "k8s",
    "lambda",
    "nebius",
    "runpod",
    "sky-slurm",
];
/// How long a run of `sky` may take: the first one starts SkyPilot's API server.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long SkyPilot's own server may go on with a launch whose launcher was cut off.
const GOES_ON_FOR: Duration = Duration::from_secs(30 * 60);
/// The first and the longest wait before the job of such a launch is looked for again.
const FIRST_LOOK_AGAIN: Duration = Duration::from_secs(2);
const LAST_LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How wrong a cluster's clock may be, and how soon after a launch its cluster can at best have been made anew.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);
const MADE_ANEW_AFTER: Duration = Duration::from_secs(60);

/// Reaches clouds through SkyPilot.
#[derive(Debug, Clone)]
pub(crate) struct SkyPilotLauncher {
    launch: CloudLaunch,
    cli: Cli,
}

impl SkyPilotLauncher {
    /// A launcher whose launches live in `folder`, under `supervisor`, and which runs programs through `cli`.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf, cli: Cli) -> Self {
        Self {
            launch: CloudLaunch::new(folder, supervisor, Some(GOES_ON_FOR)),
            cli,
        }
    }

    fn call(&self, arguments: &[&str], timeout: Duration) -> Result<CliCall, JobError> {
        let sky = find_sky()?;
        Ok(CliCall::new(&sky, arguments, timeout))
    }

    async fn ask(
        &self,
        arguments: &[&str],
        deadline: Option<Instant>,
    ) -> Result<std::sync::Arc<Output>, JobError> {
        let call = self.call(arguments, DEADLINE)?;
        let answered = self.cli.query(&call, deadline).await;
        answered.map_err(|error| JobError::unavailable(error.to_string()))
    }

    /// The jobs of one cluster, or of all.
    async fn queue(
        &self,
        cluster: Option<&str>,
        deadline: Option<Instant>,
    ) -> Result<Queue, JobError> {
        let arguments: Vec<&str> = ["queue"]
            .into_iter()
            .chain(cluster)
            .chain(["-o", "json"])
            .collect();
        let output = self.ask(&arguments, deadline).await?;
        printed::queue(&output.stdout).map_err(|error| unreadable("sky queue", &error, &output))
    }

    async fn clusters(&self, deadline: Option<Instant>) -> Result<Vec<Cluster>, JobError> {
        let output = self.ask(&["status", "-o", "json"], deadline).await?;
        printed::clusters(&output.stdout).map_err(|error| unreadable("sky status", &error, &output))
    }

    async fn status_of(
        &self,
        identity: &JobIdentity,
        deadline: Option<Instant>,
    ) -> Result<JobStatus, JobError> {
        if identity.oumi_job_id.is_empty() {
            let mut status = self.launch.status(identity).await?;
            if status.state == JobState::Failed {
                self.mention_cluster(&identity.cluster, &mut status, deadline)
                    .await;
            }
            return Ok(status);
        }
        let queue = self.queue(Some(&identity.cluster), deadline).await?;
        let mut status = match queue.jobs.get(&identity.cluster) {
            Some(jobs) => match self.row_of(identity, jobs).await {
                Some(job) => status_of_row(job),
                None if identity.job_id.is_empty() => return Err(no_such_job(identity)),
                None => cluster_made_anew(&identity.cluster),
            },
            None => match queue.unanswered.get(&identity.cluster) {
                Some(QueueFailure::ClusterGone) | None => cluster_gone(&identity.cluster),
                Some(QueueFailure::ClusterNotUp(_)) => {
                    cluster_not_up(&identity.cluster, &self.clusters(deadline).await?)
                }
                Some(QueueFailure::Other(reason)) => {
                    return Err(JobError::failed(format!(
                        "cluster {} could not be asked: {reason}",
                        identity.cluster
                    )));
                }
            },
        };
        status.log_file = log_file(identity);
        if !identity.job_id.is_empty() && self.launch.found_existing_cluster(identity).await {
            status.warnings.push(setup_skipped(&identity.cluster));
        }
        if status.is_done && queue.jobs.contains_key(&identity.cluster) {
            self.mention_cluster(&identity.cluster, &mut status, deadline)
                .await;
        }
        Ok(status)
    }

    /// Says of a job that is over that its cluster goes on costing money, where it does.
    async fn mention_cluster(&self, name: &str, status: &mut JobStatus, deadline: Option<Instant>) {
        let Ok(clusters) = self.clusters(deadline).await else {
            return;
        };
        if let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) {
            status.details.cluster = Some(cluster_details(cluster));
            if cluster.status == "UP" {
                status.warnings.push(format!("its {}", still_up(cluster)));
            }
        }
    }

    /// Waits for the end of a launch. Of one that left no id, the job is looked for by its name on its cluster, until it is
    /// there or no longer to be expected.
    async fn settle_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        let mut wait = FIRST_LOOK_AGAIN;
        loop {
            let may_go_on = match self.launch.wait_for_launch(identity).await? {
                Launched::As(settled) => {
                    // A queue that was asked for before does not show the job.
                    self.cli.invalidate();
                    return Ok(settled);
                }
                Launched::Failed(reason) => return Err(JobError::failed(reason)),
                Launched::Cancelled => {
                    return Err(JobError::failed("it was cancelled before it was launched"));
                }
                Launched::CutOff { may_go_on } => may_go_on,
            };
            match self.find_by_name(identity).await {
                Ok(Some(oumi_job_id)) => {
                    return Ok(JobIdentity {
                        oumi_job_id,
                        ..identity.clone()
                    });
                }
                Ok(None) if may_go_on => {}
                Ok(None) => {
                    let reason = "its launch was cut off before the job was on its cluster";
                    self.launch
                        .keep_failure(identity, reason.to_owned())
                        .await?;
                    return Err(JobError::failed(reason));
                }
                Err(error) if may_go_on => {
                    tracing::warn!(job_id = identity.job_id, %error, "cannot look for a job whose launch was cut off");
                }
                Err(error) => return Err(JobError::unavailable(error.to_string())),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_LOOK_AGAIN);
        }
    }

    async fn find_by_name(&self, identity: &JobIdentity) -> Result<Option<String>, JobError> {
        let queue = self.queue(Some(&identity.cluster), None).await?;
        if let Some(QueueFailure::Other(reason)) = queue.unanswered.get(&identity.cluster) {
            return Err(JobError::failed(reason));
        }
        Ok(self.named_like(identity, &queue).await)
    }

    /// The launcher's id of the job that a launch which left none has put on its cluster. One that was there before is not
    /// it, though it has the same name: of those that came after, the first is meant.
    async fn named_like(&self, identity: &JobIdentity, queue: &Queue) -> Option<String> {
        let trace = self.launch.trace(identity).await?;
        let begun = seconds(trace.begun).floor();
        let is_it = |job: &&QueuedJob| {
            job.job_name == trace.name && job.submitted_at.is_some_and(|time| time >= begun)
        };
        // Newest first.
        let mut oldest_first = queue.jobs.get(&identity.cluster)?.iter().rev();
        oldest_first.find(is_it).map(|job| job.job_id.clone())
    }

    /// The row of a job in the queue of its cluster. A cluster that was made anew counts from 1 again: the job that has the id
    /// then is another one.
    async fn row_of<'q>(
        &self,
        identity: &JobIdentity,
        jobs: &'q [QueuedJob],
    ) -> Option<&'q QueuedJob> {
        let row = jobs.iter().find(|job| job.job_id == identity.oumi_job_id)?;
        let is_another = match self.launch.trace(identity).await {
            Some(trace) => came_after(row, &trace),
            None => false,
        };
        (!is_another).then_some(row)
    }

    async fn listing(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        if let Err(missing) = find_sky() {
            // Who has never used a cloud need not hear of it.
            return if known.is_empty() {
                Ok(Listing::default())
            } else {
                Err(missing)
            };
        }
        let (queue, clusters) = tokio::join!(
            self.queue(None, call_deadline()),
            self.clusters(call_deadline())
        );
        let mut listing = Listing::default();
        let (settled, launching): (Vec<_>, Vec<_>) = known
            .iter()
            .partition(|identity| !identity.oumi_job_id.is_empty());
        for &identity in &launching {
            match self.launch.status(identity).await {
                Ok(status) => listing.jobs.push(ListedJob {
                    identity: identity.clone(),
                    status,
                }),
                Err(error) => listing
                    .warnings
                    .push(format!("job {}: {error}", identity.job_id)),
            }
        }
        let (queue, clusters) = match (queue, clusters) {
            (Ok(queue), clusters) => (queue, clusters),
            (Err(error), clusters) => {
                let ids: Vec<&str> = settled
                    .iter()
                    .map(|identity| identity.job_id.as_str())
                    .collect();
                let whom = if ids.is_empty() {
                    "jobs on clouds".to_owned()
                } else {
                    ids.join(", ")
                };
                listing
                    .warnings
                    .push(format!("not asked about: {whom}; {error}"));
                listing.incomplete.push(error.to_string());
                mention_clusters(&mut listing, None, clusters.as_deref().unwrap_or_default());
                return Ok(listing);
            }
        };
        if let Err(error) = &clusters {
            listing
                .warnings
                .push(format!("nothing is known of the clusters' costs; {error}"));
        }
        for (cluster, failure) in &queue.unanswered {
            if let QueueFailure::Other(reason) = failure {
                listing
                    .incomplete
                    .push(format!("cluster {cluster}: {reason}"));
            }
        }
        let mut taken = Vec::new();
        for identity in launching {
            if let Some(oumi_job_id) = self.named_like(identity, &queue).await {
                taken.push((identity.cluster.as_str(), oumi_job_id));
            }
        }
        let mut ours = Vec::new();
        for identity in &settled {
            if let Some(jobs) = queue.jobs.get(&identity.cluster)
                && self.row_of(identity, jobs).await.is_some()
            {
                ours.push(*identity);
            }
        }
        for (name, jobs) in &queue.jobs {
            let cluster = clusters
                .iter()
                .flatten()
                .find(|cluster| cluster.name == *name);
            for job in jobs {
                let ours = ours
                    .iter()
                    .find(|known| known.cluster == *name && known.oumi_job_id == job.job_id);
                // The job of a launch under way is there already, as that.
                if ours.is_none() && taken.contains(&(name.as_str(), job.job_id.clone())) {
                    continue;
                }
                let identity = ours.map_or_else(
                    || found_elsewhere(name, job, cluster),
                    |known| (*known).clone(),
                );
                let mut status = status_of_row(job);
                status.details.cluster = cluster.map(cluster_details);
                listing.warnings.append(&mut status.warnings);
                listing.jobs.push(ListedJob { identity, status });
            }
        }
        for identity in settled {
            if !listing.jobs.iter().any(|job| job.identity == *identity) {
                match absent(identity, &queue, clusters.as_deref()) {
                    Ok(status) => listing.jobs.push(ListedJob {
                        identity: identity.clone(),
                        status,
                    }),
                    Err(reason) => listing
                        .warnings
                        .push(format!("not asked about: {}; {reason}", identity.job_id)),
                }
            }
        }
        mention_clusters(
            &mut listing,
            Some(&queue),
            clusters.as_deref().unwrap_or_default(),
        );
        Ok(listing)
    }
}

#[async_trait::async_trait]
impl Launcher for SkyPilotLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        CLOUDS
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        let cluster = match spec.identity.cluster.as_str() {
            "" => cluster_name_for(&spec.identity.job_id),
            named if parse::is_valid_cluster_name(named) => named.to_owned(),
            named => {
                return Err(JobError::failed(format!(
                    "`cluster_name` {named:?} is none SkyPilot takes: it begins with a letter, goes on with letters, \
                         digits, `-`, `_` and `.`, and ends in a letter or digit"
                )));
            }
        };
        let config = JobConfig::new(spec, false);
        let mut plan = self
            .launch
            .plan(spec, cluster.clone(), config, BTreeMap::new())?;
        if plan.blocked_by.is_none() {
            plan.blocked_by = find_sky().err().map(|missing| missing.to_string());
        }
        if !spec.identity.cluster.is_empty() {
            plan.warnings.push(format!(
                "if cluster {cluster} is there already, {}",
                setup_is_skipped()
            ));
        }
        Ok(plan)
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
        self.settle_launch(identity).await
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        let identity = with_cluster(identity)?;
        self.status_of(&identity, call_deadline()).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        self.listing(known).await
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let identity = with_cluster(identity)?;
        self.read_logs(&identity).await
    }

    async fn cancel(
        &self,
        identity: &JobIdentity,
        _force: bool,
    ) -> Result<CancelOutcome, JobError> {
        self.cancel_job(with_cluster(identity)?).await
    }

    async fn describe_cluster(
        &self,
        _cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>, JobError> {
        let clusters = self.clusters(call_deadline()).await?;
        let found = clusters.iter().find(|known| known.name == cluster);
        Ok(found.map(cluster_facts))
    }

    async fn teardown_cluster(
        &self,
        _cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String, JobError> {
        if !parse::is_valid_cluster_name(cluster) {
            return Err(JobError::failed(format!(
                "{cluster:?} is no name of a cluster; call list_jobs for them"
            )));
        }
        self.change(cluster, action).await
    }
}

fn find_sky() -> Result<PathBuf, JobError> {
    find::find_sky(Path::new("/"))
        .map_err(|missing| JobError::program_not_found(missing.to_string()))
}

fn with_cluster(identity: &JobIdentity) -> Result<JobIdentity, JobError> {
    if identity.cluster.is_empty() || !parse::is_valid_cluster_name(&identity.cluster) {
        return Err(JobError::failed(format!(
            "`cluster_name` {:?} is no name of a cluster; ids repeat from cluster to cluster, so give it: list_jobs shows it",
            identity.cluster
        )));
    }
    if !identity
        .oumi_job_id
        .bytes()
        .all(|byte| byte.is_ascii_digit())
    {
        return Err(JobError::failed(format!(
            "`oumi_job_id` {:?} is none of SkyPilot's, which are numbers",
            identity.oumi_job_id
        )));
    }
    Ok(identity.clone())
}

/// A name for a new cluster, made of the job's. Where more is lost of that than an underscore, a few digits stand for
/// it, so that no other job's cluster is meant.
fn cluster_name_for(job_id: &str) -> String {
    let plain = job_yaml::plain_name(job_id)
        .to_ascii_lowercase()
        .replace(['_', '.'], "-");
    let name = if plain.starts_with(|first: char| first.is_ascii_alphabetic()) {
        plain
    } else {
        format!("oumi-{plain}")
    };
    if name == job_id.replace('_', "-") {
        return name;
    }
    let digest = Sha256::digest(job_id);
    let digits = digest.iter().take(3).map(|byte| format!("{byte:02x}"));
    format!("{name}-{}", digits.collect::<String>())
}

fn log_file(identity: &JobIdentity) -> String {
    format!("cloud:{}/{}", identity.cloud, identity.cluster)
}

fn status_of_row(job: &QueuedJob) -> JobStatus {
    let mut status = match parse::state_of(&job.status) {
        Some((state, is_done)) => JobStatus::new(&job.status, state, is_done),
        None => {
            let mut status = JobStatus::new(&job.status, JobState::Unknown, false);
            status.warnings.push(format!(
                "SkyPilot says {:?}, a word that is not known here",
                job.status
            ));
            status
        }
    };
    let time = |seconds: Option<f64>| {
        let time = chrono::DateTime::from_timestamp(seconds? as i64, 0)?;
        Some(time.to_rfc3339())
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    status.details = JobDetails {
        submitted_at: time(job.submitted_at),
        start_at: time(job.start_at),
        end_at: time(job.end_at),
        job_name: text(&job.job_name),
        resources: text(&job.resources),
        ..JobDetails::default()
    };
    status
}

/// Whether a job was submitted after the end of the launch that `trace` is of. A cluster's clock may be wrong, and SkyPilot may
/// have changed the name: both together are not likely.
fn came_after(job: &QueuedJob, trace: &Trace) -> bool {
    let slack = if job.job_name == trace.name {
        CLOCK_SLACK
    } else {
        MADE_ANEW_AFTER
    };
    let may_come = if trace.said_id {
        slack
    } else {
        slack.max(GOES_ON_FOR)
    };
    let latest = seconds(trace.said_at + may_come);
    job.submitted_at.is_some_and(|time| time > latest)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A job of ours that the queue does not show.
fn absent(
    identity: &JobIdentity,
    queue: &Queue,
    clusters: Result<&[Cluster], &JobError>,
) -> Result<JobStatus, String> {
    let name = &identity.cluster;
    if queue.jobs.contains_key(name) {
        return Ok(cluster_made_anew(name));
    }
    match (queue.unanswered.get(name), clusters) {
        (Some(QueueFailure::Other(reason)), _) => Err(reason.clone()),
        (_, Ok(clusters)) => Ok(cluster_not_up(name, clusters)),
        (Some(QueueFailure::ClusterGone), Err(_)) => Ok(cluster_gone(name)),
        (_, Err(error)) => Err(error.to_string()),
    }
}

fn found_elsewhere(cluster_name: &str, job: &QueuedJob, cluster: Option<&Cluster>) -> JobIdentity {
    JobIdentity {
        job_id: String::new(),
        cloud: cluster.and_then(cloud_of).unwrap_or_default(),
        cluster: cluster_name.to_owned(),
        oumi_job_id: job.job_id.clone(),
    }
}

fn no_such_job(identity: &JobIdentity) -> JobError {
    JobError::not_found(format!(
        "cluster {} has no job {:?}; call list_jobs for the jobs it has",
        identity.cluster, identity.oumi_job_id
    ))
}

fn unreadable(command: &str, error: &OutputError, output: &Output) -> JobError {
    let said = parse::failure_reason(&output.stderr)
        .or_else(|| parse::last_line(&output.stderr))
        .or_else(|| parse::last_line(&output.stdout));
    let said = said.map_or_else(String::new, |said| format!(" (it said: {said})"));
    JobError::failed(format!(
        "`{command}` could not be understood: {error}{said}; run it in a terminal to see why"
    ))
}
