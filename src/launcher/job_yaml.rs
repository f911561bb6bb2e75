//! The job config of a cloud launch: the user's job config merged with the call, or a training config wrapped into one.

use std::path::{Component, Path};

use serde_json::{Map, Value, json};

use super::LaunchSpec;
use crate::process::job_dir::time_limit_line;
use crate::redact::HIDDEN;
use crate::settings::config::expand_home;
use crate::text::join_names;

/// Credentials of Oumi's hubs; mounted where they exist.
const CREDENTIALS: [&str; 2] = ["~/.cache/huggingface/token", "~/.netrc"];

/// The script that installs Oumi, and the head of the one that runs it.
const SETUP: &str = include_str!("job_yaml/setup.sh");
const RUN_PREAMBLE: &str = include_str!("job_yaml/run.sh");

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobConfig {
    /// Holds the values of `envs`: never to be printed or logged.
    pub document: Map<String, Value>,
    /// Settings that were changed or are ignored.
    pub warnings: Vec<String>,
}

impl JobConfig {
    /// Builds the config for `spec`. `is_login_node`: Oumi submits a script on a machine where the user has a home (oumi 0.9 on
    /// slurm, polaris, perlmutter and frontier). It writes `export NAME=value` into that without quoting the value, so the values of
    /// the call are quoted here.
    pub(crate) fn new(spec: &LaunchSpec, is_login_node: bool) -> Self {
        let mut warnings = Vec::new();
        let mut document = match spec.config.is_job {
            true => merge_job_config(spec, &mut warnings),
            false => wrap_training_config(spec, is_login_node),
        };
        // Its rsync copies a folder itself, unless the path ends in a slash. A config that names one may count on that.
        if is_login_node && spec.config.text("working_dir").is_none() {
            let folder = spec.client_cwd.join("");
            document.insert("working_dir".to_owned(), folder.to_string_lossy().into());
        }
        merge_resources(&mut document, spec, &mut warnings);
        if let Some(seconds) = spec.options.time_limit_seconds() {
            let run = document.get("run").and_then(Value::as_str);
            if let Some(run) = run.filter(|run| !run.trim().is_empty()) {
                let limited = limit_run(run, seconds);
                document.insert("run".to_owned(), limited.into());
            } else {
                warnings.push("`max_hours` has no effect: the config has no `run`".to_owned());
            }
        }
        let text = |value: &String| {
            if is_login_node {
                quote(value)
            } else {
                value.clone()
            }
        };
        let envs = spec.options.envs.iter();
        let envs = envs.map(|(name, value)| (name.clone(), text(value).into()));
        merge(&mut document, "envs", envs);
        let mounts = spec.options.file_mounts.iter();
        let mounts = mounts.map(|(to, from)| (to.clone(), from.as_str().into()));
        merge(&mut document, "file_mounts", mounts);
        Self { document, warnings }
    }

    pub(crate) fn names_accelerators(&self) -> bool {
        let resources = self.document.get("resources").unwrap_or(&Value::Null);
        !resources["accelerators"].is_null() || !resources["instance_type"].is_null()
    }

    /// Warns of what is to be copied and is not on this machine: a launch fails on it, once the user has agreed. Does file work.
    pub(super) fn warn_of_missing_files(&mut self, cwd: &Path) {
        let mounts = self.document.get("file_mounts").and_then(Value::as_object);
        let mounts = mounts.into_iter().flat_map(Map::values);
        let sources = mounts.chain(self.document.get("working_dir"));
        let is_missing = |path: &&str| !path.contains(':') && !cwd.join(expand_home(path)).exists();
        let missing = join_names(sources.filter_map(Value::as_str).filter(is_missing));
        if !missing.is_empty() {
            let warning = format!(
                "what is to be copied is not here, and a launch that copies it fails: {missing}"
            );
            self.warnings.push(warning);
        }
    }

    pub(crate) fn redacted(&self) -> Value {
        let mut document = self.document.clone();
        // Oumi 0.9 has no `secrets`, but SkyPilot's own configs do.
        for section in ["envs", "secrets"] {
            if let Some(Value::Object(values)) = document.get_mut(section) {
                values.values_mut().for_each(|it| *it = HIDDEN.into());
            }
        }
        Value::Object(document)
    }

