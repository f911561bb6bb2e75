//! Lookup of the job that a query names: by our id, or by the launcher's, which may fit several jobs.

use super::Context;
use crate::error::{JobError, Result};
use crate::launcher::{JobIdentity, oumi_cloud};
use crate::process::runner::in_budget;
use crate::registry::JobRecord;

/// The least likeness to the id of a call, at most 1, of an id that an error suggests.
const LIKE: f64 = 0.9;

#[derive(Clone)]
pub(super) struct ResolvedJob {
    pub(super) identity: JobIdentity,
    /// `None` for a job that this server did not start.
    pub(super) record: Option<JobRecord>,
}

impl ResolvedJob {
    pub(super) fn of(record: JobRecord) -> Self {
        Self {
            identity: record.identity(),
            record: Some(record),
        }
    }
}

/// Resolves a query. The error is `NotFound` where our id names no job; the launcher says later whether it knows its own id. What
/// contradicts the job that was found is refused: another one may be meant.
pub(super) async fn resolve(context: &Context, query: &JobIdentity) -> Result<ResolvedJob> {
    let job = in_budget(find(context, query)).await?;
    let known = &job.identity;
    // An empty field contradicts nothing.
    let fits = |own: &str, given: &str| {
        own.is_empty() || given.is_empty() || given.trim().eq_ignore_ascii_case(own)
    };
    if fits(&known.job_id, &query.job_id)
        && fits(&known.oumi_job_id, &query.oumi_job_id)
        // Answers quote SkyPilot's name of a cloud, such as Kubernetes, beside Oumi's.
        && (fits(&known.cloud, &query.cloud) || oumi_cloud(&query.cloud) == known.cloud)
        && fits(&known.cluster, &query.cluster)
    {
        return Ok(job);
    }
    let error = format!(
        "the call contradicts itself: this job has job_id {:?}, oumi_job_id {:?}, cloud {:?} and cluster_name {:?}",
        known.job_id, known.oumi_job_id, known.cloud, known.cluster
    );
    Err(JobError::invalid(error).with_hint("give job_id alone; list_jobs shows them"))
}

async fn find(context: &Context, query: &JobIdentity) -> Result<ResolvedJob> {
    if let Some(record) = context.registry.get(&query.job_id).await? {
        return Ok(ResolvedJob::of(record));
    }
    let records = context.registry.records().await?;
    if let Some(identity) = running_here(context, &records, query).await {
        let record = None;
        return Ok(ResolvedJob { identity, record });
    }
    if query.oumi_job_id.is_empty() || query.cloud.is_empty() {
        return Err(unknown(&records, query));
    }
    let cloud = context.cloud_of_call(&query.cloud);
    let wanted = JobIdentity {
        job_id: String::new(),
        // A job on this machine has no cluster, whatever the client says.
        cluster: match context.is_local(&cloud) {
            true => String::new(),
            false => query.cluster.trim().to_owned(),
        },
        cloud,
        oumi_job_id: query.oumi_job_id.trim().to_owned(),
    };
    let mut candidates = candidates(context, &records, &wanted).await?;
    if candidates.len() > 1 {
        let choice = |job: &JobIdentity| match job.job_id.as_str() {
            "" => format!("one with cluster_name {:?}, started elsewhere", job.cluster),
            job_id => format!("{job_id} with cluster_name {:?}", job.cluster),
        };
        let choices: Vec<String> = candidates.iter().map(choice).collect();
        let error = format!(
            "several jobs on {} have the id {:?}: {}",
            wanted.cloud,
            wanted.oumi_job_id,
            choices.join("; ")
        );
        return Err(JobError::invalid(error).with_hint("give job_id, or cluster_name"));
    }
    let mut identity = candidates.pop().unwrap_or(wanted);
    let mut record = records.iter().find(|it| it.job_id == identity.job_id);
    if record.is_some()
        && let Ok(launcher) = context.allowed_launcher(&identity.cloud)
    {
        // Without a cluster in the query, the list has shown that there is no other such job.
        let is_replaced = !query.cluster.is_empty() && launcher.is_replaced(&identity).await;
        if is_replaced || !launcher.is_certain(&identity).await {
            // The call means the job that has the id now, which may be another than the recorded one.
            record = None;
            identity.job_id.clear();
        }
    }
    let record = record.cloned();
    Ok(ResolvedJob { identity, record })
}

fn unknown(records: &[JobRecord], query: &JobIdentity) -> JobError {
    if query.job_id.is_empty() {
        let error = JobError::invalid("give job_id, or oumi_job_id with cloud");
        return error.with_hint("list_jobs shows them");
    }
    let error = JobError::not_found(format!("no job {:?} is known", query.job_id));
    let ids = records.iter().map(|record| record.job_id.as_str());
    let wanted = query.job_id.to_lowercase();
    let rated = ids.map(|id| (strsim::jaro_winkler(&id.to_lowercase(), &wanted), id));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other));
    error.with_hint(match best {
        Some((likeness, id)) if likeness >= LIKE => format!("did you mean {id:?}? list_jobs shows all"),
        _ => "call list_jobs for the ids, or give oumi_job_id and cloud of a job that was started elsewhere".to_owned(),
    })
}

/// Finds a job that runs on this machine although its record is gone, as after its data folder was emptied.
async fn running_here(
    context: &Context,
    records: &[JobRecord],
    query: &JobIdentity,
) -> Option<JobIdentity> {
    let launcher = context.local_launcher()?;
    let cloud = query.cloud.trim().to_lowercase();
    let is_meant = |job: &JobIdentity| {
        job.job_id == query.job_id || (job.cloud == cloud && job.oumi_job_id == query.oumi_job_id)
    };
    let is_recorded = |job: &JobIdentity| records.iter().any(|record| record.job_id == job.job_id);
    let jobs = launcher.list(&[]).await.ok()?.jobs.into_iter();
    let mut jobs = jobs.map(|job| job.identity);
    jobs.find(|job| is_meant(job) && !is_recorded(job))
}

/// Lists the jobs that a launcher's id may name. Ids repeat from cluster to cluster, so without a cluster every job of the cloud
/// counts, and a list that may lack one is an error.
async fn candidates(
    context: &Context,
    records: &[JobRecord],
    wanted: &JobIdentity,
) -> Result<Vec<JobIdentity>> {
    let fits = |other: &JobIdentity| {
        other.cloud == wanted.cloud
            && other.oumi_job_id == wanted.oumi_job_id
            && (wanted.cluster.is_empty() || other.cluster == wanted.cluster)
    };
    let ours = records.iter().map(JobRecord::identity).filter(fits);
    let mut candidates: Vec<JobIdentity> = ours.collect();
    if !wanted.cluster.is_empty() {
        return Ok(candidates);
    }
    if let Ok(launcher) = context.allowed_launcher(&wanted.cloud) {
        let listing = launcher.list(&candidates).await;
        let (jobs, reason) = match listing {
            Ok(listing) => (listing.jobs, listing.incomplete.join(", ")),
            Err(error) => (Vec::new(), error.to_string()),
        };
        if !reason.is_empty() {
            let error = format!("it is not known which cluster is meant: {reason}");
            return Err(JobError::unavailable(error).with_hint("give cluster_name, or job_id"));
        }
        let foreign = jobs.into_iter().map(|job| job.identity);
        candidates.extend(foreign.filter(|job| job.job_id.is_empty() && fits(job)));
    }
    Ok(candidates)
}
