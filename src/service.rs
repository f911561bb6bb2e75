//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.

pub mod answers;
mod launch;
pub mod requests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::in_flight::{InFlight, LaunchOutcome, LaunchWatch};
use crate::launcher::job_dir::JobDir;
use crate::launcher::{
    CancelOutcome, ClusterAction, JobIdentity, JobState, JobStatus, Launcher, LauncherError,
    Listing,
};
use crate::paths::DataFolder;
use crate::registry::{JobRecord, JobRegistry, expired};
use crate::secrets::Fingerprints;
use answers::{CancelAnswer, ClusterAnswer, JobAnswer, JobRow, ListAnswer, LogsAnswer, PollAnswer};
use launch::MAY_RUN;
use requests::{
    CancelRequest, DownRequest, JobQuery, ListRequest, LogsRequest, StatusFilter, StopRequest,
};

/// How long a call waits for a launch under way before it answers that it is still pending.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// What `user_confirmation` must be for a cluster to be deleted.
const DOWN_CONFIRMATION: &str = "DOWN";

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub struct JobService {
    inner: Arc<Inner>,
}

struct Inner {
    folder: DataFolder,
    registry: JobRegistry,
    in_flight: InFlight,
    launchers: Vec<Arc<dyn Launcher>>,
}

/// The job that a query means.
struct Found {
    identity: JobIdentity,
    /// Nothing for a job that was started elsewhere.
    record: Option<JobRecord>,
}

/// Why a query means no job.
enum NotFound {
    /// There is none such.
    Unknown(String),
    /// The query, or the look at the registry, failed.
    Failed(String),
}

impl JobService {
    /// A service over the jobs in `folder`, run by `launchers`.
    pub fn new(folder: DataFolder, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        let registry = JobRegistry::new(folder.clone());
        Self {
            inner: Arc::new(Inner {
                folder,
                registry,
                in_flight: InFlight::default(),
                launchers,
            }),
        }
    }

    /// The launches under way.
    pub fn in_flight(&self) -> &InFlight {
        &self.inner.in_flight
    }

    /// The registry.
    pub fn registry(&self) -> &JobRegistry {
        &self.inner.registry
    }

    /// Takes up what an earlier server left: launches that were under way, cancels that were asked for, records too old.
    /// What cannot be done now is done at the next look.
    pub async fn recover(&self) {
        match self.inner.registry.records().await {
            Ok(records) => {
                self.take_up(&records).await;
                self.prune(&records, &HashMap::new()).await;
            }
            Err(error) => tracing::warn!(%error, "cannot take up the jobs of an earlier server"),
        }
    }

    /// How a job is.
    pub async fn poll(&self, query: JobQuery) -> PollAnswer {
        let found = match self.find(&query).await {
            Ok(found) => self.settled(found).await,
            Err(NotFound::Unknown(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    status: "not_found".to_owned(),
                    ..PollAnswer::failure(error)
                };
            }
            Err(NotFound::Failed(error)) => {
                return PollAnswer {
                    job_id: query.job_id,
                    ..PollAnswer::failure(error)
                };
            }
        };
        let record = found.record.clone().unwrap_or_default();
        let known = PollAnswer {
            job_id: found.identity.job_id.clone(),
            oumi_job_id: found.identity.oumi_job_id.clone(),
            command: record.command,
            config_path: record.config_path,
            cloud: found.identity.cloud.clone(),
            cluster: found.identity.cluster.clone(),
            model_name: record.model_name,
            ..PollAnswer::default()
        };
        let asked = match self.launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.status(&found.identity).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let secrets = self.secrets(&found.identity.job_id).await;
        match asked {
            Ok(mut status) => {
                if !status.is_done && self.is_cancel_kept(&found.identity.job_id).await {
                    status.warnings.push(
                        "a cancel was asked for and is not carried out yet: that is done when the launch has ended, and \
                         tried again at each look while it fails"
                            .to_owned(),
                    );
                }
                let mut metadata = status.metadata.clone();
                for (key, value) in [
                    ("submit_time", record.submit_time),
                    ("output_dir", record.output_dir),
                ] {
                    if !value.is_empty() {
                        metadata.insert(key.to_owned(), value.into());
                    }
                }
                PollAnswer {
                    success: true,
                    message: secrets.hide(&next_step(&status)),
                    status: status.status,
                    state: status.state,
                    is_done: status.is_done,
                    log_file: status.log_file,
                    warnings: status.warnings,
                    metadata,
                    ..known
                }
            }
            Err(error) => {
                let status = if matches!(error, LauncherError::NotFound(_)) {
                    "not_found"
                } else {
                    "unknown"
                };
                PollAnswer {
                    status: status.to_owned(),
                    error: Some(error.to_string()),
                    ..known
                }
            }
        }
    }