    /// Writes the config for Oumi, as JSON, which is YAML too: every text is quoted, so that no value can be taken for another
    /// type or end its line.
    pub(crate) fn to_yaml(&self) -> Result<String, serde_json::Error> {
        let mut document = Value::Object(self.document.clone());
        escape_interpolation(&mut document);
        let json = serde_json::to_string_pretty(&document)?;
        let mut yaml = String::with_capacity(json.len());
        for character in json.chars() {
            // YAML 1.1 does not allow some raw, or reads them as the end of a line.
            match character {
                '\u{7f}'..='\u{ffff}' => {
                    yaml.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                _ => yaml.push(character),
            }
        }
        // Oumi 0.9 puts a backslash before every `${` in the file. This hides them.
        Ok(yaml.replace("${", "\\u0024{"))
    }
}

/// Keeps OmegaConf, with which Oumi loads the file, from replacing `${…}`: n backslashes before it become 2n + 1, which
/// OmegaConf reads as n and a literal `${`.
fn escape_interpolation(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("${") => {
            let mut parts = text.split("${");
            let mut escaped = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let backslashes = escaped.len() - escaped.trim_end_matches('\\').len();
                escaped.extend(std::iter::repeat_n('\\', backslashes + 1));
                escaped.push_str("${");
                escaped.push_str(part);
            }
            *text = escaped;
        }
        Value::Object(object) => object.values_mut().for_each(escape_interpolation),
        Value::Array(array) => array.iter_mut().for_each(escape_interpolation),
        _ => {}
    }
}

/// Returns `job_id` as a name that SkyPilot takes for a job (words of letters and digits, with `.`, `_` or `-` between them)
/// and that is one word on Slurm's command line, into which Oumi writes it unquoted.
pub(super) fn plain_name(job_id: &str) -> String {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
    if job_id.split(['.', '_', '-']).all(is_word) {
        return job_id.to_owned();
    }
    let words = job_id.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| is_word(word)).collect();
    match words.as_slice() {
        [] => "job".to_owned(),
        words => words.join("-"),
    }
}

/// Completes a job config by the name and the working folder of the call.
fn merge_job_config(spec: &LaunchSpec, warnings: &mut Vec<String>) -> Map<String, Value> {
    let mut document = spec.config.document.clone();
    let name = match document.get("name") {
        None | Some(Value::Null) => plain_name(&spec.identity.job_id),
        Some(Value::String(name)) => name.clone(),
        Some(other) => other.to_string(),
    };
    document.insert("name".to_owned(), name.into());
    let named = spec.config.text("working_dir").map(expand_home);
    let working_dir = named.map_or_else(
        || spec.client_cwd.clone(),
        |path| spec.client_cwd.join(path),
    );
    let working_dir = working_dir.display().to_string();
    document.insert("working_dir".to_owned(), working_dir.into());
    if spec.options.setup_script.is_some() || spec.options.run_script.is_some() {
        let warning =
            "`setup_script` and `run_script` are ignored: the job config has its own scripts";
        warnings.push(warning.to_owned());
    }
    document
}

fn wrap_training_config(spec: &LaunchSpec, is_login_node: bool) -> Map<String, Value> {
    // Those in the user's home there stay as they are.
    let is_there = |path: &&str| !is_login_node && expand_home(path).is_file();
    let credentials = CREDENTIALS.into_iter().filter(is_there);
    let mut mounts = Map::from_iter(credentials.map(|path| (path.to_owned(), path.into())));
    let config = relative_word(&spec.config.path, &spec.client_cwd).unwrap_or_else(|| {
        // The file is not synced with the working folder, so it is mounted.
        let name = format!("oumi-mcp-{}.yaml", spec.identity.job_id);
        let path = spec.config.path.display().to_string();
        mounts.insert(format!("~/{name}"), path.into());
        format!("\"$HOME\"/{}", quote(&name))
    });
    let nodes = spec.options.num_nodes.unwrap_or(1);
    let is_distributed = |processes| nodes > 1 || processes > 1;
    let oumi = match spec.processes().is_some_and(is_distributed) {
        true => on_each_node(&spec.identity.cloud, nodes) + "oumi distributed torchrun -m oumi",
        false => "oumi".to_owned(),
    };
    let subcommand = spec.command.subcommand;
    let generated = format!("{RUN_PREAMBLE}{oumi} {subcommand} -c {config}\n");
    let setup = spec.options.setup_script.as_deref().unwrap_or(SETUP);
    let run = spec.options.run_script.as_ref().unwrap_or(&generated);
    let mut document = Map::new();
    let mut set = |key: &str, value| document.insert(key.to_owned(), value);
    set("name", plain_name(&spec.identity.job_id).into());
    set("resources", json!({}));
    set("num_nodes", nodes.into());
    set("working_dir", spec.client_cwd.to_string_lossy().into());
    set("envs", json!({}));
    set("file_mounts", mounts.into());
    set("setup", setup.into());
    set("run", run.as_str().into());
    document
}

