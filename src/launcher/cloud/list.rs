//! The list of jobs: one query of the queues for each scope, and what the folders of launches say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::DateTime;
use futures::future::join_all;

use super::clusters::{cloud_of, cost_note};
use super::launch_dir::{COMPLETION_WINDOW, Launch, seconds};
use super::survey::{Found, Survey, is_over};
use super::{Change, CloudLauncher, mark_answered};
use crate::error::{ErrorKind, JobError, Result};
use crate::launcher::{JobIdentity, JobState, Listing};
use crate::parse::sky::{Queue, is_controller};
use crate::process::job_dir::JobDir;
use crate::process::runner::Output;
use crate::text::join_names;

/// The most jobs that were started elsewhere and are listed: each of them is looked for among the others.
const MAX_FOREIGN_JOBS: usize = 200;

type Claimed<'a> = BTreeSet<(&'a str, &'a str)>;

impl CloudLauncher {
    pub(super) async fn list_jobs(&self, known: &[JobIdentity]) -> Listing {
        let mut listing = Listing::default();
        let (mut launched, mut launches, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let mut elsewhere = Vec::new();
        for identity in known {
            let status = if identity.oumi_job_id.is_empty() {
                self.launch(identity).map(|launch| {
                    let status = launch.status(self.backend.is_skypilot());
                    match status.state {
                        JobState::Unknown => lost.push(identity),
                        JobState::Cancelled => {}
                        _ => launches.push(launch),
                    }
                    status
                })
            } else if let Err(error) = self.validate(identity) {
                // A registry may have been written by anyone.
                Err(error)
            } else {
                let launch = self.own_launch(identity);
                // On a cluster of another user, which SkyPilot lists to that one.
                match launch.is_some_and(|launch| launch.start.is_anothers) {
                    true => elsewhere.push(identity),
                    false => launched.push(identity),
                }
                continue;
            };
            listing.add(identity, status);
        }
        // The clusters of each cloud. One run of `sky queue` lists those of all clouds.
        let mut scopes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        if self.backend.is_skypilot() {
            scopes.insert("", BTreeSet::new());
        } else {
            // The job of a lost launch may be on its cluster, and is listed there.
            for job in launched.iter().chain(&lost) {
                let clusters = scopes.entry(&job.cloud).or_default();
                clusters.insert(job.cluster.clone());
            }
        }
        let parts = scopes.iter().map(|(cloud, clusters)| {
            let on_cloud = |job: &&JobIdentity| cloud.is_empty() || job.cloud == *cloud;
            let launched = launched.iter().copied().filter(on_cloud).collect();
            self.list_scope(cloud, clusters, launched, &launches)
        });
        let statuses = elsewhere.iter().map(|job| self.status_now(job));
        let (parts, statuses) = tokio::join!(join_all(parts), join_all(statuses));
        for (identity, status) in elsewhere.into_iter().zip(statuses) {
            listing.add(identity, status);
        }
        for part in parts {
            listing.jobs.extend(part.jobs);
            listing.warnings.extend(part.warnings);
            listing.incomplete.extend(part.incomplete);
        }
        // Afterwards: a query of clusters that began before a change ended does not show it.
        listing.warnings.extend(self.changes_left().await);
        listing
    }

    async fn changes_left(&self) -> Vec<String> {
        let mut own = self.list_changes();
        own.retain(|(_, change, _)| self.backend.clouds().contains(&change.cloud.as_str()));
        let describe = async |(dir, change, output): (JobDir, Change, Option<Output>)| {
            let requested = change.describe();
            let Some(output) = output else {
                return Some(format!("{requested} is under way"));
            };
            match self.backend.teardown_result(&change, &output).await {
                Err(error) if !error.is_not_found() => Some(format!(
                    "{requested} may not have been carried out: {error}"
                )),
                _ => {
                    mark_answered(&dir);
                    None
                }
            }
        };
        let described = join_all(own.into_iter().map(describe)).await;
        described.into_iter().flatten().collect()
    }

    async fn list_scope(
        &self,
        cloud: &str,
        clusters: &BTreeSet<String>,
        launched: Vec<&JobIdentity>,
        launches: &[Launch],
    ) -> Listing {
        let mut survey = self.survey(cloud, clusters).await;
        let launch = |&identity: &&JobIdentity| self.claim_job(identity, &mut survey);
        let claimants: Vec<_> = launched.iter().map(launch).collect();
        survey.add_reported_prices();
        let mut listing = Listing::default();
        let queue = match &survey.queue {
            Ok(queue) => queue,
            Err(error) => {
                let jobs = match join_names(launched.iter().map(|job| &*job.job_id)) {
                    none if none.is_empty() => "jobs on clouds".to_owned(),
                    jobs => jobs,
                };
                let warning = format!("not asked about: {jobs}; {error}");
                listing.warnings.push(warning);
                listing.incomplete.push(error.to_string());
                listing.warn_of_clusters(&survey, launches);
                return listing;
            }
        };
        listing.add_problems(&survey, queue, &launched);
        let mut claimed = Claimed::new();
        let is_open = |it: &&Launch| it.failure.is_none() && it.start.before.is_some();
        for launch in launches.iter().filter(is_open) {
            let cluster = &launch.start.cluster;
            let hash = survey.cluster_hash(cluster);
            let jobs = survey.jobs(cluster).iter();
            let jobs = jobs.filter(|job| launch.may_have_launched(job, hash));
            claimed.extend(jobs.map(|job| (cluster.as_str(), job.job_id.as_str())));
        }
        for (identity, launch) in launched.into_iter().zip(&claimants) {
            let job = survey.job(identity, launch.as_ref());
            if let Found::Own(row) = &job.found {
                claimed.insert((&identity.cluster, &row.job_id));
            }
            listing.add(identity, job.status());
        }
        listing.add_foreign_jobs(cloud, &survey, &claimed);
        listing.warn_of_clusters(&survey, launches);
        listing
    }
}

impl Listing {
    /// Adds what keeps jobs from being listed. Known jobs have warnings of their own.
    pub(super) fn add_problems(&mut self, survey: &Survey, queue: &Queue, known: &[&JobIdentity]) {
        if let Err(error) = &survey.clusters {
            let warning = format!("what the clusters cost is not known; {error}");
            self.warnings.push(warning);
            self.incomplete.push(error.to_string());
        }
        let is_silent = |error: &JobError| error.kind == ErrorKind::Failed;
        for (name, jobs) in queue {
            if let Err(error) = jobs
                && is_silent(error)
            {
                let problem = format!("the jobs of cluster {name} are not listed: {error}");
                if !known.iter().any(|job| job.cluster == *name) {
                    self.warnings.push(problem.clone());
                }
                self.incomplete.push(problem);
            }
        }
        for cluster in survey.clusters.iter().flatten() {
            let (name, status) = (&cluster.name, &cluster.status);
            let jobs = queue.get(name).map(Result::as_ref);
            let is_named = jobs.is_some_and(|jobs| jobs.err().is_none_or(is_silent));
            if status != "STOPPED" && !is_named {
                let problem = format!("cluster {name} is {status} and did not list its jobs");
                self.incomplete.push(problem);
            }
        }
    }

