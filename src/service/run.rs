//! How a job comes to be: what is checked, what a dry run shows, and how its launch is begun and waited for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{SecondsFormat, Utc};

use super::answers::{JobAnswer, RunAnswer};
use super::launches::outcome_within;
use super::requests::RunRequest;
use super::sanitize::sanitize;
use super::{JobService, LAUNCH_WAIT, OnProgress, next_step};
use crate::error::JobError;
use crate::in_flight::{LaunchOutcome, LaunchWatch};
use crate::launcher::{JobIdentity, LaunchPlan, LaunchSpec, Resources, status};
use crate::process::job_dir::{JobDir, JobLock};
use crate::redact::{self, Redactor, is_secret_name};
use crate::registry::{JobRecord, RegistryError};
use crate::settings::config::{Config, OumiCommand};

/// What `user_confirmation` must be for a real launch.
const CONFIRMATION: &str = "EXECUTE";
/// The longest job id, in bytes: it is a folder's name.
const MAX_JOB_ID_BYTES: usize = 128;
/// How often it is told how a launch is.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl JobService {
    /// Runs a job, or shows what would be run.
    pub async fn run(&self, request: RunRequest) -> RunAnswer {
        self.run_told(request, &|_| {}).await
    }

    /// The same. `tell` hears what the launch says while it is waited for.
    pub async fn run_told(&self, request: RunRequest, tell: OnProgress<'_>) -> RunAnswer {
        let mut redactors = vec![redactor_of(
            request
                .envs
                .iter()
                .flat_map(BTreeMap::values)
                .map(String::as_str),
        )];
        let answer = match self.prepare(&request, None).await {
            Ok((spec, plan)) => {
                redactors.push(secrets_of(&spec.config, &spec.envs));
                self.run_prepared(&request, spec, plan, tell).await
            }
            Err(error) => RunAnswer {
                status: status::ERROR.to_owned(),
                dry_run: request.dry_run,
                command: request.command,
                config_path: request.config_path,
                cloud: request.cloud,
                cluster_name: request.cluster_name,
                ..RunAnswer::failure(error)
            },
        };
        if !answer.dry_run {
            // The config may have changed while the person was asked.
            redactors.push(self.context.redactor(&answer.job_id).await);
        }
        sanitize(answer, &redactors)
    }

    /// Checks the request, the config first, and asks the launcher what it would do. `job_id` is the one that was made up for
    /// this call before.
    pub(super) async fn prepare(
        &self,
        request: &RunRequest,
        job_id: Option<String>,
    ) -> Result<(LaunchSpec, LaunchPlan), String> {
        let (config_path, client_cwd) = (request.config_path.clone(), request.client_cwd.clone());
        let config = tokio::task::spawn_blocking(move || Config::read(&config_path, &client_cwd))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let command = OumiCommand::parse(&request.command).ok_or_else(|| {
            format!(
                "`command` {:?} is not known; use one of: {}",
                request.command,
                OumiCommand::names()
            )
        })?;
        if request.num_nodes == 0 {
            return Err("`num_nodes` must be 1 or more, not 0".to_owned());
        }
        let envs = request.envs.clone().unwrap_or_default();
        check_envs(&envs)?;
        let job_id = match (request.name(), job_id) {
            (Some(name), _) => job_id_from_name(name)?,
            (None, Some(made_up)) => made_up,
            (None, None) => new_job_id(command),
        };
        let cloud = request.cloud.trim().to_lowercase();
        let launcher = self.context.allowed_launcher(&cloud)?;
        let spec = LaunchSpec {
            identity: JobIdentity {
                job_id,
                cloud,
                cluster: request.cluster_name.trim().to_owned(),
                oumi_job_id: String::new(),
            },
            command,
            config,
            client_cwd: PathBuf::from(&request.client_cwd),
            resources: Resources {
                accelerators: request.accelerators.clone().filter(|text| !text.is_empty()),
                num_nodes: (request.num_nodes > 1).then_some(request.num_nodes),
                use_spot: request.use_spot,
                disk_size: request.disk_size,
            },
            envs,
            file_mounts: request.file_mounts.clone().unwrap_or_default(),
            setup_script: request.setup_script.clone(),
            run_script: request.run_script.clone(),
        };
        let plan = launcher
            .plan(&spec)
            .await
            .map_err(|error| error.to_string())?;
        Ok((spec, plan))
    }

    async fn run_prepared(
        &self,
        request: &RunRequest,
        spec: LaunchSpec,
        plan: LaunchPlan,
        tell: OnProgress<'_>,
    ) -> RunAnswer {
        let known = known_of(request, &spec, &plan);
        if request.dry_run {
            let is_named = request.name().is_some();
            let mut answer = RunAnswer {
                success: true,
                status: "dry_run".to_owned(),
                message: dry_run_message(&spec, &plan),
                plan_id: self.plans.keep(&spec, &plan, is_named),
                job_config: plan.job_config,
                ..known
            };
            // There is no such job: the id of a preview names nothing.
            answer.job_id = request
                .job_name
                .as_ref()
                .map_or_else(String::new, |_| spec.identity.job_id);
            answer.warnings.extend(
                plan.blocked_by
                    .map(|obstacle| format!("it cannot be launched as things are: {obstacle}")),
            );
            return answer;
        }
        if !request.confirm || request.user_confirmation != CONFIRMATION {
            let error = format!(
                "nothing was started: a real launch needs confirm=true and user_confirmation=\"{CONFIRMATION}\"; show the \
                 user a dry_run first and set them once the user has agreed"
            );
            return RunAnswer {
                job_id: String::new(),
                status: status::BLOCKED.to_owned(),
                error: Some(error),
                ..known
            };
        }
        if let Some(obstacle) = plan.blocked_by {
            return RunAnswer {
                job_id: String::new(),
                status: status::ERROR.to_owned(),
                error: Some(obstacle),
                ..known
            };
        }
        let (spec, plan, unbound) = match self.agreed_to_run(request, spec, plan, tell).await {
            Ok(agreed) => agreed,
            Err(reason) => {
                return RunAnswer {
                    job_id: String::new(),
                    status: status::BLOCKED.to_owned(),
                    error: Some(format!("nothing was started: {reason}")),
                    ..known
                };
            }
        };
        let mut known = known_of(request, &spec, &plan);
        known.warnings.extend(unbound);
        // In a task of its own: what is begun is finished, also when nobody waits for the answer any more.
        let service = self.clone();
        let submitting = tokio::spawn(async move { service.submit(spec, plan).await });
        let submitted = submitting.await.map_err(|error| error.to_string());
        match submitted.and_then(|done| done.map_err(|error| error.to_string())) {
            Ok((identity, watch)) => {
                let secrets = self.context.redactor(&identity.job_id).await;
                let tell = |said: &str| tell(&secrets.redact(said));
                self.submitted(known, identity, watch, &tell).await
            }
            Err(error) => RunAnswer {
                job_id: String::new(),
                status: status::ERROR.to_owned(),
                error: Some(error),
                ..known
            },
        }
    }

    /// Records who the job is, then sets its launch going.
    async fn submit(
        &self,
        spec: LaunchSpec,
        plan: LaunchPlan,
    ) -> Result<(JobIdentity, LaunchWatch), RegistryError> {
        let identity = JobIdentity {
            cluster: plan.cluster.clone(),
            ..spec.identity.clone()
        };
        let job_id = identity.job_id.clone();
        let secrets = secrets_of(&spec.config, &spec.envs);
        let record = JobRecord {
            job_id: job_id.clone(),
            command: spec.command.to_string(),
            config_path: spec.config.path.display().to_string(),
            cloud: identity.cloud.clone(),
            cluster_name: identity.cluster.clone(),
            oumi_job_id: String::new(),
            model_name: spec.config.model_name,
            submit_time: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false),
            output_dir: spec.config.output_dir,
            other: serde_json::Map::new(),
        };
        // Before the record, so that whoever finds the record finds the launch too.
        let Some(watch) = self.launches.in_flight().begin(&job_id) else {
            return Err(RegistryError::Duplicate(job_id));
        };
        let dir = self.context.job_dir(&job_id);
        match self
            .context
            .registry
            .insert(record, move || make_job_dir(dir, &secrets))
            .await
        {
            Ok(lock) => {
                self.launches.spawn(identity.clone(), Some((plan, lock)));
                Ok((identity, watch))
            }
            Err(error) => {
                self.launches
                    .in_flight()
                    .evict(&job_id, LaunchOutcome::Failed(error.to_string()));
                Err(error)
            }
        }
    }

    /// Waits a while for the launch, and says how the job is then.
    async fn submitted(
        &self,
        known: RunAnswer,
        identity: JobIdentity,
        watch: LaunchWatch,
        tell: OnProgress<'_>,
    ) -> RunAnswer {
        let outcome = tokio::select! {
            outcome = outcome_within(watch, LAUNCH_WAIT) => outcome,
            never = self.tell_again_and_again(&identity, tell) => match never {},
        };
        let identity = match self.context.registry.get(&identity.job_id).await {
            Ok(Some(record)) => record.identity(),
            _ => identity,
        };
        let known = RunAnswer {
            cluster_name: identity.cluster.clone(),
            cluster: identity.cluster.clone(),
            oumi_job_id: identity.oumi_job_id.clone(),
            ..known
        };
        let (launch_confirmed, happened) = match outcome {
            Some(LaunchOutcome::Failed(reason)) => {
                return RunAnswer {
                    status: status::FAILED.to_owned(),
                    error: Some(format!("{reason}; call get_job_logs for what was said")),
                    ..known
                };
            }
            Some(LaunchOutcome::MayRun(reason)) => {
                return RunAnswer {
                    status: status::UNKNOWN.to_owned(),
                    error: Some(reason),
                    ..known
                };
            }
            Some(LaunchOutcome::Launched(_)) => (true, Some("the job was launched")),
            Some(LaunchOutcome::Cancelled(_)) => {
                let was_taken = !identity.oumi_job_id.is_empty();
                (was_taken, Some("a cancel came during the launch"))
            }
            None => (false, None),
        };
        let known = RunAnswer {
            launch_confirmed,
            ..known
        };
        let status = match self.context.launcher(&identity.cloud) {
            Ok(launcher) => launcher.status(&identity).await,
            Err(error) => Err(JobError::failed(error)),
        };
        match status {
            Ok(status) => RunAnswer {
                success: true,
                message: match happened {
                    Some(happened) => format!("{happened}, and {}", next_step::both(&status)),
                    None => "the launch is under way and its confirmation is pending; call poll_status with the job_id to \
                             see when it is there"
                        .to_owned(),
                },
                status: status.status,
                warnings: known
                    .warnings
                    .iter()
                    .cloned()
                    .chain(status.warnings)
                    .collect(),
                ..known
            },
            Err(error) => RunAnswer {
                success: true,
                status: status::UNKNOWN.to_owned(),
                message: format!(
                    "the job was submitted, but how it is could not be asked: {error}; call poll_status"
                ),
                ..known
            },
        }
    }

    /// Says how a launch is for as long as it is waited for.
    async fn tell_again_and_again(
        &self,
        identity: &JobIdentity,
        tell: OnProgress<'_>,
    ) -> Infallible {
        loop {
            tokio::time::sleep(TELL_AGAIN).await;
            if let Ok(launcher) = self.context.launcher(&identity.cloud)
                && let Ok(status) = launcher.status(identity).await
            {
                tell(&next_step::message(&status, None));
            }
        }
    }
}

