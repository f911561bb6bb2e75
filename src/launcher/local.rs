//! Jobs on this machine: a supervised process each.

mod termination;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{
    CancelOutcome, ClusterAction, JobIdentity, JobLog, JobState, JobStatus, LaunchPlan, LaunchSpec,
    Launcher, LauncherTraits, ListedJob, Listing, LogContent, status,
};
use crate::error::JobError;
use crate::process::job_dir::{ExitRecord, JobDir, JobLock};
use crate::process::table::ProcessTable;
use crate::process::{blocking, find, start, supervisor};
use crate::settings::config::{ConfigKind, expand_home};
use crate::settings::data_dir::DataDir;
use termination::cancel;

/// The name of this machine among the clouds.
pub const LOCAL: &str = "local";
/// A poll here reads a few small files.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Runs jobs on this machine under a supervisor each.
#[derive(Debug, Clone)]
pub struct LocalLauncher {
    folder: DataDir,
    supervisor: PathBuf,
}

impl LocalLauncher {
    /// A launcher whose jobs live in `folder`. `supervisor` is the program to run as `supervise`: this one.
    pub fn new(folder: DataDir, supervisor: PathBuf) -> Self {
        Self { folder, supervisor }
    }

    fn dir(&self, identity: &JobIdentity) -> Result<JobDir, JobError> {
        job_dir(&self.folder, identity)
    }
}

/// Returns the folder of a job that this server started.
pub(super) fn job_dir(folder: &DataDir, identity: &JobIdentity) -> Result<JobDir, JobError> {
    folder.job(&identity.job_id).map(JobDir::at).ok_or_else(|| {
        // One that is asked about by the launcher's id alone is in no registry.
        let asked = match identity.job_id.as_str() {
            "" => &identity.oumi_job_id,
            job_id => job_id,
        };
        JobError::not_found(format!(
            "{asked:?} is not the id of a job on this machine; call list_jobs for the ids"
        ))
    })
}

#[async_trait::async_trait]
impl Launcher for LocalLauncher {
    fn clouds(&self) -> &'static [&'static str] {
        &[LOCAL]
    }

    fn traits(&self) -> LauncherTraits {
        LauncherTraits {
            is_local: true,
            costs_money: false,
            poll_interval: Some(POLL_INTERVAL),
        }
    }

    async fn plan(&self, spec: &LaunchSpec) -> Result<LaunchPlan, JobError> {
        let (folder, spec) = (self.folder.clone(), spec.clone());
        blocking(move || {
            let dir = job_dir(&folder, &spec.identity)?;
            Ok(match spec.config.kind {
                ConfigKind::Training => plan_training(&dir, &spec),
                ConfigKind::Job => plan_job(&dir, &spec),
            })
        })
        .await
    }

    async fn start(
        &self,
        identity: &JobIdentity,
        plan: LaunchPlan,
        lock: JobLock,
    ) -> Result<(), JobError> {
        let dir = self.dir(identity)?;
        start::start(&self.supervisor, &dir, lock, plan.process).await
    }

    async fn wait_for_launch(&self, identity: &JobIdentity) -> Result<JobIdentity, JobError> {
        // The id of a job on this machine is ours; there is nothing to wait for.
        let settled = JobIdentity {
            oumi_job_id: identity.job_id.clone(),
            ..identity.clone()
        };
        Ok(settled)
    }

    async fn status(&self, identity: &JobIdentity) -> Result<JobStatus, JobError> {
        let dir = self.dir(identity);
        blocking(move || probe(&dir?, &mut None)).await
    }

    async fn list(&self, known: &[JobIdentity]) -> Result<Listing, JobError> {
        let (folder, known) = (self.folder.clone(), known.to_vec());
        blocking(move || {
            let mut listing = Listing::default();
            let mut processes = None;
            for identity in known {
                let dir = job_dir(&folder, &identity);
                match dir.and_then(|dir| probe(&dir, &mut processes)) {
                    Ok(status) => listing.jobs.push(ListedJob { identity, status }),
                    Err(error) => {
                        let warning = format!("job {}: {error}", identity.job_id);
                        listing.warnings.push(warning);
                    }
                }
            }
            Ok(listing)
        })
        .await
    }

    async fn logs(&self, identity: &JobIdentity) -> Result<JobLog, JobError> {
        let dir = self.dir(identity);
        blocking(move || {
            let dir = dir?;
            let ended = probe(&dir, &mut None).is_ok_and(|status| status.is_done);
            output_log(&dir, ended)
        })
        .await
    }

    async fn cancel(&self, identity: &JobIdentity, force: bool) -> Result<CancelOutcome, JobError> {
        cancel(self.dir(identity)?, force).await
    }

    async fn teardown_cluster(
        &self,
        _cloud: &str,
        _cluster: &str,
        _action: ClusterAction,
    ) -> Result<String, JobError> {
        let error =
            JobError::failed("this machine is no cluster; call cancel_job to end a job on it");
        Err(error)
    }
}

