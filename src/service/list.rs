//! `list_jobs`: every job in one answer, newest first.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::answers::{JobAnswer, JobRow, ListAnswer};
use super::context::{Context, setting_problems};
use super::launches::Launches;
use super::observe::Observer;
use super::prune::prune;
use super::requests::{ListRequest, StatusFilter};
use super::sanitize::sanitize;
use crate::error::JobError;
use crate::launcher::{JobIdentity, JobState, JobStatus, ListedJob, Listing};
use crate::process::blocking;
use crate::redact::Redactor;
use crate::registry::JobRecord;

/// The times of rows, to the minute and in UTC as [`ListAnswer::times`] says.
const DAY_AND_TIME: &str = "%m-%d %H:%M";
const TIME: &str = "%H:%M";

/// The answers of all launchers, joined.
#[derive(Default)]
struct Survey {
    jobs: Vec<(Option<JobRecord>, ListedJob)>,
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
    observer: &Observer,
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
    let mut found = survey.jobs;
    found.retain(|(record, job)| {
        let id = record.as_ref().map(|record| &record.job_id);
        request.status.admits(&job.status) && !id.is_some_and(|id| pruned.contains(id))
    });
    found.sort_by_key(|(record, _)| Reverse(record.as_ref().and_then(JobRecord::submitted_at)));
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let not_shown = Some(found.len().saturating_sub(limit)).filter(|count| *count > 0);
    found.truncate(limit);
    // Only of the jobs that are shown or quoted: each costs a read of a file.
    let rows = found
        .into_iter()
        .map(|(record, job)| row(context, observer, record, job));
    let rows = futures::future::join_all(rows).await;
    let redactors = context
        .redactors(rows.iter().map(|row| row.job_id.clone()))
        .await;
    let rows = rows.into_iter().zip(redactors);
    let jobs: Vec<JobRow> = rows
        .map(|(row, redactor)| sanitize(row, &[redactor]))
        .collect();
    let mut redactors = context.redactors(survey.quoted).await;
    redactors.push(Redactor::default());
    ListAnswer {
        times: if jobs.is_empty() { "" } else { "UTC" },
        jobs,
        not_shown,
        warnings: sanitize(survey.warnings, &redactors),
        ..ListAnswer::default()
    }
}

impl StatusFilter {
    fn admits(self, status: &JobStatus) -> bool {
        match self {
            Self::All => true,
            Self::Running => !status.is_done,
            Self::Completed => status.is_done,
            Self::Succeeded => status.state == JobState::Succeeded,
            Self::Failed => status.state == JobState::Failed,
            Self::Cancelled => status.state == JobState::Cancelled,
        }
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
                    self.jobs.push((record.cloned(), job));
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
    let data_dir = context.data_dir.clone();
    let here = records
        .iter()
        .filter(|record| context.traits(&record.cloud).is_local);
    let ids: Vec<String> = here.map(|record| record.job_id.clone()).collect();
    let unusable = blocking(move || {
        let gone = |id: &String| data_dir.job(id).is_some_and(|dir| !dir.exists());
        let gone: Vec<String> = ids.into_iter().filter(gone).collect();
        let gone = (!gone.is_empty()).then(|| {
            format!(
                "the folders of these jobs are gone, and their logs with them: {}",
                gone.join(", ")
            )
        });
        let unusable = data_dir.check().err().map(|error| error.to_string());
        let warnings = setting_problems().into_iter().chain(gone).chain(unusable);
        Ok::<_, io::Error>(warnings.collect::<Vec<_>>())
    });
    warnings.extend(unusable.await.unwrap_or_default());
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

/// Builds a row: what a person asks for who wants to know what ran yesterday, and nothing twice.
async fn row(
    context: &Context,
    observer: &Observer,
    record: Option<JobRecord>,
    job: ListedJob,
) -> JobRow {
    let ListedJob { identity, status } = job;
    let has_succeeded = status.state == JobState::Succeeded;
    let launcher = context.launcher(&identity.cloud);
    let is_local = context.traits(&identity.cloud).is_local;
    let progress = match status.state {
        JobState::Succeeded | JobState::Pending => None,
        _ => observer.how_far(launcher, &identity).await,
    };
    let submitted = record.as_ref().and_then(JobRecord::submitted_at);
    let record = record.unwrap_or_else(|| JobRecord {
        job_id: identity.oumi_job_id.clone(),
        ..JobRecord::default()
    });
    let config = file_name(&record.config_path);
    let shown = |text: String, is_shown: bool| if is_shown { text } else { String::new() };
    let id_names_command = record.job_id.starts_with(&format!("{}_", record.command));
    let details = status.details;
    let ended = details
        .ended_at
        .or(details.end_at)
        .filter(|_| status.is_done);
    let ended = ended.and_then(|time| DateTime::parse_from_rfc3339(&time).ok());
    let ended = ended.map(|time| time.to_utc());
    let is_same_day =
        submitted.map(|time| time.date_naive()) == ended.map(|time| time.date_naive());
    let time = |time: Option<DateTime<Utc>>, format: &str| {
        time.map_or_else(String::new, |time| time.format(format).to_string())
    };
    JobRow {
        job_id: record.job_id,
        command: shown(record.command, !id_names_command),
        status: status.status,
        state: status.state,
        cloud: shown(identity.cloud, !is_local),
        cluster: identity.cluster,
        model_name: shown(record.model_name, config.is_empty()),
        is_done: status.is_done,
        submitted: time(submitted, DAY_AND_TIME),
        ended: time(ended, if is_same_day { TIME } else { DAY_AND_TIME }),
        config,
        progress,
        output: shown(under_home(&record.output_dir), has_succeeded),
        autostop_minutes: details
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.autostop_minutes),
        hourly_price: details
            .hourly_price
            .or_else(|| details.cluster?.hourly_price),
        spent: details.spent,
    }
}

fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Writes a path as a shell does: `~` is the home folder.
fn under_home(path: &str) -> String {
    let home = dirs::home_dir().filter(|home| home.is_absolute());
    let below = home.and_then(|home| Path::new(path).strip_prefix(home).ok());
    below.map_or_else(|| path.to_owned(), |below| format!("~/{}", below.display()))
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