    /// The end of a job's log.
    pub async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        let lines = usize::try_from(request.lines).unwrap_or(0);
        let asked = LogsAnswer {
            job_id: request.job_id.clone(),
            lines_requested: lines,
            ..LogsAnswer::default()
        };
        if request.job_id.is_empty() && request.cluster_name.is_empty() && request.cloud != "local"
        {
            let error =
                "give job_id, or oumi_job_id with cloud and cluster_name; list_jobs shows them";
            return LogsAnswer {
                error: Some(error.to_owned()),
                ..asked
            };
        }
        let found = match self.find(&JobQuery::from(&request)).await {
            Ok(found) => self.settled(found).await,
            Err(NotFound::Unknown(error) | NotFound::Failed(error)) => {
                return LogsAnswer {
                    error: Some(error),
                    ..asked
                };
            }
        };
        let read = match self.launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.logs(&found.identity, lines).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let secrets = self.secrets(&found.identity.job_id).await;
        let asked = LogsAnswer {
            job_id: found.identity.job_id,
            ..asked
        };
        match read {
            Ok(tail) => LogsAnswer {
                success: true,
                lines_returned: tail.lines,
                log_file: tail.log_file,
                logs: secrets.hide(&tail.text),
                truncated: tail.truncated,
                message: tail.message.unwrap_or_else(|| match (tail.lines, tail.truncated) {
                    (0, false) if lines > 0 => "nothing has been logged yet".to_owned(),
                    (_, true) => "the end of the log; what stood before was left out, the whole is in log_file".to_owned(),
                    _ => String::new(),
                }),
                ..asked
            },
            Err(error) => LogsAnswer { error: Some(secrets.hide(&error.to_string())), ..asked },
        }
    }

    /// Ends a job.
    pub async fn cancel(&self, request: CancelRequest) -> CancelAnswer {
        let found = match self.find(&JobQuery::from(&request)).await {
            Ok(found) => found,
            Err(NotFound::Unknown(error)) => {
                return CancelAnswer {
                    job_id: request.job_id,
                    status: "not_found".to_owned(),
                    ..CancelAnswer::failure(error)
                };
            }
            Err(NotFound::Failed(error)) => {
                return CancelAnswer {
                    job_id: request.job_id,
                    ..CancelAnswer::failure(error)
                };
            }
        };
        let found = self.settled(found).await;
        if let Some(answer) = self.cancel_launch(&found.identity).await {
            return answer;
        }
        // The launch may have ended since the job was looked up: then its id is recorded only now.
        let found = self.looked_up_again(found).await;
        let outcome = match self.launcher(&found.identity.cloud) {
            Ok(launcher) => launcher.cancel(&found.identity, request.force).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let outcome = outcome.map_err(|error| match error {
            LauncherError::NotFound(_) => error,
            _ => LauncherError::Failed(format!("{error}; {MAY_RUN}")),
        });
        let secrets = self.secrets(&found.identity.job_id).await;
        let mut answer = cancelled(&found.identity, outcome);
        answer.message = secrets.hide(&answer.message);
        answer.error = answer.error.map(|error| secrets.hide(&error));
        answer
    }

    /// Stops a cluster; its disks are kept.
    pub async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        self.change_cluster(&request.cloud, request.cluster_name, ClusterAction::Stop)
            .await
    }

    /// Deletes a cluster, once the person has agreed.
    pub async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        if !request.confirm || request.user_confirmation != DOWN_CONFIRMATION {
            let error = format!(
                "nothing was done: deleting a cluster, with everything on its disks, needs confirm=true and \
                 user_confirmation=\"{DOWN_CONFIRMATION}\"; set them once the user has agreed"
            );
            return ClusterAnswer {
                cloud: request.cloud,
                cluster_name: request.cluster_name,
                ..ClusterAnswer::failure(error)
            };
        }
        self.change_cluster(&request.cloud, request.cluster_name, ClusterAction::Down)
            .await
    }

    async fn change_cluster(
        &self,
        cloud: &str,
        cluster_name: String,
        action: ClusterAction,
    ) -> ClusterAnswer {
        let cloud = cloud.trim().to_lowercase();
        let changed = match self.launcher(&cloud) {
            Ok(launcher) => launcher.change_cluster(&cloud, &cluster_name, action).await,
            Err(error) => Err(LauncherError::Failed(error)),
        };
        let answer = ClusterAnswer {
            cloud,
            cluster_name,
            ..ClusterAnswer::default()
        };
        match changed {
            Ok(message) => ClusterAnswer {
                success: true,
                message,
                ..answer
            },
            Err(error) => ClusterAnswer {
                error: Some(error.to_string()),
                ..answer
            },
        }
    }

    /// Every job, and what could not be found out.
    pub async fn list(&self, request: ListRequest) -> ListAnswer {
        // Asked for before the registry is read: a job that is recorded only now cannot be missed in it.
        let under_way = self.inner.in_flight.recorded();
        let records = match self.inner.registry.records().await {
            Ok(records) => records,
            Err(error) => return ListAnswer::failure(error.to_string()),
        };
        for job_id in under_way {
            if !records.iter().any(|record| record.job_id == job_id) {
                self.inner.in_flight.forget(&job_id);
            }
        }
        self.take_up(&records).await;
        let mut warnings = self.registry_warnings(&records).await;
        let listings = self.listings(&records).await;
        let mut done = HashMap::new();
        let mut rows: Vec<(String, JobRow)> = Vec::new();
        for (known, listing) in listings {
            match listing {
                Ok(listing) => {
                    warnings.extend(listing.warnings);
                    for job in listing.jobs {
                        let record = records
                            .iter()
                            .find(|record| same_job(record, &job.identity));
                        if let Some(record) = record {
                            done.insert(record.job_id.clone(), job.status.is_done);
                        }
                        rows.push(row(record, &job.identity, &job.status));
                    }
                }
                Err(LauncherError::ProgramMissing(error)) => {
                    // What this machine cannot reach cannot be running for it: such records may grow old.
                    done.extend(known.iter().map(|identity| (identity.job_id.clone(), true)));
                    warnings.extend(unasked(&known, &error));
                }
                Err(error) => warnings.extend(unasked(&known, &error.to_string())),
            }
        }
        let pruned = self.prune(&records, &done).await;
        rows.retain(|(_, row)| {
            !pruned.contains(&row.job_id)
                && match request.status {
                    StatusFilter::All => true,
                    StatusFilter::Running => !row.is_done,
                    StatusFilter::Completed => row.is_done,
                }
        });
        rows.sort_by(|(one, _), (other, _)| other.cmp(one));
        ListAnswer {
            jobs: rows.into_iter().map(|(_, row)| row).collect(),
            warnings,
            ..ListAnswer::default()
        }
    }

    /// Asks every launcher, side by side, for the jobs it has.
    async fn listings(
        &self,
        records: &[JobRecord],
    ) -> Vec<(Vec<JobIdentity>, Result<Listing, LauncherError>)> {
        let mut asked = tokio::task::JoinSet::new();
        for (at, launcher) in self.inner.launchers.iter().cloned().enumerate() {
            let known: Vec<JobIdentity> = records
                .iter()
                .filter(|record| launcher.clouds().contains(&record.cloud.as_str()))
                .map(JobRecord::identity)
                .collect();
            asked.spawn(async move {
                let listing = launcher.list(&known).await;
                (at, known, listing)
            });
        }
        let mut listings = asked.join_all().await;
        listings.sort_by_key(|(at, ..)| *at);
        listings
            .into_iter()
            .map(|(_, known, listing)| (known, listing))
            .collect()
    }

    async fn registry_warnings(&self, records: &[JobRecord]) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.inner.registry.put_aside().await {
            Ok(files) => warnings.extend(files.iter().map(|file| {
                format!(
                    "the job registry was damaged; every whole record in it was kept, and the damaged file was put aside \
                     as {}; remove that file to end this warning",
                    file.display()
                )
            })),
            Err(error) => warnings.push(error.to_string()),
        }
        let served = |cloud: &str| self.launcher(cloud).is_ok();
        let unserved: BTreeSet<&str> = records
            .iter()
            .map(|record| record.cloud.as_str())
            .filter(|cloud| !served(cloud))
            .collect();
        for cloud in unserved {
            let jobs = records
                .iter()
                .filter(|record| record.cloud == cloud)
                .map(|record| record.job_id.as_str());
            warnings.push(format!(
                "not asked about: {}, on cloud {cloud:?}, which is not served here",
                jobs.collect::<Vec<_>>().join(", ")
            ));
        }
        warnings
    }

    /// Removes the records that are too old or too many, but none of a job that may still run. `done` is what is known of
    /// the jobs already; only jobs on this machine are asked about here, since others take long to answer.
    async fn prune(&self, records: &[JobRecord], done: &HashMap<String, bool>) -> HashSet<String> {
        let mut gone = Vec::new();
        for record in expired(records, chrono::Utc::now()) {
            let is_done = match done.get(&record.job_id) {
                Some(is_done) => *is_done,
                None if record.cloud == crate::launcher::local::LOCAL => {
                    self.is_done_here(record).await
                }
                None => false,
            };
            if is_done && !self.inner.in_flight.contains(&record.job_id) {
                gone.push(record.clone());
            }
        }
        let ids = gone.iter().map(|record| record.job_id.clone()).collect();
        match self.inner.registry.remove(gone).await {
            Ok(()) => ids,
            Err(error) => {
                tracing::warn!(%error, "cannot prune the registry");
                HashSet::new()
            }
        }
    }

    async fn is_done_here(&self, record: &JobRecord) -> bool {
        let Ok(launcher) = self.launcher(&record.cloud) else {
            return false;
        };
        match launcher.status(&record.identity()).await {
            Ok(status) => status.is_done,
            Err(error) => matches!(error, LauncherError::NotFound(_)),
        }
    }

    fn launcher(&self, cloud: &str) -> Result<&Arc<dyn Launcher>, String> {
        let serves = |launcher: &&Arc<dyn Launcher>| launcher.clouds().contains(&cloud);
        self.inner.launchers.iter().find(serves).ok_or_else(|| {
            let known: Vec<&str> = self
                .inner
                .launchers
                .iter()
                .flat_map(|launcher| launcher.clouds())
                .copied()
                .collect();
            format!(
                "cloud {cloud:?} is not known; use one of: {}",
                known.join(", ")
            )
        })
    }

    fn dir(&self, job_id: &str) -> Option<JobDir> {
        self.inner.folder.job(job_id).map(JobDir::at)
    }

    /// What must not be shown of what a job, or its launcher, said.
    async fn secrets(&self, job_id: &str) -> Fingerprints {
        let dir = self.dir(job_id);
        let read = tokio::task::spawn_blocking(move || {
            dir.map_or_else(|| Ok(Fingerprints::default()), |dir| dir.secrets())
        });
        read.await
            .map_err(io::Error::other)
            .flatten()
            .unwrap_or_else(|error| {
                tracing::warn!(job_id, %error, "cannot read which values of a job are secret");
                Fingerprints::default()
            })
    }

    /// File work in the folder of a job, off the async threads. Nothing for an id that can have none.
    async fn in_dir(
        &self,
        job_id: &str,
        work: impl FnOnce(JobDir) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let Some(dir) = self.dir(job_id) else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || work(dir))
            .await
            .map_err(io::Error::other)?
    }

    async fn is_cancel_kept(&self, job_id: &str) -> bool {
        let dir = self.dir(job_id);
        tokio::task::spawn_blocking(move || dir.is_some_and(|dir| dir.is_cancel_kept()))
            .await
            .unwrap_or(false)
    }

    async fn find(&self, query: &JobQuery) -> Result<Found, NotFound> {
        let records = self
            .inner
            .registry
            .records()
            .await
            .map_err(|error| NotFound::Failed(error.to_string()))?;
        let found = |record: &JobRecord| Found {
            identity: record.identity(),
            record: Some(record.clone()),
        };
        if let Some(record) = records.iter().find(|record| record.job_id == query.job_id) {
            return Ok(found(record));
        }
        if query.oumi_job_id.is_empty() || query.cloud.is_empty() {
            return Err(if query.job_id.is_empty() {
                NotFound::Failed(
                    "give job_id, or oumi_job_id with cloud; list_jobs shows them".to_owned(),
                )
            } else {
                NotFound::Unknown(format!(
                    "no job {:?} is known; call list_jobs for the ids, or give oumi_job_id and cloud of a job that was \
                     started elsewhere",
                    query.job_id
                ))
            });
        }
        let identity = JobIdentity {
            job_id: String::new(),
            cloud: query.cloud.trim().to_lowercase(),
            cluster: query.cluster_name.clone(),
            oumi_job_id: query.oumi_job_id.clone(),
        };
        let fits = |other: &JobIdentity| {
            other.cloud == identity.cloud
                && other.oumi_job_id == identity.oumi_job_id
                && (identity.cluster.is_empty() || other.cluster == identity.cluster)
        };
        let mut fitting: Vec<JobIdentity> = records
            .iter()
            .map(JobRecord::identity)
            .filter(fits)
            .collect();
        // Ids repeat from cluster to cluster: without one, a job that was started elsewhere may be meant as well.
        if identity.cluster.is_empty()
            && let Ok(launcher) = self.launcher(&identity.cloud)
            && let Ok(listing) = launcher.list(&fitting).await
        {
            let elsewhere = listing.jobs.into_iter().map(|job| job.identity);
            fitting.extend(elsewhere.filter(|other| other.job_id.is_empty() && fits(other)));
        }
        match fitting.as_slice() {
            [] => Ok(Found {
                identity,
                record: None,
            }),
            [known] => Ok(Found {
                identity: known.clone(),
                record: records
                    .into_iter()
                    .find(|record| record.job_id == known.job_id),
            }),
            several => {
                let choice = |job: &JobIdentity| match job.job_id.as_str() {
                    "" => format!("one with cluster_name {:?}, started elsewhere", job.cluster),
                    job_id => format!("{job_id} with cluster_name {:?}", job.cluster),
                };
                Err(NotFound::Failed(format!(
                    "several jobs on {} have the id {:?}: {}; give job_id, or cluster_name",
                    identity.cloud,
                    identity.oumi_job_id,
                    several.iter().map(choice).collect::<Vec<_>>().join("; ")
                )))
            }
        }
    }

    /// Asks that a launch under way be cancelled as soon as it ends, and waits for that a while. Nothing when none is.
    async fn cancel_launch(&self, identity: &JobIdentity) -> Option<CancelAnswer> {
        let watch = self.inner.in_flight.request_cancel(&identity.job_id)?;
        // Beside the launch as well, so that the next server honours it if this one dies.
        let kept = self
            .in_dir(&identity.job_id, |dir| {
                if dir.exists() {
                    dir.keep_cancel()
                } else {
                    Ok(())
                }
            })
            .await;
        let at_risk = kept.err().map_or_else(String::new, |error| {
            format!("; it could not be written down ({error}) and is forgotten should this server end before")
        });
        let failing = || self.inner.in_flight.cancel_error(&identity.job_id);
        let outcome = outcome_within(watch, LAUNCH_WAIT)
            .await
            .or_else(|| failing().map(LaunchOutcome::CancelFailed));
        Some(match outcome {
            Some(LaunchOutcome::Cancelled(outcome)) => cancelled(identity, Ok(outcome)),
            Some(LaunchOutcome::CancelFailed(reason)) => {
                cancelled(identity, Err(LauncherError::Failed(reason)))
            }
            Some(LaunchOutcome::Failed(reason)) => cancelled(
                identity,
                Ok(CancelOutcome::AlreadyDone {
                    status: "failed".to_owned(),
                    state: JobState::Failed,
                    message: Some(format!("its launch failed: {reason}")),
                }),
            ),
            Some(LaunchOutcome::Launched(_)) | None => CancelAnswer {
                success: true,
                status: "launching".to_owned(),
                state: JobState::Pending,
                message: format!(
                    "the launch is still under way; the job will be cancelled as soon as it ends{at_risk}. Call poll_status \
                     to see when"
                ),
                ..cancel_answer(identity)
            },
        })
    }
}

