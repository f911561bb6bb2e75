//! Jobs on clouds: what SkyPilot and Oumi have in common. A [`CloudBackend`] runs the programs.

mod autostop;
mod backend;
mod changes;
mod claims;
mod clusters;
mod launch;
mod launch_dir;
mod list;
mod price;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::join_all;
use rustix::process::Signal;

use super::{
    ClusterAction, ClusterInfo, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec,
    Launcher, Listing, Offer, check_cloud,
};
use crate::error::{ErrorKind, JobError, Result};
use crate::parse::sky::{Cluster, named};
use crate::process::find;
use crate::process::job_dir::{EPILOGUE, ExitRecord, JobLock};
use crate::process::runner::{Cli, in_budget};
use crate::process::start;
use crate::process::table::ProcessTable;
use crate::settings::data_dir::DataDir;
use crate::settings::unchanged::Unchanged;
pub(super) use backend::{CloudBackend, failure_text, is_plain, log_file, merge_queues};
pub(super) use changes::Change;
use changes::mark_answered;
pub(crate) use clusters::idle_end;
use clusters::{cloud_of, cost_note, is_stopped};
use launch::{STEP, remove_staged};
use launch_dir::{Launch, START};
use price::Prices;
pub(super) use survey::no_such_job;
use survey::{Found, Survey};

pub(crate) struct CloudLauncher {
    backend: Arc<dyn CloudBackend>,
    folder: DataDir,
    supervisor: PathBuf,
    prices: Prices,
    /// Held while a change is looked for and begun: of two calls one begins it.
    changing: Mutex<()>,
    /// Those that have ended with a job, by their folders.
    ended_launches: Unchanged<Launch>,
    cli: Cli,
}

impl CloudLauncher {
    pub(crate) fn new(
        folder: DataDir,
        supervisor: PathBuf,
        cli: Cli,
        backend: Arc<dyn CloudBackend>,
    ) -> Self {
        Self {
            backend,
            folder,
            supervisor,
            prices: Prices::default(),
            changing: Mutex::default(),
            ended_launches: Unchanged::default(),
            cli,
        }
    }

    async fn survey(&self, cloud: &str, clusters: &BTreeSet<String>) -> Survey {
        let (queue, clusters, costs) = tokio::join!(
            self.backend.queue(cloud, clusters),
            self.backend.clusters(None),
            self.backend.costs()
        );
        let mut survey = Survey {
            queue,
            clusters,
            costs,
            backend: Arc::clone(&self.backend),
        };
        survey.leave_out_own_user();
        survey
    }

    /// Asks about the cluster of a job. Returns its launch too, by which its row is known.
    async fn survey_job(&self, identity: &JobIdentity) -> (Survey, Option<Launch>) {
        let clusters = [identity.cluster.clone()].into();
        let mut survey = self.survey(&identity.cloud, &clusters).await;
        let launch = self.claim_job(identity, &mut survey);
        survey.add_reported_prices();
        (survey, launch)
    }

    async fn status_now(&self, identity: &JobIdentity) -> Result<JobStatus> {
        if identity.oumi_job_id.is_empty() {
            let launch = self.launch(identity)?;
            let mut status = launch.status(self.backend.is_skypilot());
            // One that was there is not left by the launch.
            if status.state == JobState::Failed
                && !launch.was_up()
                && let Ok(mut clusters) = self.backend.clusters(None).await
                && let Some(own) = clusters.iter_mut().find(|it| it.name == identity.cluster)
            {
                own.hourly_price = own.hourly_price.or(launch.hourly_price);
                status.details.add_cluster(own);
                if !is_stopped(own) {
                    status.warnings.push(format!("its {}", cost_note(own)));
                }
            }
            return Ok(status);
        }
        let (survey, launch) = self.survey_job(identity).await;
        let job = survey.job(identity, launch.as_ref());
        let mut status = job.status()?;
        job.warn_of_cluster(&mut status);
        if !status.is_done && status.state != JobState::Unknown {
            // The price stands in the answer, and a warning where it has no end.
            status.details.cluster = None;
        }
        Ok(status)
    }

