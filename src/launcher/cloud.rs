//! Jobs on clouds: what SkyPilot and Oumi have in common. A [`CloudBackend`] runs the programs.

mod autostop;
mod backend;
mod changes;
mod claims;
mod clusters;
mod interrupted;
mod launch;
mod launch_dir;
mod list;
mod price;
mod spent;
mod survey;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    CancelOutcome, ClusterAction, ClusterInfo, JobIdentity, JobLog, JobState, JobStatus,
    LaunchPlan, LaunchSpec, Launcher, Listing, Offer, UpCluster,
};
use crate::error::{ErrorKind, JobError};
use crate::parse::sky::Queue;
use crate::process::find;
use crate::process::job_dir::JobLock;
use crate::process::runner::{Cli, call_deadline};
use crate::settings::data_dir::DataDir;
pub(super) use backend::{CancelRun, CloudBackend, QueueScope, failure_text, is_plain, log_file};
use changes::{Change, Changes};
use clusters::cluster_info;
pub(super) use launch::CloudLaunches;
use launch_dir::{ClusterBefore, LaunchFacts, LaunchResult, number};
use price::Prices;
pub(super) use survey::no_such_job;
use survey::{Survey, already_finished};

/// How long an interrupted launch may still put its job on the cluster: SkyPilot's API server goes on with a launch when its
/// client is killed.
const COMPLETION_WINDOW: Duration = Duration::from_secs(30 * 60);
/// The wait for the price of a cluster that is described.
const PRICE_WAIT: Duration = Duration::from_secs(10);

/// The launcher of the clouds that a backend reaches.
#[derive(Debug)]
pub(crate) struct CloudLauncher<B> {
    backend: B,
    launches: CloudLaunches,
    changes: Changes,
    prices: Prices,
    cli: Cli,
}

impl<B: CloudBackend> CloudLauncher<B> {
    /// A launcher whose launches live in `folder`, under `supervisor`, and which runs programs through `cli`.
    pub(crate) fn new(folder: DataDir, supervisor: PathBuf, cli: Cli) -> Self {
        let window = B::IDS_RESTART.then_some(COMPLETION_WINDOW);
        Self {
            backend: B::new(cli.clone()),
            changes: Changes::new(&folder, supervisor.clone(), cli.clone()),
            launches: CloudLaunches::new(folder, supervisor, window),
            prices: Prices::default(),
            cli,
        }
    }

    async fn survey(&self, scope: &QueueScope, deadline: Option<Instant>) -> Survey {
        let queue = self.backend.queue(scope, deadline);
        let (queue, clusters) = tokio::join!(queue, self.backend.clusters(deadline));
        Survey {
            queue,
            clusters,
            costs: Vec::new(),
        }
    }

    /// Asks about the cluster of a job. Returns the facts of its launch too, by which its row is known.
    async fn survey_job(
        &self,
        identity: &JobIdentity,
        deadline: Option<Instant>,
    ) -> (Survey, Option<LaunchFacts>) {
        let mut survey = self.survey(&QueueScope::of_job(identity), deadline).await;
        let facts = self.facts(identity, &survey).await;
        facts.iter().for_each(|facts| survey.add_price(facts));
        (survey, facts)
    }

    /// Returns the facts of a job's launch, with the mark of the job where it is on its cluster.
    async fn facts(&self, identity: &JobIdentity, survey: &Survey) -> Option<LaunchFacts> {
        if !B::IDS_RESTART || survey.other_cloud::<B>(identity).is_some() {
            return self.launches.facts(identity).await;
        }
        let cluster = &identity.cluster;
        let (jobs, hash) = (survey.jobs(cluster), survey.cluster_hash(cluster));
        self.launches.claim_job(identity, jobs, hash).await
    }

