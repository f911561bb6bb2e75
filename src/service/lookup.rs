//! Which job a query means: by our id, or by the launcher's, which may fit several.

use super::JobService;
use super::requests::JobQuery;
use crate::launcher::JobIdentity;
use crate::registry::JobRecord;

/// The job that a query means.
pub(super) struct ResolvedJob {
    pub(super) identity: JobIdentity,
    /// Nothing for a job that was started elsewhere.
    pub(super) record: Option<JobRecord>,
}

/// Why a query means no job.
pub(super) enum NotFound {
    /// There is none such.
    Unknown(String),
    /// The query, or the look at the registry, failed.
    Failed(String),
}

impl JobService {
    /// The job that is meant.
    pub(super) async fn find(&self, query: &JobQuery) -> Result<ResolvedJob, NotFound> {
        let records = self
            .context
            .registry
            .records()
            .await
            .map_err(|error| NotFound::Failed(error.to_string()))?;
        let found = |record: &JobRecord| ResolvedJob {
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
        // Ids repeat from cluster to cluster: without a cluster name a job that was started elsewhere may be meant as well, and
        // only a whole list tells.
        if identity.cluster.is_empty()
            && let Ok(launcher) = self.context.allowed_launcher(&identity.cloud)
        {
            let listing = launcher.list(&fitting).await.map_err(|error| {
                NotFound::Failed(format!(
                    "which cluster is meant cannot be found out: {error}; give cluster_name, or job_id"
                ))
            })?;
            // A cluster that did not answer may have the job that is meant.
            if let Some(missing) = listing.incomplete.first() {
                return Err(NotFound::Failed(format!(
                    "which cluster is meant cannot be found out: {missing}; give cluster_name, or job_id"
                )));
            }
            let elsewhere = listing.jobs.into_iter().map(|job| job.identity);
            fitting.extend(elsewhere.filter(|other| other.job_id.is_empty() && fits(other)));
        }
        match fitting.as_slice() {
            [] => Ok(ResolvedJob {
                identity,
                record: None,
            }),
            [known] => Ok(ResolvedJob {
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
}