    fn validate(&self, identity: &JobIdentity) -> Result<()> {
        let (cloud, cluster, id) = (&identity.cloud, &identity.cluster, &identity.oumi_job_id);
        if cluster.is_empty() {
            let error =
                format!("`cluster_name` is needed: no cluster of {cloud} with job {id:?} is known");
            return Err(JobError::failed(error).with_hint("call list_jobs for the clusters"));
        }
        self.backend.validate_cluster(cloud, cluster)?;
        if is_plain(id, "-_.") {
            return Ok(());
        }
        Err(JobError::failed(format!(
            "`oumi_job_id` {id:?} is not the id of a job"
        )))
    }

    /// Fails where the launcher's id of a job may be another job's by now.
    async fn check_id(&self, identity: &JobIdentity) -> Result<()> {
        if !self.backend.is_skypilot() {
            return Ok(());
        }
        let (survey, launch) = in_budget(self.survey_job(identity)).await;
        survey.job(identity, launch.as_ref()).check_id()
    }

    async fn cancel_there(&self, identity: &JobIdentity) -> Result<JobStatus> {
        let (cloud, cluster) = (&identity.cloud, &identity.cluster);
        let change = Change::new("cancel", cloud, cluster, &identity.oumi_job_id);
        let call = self.backend.change_call(&change)?;
        let (_, output) = self.run_change(&change, call).await?;
        // Exit codes are unreliable: the status afterwards counts.
        let after = self.status_now(identity).await;
        match &after {
            Ok(after) if after.state == JobState::Cancelled => {
                let mut cancelled = JobStatus::cancelled();
                cancelled.message = after.warnings.first().cloned();
                return Ok(cancelled);
            }
            Ok(after) if after.is_done => return Ok(already_finished(after.clone())),
            _ => {}
        }
        if self.backend.accepts_cancel(&output) {
            let accepted = "the cancel was accepted; call poll_status to see the job end";
            return Ok(JobStatus::running().with_message(accepted));
        }
        let refused = match output.code {
            None => "the cancel was cut off and may go on".to_owned(),
            Some(_) => format!("the cancel was refused ({})", failure_text(&output)),
        };
        let status = after.map_err(|error| {
            error.context(&format!(
                "{refused}, and the status of the job is not known"
            ))
        })?;
        let error = JobError::failed(format!("{refused}; the job is {}", status.status));
        let mut hint = "call cancel_job again".to_owned();
        if self.ends_clusters() {
            hint.push_str(&format!(", or down_cluster to delete cluster {cluster}"));
        }
        Err(error.with_hint(hint))
    }
}

