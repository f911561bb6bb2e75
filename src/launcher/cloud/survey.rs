//! The answers of SkyPilot or Oumi about clusters and their queues, and what they say of a job.

use std::sync::Arc;

use super::CloudBackend;
use super::clusters::{cloud_of, cost_note, ends_by_itself, is_stopped, price_times_time};
use super::launch_dir::{JobMark, Launch, number};
use crate::error::{ErrorKind, JobError, Result};
use crate::launcher::{JobDetails, JobIdentity, JobState, JobStatus, check_cloud, status};
use crate::parse;
use crate::parse::prices::CostReport;
use crate::parse::sky::{Cluster, Queue, QueuedJob, is_controller, named, no_such_cluster};
use crate::text::join_names;

/// The answers to one query of queues, and to those of clusters and costs that were asked at the same time.
pub(super) struct Survey {
    pub(super) queue: Result<Queue>,
    pub(super) clusters: Result<Vec<Cluster>>,
    /// Empty where the program has no report of costs.
    pub(super) costs: CostReport,
    /// The backend that answered.
    pub(super) backend: Arc<dyn CloudBackend>,
}

pub(super) struct SurveyedJob<'s> {
    survey: &'s Survey,
    identity: &'s JobIdentity,
    /// `None` where no server of this folder launched it.
    launch: Option<&'s Launch>,
    pub(super) found: Found<'s>,
}

/// The row of a queue that is a job's, and how sure that is.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'s> {
    Own(&'s QueuedJob),
    /// It has the job's id, and nothing was kept of the job to compare.
    Uncertain(&'s QueuedJob),
    /// The cluster of the job is gone.
    Gone,
    /// The cluster of the job is gone, and another one has its name.
    Recreated,
    /// The cluster is not up, and has no queue to read.
    NotUp(&'s Cluster),
    NotListed,
    /// Of kind `NotFound` where there is no such job.
    Unknown(JobError),
}

impl Survey {
    pub(super) fn job<'s>(
        &'s self,
        identity: &'s JobIdentity,
        launch: Option<&'s Launch>,
    ) -> SurveyedJob<'s> {
        let mut job = SurveyedJob {
            survey: self,
            identity,
            launch,
            found: Found::NotListed,
        };
        job.found = match job.find() {
            // It may never have been there.
            Found::Gone if identity.job_id.is_empty() => {
                Found::Unknown(no_such_cluster(&identity.cluster))
            }
            found => found,
        };
        if let (Found::Gone | Found::Recreated | Found::NotListed, Some(launch)) =
            (&job.found, launch)
            && let Some(error) = launch.other_place(&self.backend.place())
        {
            job.found = Found::Unknown(error);
        }
        job
    }

    pub(super) fn cluster(&self, name: &str) -> Option<&Cluster> {
        named(self.clusters.as_ref().ok()?, name)
    }

    pub(super) fn cluster_hash(&self, name: &str) -> Option<&str> {
        self.cluster(name)?.cluster_hash.as_deref()
    }

    /// The jobs of a cluster that answered.
    pub(super) fn listed(&self, cluster: &str) -> Option<&[QueuedJob]> {
        self.queue.as_ref().ok()?.get(cluster)?.as_deref().ok()
    }

    /// As [`listed`](Self::listed); empty where the cluster did not answer.
    pub(super) fn jobs(&self, cluster: &str) -> &[QueuedJob] {
        self.listed(cluster).unwrap_or_default()
    }

    /// Names the jobs that live on a cluster, or with an id that one. `None` where they are not known.
    pub(super) fn live_jobs(&self, cluster: &str, id: &str) -> Option<String> {
        let is_stopped = self.cluster(cluster).is_some_and(is_stopped);
        let jobs = match self.queue.as_ref().ok()?.get(cluster)? {
            // Its own queue says nothing of what it runs.
            Ok(_) if is_controller(cluster) => return None,
            Ok(jobs) => jobs.as_slice(),
            Err(error) if error.is_not_found() || is_stopped => &[],
            Err(_) => return None,
        };
        let is_meant = |job: &&QueuedJob| id.is_empty() || job.job_id == id;
        let live = jobs.iter().filter(|job| is_meant(job) && !is_over(job));
        let names = Vec::from_iter(live.map(name_with_user));
        Some(join_names(names.iter().map(String::as_str)))
    }

    /// Fails where the cluster that has the name of a job's is known to be on another cloud than the job's.
    pub(super) fn check_cloud(&self, identity: &JobIdentity) -> Result<()> {
        let (name, cloud) = (&identity.cluster, &identity.cloud);
        let found = self.cluster(name).and_then(cloud_of);
        check_cloud(name, found.as_deref(), cloud, self.backend.clouds())
    }

    /// Removes the user from each job that is one's own: the owner's where the cluster is, whoever SkyPilot takes one for. Does file
    /// work.
    pub(super) fn leave_out_own_user(&mut self) {
        let user = self.backend.user();
        for (name, jobs) in self.queue.iter_mut().flatten() {
            let clusters = self.clusters.as_deref().unwrap_or_default();
            let owner = named(clusters, name).and_then(|it| it.user_hash.as_ref());
            let own = [None, owner.or(user.as_ref())];
            let jobs = jobs.iter_mut().flatten();
            for job in jobs.filter(|job| own.contains(&job.user_hash.as_ref())) {
                job.user = None;
            }
        }
    }

    /// Adds the price of the cost report, which is an average, to each cluster that has none.
    pub(super) fn add_reported_prices(&mut self) {
        for cluster in self.clusters.iter_mut().flatten() {
            let hash = cluster.cluster_hash.as_ref();
            let reported = hash.and_then(|hash| self.costs.get(hash)?.hourly_price);
            cluster.hourly_price = cluster.hourly_price.or(reported);
        }
    }

    /// Adds the price of a launch to its cluster, where that is certainly its own.
    pub(super) fn add_price(&mut self, launch: &Launch) {
        let Some(mark) = launch.mark() else { return };
        for cluster in self.clusters.iter_mut().flatten() {
            let is_own = mark.is_of_cluster(cluster.cluster_hash.as_deref()) == Some(true);
            if is_own && cluster.name == launch.start.cluster {
                cluster.hourly_price = cluster.hourly_price.or(launch.hourly_price);
            }
        }
    }
}