    async fn status_by(
        &self,
        identity: &JobIdentity,
        deadline: Option<Instant>,
    ) -> Result<JobStatus, JobError> {
        if identity.oumi_job_id.is_empty() {
            let mut status = self.launches.status(identity).await?;
            if status.state == JobState::Failed {
                let clusters = self.backend.clusters(deadline).await;
                let queue = Ok(Queue::default());
                let costs = Vec::new();
                let survey = Survey {
                    queue,
                    clusters,
                    costs,
                };
                survey.add_cluster(&mut status, &identity.cluster);
            }
            return Ok(status);
        }
        let surveying = self.survey_job(identity, deadline);
        let ((mut survey, facts), costs) = tokio::join!(surveying, self.backend.costs(deadline));
        survey.costs = costs.unwrap_or_default();
        let mut status = survey.status::<B>(identity, facts.as_ref())?;
        survey.add_costs(&mut status, identity, facts.as_ref());
        survey.warn_of_no_end(&mut status, identity, facts.as_ref());
        if B::IDS_RESTART && facts.is_some_and(|facts| facts.is_onto_existing) {
            status.warnings.push(format!(
                "cluster {} was there before: SkyPilot added the job to it and skipped its `setup`",
                identity.cluster
            ));
        }
        if status.is_done {
            survey.add_cluster(&mut status, &identity.cluster);
        }
        Ok(status)
    }

    async fn run_cancel(&self, identity: &JobIdentity) -> Result<CancelRun, JobError> {
        let call = self.backend.cancel_call(identity)?;
        let (cloud, cluster) = (&identity.cloud, &identity.cluster);
        let change = Change::new("cancel", cloud, cluster, &identity.oumi_job_id);
        let (output, dir) = self.changes.run(change, call).await?;
        dir.remove().await;
        Ok(self.backend.cancel_result(&output))
    }

    /// Fails where the launcher's id of a job may be another job's by now.
    async fn check_id(&self, identity: &JobIdentity) -> Result<(), JobError> {
        if !B::IDS_RESTART {
            return Ok(());
        }
        let (survey, facts) = self.survey_job(identity, call_deadline()).await;
        survey.check_id::<B>(identity, facts.as_ref())
    }

    /// Describes the cluster before a launch onto it. `None` where that cannot be found out.
    async fn cluster_before(&self, identity: &JobIdentity) -> Option<ClusterBefore> {
        let deadline = call_deadline();
        let clusters = self.backend.clusters(deadline).await.ok()??;
        let Some(cluster) = clusters.get(&identity.cluster) else {
            return Some(ClusterBefore::default());
        };
        let scope = QueueScope::of_job(identity);
        let queue = self.backend.queue(&scope, deadline).await.ok()?;
        let jobs = queue.jobs.get(&identity.cluster)?;
        Some(ClusterBefore {
            cluster_hash: cluster.cluster_hash.clone(),
            last_job_id: jobs.iter().map(number).max().unwrap_or(0),
        })
    }
}