    /// Adds the jobs that were started elsewhere: those that no known job, and no launch that still runs, claims.
    pub(super) fn add_foreign_jobs(&mut self, cloud: &str, survey: &Survey, claimed: &Claimed<'_>) {
        let clusters = survey.queue.iter().flatten();
        let clusters = clusters.filter(|(name, _)| !is_controller(name));
        let of_cluster = |(name, jobs)| Result::iter(jobs).flatten().map(move |job| (name, job));
        let jobs = clusters.flat_map(of_cluster);
        let foreign =
            jobs.filter(|(name, job)| !claimed.contains(&(name.as_str(), job.job_id.as_str())));
        let mut foreign: Vec<_> = foreign.collect();
        // Those that live first: they cost money.
        foreign.sort_by_key(|(_, job)| is_over(job));
        let of_scope = if cloud.is_empty() { "unknown" } else { cloud };
        for (name, job) in foreign.iter().copied().take(MAX_FOREIGN_JOBS) {
            let found = survey.cluster(name).and_then(cloud_of);
            let identity = JobIdentity {
                job_id: String::new(),
                cloud: found.unwrap_or_else(|| of_scope.to_owned()),
                cluster: name.clone(),
                oumi_job_id: job.job_id.clone(),
            };
            self.add(&identity, survey.job(&identity, None).status());
        }
        let more = foreign.len().saturating_sub(MAX_FOREIGN_JOBS);
        if more > 0 {
            let problem = format!("{more} more jobs that were started elsewhere are not listed");
            self.warnings.push(problem.clone());
            self.incomplete.push(problem);
        }
    }

    /// Warns of clusters that cost money without a job: of those that are up, and of those that a launch left that failed before they
    /// were, or that should be by now. Not of those that one of these `launches` is under way to.
    pub(super) fn warn_of_clusters(&mut self, survey: &Survey, launches: &[Launch]) {
        let now = seconds(SystemTime::now());
        for cluster in survey.clusters.iter().flatten() {
            let name = &cluster.name;
            let onto_it = || launches.iter().filter(|it| it.start.cluster == *name);
            if is_controller(name) && cluster.status == "UP" {
                let warning = format!(
                    "what {name} runs is not listed: `sky jobs queue` and `sky serve status` show it"
                );
                self.warnings.push(warning);
            }
            if is_controller(name) || onto_it().any(|it| !it.has_ended) {
                continue;
            }
            let is_late = |at: f64| now - at > COMPLETION_WINDOW.as_secs_f64();
            let has_job = || self.jobs.iter().any(|job| job.identity.cluster == *name);
            // Where no queue was read, nobody can tell what lives on it.
            let is_idle = || survey.queue.is_ok() && !has_job();
            if cluster.status == "INIT"
                && (onto_it().any(|it| it.failure.is_some())
                    || is_idle() && cluster.launched_at.is_none_or(is_late))
            {
                self.warnings.push(cost_note(cluster));
            }
            // A cluster that did not answer may have live jobs.
            if cluster.status == "UP"
                && let Some(jobs) = survey.listed(name)
                && jobs.iter().all(is_over)
            {
                let ends = jobs.iter().filter_map(|job| job.end_at);
                let since = ends.reduce(f64::max).or(cluster.launched_at);
                let since = since.and_then(|at| DateTime::from_timestamp(at as i64, 0));
                let since = since.map(|at| format!(" since {}Z", &at.to_rfc3339()[..16]));
                let (note, since) = (cost_note(cluster), since.unwrap_or_default());
                self.warnings
                    .push(format!("{note}; it has been idle{since}"));
            }
        }
    }
}