impl<'s> SurveyedJob<'s> {
    fn find(&self) -> Found<'s> {
        let (survey, identity) = (self.survey, self.identity);
        let (name, id) = (&identity.cluster, &identity.oumi_job_id);
        let on_cloud = survey.check_cloud(identity);
        if let (Err(error), true) = (&on_cloud, identity.job_id.is_empty()) {
            return Found::Unknown(error.clone());
        }
        let (mark, hash) = (self.mark(), survey.cluster_hash(name));
        let is_other_cluster = mark.and_then(|mark| mark.is_of_cluster(hash)) == Some(false);
        let row = survey.jobs(name).iter().find(|job| job.job_id == *id);
        match (row, mark) {
            (Some(row), _) if self.is_any_of_its_id() => Found::Own(row),
            _ if is_other_cluster || on_cloud.is_err() => Found::Recreated,
            (Some(row), Some(mark)) if mark.fits(row, hash) => Found::Own(row),
            (Some(_), Some(_)) => Found::Recreated,
            (Some(row), None) => Found::Uncertain(row),
            (None, _) => self.find_reason(),
        }
    }

    /// Finds out why no queue lists the job. Its cluster is gone only where SkyPilot says so, and says nothing else.
    fn find_reason(&self) -> Found<'s> {
        let name = &self.identity.cluster;
        let mut is_there = self.launch.is_some_and(|launch| launch.start.is_anothers);
        let error = match self.survey.queue.as_ref().map(|queue| queue.get(name)) {
            Ok(Some(Ok(_))) => return Found::NotListed,
            Ok(Some(Err(gone))) if gone.is_not_found() => return Found::Gone,
            Ok(Some(Err(why))) => {
                is_there |= why.kind == ErrorKind::Unavailable;
                unknown(format!(
                    "the queue of cluster {name} could not be read: {why}"
                ))
            }
            Ok(None) => unknown(format!("`sky queue` said nothing of cluster {name}")),
            Err(error) => error.clone(),
        };
        match self.survey.clusters.as_ref().map(|list| named(list, name)) {
            Ok(Some(cluster)) if cluster.status != "UP" => Found::NotUp(cluster),
            Ok(None) if !is_there && self.survey.backend.is_skypilot() => Found::Gone,
            _ => Found::Unknown(error),
        }
    }

    /// Returns `true` where the job is whatever job has its id now.
    fn is_any_of_its_id(&self) -> bool {
        !self.survey.backend.is_skypilot() || self.identity.job_id.is_empty()
    }

    fn mark(&self) -> Option<&'s JobMark> {
        self.launch?.mark()
    }

    pub(super) fn check_id(&self) -> Result<()> {
        let hash = self.survey.cluster_hash(&self.identity.cluster);
        let is_own_cluster = self.mark().and_then(|mark| mark.is_of_cluster(hash)) == Some(true);
        const NOT_CERTAIN: &str = "it is not certain which job has its id now";
        Err(match &self.found {
            Found::Own(_) => return Ok(()),
            Found::Uncertain(_) => JobError::blocked(self.uncertain()).with_hint(
                "if the job that is there now is meant, name it by oumi_job_id, cloud and cluster_name, without job_id",
            ),
            Found::Unknown(error) if error.is_not_found() => error.clone(),
            Found::Gone | Found::Recreated => JobError::unavailable(self.gone()),
            _ if is_own_cluster || self.is_any_of_its_id() => return Ok(()),
            Found::Unknown(error) => JobError::unavailable(format!("{NOT_CERTAIN}: {error}")),
            Found::NotUp(_) | Found::NotListed => JobError::unavailable(NOT_CERTAIN),
        })
    }

    /// Returns the status of the job. An error means that it is not known now, or of kind `NotFound` that there is no such job.
    pub(super) fn status(&self) -> Result<JobStatus> {
        let mut status = match &self.found {
            Found::Own(row) => JobStatus {
                message: self.why_waiting(row),
                ..self.status_of_row(row)
            },
            Found::Uncertain(row) => JobStatus {
                status: status::UNKNOWN.to_owned(),
                state: JobState::Unknown,
                message: Some(format!("{}; there it is {}", self.uncertain(), row.status)),
                ..self.status_of_row(row)
            },
            Found::Gone | Found::Recreated => {
                let mut status = JobStatus::new(status::CLUSTER_GONE, JobState::Unknown, true);
                status.details.next = Some("Tell the user; its log is gone too.");
                status.with_message(self.gone())
            }
            Found::NotUp(cluster) => not_up(cluster),
            Found::NotListed if self.is_any_of_its_id() => return Err(no_such_job(self.identity)),
            Found::NotListed => {
                let (id, cluster) = (&self.identity.oumi_job_id, &self.identity.cluster);
                let error = format!("job {id} is not in the queue of cluster {cluster}");
                return Err(unknown(error));
            }
            Found::Unknown(error) => return Err(error.clone()),
        };
        let cluster = self.cluster();
        let hash = self.mark().and_then(|mark| mark.cluster_hash.as_ref());
        let hash = hash.or(cluster.and_then(|cluster| cluster.cluster_hash.as_ref()));
        let cost = hash.and_then(|hash| self.survey.costs.get(hash));
        if let Some(cluster) = cluster {
            status.details.add_cluster(cluster);
        }
        status.details.spent = match cost.map(|cost| cost.dollars) {
            None => cluster.and_then(|it| price_times_time(it, self.survey.jobs(&it.name))),
            Some(dollars) => (dollars > 0.0).then(|| format!("${dollars:.2} (cost report)")),
        };
        Ok(status)
    }

    /// The cluster of the job, where it is certainly that.
    fn cluster(&self) -> Option<&'s Cluster> {
        let is_own = matches!(self.found, Found::Own(_) | Found::NotUp(_));
        let cluster = self.survey.cluster(&self.identity.cluster);
        cluster.filter(|_| is_own)
    }

    /// Warns of a cluster that is up though its jobs have ended, or that never ends by itself.
    pub(super) fn warn_of_cluster(&self, status: &mut JobStatus) {
        let whose = match self.found {
            Found::Own(_) | Found::NotUp(_) => "its ",
            Found::Uncertain(_) => "",
            _ => return,
        };
        let cluster = self.survey.cluster(&self.identity.cluster);
        let Some(cluster) = cluster.filter(|cluster| cluster.status == "UP") else {
            return;
        };
        let is_pending = || self.launch.is_some_and(Launch::is_autostop_pending);
        let is_idle = self.survey.jobs(&cluster.name).iter().all(is_over);
        if status.is_done && is_idle {
            status
                .warnings
                .push(format!("{whose}{}", cost_note(cluster)));
        } else if !ends_by_itself(cluster) && !is_pending() {
            status.warnings.push(format!(
                "cluster {} stays up until someone ends it: down_cluster deletes it",
                cluster.name
            ));
        }
    }

    /// Says what a job waits for: a cluster of SkyPilot runs its jobs in the order of their ids, as far as there is room.
    fn why_waiting(&self, row: &QueuedJob) -> Option<String> {
        let cluster = &self.identity.cluster;
        let is_earlier = |job: &&QueuedJob| number(job) < number(row) && !is_over(job);
        let is_waiting = row.status == "PENDING" && self.survey.backend.is_skypilot();
        let jobs = self.survey.jobs(cluster).iter();
        let count = jobs.filter(|job| is_waiting && is_earlier(job)).count();
        (count > 0).then(|| format!("it waits for earlier jobs of cluster {cluster}: {count}"))
    }

    fn status_of_row(&self, row: &QueuedJob) -> JobStatus {
        let meaning = parse::state_of(&row.status);
        let (state, is_done) = meaning.unwrap_or((JobState::Unknown, false));
        let mut status = JobStatus::new(&row.status, state, is_done);
        if meaning.is_none() {
            status.warnings.push(format!(
                "{:?}, the status of job {} on cluster {}, is not known to this server",
                row.status, row.job_id, self.identity.cluster
            ));
        }
        let time = |seconds: Option<f64>| {
            let time = chrono::DateTime::from_timestamp(seconds? as i64, 0)?;
            Some(time.to_rfc3339())
        };
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        status.details = JobDetails {
            submitted_at: time(row.submitted_at),
            start_at: time(row.start_at),
            end_at: time(row.end_at),
            job_name: text(&row.job_name).map(|_| name_with_user(row)),
            resources: text(&row.resources),
            ..JobDetails::default()
        };
        status
    }

    fn uncertain(&self) -> String {
        format!(
            "it is not certain that job {} on cluster {} is this one: nothing was recorded to tell it by",
            self.identity.oumi_job_id, self.identity.cluster
        )
    }

    fn gone(&self) -> String {
        let cluster = &self.identity.cluster;
        let other = match self.found {
            Found::Recreated => "; another cluster has its name now",
            _ => "",
        };
        format!("cluster {cluster} is gone, and the job's result with it{other}")
    }
}