#[async_trait]
impl<B: CloudBackend> Launcher for CloudLauncher<B> {
    fn clouds(&self) -> &'static [&'static str] {
        B::CLOUDS
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        find::add_project(&spec.client_cwd);
        self.backend.plan(&self.launches, spec).await
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        let before = self.cluster_before(identity).await;
        self.launches.start(identity, plan, lock, before).await
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        let launched = self.wait_for_job(identity).await;
        // A launch that failed may have made its cluster.
        let is_over = !matches!(&launched, Err(error) if error.kind == ErrorKind::Unavailable);
        if is_over && let Err(error) = self.finish_autostop(identity, launched.as_ref().ok()).await
        {
            tracing::warn!(job_id = identity.job_id, %error, "cannot set the autostop of a cluster");
        }
        launched
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        validate::<B>(identity)?;
        self.status_by(identity, call_deadline()).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        match B::find_program() {
            // A user without clouds needs no program.
            Err(_) if known.is_empty() => Ok(Listing::default()),
            Err(missing) => Err(missing),
            Ok(_) => Ok(self.list_jobs(known).await),
        }
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        validate::<B>(identity)?;
        if identity.oumi_job_id.is_empty() {
            return self.launches.logs(identity).await;
        }
        let (read, checked) = tokio::join!(self.backend.logs(identity), self.check_id(identity));
        let error = match read.and_then(|log| checked.map(|()| log)) {
            Err(error) if error.kind == ErrorKind::Unavailable => error,
            read => return read,
        };
        // The output of its launch is on this machine.
        let Ok(mut log) = self.launches.logs(identity).await else {
            return Err(error.context("the log could not be read"));
        };
        log.message = Some(format!(
            "The job's own log could not be read ({error}); this is the output of its launch."
        ));
        Ok(log)
    }

    async fn is_certain(&self, identity: &JobIdentity) -> bool {
        let facts = self.launches.facts(identity).await;
        if facts.is_some_and(|facts| facts.mark.is_some())
            || identity.oumi_job_id.is_empty()
            || validate::<B>(identity).is_err()
        {
            return true;
        }
        let checked = self.check_id(identity).await;
        checked
            .err()
            .is_none_or(|error| error.kind != ErrorKind::Blocked)
    }

    async fn cancel(
        &self,
        identity: &JobIdentity,
        _force: bool,
    ) -> Result<CancelOutcome, JobError> {
        validate::<B>(identity)?;
        let mut identity = identity.clone();
        if identity.oumi_job_id.is_empty() {
            match self.launches.result(&identity).await? {
                // The registry does not have the id yet.
                Some(LaunchResult::Succeeded(launched)) => identity = launched,
                result => return self.launches.cancel(&identity, result).await,
            }
        }
        let (survey, facts) = self.survey_job(&identity, None).await;
        let facts = facts.as_ref();
        match survey.status::<B>(&identity, facts) {
            Ok(mut before) if before.is_done => {
                survey.add_cluster(&mut before, &identity.cluster);
                return Ok(already_finished(before));
            }
            Err(error)
                if matches!(error.kind, ErrorKind::NotFound | ErrorKind::ProgramNotFound) =>
            {
                return Err(error);
            }
            // A job whose status cannot be read is cancelled only where its id can be no other's.
            Ok(_) | Err(_) => survey.check_id::<B>(&identity, facts)?,
        }
        let run = self.run_cancel(&identity).await?;
        // Exit codes are unreliable: the status afterwards counts.
        match (self.status_by(&identity, None).await, run.accepted) {
            (Ok(after), _) if after.state == JobState::Cancelled => Ok(CancelOutcome::Cancelled {
                message: after
                    .warnings
                    .first()
                    .map(|warning| format!("the job was cancelled; {warning}")),
            }),
            (Ok(after), _) if after.is_done => Ok(already_finished(after)),
            (_, true) => Ok(CancelOutcome::Stopping {
                message: "the cancel was accepted; call poll_status to see the job end".to_owned(),
            }),
            (Ok(after), false) => Err(JobError::failed(format!(
                "the job was not cancelled and is {}: {}",
                after.status, run.reason
            ))
            .with_hint(format!(
                "call cancel_job again, or down_cluster to delete cluster {}",
                identity.cluster
            ))),
            (Err(error), false) => Err(error),
        }
    }

    async fn describe_cluster(
        &self,
        _cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>, JobError> {
        let until = Instant::now() + PRICE_WAIT;
        let clusters = self.backend.clusters(call_deadline()).await?;
        let Some(cluster) = clusters.as_ref().and_then(|list| list.get(cluster)) else {
            return Ok(None);
        };
        let offer = self.prices.of_cluster(&self.backend, cluster, until).await;
        Ok(Some(cluster_info(cluster, offer)))
    }

    async fn offer(&self, spec: &LaunchSpec, plan: &LaunchPlan, until: Instant) -> Option<Offer> {
        self.price_launch(spec, plan, until).await
    }

    async fn clusters_up(&self, until: Instant) -> Result<Vec<UpCluster>, JobError> {
        self.price_clusters(until).await
    }

    async fn teardown_cluster(
        &self,
        cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String, JobError> {
        B::validate_cluster(cloud, cluster)?;
        let call = self.backend.teardown_call(cloud, cluster, action)?;
        let change = Change::new(action.verb(), cloud, cluster, "");
        let (output, dir) = self.changes.run(change, call).await?;
        let result = self
            .backend
            .teardown_result(cluster, action, &output, None)
            .await;
        // A failure is listed for a while: nobody may have waited for it.
        if result.is_ok() {
            dir.remove().await;
        }
        result
    }
}

fn validate<B: CloudBackend>(identity: &JobIdentity) -> Result<(), JobError> {
    B::validate_cluster(&identity.cloud, &identity.cluster)?;
    if is_plain(&identity.oumi_job_id, "-_.") {
        return Ok(());
    }
    let id = &identity.oumi_job_id;
    Err(JobError::failed(format!(
        "`oumi_job_id` {id:?} is not the id of a job"
    )))
}