/// What is known of a launch before it has begun.
fn known_of(request: &RunRequest, spec: &LaunchSpec, plan: &LaunchPlan) -> RunAnswer {
    RunAnswer {
        job_id: spec.identity.job_id.clone(),
        dry_run: request.dry_run,
        command: spec.command.to_string(),
        config_path: spec.config.path.display().to_string(),
        cloud: spec.identity.cloud.clone(),
        cluster_name: plan.cluster.clone(),
        model_name: spec.config.model_name.clone(),
        cluster: plan.cluster.clone(),
        command_line: plan.command_line.clone(),
        output_dir: spec.config.output_dir.clone(),
        config_kind: Some(spec.config.kind),
        warnings: plan.warnings.clone(),
        ..RunAnswer::default()
    }
}

/// Makes the folder of a new job. One without a record was left by a server that died between the two, unless it lives.
fn make_job_dir(dir: Option<JobDir>, secrets: &Redactor) -> Result<JobLock, String> {
    let dir = dir.ok_or("the job id is no name for a folder; choose another job_name")?;
    let failed = |error: std::io::Error| {
        format!(
            "cannot make the job's folder {}: {error}; check its permissions and free space",
            dir.path().display()
        )
    };
    if dir.exists().map_err(failed)? {
        if dir.is_locked().map_err(failed)? {
            return Err(format!(
                "processes of an earlier job still use {}; choose another job_name",
                dir.path().display()
            ));
        }
        dir.remove().map_err(failed)?;
    }
    let (dir, lock) = JobDir::create(dir.path()).map_err(failed)?;
    dir.write_secrets(secrets).map_err(failed)?;
    Ok(lock)
}