async fn outcome_within(mut watch: LaunchWatch, wait: Duration) -> Option<LaunchOutcome> {
    let ended = tokio::time::timeout(wait, watch.wait_for(Option::is_some)).await;
    ended.ok()?.ok()?.clone()
}

fn same_job(record: &JobRecord, identity: &JobIdentity) -> bool {
    if identity.job_id.is_empty() {
        record.cloud == identity.cloud
            && record.cluster_name == identity.cluster
            && record.oumi_job_id == identity.oumi_job_id
    } else {
        record.job_id == identity.job_id
    }
}

/// A row, and what it is sorted by.
fn row(record: Option<&JobRecord>, identity: &JobIdentity, status: &JobStatus) -> (String, JobRow) {
    let text = |field: fn(&JobRecord) -> &String| {
        record.map_or_else(String::new, |record| field(record).clone())
    };
    let row = JobRow {
        job_id: record.map_or_else(
            || identity.oumi_job_id.clone(),
            |record| record.job_id.clone(),
        ),
        command: text(|record| &record.command),
        status: status.status.clone(),
        cloud: identity.cloud.clone(),
        cluster: identity.cluster.clone(),
        model_name: text(|record| &record.model_name),
        is_done: status.is_done,
        autostop_minutes: status
            .metadata
            .get("autostop_minutes")
            .and_then(Value::as_u64),
        hourly_price: status.metadata.get("hourly_price").and_then(Value::as_f64),
    };
    let submitted = record
        .and_then(JobRecord::submitted_at)
        .map_or_else(String::new, |time| time.to_rfc3339());
    (submitted, row)
}

