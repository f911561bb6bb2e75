//! Launches onto clouds: `oumi launch up` under a supervisor, what its folder says of it afterwards, and the search for the job of
//! one that was cut off.

use std::fs::DirEntry;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::CloudLauncher;
use super::claims::find_job;
use super::clusters::cloud_of;
use super::launch_dir::{
    ClusterBefore, JobMark, Launch, LaunchStart, START, Verdict, number, read_json,
};
use super::survey::{Found, Survey};
use crate::error::{JobError, Result};
use crate::launcher::job_yaml::JobConfig;
use crate::launcher::{
    JobIdentity, JobState, JobStatus, LaunchPlan, LaunchSpec, check_cloud, job_dir,
};
use crate::parse::sky::{QueuedJob, named};
use crate::process::job_dir::{ExitRecord, JobDir};
use crate::process::plan::{Step, SupervisorPlan};
use crate::process::runner::{CliCall, in_budget};
use crate::process::{find, start};
use crate::redact::Redactor;
use crate::settings::data_dir::if_found;

pub(super) const STEP: &str = "launch";
const CANCELLED: &str = "it was cancelled before it was launched";
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The first and the longest pause between two searches for the job of an interrupted launch.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl CloudLauncher {
    pub(super) fn dir(&self, identity: &JobIdentity) -> Result<JobDir> {
        job_dir(&self.folder, identity)
    }

    /// Logs an error about a job, without its secrets.
    pub(super) fn warn(&self, identity: &JobIdentity, error: &JobError, event: &str) {
        let known = self.dir(identity).and_then(|dir| Ok(dir.secrets()?));
        let known = known.unwrap_or_else(|error| Redactor::unreadable(&error));
        let (job_id, reason) = (&identity.job_id, known.redact(&error.to_string()));
        tracing::warn!(job_id, reason, "{event}");
    }

    /// Plans a launch onto `cluster`. The variables of the job are in its config.
    pub(super) fn plan_launch(
        &self,
        spec: &LaunchSpec,
        cluster: String,
        mut config: JobConfig,
    ) -> Result<LaunchPlan> {
        config.warn_of_missing_files(&spec.client_cwd);
        let staged = staged_path(&self.dir(&spec.identity)?);
        let program = find::find_oumi(&spec.client_cwd)?;
        let (oumi, yaml) = (program.display().to_string(), staged.display().to_string());
        let up = ["launch", "up", "-c", &yaml, "--cluster", &cluster];
        let argv = [&[oumi.as_str()], up.as_slice(), &["--detach"]].concat();
        let command_line = shlex::try_join(argv.iter().copied()).map_err(JobError::failed)?;
        let mut envs = self.backend.envs(&spec.identity.cloud, &cluster);
        envs.extend(CliCall::new(&program, &[], Duration::ZERO).envs);
        let process = start::StartRequest {
            plan: SupervisorPlan {
                steps: vec![Step::new(STEP, argv)],
                working_dir: spec.client_cwd.clone(),
                cleanup: vec![staged.clone()],
                ..SupervisorPlan::default()
            },
            envs,
            files: vec![(staged, config.to_yaml().map_err(JobError::failed)?)],
        };
        Ok(LaunchPlan {
            command_line,
            cluster,
            job_config: Some(config.redacted()),
            process,
            warnings: config.warnings,
            autostop: None,
            epilogue: None,
        })
    }

    /// Finds out what the cluster of a launch is before it. Fails where it is on another cloud by now.
    pub(super) async fn before_launch(
        &self,
        identity: &JobIdentity,
        plan: &LaunchPlan,
    ) -> Result<LaunchStart> {
        let JobIdentity { cloud, cluster, .. } = identity;
        let config = plan.job_config.as_ref();
        let name = config.and_then(|config| config["name"].as_str());
        let mut start = LaunchStart {
            name: name.unwrap_or_default().to_owned(),
            cluster: cluster.clone(),
            place: self.backend.place(),
            ..LaunchStart::default()
        };
        let clusters = self.backend.clusters(Some(cluster)).await;
        let (true, Ok(clusters)) = (self.backend.is_skypilot(), clusters) else {
            return Ok(start);
        };
        let Some(found) = named(&clusters, cluster) else {
            (start.was_there, start.before) = (Some(false), Some(ClusterBefore::default()));
            return Ok(start);
        };
        start.was_there = Some(true);
        let found_on = cloud_of(found);
        check_cloud(cluster, found_on.as_deref(), cloud, self.backend.clouds())?;
        let survey = self.survey(cloud, &[cluster.clone()].into()).await;
        start.is_anothers = survey.clusters.is_ok() && survey.cluster(cluster).is_none();
        start.before = survey.listed(cluster).map(|jobs| ClusterBefore {
            cluster_hash: found.cluster_hash.clone(),
            last_job_id: jobs.iter().map(number).max().unwrap_or(0),
        });
        Ok(start)
    }

    /// Reads the launch of a job. One that has ended with a job is read again only where its folder was changed.
    pub(super) fn launch(&self, identity: &JobIdentity) -> Result<Launch> {
        let dir = self.dir(identity)?;
        let read = || -> io::Result<Launch> {
            let version = match self.ended_launches.get(dir.path()) {
                Ok(launch) => return Ok(launch),
                Err(version) => version,
            };
            let launch = Launch::read(&dir, &identity.cluster)?;
            if launch.has_ended && launch.oumi_job_id().is_some() {
                self.ended_launches.keep(dir.path(), version, &launch);
            }
            Ok(launch)
        };
        let path = dir.path().display();
        read().map_err(|error| JobError::failed(format!("cannot read {path}: {error}")))
    }

    /// Returns the launch of a job; `None` when no server of this folder launched it.
    pub(super) fn own_launch(&self, identity: &JobIdentity) -> Option<Launch> {
        let launch = self.launch(identity).ok()?;
        launch.started_at.is_some().then_some(launch)
    }

    /// Returns the other launches onto the cluster of a job. Folders that cannot be read are passed over.
    fn other_launches(&self, identity: &JobIdentity, cluster: &str) -> io::Result<Vec<Launch>> {
        let other = |folder: DirEntry| {
            let start: LaunchStart = read_json(&JobDir::at(folder.path()), START).ok()??;
            let other = JobIdentity {
                job_id: folder.file_name().into_string().ok()?,
                cluster: cluster.to_owned(),
                ..identity.clone()
            };
            let is_meant = start.cluster == cluster && other.job_id != identity.job_id;
            is_meant.then(|| self.launch(&other).ok())?
        };
        let folders = std::fs::read_dir(self.folder.jobs())?.flatten();
        Ok(folders.filter_map(other).collect())
    }

    /// Notes of the launches onto a cluster that were cut off that no job comes of them: SkyPilot ends with a cluster what it
    /// carries on.
    pub(super) fn give_up_launches(&self, cluster: &str) {
        let place = self.backend.place();
        let launches = self.other_launches(&JobIdentity::default(), cluster);
        let is_left = |it: &Launch| {
            it.has_ended && it.oumi_job_id().is_none() && it.other_place(&place).is_none()
        };
        for launch in launches.into_iter().flatten().filter(is_left) {
            if let Err(error) = Verdict::NoJob.write(&JobDir::at(launch.folder)) {
                tracing::warn!(cluster, %error, "cannot note that a launch has no job");
            }
        }
    }

    /// Returns the launch of a job, with the verdict which job of its cluster is its. That is kept, so that the job stays the job of
    /// this launch. Adds to the cluster in the survey the price that it had then.
    pub(super) fn claim_job(&self, identity: &JobIdentity, survey: &mut Survey) -> Option<Launch> {
        let mut launch = self.own_launch(identity)?;
        let cluster = &launch.start.cluster;
        let hash = survey.cluster_hash(&identity.cluster);
        let is_open = self.backend.is_skypilot() && launch.verdict.is_none() && launch.has_ended;
        if is_open
            && !survey.jobs(&identity.cluster).is_empty()
            && survey.check_cloud(identity).is_ok()
            && let Ok(others) = self.other_launches(identity, cluster)
            && let Some(job) = find_job(&launch, survey.jobs(&identity.cluster), hash, &others)
            // Whoever knows the job by another id is not told of this one.
            && ["", &job.job_id].contains(&identity.oumi_job_id.as_str())
            && let Some(mark) = JobMark::of(job, hash)
        {
            let verdict = Verdict::Job(job.job_id.clone(), mark);
            if let Err(error) = self.dir(identity).and_then(|dir| Ok(verdict.write(&dir)?)) {
                let job_id = &identity.job_id;
                tracing::warn!(job_id, %error, "cannot keep what tells a job from another");
            }
            launch.verdict = Some(verdict);
        }
        survey.add_price(&launch);
        Some(launch)
    }

    /// Waits for the end of a launch. The job of one that was cut off and left no id is looked for by its name on the cluster,
    /// until it is there or no longer to be expected.
    pub(super) async fn wait_for_job(&self, identity: &JobIdentity) -> Result<JobIdentity> {
        let launched = |oumi_job_id| JobIdentity {
            oumi_job_id,
            ..identity.clone()
        };
        let mut pause = RETRY_MIN;
        loop {
            let launch = self.wait_for_end(identity).await?;
            let status = launch.status(self.backend.is_skypilot());
            let printed = launch.oumi_job_id().cloned();
            match status.state {
                JobState::Cancelled => return Err(JobError::failed(CANCELLED)),
                JobState::Failed => {
                    return Err(JobError::failed(status.message.unwrap_or_default()));
                }
                _ if self.backend.is_skypilot() => {}
                _ => {
                    let error = JobError::failed("its launch left no id")
                        .with_hint("call list_jobs: a job that is on the cluster is listed there");
                    return printed.map(launched).ok_or(error);
                }
            }
            // While its cluster is certainly its own, the job is marked. That decides against what was printed.
            // The programs have timeouts of their own; a launch that printed its id need not wait for them.
            let surveying = self.survey_job(identity);
            // A query that began before does not show the job.
            self.cli.invalidate();
            let (survey, found) = if printed.is_some() {
                in_budget(surveying).await
            } else {
                surveying.await
            };
            let id = found.and_then(|found| found.oumi_job_id().cloned());
            if let Some(id) = id.or(printed) {
                return Ok(launched(id));
            }
            let missing = check_is_missing(identity, &survey, &launch);
            if status.state != JobState::Pending {
                missing.map_err(JobError::unavailable)?;
                // The next round finds that the launch has failed.
                Verdict::NoJob.write(&self.dir(identity)?)?;
                continue;
            }
            if let Err(error) = missing {
                let event = "cannot look for the job of an interrupted launch";
                self.warn(identity, &error, event);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn wait_for_end(&self, identity: &JobIdentity) -> Result<Launch> {
        loop {
            let launch = self.launch(identity).map_err(JobError::unavailable)?;
            if launch.has_ended {
                // The supervisor removes it, unless it was killed.
                if let Err(error) = remove_staged(&self.dir(identity)?) {
                    tracing::warn!(job_id = identity.job_id, %error, "cannot remove the staged config, which holds secrets");
                }
                return Ok(launch);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) fn cancel_unless_begun(&self, identity: &JobIdentity) -> Result<JobStatus> {
        let dir = self.dir(identity)?;
        // Without its folder, as of a record of the Python server, nothing is known of it.
        if dir.log_path().try_exists()? || !dir.exists()? {
            return Err(JobError::failed(
                "its launch left no id to cancel by; its cluster may be up and cost money: call list_jobs to see",
            ));
        }
        dir.write_exit_record(&ExitRecord::cancelled(STEP))?;
        Ok(JobStatus::cancelled().with_message(CANCELLED))
    }
}

/// Fails where the job of an interrupted launch may be on its cluster all the same.
fn check_is_missing(identity: &JobIdentity, survey: &Survey, launch: &Launch) -> Result<()> {
    let cluster = &identity.cluster;
    let has_its_name = |row: &QueuedJob| {
        row.job_name == launch.start.name
            && launch.is_of_run(row) != Some(false)
            && row.user.is_none()
    };
    if launch.started_at.is_none() {
        return match launch.last_output_at {
            // It never began.
            None => Ok(()),
            Some(_) => Err(JobError::unavailable("what its launch did is not known")),
        };
    }
    if launch.start.before.is_none() && survey.jobs(cluster).iter().any(has_its_name) {
        let error = format!("which job of cluster {cluster} is this one is not certain");
        return Err(JobError::unavailable(error));
    }
    let job = survey.job(identity, Some(launch));
    match job.found {
        Found::NotListed => Ok(()),
        _ => match job.status()? {
            status if status.is_done => Ok(()),
            status => Err(JobError::unavailable(status.message.unwrap_or_default())),
        },
    }
}

/// Removes the staged config, which holds secrets.
pub(super) fn remove_staged(dir: &JobDir) -> Result<()> {
    Ok(if_found(std::fs::remove_file(staged_path(dir))).map(drop)?)
}

fn staged_path(dir: &JobDir) -> PathBuf {
    dir.path().join("job.yaml")
}