/// What of a job's environment must never be shown: all that the call gave, and what the config or this process's own
/// environment calls a secret.
pub(super) fn secrets_of(config: &Config, envs: &BTreeMap<String, String>) -> Redactor {
    let in_config = config
        .document
        .get("envs")
        .and_then(serde_json::Value::as_object)
        .into_iter()
        .flatten();
    let named = in_config
        .filter(|(name, _)| is_secret_name(name))
        .filter_map(|(_, value)| value.as_str());
    redactor_of(envs.values().map(String::as_str).chain(named))
}

/// Knows these values, and those that the job inherits from this process.
fn redactor_of<'a>(values: impl Iterator<Item = &'a str>) -> Redactor {
    let inherited: Vec<String> = redact::env_secrets().collect();
    let values: Vec<&str> = values.collect();
    let inherited = inherited.iter().map(String::as_str);
    Redactor::new(values.into_iter().chain(inherited))
}

fn new_job_id(command: OumiCommand) -> String {
    let now = Utc::now().format("%Y%m%d_%H%M%S");
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{command}_{now}_{}", &random[..6])
}

fn job_id_from_name(name: &str) -> Result<String, String> {
    let cleaned = name.replace("..", "_").replace(['/', '\\'], "_");
    let job_id = cleaned.trim_matches(['.', '_', '-', ' ']);
    if job_id.is_empty() {
        return Err(format!(
            "`job_name` {name:?} leaves no name; use letters and digits"
        ));
    }
    if job_id.chars().any(char::is_control) {
        return Err(format!(
            "`job_name` {name:?} holds control characters; use letters and digits"
        ));
    }
    if job_id.len() > MAX_JOB_ID_BYTES {
        return Err(format!(
            "`job_name` is longer than {MAX_JOB_ID_BYTES} bytes; use a shorter one"
        ));
    }
    Ok(job_id.to_owned())
}