fn unasked(known: &[JobIdentity], error: &str) -> Option<String> {
    let ids: Vec<&str> = known
        .iter()
        .map(|identity| identity.job_id.as_str())
        .collect();
    (!ids.is_empty()).then(|| format!("not asked about: {}; {error}", ids.join(", ")))
}

/// What is known beside a status, and what to do next.
fn next_step(status: &JobStatus) -> String {
    let next = match status.state {
        JobState::Pending | JobState::Running => {
            "Call poll_status again later; get_job_logs shows what it says."
        }
        JobState::Succeeded => "get_job_logs shows what it said; its results are in output_dir.",
        JobState::Failed => "Call get_job_logs to see why.",
        JobState::Cancelled => "Nothing of it runs any more.",
        JobState::Unknown if status.is_done => "Call get_job_logs to see how far it came.",
        JobState::Unknown => "Call poll_status again later.",
    };
    match &status.message {
        Some(message) => format!("{}. {next}", message.trim_end_matches('.')),
        None => next.to_owned(),
    }
}

fn cancel_answer(identity: &JobIdentity) -> CancelAnswer {
    CancelAnswer {
        job_id: identity.job_id.clone(),
        oumi_job_id: identity.oumi_job_id.clone(),
        cloud: identity.cloud.clone(),
        cluster: identity.cluster.clone(),
        ..CancelAnswer::default()
    }
}

