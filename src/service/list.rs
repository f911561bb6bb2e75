//! `list_jobs`: every job in one answer, newest first.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::answers::{JobRow, ListAnswer};
use super::observe::how_far;
use super::prune::prune;
use super::requests::{ListRequest, StatusFilter};
use super::sanitize::sanitize;
use super::{Context, JobService, launches, setting_problems};
use crate::launcher::{JobIdentity, JobState, JobStatus, ListedJob, Listing};
use crate::redact::Redactor;
use crate::registry::JobRecord;
use crate::text::join_names;

/// The times of rows, to the minute and in UTC as [`ListAnswer::times`] says: parts of RFC 3339.
const DAY_AND_TIME: Range<usize> = 5..16;
const TIME: Range<usize> = 11..16;

impl JobService {
    /// Lists the jobs of the registry and of all launchers, and prunes old records on the way.
    pub(crate) async fn list(&self, request: ListRequest) -> ListAnswer {
        let context = &self.context;
        let records = match context.registry.records().await {
            Ok(records) => records,
            Err(error) => {
                let answer = ListAnswer {
                    success: Some(false),
                    error: Some(error.to_string()),
                    ..ListAnswer::default()
                };
                return sanitize(answer, &[]);
            }
        };
        for job in records.iter() {
            launches::resume(context, job);
        }
        let mut warnings = registry_warnings(context, &records).await;
        let listings = ask_launchers(context, &records).await;
        warnings.extend(listings.iter().flat_map(|it| it.warnings.iter().cloned()));
        // Some jobs may have been started meanwhile.
        let records = context.registry.records().await.unwrap_or(records);
        let ids = records.iter().map(|record| record.job_id.as_str());
        let by_id: HashMap<&str, &JobRecord> = ids.zip(records.iter()).collect();
        let (mut found, mut removable) = (Vec::new(), HashMap::new());
        for job in listings.into_iter().flat_map(|listing| listing.jobs) {
            // The launcher decides if a job is ours: a cluster that was created again counts its jobs from 1 again.
            let JobIdentity { job_id, cloud, .. } = &job.identity;
            let record = by_id.get(job_id.as_str()).copied();
            if let Some(record) = record {
                // The last record of a cluster that is there is kept: the limit of costs counts the cluster by it.
                let on_it = |other: &&JobRecord| other.cluster_name == record.cluster_name;
                let is_needed = job.status.details.cluster.is_some()
                    && records.iter().rfind(on_it) == Some(record);
                removable.insert(record.job_id.as_str(), job.status.is_done && !is_needed);
            } else if !job.status.is_done && context.is_local(cloud) {
                warnings.push(format!(
                    "job {job_id} runs, but its record is gone; cancel_job ends it"
                ));
            }
            // SkyPilot answers for all its clouds, also those that the policy forbids.
            if context.policy.check(cloud).is_ok() {
                found.push((record, job));
            }
        }
        let pruned = prune(context, &records, &removable).await;
        found.retain(|(record, job)| {
            let is_pruned = record.is_some_and(|record| pruned.contains(&record.job_id));
            request.status.admits(&job.status) && !is_pruned
        });
        found.sort_by_cached_key(|(record, job)| Reverse(submitted_at(*record, job)));
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let not_shown = Some(found.len().saturating_sub(limit)).filter(|count| *count > 0);
        let running = found.iter().skip(limit);
        let running = running.filter(|(_, job)| !job.status.is_done).count();
        if running > 0 {
            warnings.push(format!("jobs that are not shown and not over: {running}"));
        }
        found.truncate(limit);
        let mut jobs = Vec::with_capacity(found.len());
        for (record, job) in found {
            jobs.push(row(context, record, job).await);
        }
        ListAnswer {
            times: if jobs.is_empty() { "" } else { "UTC" },
            jobs,
            not_shown,
            warnings: sanitize(warnings, &[Redactor::default()]),
            ..ListAnswer::default()
        }
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

/// Asks all allowed launchers at once. One that does not answer costs its jobs, and is warned of.
async fn ask_launchers(context: &Context, records: &[JobRecord]) -> Vec<Listing> {
    let asked = context.launchers.iter().filter_map(|launcher| {
        let mut clouds = launcher.clouds().to_vec();
        clouds.retain(|cloud| context.policy.check(cloud).is_ok());
        let is_asked = |job: &&JobRecord| clouds.contains(&job.cloud.as_str());
        let known = records.iter().filter(is_asked).map(JobRecord::identity);
        let known: Vec<JobIdentity> = known.collect();
        (!clouds.is_empty()).then_some(async move {
            let listed = launcher.list(&known).await;
            let mut listing = listed.unwrap_or_else(|error| {
                let ids = known.iter().map(|job| &*job.job_id);
                Listing {
                    warnings: Vec::from_iter(not_asked(ids, &error.to_string())),
                    ..Listing::default()
                }
            });
            // A warning may quote any job that the launcher was asked about.
            let redactors = known.iter().map(|job| context.redactor(&job.job_id));
            let redactors = LazyCell::new(|| Vec::from_iter(redactors));
            listing.warnings = sanitize(listing.warnings, redactors);
            listing
        })
    });
    join_all(asked).await
}

async fn registry_warnings(context: &Context, records: &[JobRecord]) -> Vec<String> {
    let mut warnings = match context.registry.quarantined().await {
        Ok(files) => Vec::from_iter(files.iter().map(|file| {
            format!(
                "the job registry was damaged; every whole record in it was kept, and the damaged file was put aside as {}; \
                 remove that file to end this warning",
                file.display()
            )
        })),
        Err(error) => vec![error.to_string()],
    };
    warnings.extend(setting_problems());
    if let Err(error) = context.data_dir.check() {
        warnings.push(error.to_string());
    }
    let is_gone = |job: &&JobRecord| {
        let dir = context.job_dir(&job.job_id);
        context.is_local(&job.cloud) && dir.is_some_and(|dir| matches!(dir.exists(), Ok(false)))
    };
    let gone = join_names(records.iter().filter(is_gone).map(|job| &*job.job_id));
    if !gone.is_empty() {
        warnings.push(format!(
            "the folders of these jobs are gone, and their logs with them: {gone}"
        ));
    }
    let mut not_allowed = BTreeMap::<String, Vec<&str>>::new();
    for JobRecord { job_id, cloud, .. } in records {
        if let Err(error) = context.allowed_launcher(cloud) {
            let ids = not_allowed.entry(error.to_string()).or_default();
            ids.push(job_id);
        }
    }
    for (error, ids) in not_allowed {
        warnings.extend(not_asked(ids.into_iter(), &error));
    }
    warnings
}

/// Names the jobs that could not be asked about, if any.
fn not_asked<'a>(job_ids: impl Iterator<Item = &'a str>, error: &str) -> Option<String> {
    let ids = join_names(job_ids);
    (!ids.is_empty()).then(|| format!("not asked about: {ids}; {error}"))
}

fn submitted_at(record: Option<&JobRecord>, job: &ListedJob) -> Option<DateTime<Utc>> {
    let at = job.status.details.submitted_at.as_deref().and_then(parsed);
    record.map_or(at, JobRecord::submitted_at)
}

fn parsed(time: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(time).ok()?.to_utc())
}

