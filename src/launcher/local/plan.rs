//! The plan of a job on this machine: the programs that its supervisor runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::LOCAL;
use crate::launcher::{LaunchPlan, LaunchSpec};
use crate::process::find;
use crate::process::job_dir::JobDir;
use crate::process::start::StartRequest;
use crate::process::supervisor::{Step, SupervisorPlan};
use crate::settings::config::{ConfigKind, expand_home};

pub(super) fn plan(dir: &JobDir, spec: &LaunchSpec) -> LaunchPlan {
    let mut process = StartRequest {
        plan: SupervisorPlan {
            steps: Vec::new(),
            working_dir: spec.client_cwd.clone(),
            cancellable: true,
            cleanup: Vec::new(),
            time_limit_seconds: None,
        },
        envs: BTreeMap::new(),
        files: Vec::new(),
    };
    let blocked_by = match spec.config.kind {
        ConfigKind::Training => plan_training(dir, spec, &mut process),
        ConfigKind::Job => plan_job(dir, spec, &mut process),
    };
    process.envs.extend(spec.envs.clone());
    let line =
        |step: &Step| shlex::try_join(step.argv.iter().map(String::as_str)).unwrap_or_default();
    LaunchPlan {
        command_line: process
            .plan
            .steps
            .iter()
            .map(line)
            .collect::<Vec<_>>()
            .join(" && "),
        cluster: String::new(),
        job_config: None,
        warnings: warnings(spec),
        blocked_by,
        process,
    }
}

fn plan_training(dir: &JobDir, spec: &LaunchSpec, process: &mut StartRequest) -> Option<String> {
    let (program, blocked_by) = match find::find_oumi(&spec.client_cwd) {
        Ok(path) => (path, None),
        Err(missing) => (PathBuf::from("oumi"), Some(missing.to_string())),
    };
    let path = find::path_with_folder_of(&program);
    process
        .envs
        .extend(path.map(|path| ("PATH".to_owned(), path)));
    // Oumi writes one log a rank there.
    let logs = dir.path().join("logs").display().to_string();
    process.envs.insert("OUMI_LOGGING_DIR".to_owned(), logs);
    process.plan.steps.push(Step {
        name: "run".to_owned(),
        argv: vec![
            program.display().to_string(),
            spec.command.subcommand().to_owned(),
            "-c".to_owned(),
            spec.config.path.display().to_string(),
        ],
    });
    blocked_by
}

fn plan_job(dir: &JobDir, spec: &LaunchSpec, process: &mut StartRequest) -> Option<String> {
    if let Some(folder) = spec.config.text("working_dir") {
        process.plan.working_dir = spec.client_cwd.join(expand_home(folder));
    }
    for name in ["setup", "run"] {
        let script = spec.config.text(name).unwrap_or_default();
        if script.trim().is_empty() {
            continue;
        }
        // In a file, since a script may be longer than an argument can be.
        let path = dir.path().join(format!("{name}.sh"));
        process.plan.steps.push(Step {
            name: name.to_owned(),
            argv: vec!["bash".to_owned(), path.display().to_string()],
        });
        process.files.push((path, script.to_owned()));
    }
    // A `run` that calls `oumi` means the one that is found here; a client's PATH rarely has it.
    let oumi = find::find_oumi(&spec.client_cwd).ok();
    let path = oumi.and_then(|program| find::path_with_folder_of(&program));
    process
        .envs
        .extend(path.map(|path| ("PATH".to_owned(), path)));
    process.envs.extend(config_envs(spec));
    if process.plan.steps.is_empty() {
        let config = spec.config.path.display();
        return Some(format!(
            "the job config {config} has neither `setup` nor `run`; give it a `run`"
        ));
    }
    let missing = which::which("bash").err();
    missing.map(|_| "bash was not found on PATH; a job config is run by it".to_owned())
}

/// Reads the `envs` of a job config, as the texts that Oumi 0.9 makes of them.
fn config_envs(spec: &LaunchSpec) -> BTreeMap<String, String> {
    let envs = spec.config.document.get("envs").and_then(Value::as_object);
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    };
    let envs = envs.into_iter().flatten();
    envs.map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

/// Warns of options that have no effect on this machine.
fn warnings(spec: &LaunchSpec) -> Vec<String> {
    let document = &spec.config.document;
    let in_resources = |key: &str| document.get("resources").and_then(|map| map.get(key));
    let is_filled = |key: &str| {
        let map = document.get(key).and_then(Value::as_object);
        map.is_some_and(|map| !map.is_empty())
    };
    let nodes = document.get("num_nodes").and_then(Value::as_u64);
    let nodes = nodes.max(spec.resources.num_nodes.map(u64::from));
    let ignored = [
        (
            "file_mounts",
            is_filled("file_mounts") || !spec.file_mounts.is_empty(),
        ),
        ("storage_mounts", is_filled("storage_mounts")),
        ("num_nodes", nodes > Some(1)),
        (
            "accelerators",
            in_resources("accelerators").is_some_and(|value| !value.is_null())
                || spec.resources.accelerators.is_some(),
        ),
        (
            "use_spot",
            in_resources("use_spot") == Some(&Value::Bool(true)) || spec.resources.use_spot,
        ),
        ("disk_size", spec.resources.disk_size.is_some()),
        ("setup_script", spec.setup_script.is_some()),
        ("run_script", spec.run_script.is_some()),
        ("cluster_name", !spec.identity.cluster.is_empty()),
    ];
    let ignored = ignored.into_iter().filter(|(_, is_set)| *is_set);
    let mut warnings: Vec<String> = ignored
        .map(|(name, _)| {
            format!("`{name}` has no meaning for a job on this machine and is ignored")
        })
        .collect();
    if let Some(cloud) = spec.config.cloud().filter(|cloud| cloud != LOCAL) {
        warnings.push(format!(
            "the config asks for cloud `{cloud}`, but the job runs on this machine, because `cloud` is `{LOCAL}`; pass \
             cloud=\"{cloud}\" to run it there"
        ));
    }
    warnings
}
