//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.

pub(crate) mod answers;
mod cancel;
mod clusters;
mod collisions;
pub(crate) mod consent;
mod consent_prompt;
mod context;
mod costs;
mod detached;
mod excerpt;
mod launches;
mod list;
mod log_reader;
mod logs;
mod lookup;
mod next_step;
mod observe;
mod output_dir;
mod plan_cache;
mod poll;
mod prepare;
mod prune;
pub(crate) mod requests;
mod run;
mod sanitize;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;

use crate::launcher::{JobState, Launcher};
use crate::process::job_dir::JobDir;
use crate::process::{blocking, find, on_file_threads};
use crate::redact::Redactor;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;
use answers::{CancelAnswer, ClusterAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer};
use cancel::Canceller;
use consent::{Consent, ConsentProvider};
use context::Context;
pub(crate) use context::setting_problems;
use launches::Launches;
use plan_cache::PlanCache;
use poll::Poller;
use requests::{
    CancelRequest, DownRequest, JobQuery, ListRequest, LogsRequest, PollRequest, RunRequest,
    StopRequest,
};
use run::Runner;
use sanitize::sanitize;
use watch::{Watchers, pause_at};

/// The poll interval where the launcher names none: a poll of a cloud takes seconds.
const CLOUD_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The wait of a call for a launch in flight.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// Reports what a long call is waiting for. Must not block.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub(crate) struct JobService {
    context: Arc<Context>,
    launches: Launches,
    runner: Runner,
    canceller: Canceller,
    consent: Consent,
    poller: Arc<Poller>,
    watchers: Watchers,
}

impl JobService {
    /// Serves with a policy that allows everything.
    #[cfg(test)]
    pub(crate) fn new(data_dir: DataDir, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        Self::with_policy(data_dir, launchers, Policy::default())
    }

    /// Serves the jobs in `data_dir`, run by `launchers`, as `policy` allows.
    pub(crate) fn with_policy(
        data_dir: DataDir,
        launchers: Vec<Arc<dyn Launcher>>,
        policy: Policy,
    ) -> Self {
        let context = Arc::new(Context::new(data_dir, launchers, policy));
        let launches = Launches::new(Arc::clone(&context));
        let plans = Arc::new(PlanCache::default());
        let poller = Arc::new(Poller::new(Arc::clone(&context), launches.clone()));
        Self {
            runner: Runner {
                context: Arc::clone(&context),
                launches: launches.clone(),
                plans: Arc::clone(&plans),
            },
            canceller: Canceller {
                context: Arc::clone(&context),
                launches: launches.clone(),
            },
            consent: Consent::new(Arc::clone(&context), plans),
            context,
            launches,
            watchers: Watchers::new(Arc::clone(&poller)),
            poller,
        }
    }

    /// Returns the same service for a call whose user is asked through `provider`.
    #[must_use]
    pub(crate) fn with_consent(&self, provider: Arc<dyn ConsentProvider>) -> Self {
        Self {
            consent: self.consent.with_provider(provider),
            ..self.clone()
        }
    }

    /// Returns how often a client may ask about a job on this cloud.
    pub(crate) fn poll_interval(&self, cloud: &str) -> Duration {
        let launcher = self.context.launcher(cloud).ok();
        let interval = launcher.and_then(|launcher| launcher.traits().poll_interval);
        interval.unwrap_or(CLOUD_POLL_INTERVAL)
    }

