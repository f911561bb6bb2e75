//! Every job in one answer, and the records that are let go when they are old.

use std::collections::{BTreeSet, HashMap};

use super::JobService;
use super::answers::{JobAnswer, JobRow, ListAnswer};
use super::prune::prune;
use super::requests::{ListRequest, StatusFilter};
use super::sanitize::sanitize;
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobStatus, Launcher, Listing};
use crate::redact::Redactor;
use crate::registry::JobRecord;

impl JobService {
    /// Every job, and what could not be found out.
    pub async fn list(&self, request: ListRequest) -> ListAnswer {
        // Asked for before the registry is read: a job that is recorded only now cannot be missed in it.
        let under_way = self.launches.in_flight().recorded();
        let records = match self.context.registry.records().await {
            Ok(records) => records,
            Err(error) => return sanitize(ListAnswer::failure(error.to_string()), &[]),
        };
        for job_id in under_way {
            if !records.iter().any(|record| record.job_id == job_id) {
                self.launches.in_flight().evict_orphan(&job_id);
            }
        }
        self.launches.resume(&records).await;
        let allows = |cloud: &str| self.context.policy.forbids(cloud).is_none();
        let mut warnings = self.registry_warnings(&records).await;
        let listings = self.listings(&records).await;
        let mut done = HashMap::new();
        // The jobs that a warning may quote.
        let mut quoted: BTreeSet<String> = BTreeSet::new();
        let mut rows: Vec<(String, JobRow)> = Vec::new();
        for (known, listing) in listings {
            let mut said = Vec::new();
            match listing {
                Ok(listing) => {
                    said = listing.warnings;
                    // SkyPilot is asked about all its clouds at once.
                    let jobs = listing.jobs.into_iter();
                    for job in jobs.filter(|job| allows(&job.identity.cloud)) {
                        // Whether a job is one of ours is the launcher's to say: an id comes again on a cluster that was
                        // made anew.
                        let record = records
                            .iter()
                            .find(|record| record.job_id == job.identity.job_id);
                        if let Some(record) = record {
                            done.insert(record.job_id.clone(), job.status.is_done);
                        }
                        rows.push(row(record, &job.identity, &job.status));
                    }
                }
                Err(error) => said.extend(unasked(&known, &error.to_string())),
            }
            if !said.is_empty() {
                quoted.extend(known.into_iter().map(|identity| identity.job_id));
                warnings.extend(said);
            }
        }
        let pruned = prune(&self.context, &self.launches, &records, &done).await;
        rows.retain(|(_, row)| {
            !pruned.contains(&row.job_id)
                && match request.status {
                    StatusFilter::All => true,
                    StatusFilter::Running => !row.is_done,
                    StatusFilter::Completed => row.is_done,
                }
        });
        rows.sort_by(|(one, _), (other, _)| other.cmp(one));
        let rows: Vec<JobRow> = rows.into_iter().map(|(_, row)| row).collect();
        let redactors = self
            .context
            .redactors(rows.iter().map(|row| row.job_id.clone()));
        let redactors = redactors.await;
        let rows = rows.into_iter().zip(redactors);
        let jobs = rows
            .map(|(row, redactor)| sanitize(row, &[redactor]))
            .collect();
        let mut redactors = self.context.redactors(quoted).await;
        redactors.push(Redactor::default());
        ListAnswer {
            jobs,
            warnings: sanitize(warnings, &redactors),
            ..ListAnswer::default()
        }
    }

    /// Asks every launcher, side by side, for the jobs it has.
    async fn listings(
        &self,
        records: &[JobRecord],
    ) -> Vec<(Vec<JobIdentity>, Result<Listing, JobError>)> {
        let mut asked = tokio::task::JoinSet::new();
        for (at, launcher) in self.context.launchers.iter().cloned().enumerate() {
            let forbids = |cloud: &str| self.context.policy.forbids(cloud).is_some();
            if launcher.clouds().iter().all(|cloud| forbids(cloud)) {
                continue;
            }
            let known = self.jobs_of(launcher.as_ref(), records);
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

    /// The jobs that a launcher may be asked about.
    fn jobs_of(&self, launcher: &dyn Launcher, records: &[JobRecord]) -> Vec<JobIdentity> {
        let may_be_asked = |cloud: &str| {
            launcher.clouds().contains(&cloud) && self.context.policy.forbids(cloud).is_none()
        };
        let records = records.iter();
        records
            .filter(|record| may_be_asked(&record.cloud))
            .map(JobRecord::identity)
            .collect()
    }

    async fn registry_warnings(&self, records: &[JobRecord]) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.context.registry.quarantined().await {
            Ok(files) => warnings.extend(files.iter().map(|file| {
                format!(
                    "the job registry was damaged; every whole record in it was kept, and a copy of the damaged file is \
                     {}; remove that file to end this warning",
                    file.display()
                )
            })),
            Err(error) => warnings.push(error.to_string()),
        }
        let clouds: BTreeSet<&str> = records.iter().map(|record| record.cloud.as_str()).collect();
        for cloud in clouds {
            let reason = match (
                self.context.launcher(cloud),
                self.context.policy.forbids(cloud),
            ) {
                (Ok(_), None) => continue,
                (Ok(_), Some(forbidden)) => forbidden,
                (Err(_), _) => format!("on cloud {cloud:?}, which is not served here"),
            };
            let jobs = records
                .iter()
                .filter(|record| record.cloud == cloud)
                .map(|record| record.job_id.as_str());
            warnings.push(format!(
                "not asked about: {}, {reason}",
                jobs.collect::<Vec<_>>().join(", ")
            ));
        }
        warnings
    }
}

/// A row, and what it is sorted by.
fn row(record: Option<&JobRecord>, identity: &JobIdentity, status: &JobStatus) -> (String, JobRow) {
    let cluster = status.details.cluster.as_ref();
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
        autostop_minutes: cluster.and_then(|cluster| cluster.autostop_minutes),
        hourly_price: cluster.and_then(|cluster| cluster.hourly_price),
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
