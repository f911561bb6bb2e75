//! `list_jobs`: every job in one answer, newest first.

use std::collections::{BTreeSet, HashMap};

use super::answers::{JobAnswer, JobRow, ListAnswer};
use super::context::Context;
use super::launches::Launches;
use super::prune::prune;
use super::requests::{ListRequest, StatusFilter};
use super::sanitize::sanitize;
use crate::error::JobError;
use crate::launcher::{JobIdentity, ListedJob, Listing};
use crate::redact::Redactor;
use crate::registry::JobRecord;

/// The answers of all launchers, joined.
#[derive(Default)]
struct Survey {
    /// The rows, each with the submit time that it is sorted by.
    rows: Vec<(String, JobRow)>,
    warnings: Vec<String>,
    /// The jobs that a warning may quote.
    quoted: BTreeSet<String>,
    /// Tells of the jobs in the registry if they are done, where their launcher knows.
    done: HashMap<String, bool>,
}

/// Lists the jobs of the registry and of all launchers, and prunes old records on the way.
pub(super) async fn list(
    context: &Context,
    launches: &Launches,
    request: ListRequest,
) -> ListAnswer {
    // Read before the registry: a job that is recorded only now cannot be missed in it.
    let in_flight = launches.in_flight().recorded();
    let records = match context.registry.records().await {
        Ok(records) => records,
        Err(error) => return sanitize(ListAnswer::failure(error.to_string()), &[]),
    };
    for job_id in in_flight {
        if !records.iter().any(|record| record.job_id == job_id) {
            launches.in_flight().evict_orphan(&job_id);
        }
    }
    launches.resume(&records).await;
    let mut survey = Survey {
        warnings: registry_warnings(context, &records).await,
        ..Survey::default()
    };
    for (known, listing) in ask_launchers(context, &records).await {
        survey.add(context, &records, known, listing);
    }
    let pruned = prune(context, launches, &records, &survey.done).await;
    let mut rows = survey.rows;
    rows.retain(|(_, row)| {
        let is_wanted = match request.status {
            StatusFilter::All => true,
            StatusFilter::Running => !row.is_done,
            StatusFilter::Completed => row.is_done,
        };
        is_wanted && !pruned.contains(&row.job_id)
    });
    rows.sort_by(|(one, _), (other, _)| other.cmp(one));
    // Only of the jobs that are shown or quoted: each costs a read of a file.
    let listed = rows.iter().map(|(_, row)| row.job_id.clone());
    let redactors = context.redactors(listed).await;
    let rows = rows.into_iter().zip(redactors);
    let jobs = rows.map(|((_, row), redactor)| sanitize(row, &[redactor]));
    let jobs = jobs.collect();
    let mut redactors = context.redactors(survey.quoted).await;
    redactors.push(Redactor::default());
    ListAnswer {
        jobs,
        warnings: sanitize(survey.warnings, &redactors),
        ..ListAnswer::default()
    }
}

impl Survey {
    /// Adds the answer of one launcher, which was asked about the jobs in `known`.
    fn add(
        &mut self,
        context: &Context,
        records: &[JobRecord],
        known: Vec<JobIdentity>,
        listing: Result<Listing, JobError>,
    ) {
        let warnings = match listing {
            Ok(listing) => {
                // SkyPilot answers for all its clouds, also those that the policy forbids.
                let is_allowed = |job: &ListedJob| !is_forbidden(context, &job.identity.cloud);
                for job in listing.jobs.into_iter().filter(is_allowed) {
                    // The launcher decides if a job is ours: an id comes again on a cluster that was created again.
                    let is_of = |record: &&JobRecord| record.job_id == job.identity.job_id;
                    let record = records.iter().find(is_of);
                    if let Some(record) = record {
                        self.done.insert(record.job_id.clone(), job.status.is_done);
                    }
                    self.rows.push(row(record, &job));
                }
                listing.warnings
            }
            Err(error) => unreachable_warning(known.iter().map(|job| job.job_id.as_str()), &error)
                .into_iter()
                .collect(),
        };
        if !warnings.is_empty() {
            self.quoted.extend(known.into_iter().map(|job| job.job_id));
            self.warnings.extend(warnings);
        }
    }
}

