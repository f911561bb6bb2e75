//! How a launch is seen through to its end, also where a cancel or a crash cuts across it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::lookup::ResolvedJob;
use crate::error::{ErrorKind, JobError};
use crate::in_flight::{InFlight, LaunchOutcome, LaunchWatch};
use crate::launcher::local::LOCAL;
use crate::launcher::{CancelOutcome, JobIdentity, LaunchPlan, Launcher};
use crate::process::blocking;
use crate::process::job_dir::{JobDir, JobLock};
use crate::registry::JobRecord;

/// What to do about a job that was to be cancelled and is not.
pub(super) const MAY_RUN: &str =
    "it may still be running and cost money: call poll_status to see, and cancel_job again";
/// How long a look at a job waits for a launch that an earlier server began and that may have ended since.
const TAKE_UP_WAIT: Duration = Duration::from_secs(2);
/// The waits before a cancel that failed right after a launch is tried again.
const CANCEL_RETRIES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// The waits before a registry that could not be written is tried again: what is launched must not be forgotten.
const RECORD_RETRIES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
];

/// The launches of this server, each driven by a task of its own. Clones are the same.
#[derive(Clone)]
pub(super) struct Launches {
    context: Arc<Context>,
    in_flight: InFlight,
}

impl Launches {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            in_flight: InFlight::default(),
        }
    }

    pub(super) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Drives a launch in a task of its own. Should that break, the entry leaves the map all the same.
    pub(super) fn spawn(&self, identity: JobIdentity, start: Option<(LaunchPlan, JobLock)>) {
        let launches = self.clone();
        tokio::spawn(async move {
            let (driver, job_id) = (launches.clone(), identity.job_id.clone());
            let driven = tokio::spawn(async move { driver.drive(identity, start).await });
            if let Err(error) = driven.await {
                tracing::error!(job_id, %error, "a launch broke inside the server");
                let reason =
                    format!("the server broke while it launched the job: {error}; {MAY_RUN}");
                launches
                    .in_flight
                    .evict(&job_id, LaunchOutcome::MayRun(reason));
            }
        });
    }

    /// Sees a launch through to its end: sets it going unless an earlier server did, waits, writes who the job became, and
    /// honours a cancel that came meanwhile. Whatever happens, the entry in the map is gone afterwards.
    async fn drive(&self, identity: JobIdentity, start: Option<(LaunchPlan, JobLock)>) {
        let in_flight = &self.in_flight;
        let job_id = identity.job_id.as_str();
        in_flight.set_recorded(job_id);
        let mut outcome = self.launch(&identity, start).await;
        if let LaunchOutcome::Launched(settled) = &outcome {
            // One that was asked of another server, or of one that died, stands beside the launch.
            if self.context.has_pending_cancel(job_id).await {
                in_flight.request_cancel(job_id);
            }
            if in_flight.evict(job_id, outcome.clone()) {
                return;
            }
            outcome = self.cancel_launched(settled).await;
        }
        // Where the cancel failed it stays kept: the next look at the job tries again.
        if !matches!(outcome, LaunchOutcome::MayRun(_)) {
            self.clear_pending_cancel(job_id).await;
        }
        in_flight.evict(job_id, outcome);
    }

    /// Forgets a cancel that was kept beside a job, once it has been carried out.
    pub(super) async fn clear_pending_cancel(&self, job_id: &str) {
        if let Err(error) = self
            .context
            .with_job_dir(job_id, |dir| dir.clear_pending_cancel())
            .await
        {
            tracing::warn!(job_id, %error, "cannot forget a cancel that was carried out");
        }
    }

    async fn launch(
        &self,
        identity: &JobIdentity,
        start: Option<(LaunchPlan, JobLock)>,
    ) -> LaunchOutcome {
        let launcher = match self.context.launcher(&identity.cloud) {
            Ok(launcher) => launcher,
            Err(error) => return LaunchOutcome::Failed(error),
        };
        if let Some((plan, lock)) = start {
            if self.in_flight.cancel_requested(&identity.job_id) {
                // Nothing holds the lock any more, so that the launcher sees that the job never began.
                drop(lock);
                return outcome_of_cancel(launcher.cancel(identity, false).await);
            }
            if let Err(error) = launcher.start(identity, plan, lock).await {
                return LaunchOutcome::Failed(error.to_string());
            }
        }
        match launcher.wait_for_launch(identity).await {
            Ok(settled) => {
                self.record(&settled).await;
                LaunchOutcome::Launched(settled)
            }
            Err(reason) if reason.kind == ErrorKind::Unavailable => LaunchOutcome::MayRun(format!(
                "how the launch ended could not be found out: {reason}; {MAY_RUN}"
            )),
            Err(error) => LaunchOutcome::Failed(error.to_string()),
        }
    }

    /// Writes who the job became. Should that fail in the end, the next look at the job finds it out from the launch anew.
    async fn record(&self, settled: &JobIdentity) {
        let mut retries = RECORD_RETRIES.into_iter();
        loop {
            let updated = self.context.registry.update(settled.clone()).await;
            let Err(error) = updated else { return };
            tracing::warn!(job_id = settled.job_id, %error, "cannot record who a job is");
            let Some(wait) = retries.next() else { return };
            tokio::time::sleep(wait).await;
        }
    }

    /// Cancels a job whose launch has just ended. A cancel that fails is tried again: the job costs money meanwhile.
    async fn cancel_launched(&self, settled: &JobIdentity) -> LaunchOutcome {
        let launcher: &dyn Launcher = match self.context.launcher(&settled.cloud) {
            Ok(launcher) => launcher.as_ref(),
            Err(error) => return LaunchOutcome::MayRun(error),
        };
        let mut retries = CANCEL_RETRIES.into_iter();
        loop {
            let error = match launcher.cancel(settled, false).await {
                Ok(outcome) => return LaunchOutcome::Cancelled(outcome),
                Err(error) => error,
            };
            let reason =
                format!("the job was launched, and cancelling it failed: {error}; {MAY_RUN}");
            let Some(wait) = retries.next() else {
                return LaunchOutcome::MayRun(reason);
            };
            tracing::warn!(job_id = settled.job_id, %error, "a cancel failed; trying again");
            self.in_flight.set_cancel_error(&settled.job_id, reason);
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits a moment for a launch that an earlier server began, where the record says that its end was not seen.
    pub(super) async fn refresh_identity(&self, found: ResolvedJob) -> ResolvedJob {
        let Some(record) = &found.record else {
            return found;
        };
        let Some(watch) = self.resume(std::slice::from_ref(record)).await.pop() else {
            return found;
        };
        outcome_within(watch, TAKE_UP_WAIT).await;
        self.reload(found).await
    }

    /// The job as the registry has it now.
    pub(super) async fn reload(&self, found: ResolvedJob) -> ResolvedJob {
        let Some(record) = &found.record else {
            return found;
        };
        match self.context.registry.get(&record.job_id).await {
            Ok(Some(record)) => ResolvedJob {
                identity: record.identity(),
                record: Some(record),
            },
            _ => found,
        }
    }

    /// Takes up the launches that an earlier server began and whose end is not recorded, and the cancels it did not carry
    /// out. What is taken up now is returned; what is under way here already is not.
    pub(super) async fn resume(&self, records: &[JobRecord]) -> Vec<LaunchWatch> {
        // This machine is no cloud to be asked: what was begun on it is ended in any case.
        let allowed = |record: &&JobRecord| {
            record.cloud == LOCAL || self.context.policy.forbids(&record.cloud).is_none()
        };
        let looked_at: Vec<(JobRecord, JobDir)> = records
            .iter()
            .filter(allowed)
            .filter_map(|record| Some((record.clone(), self.context.job_dir(&record.job_id)?)))
            .collect();
        let unfinished = blocking(move || {
            let mut unfinished = Vec::new();
            for (record, dir) in looked_at {
                let exists = dir.exists();
                let is_unfinished = exists.and_then(|exists| {
                    Ok(exists && (record.oumi_job_id.is_empty() || dir.has_pending_cancel()?))
                });
                match is_unfinished {
                    Ok(true) => unfinished.push(record.identity()),
                    Ok(false) => {}
                    Err(error) => {
                        let job_id = record.job_id;
                        tracing::warn!(job_id, %error, "cannot see whether a job is to be resumed; trying again at the next call");
                    }
                }
            }
            Ok::<_, io::Error>(unfinished)
        })
        .await;
        let mut taken_up = Vec::new();
        for identity in unfinished.unwrap_or_default() {
            if let Some(watch) = self.in_flight.begin(&identity.job_id) {
                self.spawn(identity, None);
                taken_up.push(watch);
            }
        }
        taken_up
    }
}

fn outcome_of_cancel(cancelled: Result<CancelOutcome, JobError>) -> LaunchOutcome {
    match cancelled {
        Ok(outcome) => LaunchOutcome::Cancelled(outcome),
        Err(error) => LaunchOutcome::MayRun(error.to_string()),
    }
}

/// Waits for the outcome of a launch; `None` when it takes longer than `wait`.
pub(super) async fn outcome_within(
    mut watch: LaunchWatch,
    wait: Duration,
) -> Option<LaunchOutcome> {
    let ended = tokio::time::timeout(wait, watch.wait_for(Option::is_some)).await;
    ended.ok()?.ok()?.clone()
}