/// Returns what starts a program on every machine of a job. Where Oumi submits the script itself, that runs on the first one alone.
fn on_each_node(cloud: &str, nodes: u32) -> String {
    match cloud {
        "slurm" | "perlmutter" | "frontier" if nodes > 1 => {
            "srun --ntasks-per-node=1 --export=ALL --cpu-bind=none ".to_owned()
        }
        "polaris" if nodes > 1 => format!("mpiexec -n {nodes} --ppn 1 "),
        _ => String::new(),
    }
}

/// Puts a script under `timeout`, which ends every process of it: first with SIGTERM, 30 s later with SIGKILL. The script reaches
/// its own bash unchanged, as a here-document, with its own standard input. Comments at its head stay where a scheduler reads its
/// directives.
fn limit_run(run: &str, seconds: u64) -> String {
    let is_head = |line: &&str| line.starts_with('#') || line.trim().is_empty();
    let head: String = run.split_inclusive('\n').take_while(is_head).collect();
    let (script, end) = (&run[head.len()..], run.trim_end());
    let mut mark = "END_OF_RUN".to_owned();
    while end.contains(&mark) {
        mark.push('_');
    }
    let script = script.trim_end_matches('\n');
    let line = time_limit_line(seconds);
    format!(
        "{head}SECONDS=0
timeout -k 30 {seconds} bash /dev/fd/3 3<<'{mark}' && code=0 || code=$?
{script}
{mark}
if [ $code -ne 0 ] && [ $SECONDS -ge {seconds} ]; then echo '{line}'; fi
exit $code
"
    )
}

fn merge_resources(
    document: &mut Map<String, Value>,
    spec: &LaunchSpec,
    warnings: &mut Vec<String>,
) {
    let cloud = spec.identity.cloud.as_str();
    if let Some(other) = spec.config.cloud().filter(|other| other != cloud) {
        warnings.push(format!(
            "the config asks for cloud `{other}`; the job is launched on `{cloud}`, as in the call"
        ));
    }
    let asked = &spec.options;
    let mut fields = Map::from_iter([("cloud".to_owned(), cloud.into())]);
    let mut set = |name: &str, value: Option<Value>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    set("accelerators", asked.accelerators.clone().map(Value::from));
    set("use_spot", asked.use_spot.then_some(true.into()));
    set("disk_size", asked.disk_size.map(Value::from));
    merge(document, "resources", fields.into_iter());
    // A call that says one, which is the default, means no other number than the config's.
    if let Some(nodes) = asked.num_nodes.filter(|nodes| *nodes > 1) {
        document.insert("num_nodes".to_owned(), nodes.into());
    }
}

/// Puts entries over those of a section. A section that is no mapping is replaced.
fn merge(
    document: &mut Map<String, Value>,
    section: &str,
    entries: impl Iterator<Item = (String, Value)>,
) {
    let section = document.entry(section).or_insert(Value::Null);
    if !section.is_object() {
        *section = json!({});
    }
    if let Value::Object(section) = section {
        section.extend(entries);
    }
}

/// Reads a value as Oumi reads a setting that is on or off.
pub(crate) fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(is_on) => *is_on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => {
            let words = ["yes", "y", "on", "true", "1"];
            words.iter().any(|word| text.eq_ignore_ascii_case(word))
        }
        _ => false,
    }
}

/// Returns the path of `path` below `folder` as a word of a shell that is no option; `None` outside `folder`.
fn relative_word(path: &Path, folder: &Path) -> Option<String> {
    let relative = path.strip_prefix(folder).ok()?;
    let mut parts = relative.components();
    if !parts.all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let text = relative.display().to_string();
    let option = if text.starts_with('-') { "./" } else { "" };
    Some(quote(&format!("{option}{text}")))
}

/// Quotes a word for a shell. A text with a NUL cannot be quoted and stays.
fn quote(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests;
