//! The plan of a job on this machine: the programs that its supervisor runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::LOCAL;
use crate::error::{JobError, Result};
use crate::launcher::{LaunchPlan, LaunchSpec};
use crate::process::find;
use crate::process::job_dir::JobDir;
use crate::process::plan::{Step, SupervisorPlan};
use crate::process::start::StartRequest;
use crate::redact::HIDDEN;
use crate::settings::config::expand_home;
use crate::text::patterns::Patterns;

/// The keys of a job config that are read here.
const USED: &str = "name user resources num_nodes working_dir envs setup run model training output_dir output_path";
/// The most of its other keys that are warned of.
const MAX_OTHERS: usize = 10;

pub(super) fn plan(dir: &JobDir, spec: &LaunchSpec) -> Result<LaunchPlan> {
    let mut process = StartRequest {
        plan: SupervisorPlan {
            working_dir: spec.client_cwd.clone(),
            cancellable: true,
            time_limit_seconds: spec.options.time_limit_seconds(),
            ..SupervisorPlan::default()
        },
        ..StartRequest::default()
    };
    // A `run` that calls `oumi` means the one that is found here; a client's PATH rarely has it.
    let oumi = find::find_oumi(&spec.client_cwd);
    let path = oumi.as_deref().ok().and_then(find::path_with_folder_of);
    let path = path.map(|path| ("PATH".to_owned(), path));
    process.envs.extend(path);
    let job_config = match spec.config.is_job {
        false => {
            if let (Some(_), Some(asked)) = (spec.processes(), &spec.options.accelerators) {
                check_accelerators(asked)?;
            }
            plan_training(dir, spec, &oumi?, &mut process);
            None
        }
        true => Some(plan_job(dir, spec, &mut process)?),
    };
    process.envs.extend(spec.options.envs.clone());
    let line =
        |step: &Step| shlex::try_join(step.argv.iter().map(String::as_str)).unwrap_or_default();
    let lines: Vec<String> = process.plan.steps.iter().map(line).collect();
    Ok(LaunchPlan {
        command_line: lines.join(" && "),
        cluster: String::new(),
        job_config,
        warnings: warnings(spec),
        autostop: None,
        epilogue: None,
        process,
    })
}

/// Refuses accelerators that are neither a count, a type nor both: `4xA100` would train on one GPU.
fn check_accelerators(asked: &str) -> Result<()> {
    let is_count = |text: &str| text.trim().parse::<u32>().is_ok_and(|count| count > 0);
    let is_type = |name: &str| !NO_TYPE.is_match(name.trim());
    let fits = match asked.rsplit_once(':') {
        Some((name, count)) => is_type(name) && is_count(count),
        None => is_count(asked) || is_type(asked),
    };
    let error = JobError::invalid(format!("`accelerators` {asked:?} is no number of GPUs"));
    fits.then_some(())
        .ok_or_else(|| error.with_hint("give one such as 4 or A100:4"))
}

/// What no type of GPU is: a word for a number, such as `all`, or what holds a count, such as `H100x8` and `A100 8`.
static NO_TYPE: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new(r"^[^A-Za-z]|^$|[0-9][xX][0-9]|[^\w. -]| [0-9]+$|^(?i:all|auto|max|none)$")
});

fn plan_training(dir: &JobDir, spec: &LaunchSpec, program: &Path, process: &mut StartRequest) {
    // Oumi writes one log a rank there.
    let logs = dir.path().join("logs").display().to_string();
    process.envs.insert("OUMI_LOGGING_DIR".to_owned(), logs);
    let program = program.display().to_string();
    let config = spec.config.path.display().to_string();
    let processes = spec.processes().unwrap_or(1);
    // Oumi puts a process on each GPU there is, unless torchrun is given another number after its own.
    let number = format!("--nproc-per-node={processes}");
    let torchrun = ["distributed", "torchrun", &number, "-m", "oumi"];
    let torchrun = torchrun.into_iter().filter(|_| processes > 1);
    let argv = [program.as_str()].into_iter().chain(torchrun);
    let argv = argv.chain([spec.command.subcommand, "-c", &config]);
    let name = format!("oumi {}", spec.command.subcommand);
    process.plan.steps.push(Step::new(&name, argv));
}

