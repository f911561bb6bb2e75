//! The list of jobs: one query of the queues for each scope, and what the folders of launches say.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::changes::ChangeRun;
use super::clusters::{cloud_of, cluster_details, warn_about_idle};
use super::launch_dir::LaunchFacts;
use super::survey::{Found, Survey, status_of_row};
use super::{CloudBackend, CloudLauncher, QueueScope, validate};
use crate::error::JobError;
use crate::launcher::{
    ClusterAction, JobIdentity, JobState, JobStatus, ListedJob, Listing, status,
};
use crate::parse::sky::{Cluster, Queue, QueueFailure};
use crate::process::runner::call_deadline;

/// The most jobs that were started elsewhere and are listed.
const MAX_FOREIGN_JOBS: usize = 200;

/// Jobs as cluster and launcher's id.
type Claimed<'a> = BTreeSet<(&'a str, &'a str)>;

impl<B: CloudBackend> CloudLauncher<B> {
    pub(super) async fn list_jobs(&self, known: &[JobIdentity]) -> Listing {
        let mut listing = Listing::default();
        let (mut launched, mut launching, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for identity in known {
            if !identity.oumi_job_id.is_empty() {
                // A registry may have been written by anyone.
                match validate::<B>(identity) {
                    Ok(()) => launched.push(identity),
                    Err(error) => listing.add(identity, Err(error)),
                }
                continue;
            }
            let status = self.launches.status(identity).await;
            if matches!(&status, Ok(status) if status.state == JobState::Unknown) {
                lost.push(identity);
            }
            listing.add(identity, status);
            launching.push(identity);
        }
        // The job of a lost launch may be on its cluster, and is listed there.
        let scopes = QueueScope::of_list::<B>(&[launched.as_slice(), &lost].concat());
        let parts = scopes
            .iter()
            .map(|scope| self.list_scope(scope, &launched, &launching));
        for part in join_all(parts).await {
            listing.jobs.extend(part.jobs);
            listing.warnings.extend(part.warnings);
            listing.incomplete.extend(part.incomplete);
        }
        self.warn_about_changes(&mut listing).await;
        listing
    }

    /// Warns of the changes of clusters that are under way, and of those that failed.
    async fn warn_about_changes(&self, listing: &mut Listing) {
        let runs = self.changes.list().await;
        let own = |run: &ChangeRun| B::CLOUDS.contains(&run.change.cloud.as_str());
        for run in runs.into_iter().filter(own) {
            let change = &run.change;
            let (verb, cluster, at) = (&change.verb, &change.cluster, &change.requested_at);
            let action = match verb.as_str() {
                "stop" => ClusterAction::Stop,
                "down" => ClusterAction::Down,
                _ => continue,
            };
            let requested = format!("the {verb} of cluster {cluster} that was requested at {at}");
            let Some(output) = &run.output else {
                let warning = format!("{requested} is under way");
                listing.warnings.push(warning);
                continue;
            };
            let deadline = call_deadline();
            let result = self
                .backend
                .teardown_result(cluster, action, output, deadline);
            match result.await {
                Ok(_) => run.dir.remove().await,
                Err(error) if error.is_not_found() => run.dir.remove().await,
                Err(error) => listing
                    .warnings
                    .push(format!("{requested} is not known to be done: {error}")),
            }
        }
    }

    /// Returns the facts of these jobs, and adds what is known of prices by them to the survey.
    async fn all_facts(
        &self,
        jobs: impl Iterator<Item = &JobIdentity>,
        survey: &mut Survey,
    ) -> Vec<Option<LaunchFacts>> {
        let mut all = Vec::new();
        for identity in jobs {
            let facts = self.facts(identity, survey).await;
            facts.iter().for_each(|facts| survey.add_price(facts));
            all.push(facts);
        }
        all
    }

    async fn list_scope(
        &self,
        scope: &QueueScope,
        launched: &[&JobIdentity],
        launching: &[&JobIdentity],
    ) -> Listing {
        let surveying = self.survey(scope, call_deadline());
        let (mut survey, costs) = tokio::join!(surveying, self.backend.costs(call_deadline()));
        survey.costs = costs.unwrap_or_default();
        let launched = launched.iter().copied().filter(|job| scope.includes(job));
        let all_facts = self.all_facts(launched.clone(), &mut survey).await;
        let mut listing = Listing::default();
        let queue = match &survey.queue {
            Ok(queue) => queue,
            Err(error) => return unanswered(launched, error),
        };
        if let Err(error) = &survey.clusters {
            let warning = format!("nothing is known of the clusters' costs; {error}");
            listing.warnings.push(warning);
            listing.incomplete.push(error.to_string());
        }
        listing.incomplete.extend(survey.silent_clusters());
        listing.warn_about_silence(queue, launched.clone());
        let mut claimed = Claimed::new();
        for &identity in launching {
            let cluster = &identity.cluster;
            if let Some(facts) = self.launches.facts(identity).await {
                let hash = survey.cluster_hash(cluster);
                let jobs = survey.jobs(cluster).iter();
                let jobs = jobs.filter(|job| facts.may_have_launched(job, hash) == Some(true));
                claimed.extend(jobs.map(|job| (cluster.as_str(), job.job_id.as_str())));
            }
        }
        for (identity, facts) in launched.zip(all_facts) {
            if let Found::Own(job) = survey.find::<B>(identity, facts.as_ref()) {
                claimed.insert((&identity.cluster, &job.job_id));
            }
            let mut status = survey.status::<B>(identity, facts.as_ref());
            if let Ok(status) = &mut status {
                survey.add_costs(status, identity, facts.as_ref());
            }
            listing.add(identity, status);
        }
        listing.add_foreign_jobs(scope, &survey, &claimed);
        if let Some(list) = survey.cluster_list() {
            let has_cluster = |job: &&mut ListedJob| job.status.status != status::CLUSTER_GONE;
            for job in listing.jobs.iter_mut().filter(has_cluster) {
                job.status.details.cluster = list.get(&job.identity.cluster).map(cluster_details);
            }
            warn_about_idle(&mut listing, queue, &list.clusters);
        }
        listing
    }
}

impl Survey {
    /// Describes the clusters whose jobs are not known, though they may have some.
    fn silent_clusters(&self) -> impl Iterator<Item = String> {
        let queue = self.queue.as_ref().ok();
        let failure = move |name: &str| match queue?.unanswered.get(name)? {
            QueueFailure::Other(reason) => Some(format!("cluster {name}: {reason}")),
            QueueFailure::ClusterGone | QueueFailure::ClusterNotUp(_) => None,
        };
        let failed = queue.into_iter().flat_map(|queue| queue.unanswered.keys());
        let is_silent = move |cluster: &&Cluster| {
            let name = &cluster.name;
            let is_listed = queue.is_none_or(|queue| queue.jobs.contains_key(name));
            cluster.status != "STOPPED" && !is_listed && failure(name).is_none()
        };
        let clusters = self.cluster_list().into_iter();
        let silent = clusters.flat_map(|list| &list.clusters).filter(is_silent);
        let silent = silent.map(|cluster| {
            format!(
                "cluster {} is {} and did not list its jobs",
                cluster.name, cluster.status
            )
        });
        failed.filter_map(move |name| failure(name)).chain(silent)
    }
}

impl Listing {
    /// Warns of the clusters whose jobs are not listed. Known jobs have warnings of their own.
    fn warn_about_silence<'a>(
        &mut self,
        queue: &Queue,
        known: impl Iterator<Item = &'a JobIdentity> + Clone,
    ) {
        for (name, failure) in &queue.unanswered {
            let is_known = known.clone().any(|job| job.cluster == *name);
            if let (QueueFailure::Other(reason), false) = (failure, is_known) {
                let warning = format!("the jobs of cluster {name} are not listed: {reason}");
                self.warnings.push(warning);
            }
        }
    }