/// Builds a row: what a user wants to know of the jobs of yesterday, and nothing twice.
async fn row(context: &Context, record: Option<&JobRecord>, job: ListedJob) -> JobRow {
    let submitted = submitted_at(record, &job);
    let ListedJob { identity, status } = job;
    let progress = match status.state {
        JobState::Succeeded | JobState::Pending => None,
        _ => how_far(context, &identity, &status).await,
    };
    let details = status.details;
    let name = details.job_name.filter(|_| record.is_none());
    let unrecorded = JobRecord {
        job_id: identity.oumi_job_id,
        ..JobRecord::default()
    };
    let record = record.unwrap_or(&unrecorded);
    let config = Path::new(&record.config_path).file_name();
    let config = config.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let text_if = |condition: bool, text: &str| if condition { text } else { "" }.to_owned();
    let behind_command = record.job_id.strip_prefix(&record.command);
    let id_names_command = behind_command.is_some_and(|rest| rest.starts_with('_'));
    let ended = details.ended_at.or(details.end_at);
    let ended = ended
        .filter(|_| status.is_done)
        .and_then(|time| parsed(&time));
    let day = |time: Option<DateTime<Utc>>| time.map(|time| time.date_naive());
    let time = |time: Option<DateTime<Utc>>, part: Range<usize>| {
        let text = time.map(|time| time.to_rfc3339()[part].replace('T', " "));
        text.unwrap_or_default()
    };
    let is_same_day = day(submitted) == day(ended);
    let cluster = details.cluster.as_ref();
    let output = (status.state == JobState::Succeeded).then(|| under_home(&record.output_dir));
    let row = JobRow {
        command: text_if(!id_names_command, &record.command),
        name: name.unwrap_or_default(),
        status: status.status,
        state: status.state,
        cloud: context.cloud_name(&identity.cloud),
        cluster: identity.cluster,
        model_name: text_if(config.is_empty(), &record.model_name),
        is_done: status.is_done,
        submitted: time(submitted, DAY_AND_TIME),
        ended: time(ended, if is_same_day { TIME } else { DAY_AND_TIME }),
        config,
        progress,
        output: output.unwrap_or_default(),
        autostop_minutes: cluster.and_then(|cluster| cluster.autostop_minutes),
        hourly_price: details.hourly_price,
        spent: details.spent,
        job_id: record.job_id.clone(),
    };
    context.sanitize(row, &record.job_id)
}

/// Writes a path as a shell does: `~` is the home folder.
fn under_home(path: &str) -> String {
    let home = dirs::home_dir().filter(|home| home.is_absolute());
    let below = home.and_then(|home| Path::new(path).strip_prefix(home).ok());
    below.map_or_else(|| path.to_owned(), |below| format!("~/{}", below.display()))
}