/// Plans a job config and returns the part of it that has an effect here, without the values of `envs`.
fn plan_job(dir: &JobDir, spec: &LaunchSpec, process: &mut StartRequest) -> Result<Value> {
    if let Some(folder) = spec.config.text("working_dir") {
        let folder = spec.client_cwd.join(expand_home(folder));
        if !folder.is_dir() {
            let error = format!(
                "the config's `working_dir` {} is not a folder",
                folder.display()
            );
            return Err(JobError::invalid(error).with_hint("correct it, or make the folder"));
        }
        process.plan.working_dir = folder;
    }
    let mut job_config = Map::new();
    let working_dir = process.plan.working_dir.to_string_lossy();
    job_config.insert("working_dir".to_owned(), working_dir.into());
    let envs = config_envs(spec);
    let names = envs.keys().chain(spec.options.envs.keys());
    let hidden: Map<String, Value> = names.map(|name| (name.clone(), HIDDEN.into())).collect();
    if !hidden.is_empty() {
        job_config.insert("envs".to_owned(), hidden.into());
    }
    for name in ["setup", "run"] {
        let script = spec.config.text(name).unwrap_or_default();
        if script.trim().is_empty() {
            continue;
        }
        // In a file, since a script may be longer than an argument can be.
        let path = dir.path().join(format!("{name}.sh"));
        let file = path.display().to_string();
        process.plan.steps.push(Step::new(name, ["bash", &file]));
        process.files.push((path, script.to_owned()));
        job_config.insert(name.to_owned(), script.into());
    }
    process.envs.extend(envs);
    if process.plan.steps.is_empty() {
        let config = spec.config.path.display();
        let error = format!("the job config {config} has neither `setup` nor `run`");
        return Err(JobError::invalid(error).with_hint("give it a `run`"));
    }
    which::which("bash").map_err(|_| {
        JobError::failed("bash was not found on PATH, and a job config is run by it")
            .with_hint("install it")
    })?;
    Ok(job_config.into())
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

/// Warns of what the call and the config ask for that has no effect on this machine.
fn warnings(spec: &LaunchSpec) -> Vec<String> {
    let (document, asked) = (&spec.config.document, &spec.options);
    let is_set =
        |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && *value != json!({});
    let is_in_config = |name: &&str| {
        let resources = document.get("resources").and_then(|map| map.get(*name));
        document.get(*name).or(resources).is_some_and(is_set)
    };
    let nodes = document.get("num_nodes").and_then(Value::as_u64);
    let nodes = nodes.max(asked.num_nodes.map(u64::from));
    let is_training = !spec.config.is_job && spec.processes().is_some();
    let in_call = [
        ("file_mounts", !spec.options.file_mounts.is_empty()),
        ("num_nodes", nodes > Some(1)),
        ("accelerators", asked.accelerators.is_some() && !is_training),
        ("use_spot", asked.use_spot),
        ("disk_size", asked.disk_size.is_some()),
        ("autostop_minutes", asked.autostop_minutes.is_some()),
        ("setup_script", spec.options.setup_script.is_some()),
        ("run_script", spec.options.run_script.is_some()),
        ("cluster_name", !spec.identity.cluster.is_empty()),
    ];
    let in_call = in_call.into_iter().filter(|(_, is_set)| *is_set);
    let names = "accelerators use_spot infra any_of";
    let names = names.split(' ').filter(is_in_config);
    // `env` in place of `envs` would go unseen.
    let others = document.keys().map(String::as_str);
    let others = others.filter(|name| spec.config.is_job && !USED.split(' ').any(|it| it == *name));
    let names = names.chain(others.filter(is_in_config).take(MAX_OTHERS));
    let ignored: BTreeSet<&str> = names.chain(in_call.map(|(name, _)| name)).collect();
    let ignored = ignored
        .into_iter()
        .map(|name| format!("`{name}` has no meaning for this job on this machine and is ignored"));
    let other = spec.config.cloud().filter(|cloud| cloud != LOCAL).map(|cloud| {
        format!("the config asks for cloud `{cloud}`, and the job runs on this machine; pass cloud=\"{cloud}\" to run it there")
    });
    ignored.chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::check_accelerators;

    #[test]
    fn accelerators_are_a_type_a_count_or_both() {
        for asked in [
            "4",
            " 4 ",
            "A100",
            "A100:4",
            " a100 : 8 ",
            "A100-80GB",
            "RTX4090:2",
            "RTX4090",
            "MI300X",
            "Trainium:1",
            "Inferentia",
            "Tesla T4",
            "Gaudi HL-205:8",
            "tpu-v2-8",
        ] {
            assert!(check_accelerators(asked).is_ok(), "{asked}");
        }
        for asked in [
            "4xA100",
            "H100x8",
            "8 GPUs",
            "A100 8",
            "all",
            "4.5",
            "-1",
            "0",
            "A100:0",
            "A100:",
            "A100:4.5",
            ":4",
            "4:4",
            "8xA100:2",
            "H100x8:2",
            "A100:4:2",
            "A100:8; rm",
            "{A100: 8}",
            "99999999999",
            " ",
        ] {
            let error = check_accelerators(asked).unwrap_err().to_string();
            assert!(error.contains("A100:4"), "{error}");
        }
    }
}
