//! The list of jobs: one query of the queues for each scope, and what the folders of launches say.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;

use futures::future::join_all;

use super::clusters::{cloud_of, cluster_details, warn_about_idle};
use super::queue::{launched_job, own_row, status_of_missing, status_of_row};
use super::{CloudBackend, CloudLauncher, QueueScope, validate};
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobState, JobStatus, ListedJob, Listing};
use crate::parse::sky::{Cluster, Queue, QueueFailure};
use crate::process::runner::call_deadline;

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
        let scopes = B::list_scopes(&[launched.as_slice(), &lost].concat());
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

    async fn list_scope(
        &self,
        scope: &QueueScope,
        launched: &[&JobIdentity],
        launching: &[&JobIdentity],
    ) -> Listing {
        let deadline = call_deadline();
        let (queue, clusters) = tokio::join!(
            self.backend.queue(scope, deadline),
            self.backend.clusters(deadline)
        );
        let launched = launched.iter().copied();
        let launched = launched.filter(|identity| scope.includes(identity));
        let queue = match queue {
            Ok(queue) => queue,
            Err(error) => return unanswered(launched, &error),
        };
        let mut listing = Listing::default();
        if let Err(error) = &clusters {
            let warning = format!("nothing is known of the clusters' costs; {error}");
            listing.warnings.push(warning);
        }
        for (cluster, failure) in &queue.unanswered {
            if let QueueFailure::Other(reason) = failure {
                listing
                    .incomplete
                    .push(format!("cluster {cluster}: {reason}"));
            }
        }
        let mut claimed = Claimed::new();
        for &identity in launching {
            let facts = self.launches.facts(identity).await;
            if let Some(job) = launched_job(identity, &queue, facts.as_ref()) {
                claimed.insert((&identity.cluster, &job.job_id));
            }
        }
        for identity in launched {
            let facts = self.launches.facts(identity).await;
            let status = match own_row::<B>(identity, &queue, facts.as_ref()) {
                Some(job) => {
                    claimed.insert((&identity.cluster, &job.job_id));
                    Ok(status_of_row(job, identity))
                }
                None => status_of_missing::<B>(identity, &queue, ready(clusters.clone())).await,
            };
            listing.add(identity, status);
        }
        let clusters = clusters.unwrap_or_default();
        listing.add_foreign_jobs(scope, &queue, &clusters, &claimed);
        for job in &mut listing.jobs {
            let cluster = find(&clusters, &job.identity.cluster);
            job.status.details.cluster = cluster.map(cluster_details);
        }
        warn_about_idle(&mut listing, &queue, &clusters);
        listing
    }
}

impl Listing {
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
    fn add_foreign_jobs(
        &mut self,
        scope: &QueueScope,
        queue: &Queue,
        clusters: &[Cluster],
        claimed: &Claimed<'_>,
    ) {
        for (name, jobs) in &queue.jobs {
            for job in jobs {
                if claimed.contains(&(name.as_str(), job.job_id.as_str())) {
                    continue;
                }
                let cloud = find(clusters, name).and_then(cloud_of);
                let identity = JobIdentity {
                    job_id: String::new(),
                    cloud: cloud.unwrap_or_else(|| scope.cloud.clone()),
                    cluster: name.clone(),
                    oumi_job_id: job.job_id.clone(),
                };
                self.add(&identity, Ok(status_of_row(job, &identity)));
            }
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

fn find<'c>(clusters: &'c [Cluster], name: &str) -> Option<&'c Cluster> {
    clusters.iter().find(|cluster| cluster.name == name)
}

/// Groups jobs by cloud.
pub(in crate::launcher) fn scopes_by_cloud(jobs: &[&JobIdentity]) -> Vec<QueueScope> {
    let mut clouds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for job in jobs {
        let clusters = clouds.entry(&job.cloud).or_default();
        clusters.insert(job.cluster.clone());
    }
    let scope = |(cloud, clusters): (&str, _)| QueueScope {
        cloud: cloud.to_owned(),
        clusters,
    };
    clouds.into_iter().map(scope).collect()
}
