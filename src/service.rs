//! Jobs: run, poll, logs, cancel, list. The only place that joins the registry, the launches under way and the launchers.

pub mod answers;
mod background_refresh;
mod cancel;
pub mod consent;
mod consent_prompt;
mod context;
mod launches;
mod list;
mod logs;
mod lookup;
mod next_step;
mod observe;
mod plan_cache;
mod poll;
mod prune;
pub mod requests;
mod run;
mod sanitize;
#[cfg(test)]
pub(crate) mod tests;
pub mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::in_flight::InFlight;
use crate::launcher::Launcher;
use crate::registry::JobRegistry;
use crate::settings::data_dir::DataDir;
use crate::settings::policy::Policy;
use consent::{Consent, Nobody};
use context::Context;
use launches::Launches;
use observe::Insights;
use plan_cache::Previews;
use watch::Watchers;

/// How long a call waits for a launch under way before it answers that it is still pending.
const LAUNCH_WAIT: Duration = Duration::from_secs(10);

/// Reports what a long call is waiting for. Must not block.
pub type OnProgress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The jobs of one data folder. Clones are the same service.
#[derive(Clone)]
pub struct JobService {
    context: Arc<Context>,
    launches: Launches,
    plans: Arc<Previews>,
    consent: Arc<dyn Consent>,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    watchers: Watchers,
    insights: Insights,
}

impl JobService {
    /// Serves the jobs in `data_dir`, run by `launchers`, with a policy that allows everything.
    pub fn new(data_dir: DataDir, launchers: Vec<Arc<dyn Launcher>>) -> Self {
        Self::with_policy(data_dir, launchers, Policy::default())
    }

    /// Serves only what `policy` allows.
    pub fn with_policy(
        data_dir: DataDir,
        launchers: Vec<Arc<dyn Launcher>>,
        policy: Policy,
    ) -> Self {
        let context = Arc::new(Context::new(data_dir, launchers, policy));
        Self {
            launches: Launches::new(Arc::clone(&context)),
            context,
            plans: Arc::new(Previews::new()),
            consent: Arc::new(Nobody),
            inner: Arc::default(),
        }
    }

    /// The policy that calls are held against.
    pub fn policy(&self) -> &Policy {
        &self.context.policy
    }

    /// The launches under way.
    pub fn in_flight(&self) -> &InFlight {
        self.launches.in_flight()
    }

    /// The identities of the jobs.
    pub fn registry(&self) -> &JobRegistry {
        &self.context.registry
    }

    /// Resumes the launches and cancels that an earlier server left unfinished, and prunes old records. What fails now is
    /// tried again by the next call about the job.
    pub async fn recover(&self) {
        match self.context.registry.records().await {
            Ok(records) => {
                self.launches.resume(&records).await;
                prune::prune(&self.context, &self.launches, &records, &HashMap::new()).await;
            }
            Err(error) => tracing::warn!(%error, "cannot resume the jobs of an earlier server"),
        }
    }
}