fn is_forbidden(context: &Context, cloud: &str) -> bool {
    context.policy.forbids(cloud).is_some()
}

/// Asks every launcher that the policy allows, in parallel, and returns the jobs each was asked about with its answer.
async fn ask_launchers(
    context: &Context,
    records: &[JobRecord],
) -> Vec<(Vec<JobIdentity>, Result<Listing, JobError>)> {
    let asked = context.launchers.iter().filter_map(|launcher| {
        let clouds = launcher.clouds().iter().copied();
        let clouds: Vec<&str> = clouds
            .filter(|cloud| !is_forbidden(context, cloud))
            .collect();
        if clouds.is_empty() {
            return None;
        }
        let records = records.iter();
        let known = records.filter(|record| clouds.contains(&record.cloud.as_str()));
        let known: Vec<JobIdentity> = known.map(JobRecord::identity).collect();
        let (launcher, asked_about) = (launcher.clone(), known.clone());
        let asking = tokio::spawn(async move { launcher.list(&asked_about).await });
        Some((known, asking))
    });
    let mut listings = Vec::new();
    for (known, asking) in asked.collect::<Vec<_>>() {
        let listing = asking.await.map_err(JobError::failed);
        listings.push((known, listing.flatten()));
    }
    listings
}

async fn registry_warnings(context: &Context, records: &[JobRecord]) -> Vec<String> {
    let mut warnings = Vec::new();
    match context.registry.quarantined().await {
        Ok(files) => warnings.extend(files.iter().map(|file| {
            format!(
                "the job registry was damaged; every whole record in it was kept, and the damaged file was put aside as {}; \
                 remove that file to end this warning",
                file.display()
            )
        })),
        Err(error) => warnings.push(error.to_string()),
    }
    let clouds: BTreeSet<&str> = records.iter().map(|record| record.cloud.as_str()).collect();
    for cloud in clouds {
        if let Err(reason) = context.allowed_launcher(cloud) {
            let on_cloud = records.iter().filter(|record| record.cloud == cloud);
            let ids = on_cloud.map(|record| record.job_id.as_str());
            warnings.extend(unreachable_warning(ids, &reason));
        }
    }
    warnings
}

/// Builds a row, with the submit time that it is sorted by.
fn row(record: Option<&JobRecord>, job: &ListedJob) -> (String, JobRow) {
    let (identity, status) = (&job.identity, &job.status);
    let submitted = record.and_then(JobRecord::submitted_at);
    let record = record.cloned().unwrap_or_else(|| JobRecord {
        job_id: identity.oumi_job_id.clone(),
        ..JobRecord::default()
    });
    let cluster = status.details.cluster.as_ref();
    let row = JobRow {
        job_id: record.job_id,
        command: record.command,
        status: status.status.clone(),
        cloud: identity.cloud.clone(),
        cluster: identity.cluster.clone(),
        model_name: record.model_name,
        is_done: status.is_done,
        autostop_minutes: cluster.and_then(|cluster| cluster.autostop_minutes),
        hourly_price: cluster.and_then(|cluster| cluster.hourly_price),
    };
    (
        submitted.map_or_else(String::new, |time| time.to_rfc3339()),
        row,
    )
}

/// Names the jobs that could not be asked about. `None` when there are none.
fn unreachable_warning<'a>(
    job_ids: impl Iterator<Item = &'a str>,
    error: &JobError,
) -> Option<String> {
    let ids: Vec<&str> = job_ids.collect();
    if ids.is_empty() {
        return None;
    }
    Some(format!("not asked about: {}; {error}", ids.join(", ")))
}
