//! Preparation of a launch: checks the request and its config, and has the launcher plan it. Nothing is started or written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::Utc;

use super::context::Context;
use super::requests::RunRequest;
use crate::error::JobError;
use crate::launcher::{JobIdentity, LaunchPlan, LaunchSpec, Resources};
use crate::redact::{self, Redactor, is_secret_name};
use crate::settings::config::{Config, OumiCommand};

/// The longest job id, in bytes: it names a folder.
const MAX_JOB_ID_BYTES: usize = 128;

/// A launch that is checked and planned.
pub(super) struct PreparedLaunch {
    pub(super) spec: LaunchSpec,
    pub(super) plan: LaunchPlan,
    /// The request named the job; else its id, and the name of a new cluster, were generated.
    pub(super) is_named: bool,
}

impl PreparedLaunch {
    /// Knows what of the job's environment must not be shown: all values of the call, and what the config or this process's
    /// own environment calls a secret.
    pub(super) fn redactor(&self) -> Redactor {
        let config = self.spec.config.document.get("envs");
        let config = config.and_then(serde_json::Value::as_object);
        let named = config
            .into_iter()
            .flatten()
            .filter(|(name, _)| is_secret_name(name))
            .filter_map(|(_, value)| value.as_str());
        redactor_of(self.spec.envs.values().map(String::as_str).chain(named))
    }
}

/// Knows these values, and those that the job inherits from this process.
pub(super) fn redactor_of<'a>(values: impl Iterator<Item = &'a str>) -> Redactor {
    let inherited: Vec<String> = redact::env_secrets().collect();
    let values: Vec<&str> = values.collect();
    let inherited = inherited.iter().map(String::as_str);
    Redactor::new(values.into_iter().chain(inherited))
}

/// Prepares the launch of a request. `generated_id` is the id that an earlier preparation of the same call generated.
pub(super) async fn prepare(
    context: &Context,
    request: &RunRequest,
    generated_id: Option<String>,
) -> Result<PreparedLaunch, JobError> {
    let (config_path, client_cwd) = (request.config_path.clone(), request.client_cwd.clone());
    let config = tokio::task::spawn_blocking(move || Config::read(&config_path, &client_cwd))
        .await
        .map_err(JobError::failed)?
        .map_err(JobError::invalid)?;
    let command = OumiCommand::parse(&request.command).ok_or_else(|| {
        JobError::invalid(format!("`command` {:?} is not known", request.command))
            .with_hint(format!("use one of: {}", OumiCommand::names()))
    })?;
    if request.num_nodes == 0 {
        return Err(JobError::invalid("`num_nodes` must be 1 or more, not 0"));
    }
    let envs = request.envs.clone().unwrap_or_default();
    check_envs(&envs)?;
    let job_id = match (request.name(), generated_id) {
        (Some(name), _) => job_id_from_name(name)?,
        (None, Some(generated)) => generated,
        (None, None) => new_job_id(command),
    };
    let cloud = request.cloud.trim().to_lowercase();
    let launcher = context.allowed_launcher(&cloud)?;
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
    let plan = launcher.plan(&spec).await?;
    Ok(PreparedLaunch {
        spec,
        plan,
        is_named: request.name().is_some(),
    })
}

fn new_job_id(command: OumiCommand) -> String {
    let now = Utc::now().format("%Y%m%d_%H%M%S");
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{command}_{now}_{}", &random[..6])
}

fn job_id_from_name(name: &str) -> Result<String, JobError> {
    let cleaned = name.replace("..", "_").replace(['/', '\\'], "_");
    let job_id = cleaned.trim_matches(['.', '_', '-', ' ']);
    let invalid = |problem: &str| {
        JobError::invalid(format!("`job_name` {name:?} {problem}"))
            .with_hint("use letters and digits")
    };
    if job_id.is_empty() {
        return Err(invalid("leaves no name"));
    }
    if job_id.chars().any(char::is_control) {
        return Err(invalid("holds control characters"));
    }
    if job_id.len() > MAX_JOB_ID_BYTES {
        let error = format!("`job_name` is longer than {MAX_JOB_ID_BYTES} bytes");
        return Err(JobError::invalid(error).with_hint("use a shorter one"));
    }
    Ok(job_id.to_owned())
}

/// Checks the variables of a call. An error shows their names only: the values are secret.
fn check_envs(envs: &BTreeMap<String, String>) -> Result<(), JobError> {
    for (name, value) in envs {
        let is_word = |other: char| other.is_ascii_alphanumeric() || other == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(is_word)
        {
            let error =
                format!("`envs` has the name {name:?}, which no environment variable can have");
            return Err(JobError::invalid(error).with_hint("use letters, digits and `_`"));
        }
        if value.contains('\0') {
            let error = format!("`envs` has a NUL character in the value of {name}");
            return Err(JobError::invalid(error).with_hint("remove it"));
        }
    }
    Ok(())
}