    fn add(&mut self, identity: &JobIdentity, status: Result<JobStatus, JobError>) {
        match status {
            Ok(mut status) => {
                self.warnings.append(&mut status.warnings);
                self.jobs.push(ListedJob {
                    identity: identity.clone(),
                    status,
                });
            }
            Err(error) => {
                let id = &identity.job_id;
                self.warnings.push(if error.is_not_found() {
                    format!("job {id}: {error}")
                } else {
                    format!("not asked about: {id}; {error}")
                });
            }
        }
    }

    /// Adds the jobs that were started elsewhere: those that no known job, and no launch that still runs, claims.
    fn add_foreign_jobs(&mut self, scope: &QueueScope, survey: &Survey, claimed: &Claimed<'_>) {
        let clusters = survey.queue.iter().flat_map(|queue| &queue.jobs);
        let jobs = clusters.flat_map(|(name, jobs)| jobs.iter().map(move |job| (name, job)));
        let mut foreign =
            jobs.filter(|(name, job)| !claimed.contains(&(name.as_str(), job.job_id.as_str())));
        for (name, job) in foreign.by_ref().take(MAX_FOREIGN_JOBS) {
            let cluster = survey.cluster_list().and_then(|list| list.get(name));
            let cloud = cluster.and_then(cloud_of);
            let identity = JobIdentity {
                job_id: String::new(),
                cloud: cloud.unwrap_or_else(|| scope.cloud.clone()),
                cluster: name.clone(),
                oumi_job_id: job.job_id.clone(),
            };
            self.add(&identity, Ok(status_of_row(job, &identity)));
        }
        let more = foreign.count();
        if more > 0 {
            let problem = format!("{more} more jobs that were started elsewhere are not listed");
            self.warnings.push(problem.clone());
            self.incomplete.push(problem);
        }
    }
}

/// Lists nothing, and names the jobs whose queue could not be read.
fn unanswered<'a>(jobs: impl Iterator<Item = &'a JobIdentity>, error: &JobError) -> Listing {
    let ids: Vec<&str> = jobs.map(|job| job.job_id.as_str()).collect();
    let jobs = if ids.is_empty() {
        "jobs on clouds".to_owned()
    } else {
        ids.join(", ")
    };
    Listing {
        jobs: Vec::new(),
        warnings: vec![format!("not asked about: {jobs}; {error}")],
        incomplete: vec![error.to_string()],
    }
}