#[async_trait]
impl Launcher for CloudLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        self.backend.clouds()
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan> {
        find::add_project(&spec.client_cwd);
        let (cluster, config) = self.backend.prepare(spec).await?;
        let mut plan = self.plan_launch(spec, cluster, config)?;
        if self.backend.is_skypilot() {
            self.add_autostop(&mut plan, spec)?;
        }
        Ok(plan)
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        mut plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<()> {
        let dir = self.dir(identity)?;
        let start = match in_budget(self.before_launch(identity, &plan)).await {
            Ok(start) => start,
            Err(error) => {
                dir.write_exit_record(&ExitRecord::not_started(STEP, &error.to_string()))?;
                return Err(error);
            }
        };
        let mut add_file = |name: &str, content: serde_json::Result<String>| {
            let content = content.map_err(JobError::failed)?;
            plan.process.files.push((dir.path().join(name), content));
            Ok::<_, JobError>(())
        };
        add_file(START, serde_json::to_string(&start))?;
        if let Some(mut epilogue) = plan.epilogue {
            // A launch that ends early does not print that the cluster was there. Of one that was, the server decides, whoever named it.
            if let Some(was_there) = start.was_there {
                epilogue.by_server = was_there && epilogue.unless_printed.is_some();
            }
            add_file(EPILOGUE, serde_json::to_string(&epilogue))?;
        }
        let started = start::start(&self.supervisor, &dir, lock, plan.process).await;
        if started.is_err() {
            remove_staged(&dir)?;
        }
        started
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity> {
        let launched = self.wait_for_job(identity).await;
        // A launch that failed may have made its cluster.
        let is_over = !matches!(&launched, Err(error) if error.kind == ErrorKind::Unavailable);
        let job = launched.as_ref().unwrap_or(identity);
        if is_over && let Err(error) = self.finish_autostop(job).await {
            self.warn(identity, &error, "cannot set the autostop of a cluster");
        }
        launched
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus> {
        self.validate(identity)?;
        in_budget(self.status_now(identity)).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing> {
        match self.backend.find_program() {
            // A user without clouds needs no program.
            Err(_) if known.is_empty() => Ok(Listing::default()),
            Err(missing) => Err(missing),
            Ok(_) => Ok(in_budget(self.list_jobs(known)).await),
        }
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog> {
        self.validate(identity)?;
        if identity.oumi_job_id.is_empty() {
            let launch = self.launch(identity);
            let has_ended = launch.is_ok_and(|launch| launch.has_ended);
            return JobLog::of_output(&self.dir(identity)?, || has_ended);
        }
        let (read, checked) = tokio::join!(self.backend.logs(identity), self.check_id(identity));
        let log = read.and_then(|log| checked.map(|()| log));
        log.map_err(|error| match error.kind {
            ErrorKind::Unavailable => error.context("the log could not be read"),
            _ => error,
        })
    }

    async fn is_certain(&self, identity: &JobIdentity) -> bool {
        let launch = self.own_launch(identity);
        if launch.is_some_and(|launch| launch.mark().is_some())
            || identity.oumi_job_id.is_empty()
            || self.validate(identity).is_err()
        {
            return true;
        }
        let checked = self.check_id(identity).await;
        checked
            .err()
            .is_none_or(|error| error.kind != ErrorKind::Blocked)
    }

    async fn is_replaced(&self, identity: &JobIdentity) -> bool {
        let launch = self.own_launch(identity);
        // Without a mark it cannot be found out.
        if launch.is_none_or(|launch| launch.mark().is_none()) || self.validate(identity).is_err() {
            return false;
        }
        let (survey, launch) = in_budget(self.survey_job(identity)).await;
        survey.job(identity, launch.as_ref()).found == Found::Recreated
    }

    async fn cancel(&self, identity: &JobIdentity, _force: bool) -> Result<JobStatus> {
        self.validate(identity)?;
        let mut identity = identity.clone();
        if identity.oumi_job_id.is_empty() {
            let launch = self.launch(&identity)?;
            let status = self.status_now(&identity).await?;
            match launch.oumi_job_id() {
                _ if !launch.has_ended => {
                    let message = "another server runs its launch; call cancel_job again once poll_status gives an oumi_job_id";
                    return Ok(JobStatus::running().with_message(message));
                }
                _ if matches!(status.state, JobState::Failed | JobState::Cancelled) => {
                    return Ok(already_finished(status));
                }
                // The registry does not have the id yet.
                Some(id) => identity.oumi_job_id.clone_from(id),
                None => return self.cancel_unless_begun(&identity),
            }
        }
        let (survey, launch) = self.survey_job(&identity).await;
        let job = survey.job(&identity, launch.as_ref());
        match job.status() {
            Ok(mut before) if before.is_done => {
                job.warn_of_cluster(&mut before);
                return Ok(already_finished(before));
            }
            Err(error) if error.is_not_found() => return Err(error),
            // A job whose status cannot be read is cancelled only where its id can be no other's.
            Ok(_) | Err(_) => job.check_id()?,
        }
        self.cancel_there(&identity).await
    }

    async fn kill_launch(&self, identity: &JobIdentity) -> Result<Option<String>> {
        let dir = self.dir(identity)?;
        let launch = self.launch(identity)?;
        let mut is_cut_off = launch.failure.is_none() && launch.oumi_job_id().is_none();
        if !launch.has_ended {
            let (table, supervisor) = (ProcessTable::read()?, dir.supervisor());
            is_cut_off = supervisor.is_some_and(|pid| table.kill_steps(dir.path(), pid));
            if is_cut_off && table.job(dir.path()).supervisor.is_none() {
                // Nobody else records when.
                dir.write_exit_record(&ExitRecord {
                    signal: Some(Signal::KILL.as_raw()),
                    ..ExitRecord::now(STEP)
                })?;
            }
        }
        if !is_cut_off {
            return Ok(None);
        }
        let cluster = &identity.cluster;
        Ok(Some(format!(
            "its launch was cut off, and may be carried on by SkyPilot: its job is looked for on cluster {cluster} for half an hour, \
             and cancelled once it is there; down_cluster deletes the cluster"
        )))
    }

    async fn offer(&self, plan: &LaunchPlan) -> Option<Offer> {
        Some(self.price_config(plan.job_config.as_ref()?).await)
    }

    fn launch_price(&self, identity: &JobIdentity) -> Option<f64> {
        self.launch(identity).ok()?.hourly_price
    }

    async fn clusters(&self, name: Option<&str>) -> Result<Vec<ClusterInfo>> {
        if name.is_none() && self.backend.find_program().is_err() {
            return Ok(Vec::new());
        }
        let list = self.backend.clusters(name).await?;
        let is_meant = |cluster: &&Cluster| match name {
            Some(name) => cluster.name == name,
            None => !is_stopped(cluster),
        };
        let meant = list.iter().filter(is_meant);
        Ok(join_all(meant.map(|cluster| self.describe(cluster))).await)
    }

    async fn live_jobs(&self, meant: &JobIdentity) -> Option<String> {
        let cluster = &meant.cluster;
        if !self.backend.is_skypilot() {
            return Some(String::new());
        }
        let clusters = [cluster.clone()].into();
        let survey = self.survey(&meant.cloud, &clusters).await;
        survey.live_jobs(cluster, &meant.oumi_job_id)
    }

    fn ends_clusters(&self) -> bool {
        // Of its own clusters Oumi ends none, whatever `oumi launch down` says.
        self.backend.is_skypilot()
    }

    async fn teardown_cluster(
        &self,
        cloud: &str,
        cluster: &str,
        action: ClusterAction,
    ) -> Result<String> {
        self.backend.validate_cluster(cloud, cluster)?;
        // Where it cannot be found out, the program decides.
        let list = in_budget(self.backend.clusters(Some(cluster))).await;
        let list = list.unwrap_or_default();
        let before = named(&list, cluster);
        let found = before.and_then(cloud_of);
        let checked = check_cloud(cluster, found.as_deref(), cloud, self.clouds());
        checked.map_err(|error| error.context("nothing was done"))?;
        let change = Change::new(action.verb(), cloud, cluster, "");
        let call = self.backend.change_call(&change)?;
        let (dir, output) = self.run_change(&change, call).await?;
        let mut result = self.backend.teardown_result(&change, &output).await;
        // The API server may have deleted it without telling, before the program looked.
        if matches!(&result, Err(error) if error.is_not_found())
            && before.is_some()
            && let Ok(after) = self.backend.clusters(Some(cluster)).await
            && named(&after, cluster).is_none()
        {
            result = Ok(format!("cluster {cluster} is gone"));
        }
        // A failure is listed for a while: nobody may have waited for it.
        if result.is_ok() {
            mark_answered(&dir);
            if action == ClusterAction::Down && before.is_some() {
                self.give_up_launches(cluster);
            }
        }
        result
    }
}

fn already_finished(mut status: JobStatus) -> JobStatus {
    let first_warning = status.warnings.first().cloned();
    let parts: Vec<String> = status.message.into_iter().chain(first_warning).collect();
    status.message = Some(parts.join("; ")).filter(|message| !message.is_empty());
    status
}
