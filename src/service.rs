//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.
//!
//! Its operations do file work where they are: who calls them does so on the threads for files (`process::on_file_threads`).

pub(crate) mod answers;
mod cancel;
pub(crate) mod consent;
mod consent_prompt;
mod context;
mod costs;
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

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;

use crate::launcher::Launcher;
use crate::process::find;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;
use crate::settings::policy::{AskPerson, Policy};
use consent::ConsentProvider;
use context::Context;
pub(crate) use context::setting_problems;

/// The poll interval on a cloud, where a poll takes seconds.
const CLOUD_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The wait of a call for a launch in flight.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// Reports what a long call is waiting for. Must not block.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub(crate) struct JobService {
    context: Arc<Context>,
    /// The way to the user of the call; `None` where nobody is asked.
    provider: Option<Arc<dyn ConsentProvider>>,
}

impl JobService {
    pub(crate) fn with_policy(
        data_dir: DataDir,
        launchers: Vec<Arc<dyn Launcher>>,
        policy: Policy,
    ) -> Self {
        Self {
            context: Arc::new(Context::new(data_dir, launchers, policy)),
            provider: None,
        }
    }

    /// Returns the same service for a call whose user is asked through `provider`, unless the policy wants nobody asked.
    #[must_use]
    pub(crate) fn with_consent(&self, provider: Arc<dyn ConsentProvider>) -> Self {
        let is_asked = self.policy().ask != AskPerson::Never && provider.can_ask();
        Self {
            context: Arc::clone(&self.context),
            provider: is_asked.then_some(provider),
        }
    }

    /// Returns how often a client may ask about a job on this cloud.
    pub(crate) fn poll_interval(&self, cloud: &str) -> Duration {
        match self.context.is_local(cloud) {
            true => poll::CHEAP_INTERVAL,
            false => CLOUD_POLL_INTERVAL,
        }
    }

    /// Returns how long a client should wait before it asks for a task again: the longer, the older the job is.
    pub(crate) fn task_interval(&self, job: &JobRecord) -> Duration {
        let age = (job.submitted_at()).and_then(|time| (Utc::now() - time).to_std().ok());
        poll::pause_at(age.unwrap_or_default()).max(self.poll_interval(&job.cloud))
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.context.policy
    }

    pub(crate) fn registry(&self) -> &JobRegistry {
        &self.context.registry
    }

    /// Resumes the launches and cancels that an earlier server left unfinished, and prunes old records. What fails now is
    /// tried again by the next call about the job.
    pub(crate) async fn recover(&self) {
        let context = &self.context;
        if !context.policy.read_only {
            context.data_dir.remove_temporary_files().ok();
        }
        let records = match context.registry.records().await {
            Ok(records) => records,
            Err(error) => {
                return tracing::warn!(%error, "cannot resume the jobs of an earlier server");
            }
        };
        // Programs are looked for in the project folders of earlier launches too.
        let dirs = records
            .iter()
            .filter_map(|job| context.job_dir(&job.job_id));
        let plans = dirs.filter_map(|dir| dir.plan().ok());
        plans.for_each(|plan| find::add_project(&plan.working_dir));
        launches::resume(context, &records);
        prune::prune(context, &records, &HashMap::new()).await;
    }
}