/// Returns the output of a supervised process, which has `ended` or not.
pub(super) fn output_log(dir: &JobDir, ended: bool) -> Result<JobLog, JobError> {
    let path = dir.log_path();
    match path.metadata() {
        Ok(_) => Ok(JobLog {
            log_file: path.display().to_string(),
            content: LogContent::File(path),
            ended,
            message: None,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(JobError::not_found(format!(
            "no log of this job is left: {} does not exist",
            path.display()
        ))),
        Err(error) => Err(JobError::failed(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

fn plan_training(dir: &JobDir, spec: &LaunchSpec) -> LaunchPlan {
    let (program, obstacle) = match find::find_oumi(&spec.client_cwd) {
        Ok(path) => (path, None),
        Err(missing) => (PathBuf::from("oumi"), Some(missing.to_string())),
    };
    let mut argv = vec![
        program.display().to_string(),
        spec.command.subcommand().to_owned(),
        "-c".to_owned(),
    ];
    argv.push(spec.config.path.display().to_string());
    let mut envs = BTreeMap::new();
    if let Some(path) = find::path_with_folder_of(&program) {
        envs.insert("PATH".to_owned(), path);
    }
    // Where Oumi writes one log a rank.
    envs.insert(
        "OUMI_LOGGING_DIR".to_owned(),
        dir.path().join("logs").display().to_string(),
    );
    envs.extend(spec.envs.clone());
    let steps = vec![supervisor::Step {
        name: "run".to_owned(),
        argv,
    }];
    LaunchPlan {
        blocked_by: obstacle,
        ..local_plan(spec, steps, spec.client_cwd.clone(), envs, Vec::new())
    }
}

fn plan_job(dir: &JobDir, spec: &LaunchSpec) -> LaunchPlan {
    let working_dir = spec
        .config
        .text("working_dir")
        .map_or_else(PathBuf::new, expand_home);
    let mut steps = Vec::new();
    let mut files = Vec::new();
    for name in ["setup", "run"] {
        let Some(script) = spec
            .config
            .text(name)
            .filter(|script| !script.trim().is_empty())
        else {
            continue;
        };
        // In a file, since a script may be longer than an argument can be.
        let path = dir.path().join(format!("{name}.sh"));
        let argv = vec!["bash".to_owned(), path.display().to_string()];
        steps.push(supervisor::Step {
            name: name.to_owned(),
            argv,
        });
        files.push((path, script.to_owned()));
    }
    let mut envs = BTreeMap::new();
    // A `run` that calls `oumi` means the one that is found here; a client's PATH rarely has it.
    if let Ok(program) = find::find_oumi(&spec.client_cwd)
        && let Some(path) = find::path_with_folder_of(&program)
    {
        envs.insert("PATH".to_owned(), path);
    }
    envs.extend(config_envs(spec));
    envs.extend(spec.envs.clone());
    let obstacle = if steps.is_empty() {
        Some(format!(
            "the job config {} has neither `setup` nor `run`; give it a `run`",
            spec.config.path.display()
        ))
    } else {
        which::which("bash")
            .err()
            .map(|_| "bash was not found on PATH; a job config is run by it".to_owned())
    };
    LaunchPlan {
        blocked_by: obstacle,
        ..local_plan(spec, steps, spec.client_cwd.join(working_dir), envs, files)
    }
}

/// The `envs` of a job config, as the texts that Oumi 0.9 makes of them.
fn config_envs(spec: &LaunchSpec) -> BTreeMap<String, String> {
    let envs = spec.config.document.get("envs").and_then(Value::as_object);
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    };
    envs.into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn local_plan(
    spec: &LaunchSpec,
    steps: Vec<supervisor::Step>,
    working_dir: PathBuf,
    envs: BTreeMap<String, String>,
    files: Vec<(PathBuf, String)>,
) -> LaunchPlan {
    let line = |step: &supervisor::Step| {
        shlex::try_join(step.argv.iter().map(String::as_str)).unwrap_or_default()
    };
    LaunchPlan {
        command_line: steps.iter().map(line).collect::<Vec<_>>().join(" && "),
        cluster: String::new(),
        job_config: None,
        warnings: ignored_options(spec),
        blocked_by: None,
        process: start::StartRequest {
            plan: supervisor::SupervisorPlan {
                steps,
                working_dir,
                cancellable: true,
                cleanup: Vec::new(),
            },
            envs,
            files,
        },
    }
}

/// Warns of options that have no effect on this machine.
fn ignored_options(spec: &LaunchSpec) -> Vec<String> {
    let mut ignored: Vec<&str> = Vec::new();
    let document = &spec.config.document;
    let resources = document.get("resources");
    let asked = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
    let filled = |key: &str| {
        document
            .get(key)
            .is_some_and(|value| value.as_object().is_some_and(|map| !map.is_empty()))
    };
    if filled("file_mounts") || !spec.file_mounts.is_empty() {
        ignored.push("file_mounts");
    }
    if filled("storage_mounts") {
        ignored.push("storage_mounts");
    }
    let nodes_in_config = document
        .get("num_nodes")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    if nodes_in_config > 1 || spec.resources.num_nodes.is_some_and(|nodes| nodes > 1) {
        ignored.push("num_nodes");
    }
    if asked(resources.and_then(|resources| resources.get("accelerators")))
        || spec.resources.accelerators.is_some()
    {
        ignored.push("accelerators");
    }
    if resources
        .and_then(|resources| resources.get("use_spot"))
        .and_then(Value::as_bool)
        .unwrap_or(false)
        || spec.resources.use_spot
    {
        ignored.push("use_spot");
    }
    if spec.resources.disk_size.is_some() {
        ignored.push("disk_size");
    }
    if spec.setup_script.is_some() {
        ignored.push("setup_script");
    }
    if spec.run_script.is_some() {
        ignored.push("run_script");
    }
    if !spec.identity.cluster.is_empty() {
        ignored.push("cluster_name");
    }
    let mut warnings: Vec<String> = ignored
        .iter()
        .map(|what| format!("`{what}` has no meaning for a job on this machine and is ignored"))
        .collect();
    if let Some(cloud) = spec.config.cloud().filter(|cloud| cloud != LOCAL) {
        warnings.push(format!(
            "the config asks for cloud `{cloud}`, but the job runs on this machine, because `cloud` is `{LOCAL}`; pass \
             cloud=\"{cloud}\" to run it there"
        ));
    }
    warnings
}

/// Returns the status of the job in `dir`: by its exit record, else its lock, else its processes, which are listed when they
/// are needed first and kept for the next job of a list.
fn probe(dir: &JobDir, processes: &mut Option<ProcessTable>) -> Result<JobStatus, JobError> {
    let status = || -> io::Result<JobStatus> {
        if let Some(record) = dir.exit_record()? {
            return Ok(ended_status(&record));
        }
        if is_alive(dir, processes)? {
            return running_status(dir);
        }
        // It may have ended between the two looks.
        if let Some(record) = dir.exit_record()? {
            return Ok(ended_status(&record));
        }
        // The request is written only while the job lives.
        if dir.termination_request()?.is_some() {
            return Ok(cancelled_status());
        }
        Ok(lost_status())
    };
    let mut status = { status }().map_err(|error| {
        JobError::failed(format!("cannot read {}: {error}", dir.path().display()))
    })?;
    status.log_file = dir.log_path().display().to_string();
    Ok(status)
}

fn is_alive(dir: &JobDir, processes: &mut Option<ProcessTable>) -> io::Result<bool> {
    if dir.is_locked()? {
        return Ok(true);
    }
    if !dir.exists()? {
        return Ok(false);
    }
    let processes = match processes {
        Some(processes) => processes,
        None => processes.insert(ProcessTable::snapshot_with_environments()?),
    };
    Ok(!processes.job_members(dir.path()).is_empty())
}

fn running_status(dir: &JobDir) -> io::Result<JobStatus> {
    let mut status = JobStatus::new(status::RUNNING, JobState::Running, false);
    if dir.termination_request()?.is_some() {
        let message = "it was asked to stop and has not ended yet; call cancel_job with force=true to kill it";
        status.message = Some(message.to_owned());
    }
    Ok(status)
}

fn lost_status() -> JobStatus {
    let mut status = JobStatus::new(status::LOST, JobState::Unknown, true);
    let message = "how it ended is not known: its supervisor was killed; read its log";
    status.message = Some(message.to_owned());
    status
}

fn cancelled_status() -> JobStatus {
    JobStatus::new(status::CANCELLED, JobState::Cancelled, true)
}

fn ended_status(record: &ExitRecord) -> JobStatus {
    let mut status = if record.cancelled {
        cancelled_status()
    } else if record.succeeded() {
        JobStatus::new(status::COMPLETED, JobState::Succeeded, true)
    } else {
        let mut status = JobStatus::new(status::FAILED, JobState::Failed, true);
        status.message = Some(record.describe());
        status
    };
    status.details.ended_at = Some(record.ended_at.clone());
    status.details.exit_code = record.code;
    status.details.signal = record.signal;
    status
}