/// The name of a job, else its id, with its user where that is another.
pub(super) fn name_with_user(job: &QueuedJob) -> String {
    let name = match job.job_name.is_empty() {
        true => &job.job_id,
        false => &job.job_name,
    };
    match &job.user {
        Some(user) => format!("{name} of {user}"),
        None => name.clone(),
    }
}

pub(super) fn is_over(job: &QueuedJob) -> bool {
    parse::state_of(&job.status).is_some_and(|(_, is_done)| is_done)
}

fn unknown(reason: String) -> JobError {
    JobError::failed(reason).with_hint("ask again in a minute")
}

fn not_up(cluster: &Cluster) -> JobStatus {
    let (name, word) = (&cluster.name, &cluster.status);
    let message = match word.as_str() {
        "STOPPED" => "nothing runs on it, and the job's result cannot be read",
        // So does a spot machine that was taken away leave it.
        "INIT" => "it is being set up, or machines of it are down; its jobs cannot be asked about",
        _ => "the status of its jobs cannot be read now",
    };
    let status = format!("cluster_{}", word.to_lowercase());
    let mut status = JobStatus::new(&status, JobState::Unknown, is_stopped(cluster));
    let start = "Tell the user: only `sky start` of that cluster brings its log back.";
    status.details.next = is_stopped(cluster).then_some(start);
    status.with_message(format!("cluster {name} is {word}: {message}"))
}

pub(in crate::launcher) fn no_such_job(identity: &JobIdentity) -> JobError {
    JobError::not_found(format!(
        "cluster {} on {} has no job {:?}",
        identity.cluster, identity.cloud, identity.oumi_job_id
    ))
    .with_hint("call list_jobs for the jobs it has")
}