    /// Returns how long a client should wait before it asks for a task again: the longer, the older the job is.
    pub(crate) fn task_interval(&self, job: &JobRecord) -> Duration {
        let age = (job.submitted_at()).and_then(|time| (Utc::now() - time).to_std().ok());
        pause_at(age.unwrap_or_default()).max(self.poll_interval(&job.cloud))
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.context.policy
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> &crate::in_flight::InFlight {
        self.launches.in_flight()
    }

    pub(crate) fn registry(&self) -> &JobRegistry {
        &self.context.registry
    }

    /// Resumes the launches and cancels that an earlier server left unfinished, and prunes old records. What fails now is
    /// tried again by the next call about the job.
    pub(crate) async fn recover(&self) {
        if !self.context.policy.read_only {
            let data_dir = self.context.data_dir.clone();
            let removed = blocking(move || data_dir.remove_temporary_files()).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "cannot remove what a kill left of files");
            }
        }
        match self.context.registry.records().await {
            Ok(records) => {
                self.add_projects(&records).await;
                self.launches.resume(&records).await;
                prune::prune(&self.context, &self.launches, &records, &HashMap::new()).await;
            }
            Err(error) => tracing::warn!(%error, "cannot resume the jobs of an earlier server"),
        }
    }

    /// Has programs looked for in the project folders of earlier launches too.
    async fn add_projects(&self, records: &[JobRecord]) {
        let ids = records.iter().map(|record| record.job_id.as_str());
        let dirs: Vec<JobDir> = ids.filter_map(|id| self.context.job_dir(id)).collect();
        let read = tokio::task::spawn_blocking(move || {
            let plans = dirs.iter().filter_map(|dir| dir.plan().ok());
            plans.for_each(|plan| find::add_project(&plan.working_dir));
        });
        read.await.ok();
    }

    #[cfg(test)]
    pub(crate) async fn run(&self, request: RunRequest) -> RunAnswer {
        self.run_with_progress(request, &|_| {}).await
    }

    /// Runs a job, or shows what would be run.
    pub(crate) async fn run_with_progress(
        &self,
        request: RunRequest,
        on_progress: OnProgress<'_>,
    ) -> RunAnswer {
        let running = self.runner.run(&self.consent, request, on_progress);
        let (answer, redactor) = running.await;
        let mut redactors = vec![redactor];
        if !answer.dry_run {
            // The config may have changed while the user was asked.
            redactors.push(self.context.redactor(&answer.job_id).await);
        }
        sanitize(answer, &redactors)
    }

    /// Asks the launcher of a job for its status.
    pub(crate) async fn poll(&self, query: JobQuery) -> PollAnswer {
        self.poller.poll(query).await
    }

    /// Polls a job until it changes, with a deadline; a client that shows the progress may wait for longer.
    pub(crate) async fn poll_until(
        &self,
        request: PollRequest,
        on_progress: OnProgress<'_>,
        shows_progress: bool,
    ) -> PollAnswer {
        let max_wait = self.policy().max_wait(shows_progress);
        self.watchers
            .poll_until(request, on_progress, max_wait)
            .await
    }

    /// Reads a part of a job's log.
    pub(crate) async fn logs(&self, request: LogsRequest) -> LogsAnswer {
        logs::logs(&self.context, &self.launches, request).await
    }

    /// Lists all jobs.
    pub(crate) async fn list(&self, request: ListRequest) -> ListAnswer {
        let service = self.clone();
        let list = async move {
            let observer = service.poller.observer();
            list::list(&service.context, &service.launches, observer, request).await
        };
        on_file_threads(list).await
    }

    /// Cancels a job.
    pub(crate) async fn cancel(&self, request: CancelRequest) -> CancelAnswer {
        self.cancel_with_progress(request, &|_| {}).await
    }

    pub(crate) async fn cancel_with_progress(
        &self,
        request: CancelRequest,
        on_progress: OnProgress<'_>,
    ) -> CancelAnswer {
        let cancelling = self.canceller.cancel(&self.consent, request, on_progress);
        let mut answer = cancelling.await;
        let job_id = answer.job_id.clone();
        if answer.success && answer.state == JobState::Cancelled {
            let query = JobQuery {
                job_id: job_id.clone(),
                oumi_job_id: answer.oumi_job_id.clone(),
                cloud: answer.cloud.clone(),
                cluster_name: answer.cluster.clone(),
            };
            let now = self.poll(query).await;
            if now.state == JobState::Cancelled {
                (answer.output_dir, answer.last_checkpoint) = (now.output_dir, now.last_checkpoint);
                let earlier = answer.message.as_str();
                let parts = [now.message.as_str(), &now.next, earlier];
                let parts = parts.map(|part| part.trim_end_matches('.'));
                answer.message = parts.join(". ").trim_end_matches(['.', ' ']).to_owned();
            }
        }
        if self.context.traits(&answer.cloud).is_local {
            answer.cloud.clear();
        }
        self.context.sanitize(answer, &job_id).await
    }

    /// Stops a cluster; its disks are kept.
    pub(crate) async fn stop_cluster(&self, request: StopRequest) -> ClusterAnswer {
        let answer = clusters::stop(&self.context, &self.consent, request).await;
        self.sanitize_cluster(answer).await
    }

    /// Deletes a cluster, once the user has agreed.
    pub(crate) async fn down_cluster(&self, request: DownRequest) -> ClusterAnswer {
        let answer = clusters::down(&self.context, &self.consent, request).await;
        self.sanitize_cluster(answer).await
    }

    /// Hides the secrets of all jobs on a cluster: its launcher may quote any of them.
    async fn sanitize_cluster(&self, answer: ClusterAnswer) -> ClusterAnswer {
        let records = self.context.registry.records().await.unwrap_or_default();
        let on_it = records
            .into_iter()
            .filter(|record| record.cluster_name == answer.cluster_name)
            .map(|record| record.job_id);
        let mut redactors = self.context.redactors(on_it).await;
        redactors.push(Redactor::default());
        sanitize(answer, &redactors)
    }
}