/// The names only are ever spoken of: the values are secret.
fn check_envs(envs: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in envs {
        let mut characters = name.chars();
        let starts_well = characters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !characters.all(|other| other.is_ascii_alphanumeric() || other == '_') {
            return Err(format!(
                "`envs` has the name {name:?}, which no environment variable can have; use letters, digits and `_`"
            ));
        }
        if value.contains('\0') {
            return Err(format!(
                "`envs` has a NUL character in the value of {name}; remove it"
            ));
        }
    }
    Ok(())
}

fn dry_run_message(spec: &LaunchSpec, plan: &LaunchPlan) -> String {
    let place = if plan.cluster.is_empty() {
        format!("on {}", spec.identity.cloud)
    } else {
        format!("on {}, cluster {}", spec.identity.cloud, plan.cluster)
    };
    // Some of them change what runs: who is asked to agree should know of them.
    let names: Vec<&str> = spec.envs.keys().map(String::as_str).collect();
    let variables = if names.is_empty() {
        String::new()
    } else {
        format!("Variables (values not shown): {}\n", names.join(", "))
    };
    format!(
        "Dry run: nothing was started. Would run, {place}: {}\nModel: {}\nOutput: {}\nConfig: {} ({} config)\n{variables}Show \
         this to the user; once they agree, call run_job again with dry_run=false, confirm=true, user_confirmation=\"{CONFIRMATION}\" and the plan_id.",
        plan.command_line,
        spec.config.model_name,
        spec.config.output_dir,
        spec.config.path.display(),
        match spec.config.kind {
            crate::settings::config::ConfigKind::Job => "job",
            crate::settings::config::ConfigKind::Training => "training",
        },
    )
}