fn cancelled(
    identity: &JobIdentity,
    outcome: Result<CancelOutcome, LauncherError>,
) -> CancelAnswer {
    let answer = cancel_answer(identity);
    match outcome {
        Ok(CancelOutcome::Cancelled { message }) => CancelAnswer {
            success: true,
            status: "cancelled".to_owned(),
            state: JobState::Cancelled,
            is_done: true,
            message: message
                .unwrap_or_else(|| "the job was cancelled; nothing of it runs any more".to_owned()),
            ..answer
        },
        Ok(CancelOutcome::Stopping { message }) => CancelAnswer {
            success: true,
            status: "running".to_owned(),
            state: JobState::Running,
            message,
            ..answer
        },
        Ok(CancelOutcome::AlreadyDone {
            status,
            state,
            message,
        }) => {
            let error = match message {
                Some(message) => {
                    format!("the job had already ended, with status `{status}`: {message}")
                }
                None => format!(
                    "the job had already ended, with status `{status}`; there is nothing to cancel"
                ),
            };
            CancelAnswer {
                status,
                state,
                is_done: true,
                error: Some(error),
                ..answer
            }
        }
        Err(error) => {
            let status = if matches!(error, LauncherError::NotFound(_)) {
                "not_found"
            } else {
                "unknown"
            };
            CancelAnswer {
                status: status.to_owned(),
                error: Some(error.to_string()),
                ..answer
            }
        }
    }
}
