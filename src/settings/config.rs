//! Reads an Oumi YAML file: its kind, and the few fields the server needs. The rest is left to Oumi.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::{Error, UserMessageFormatter};

use crate::error::{JobError, Result};
use crate::settings::data_dir::read_bounded;

/// The largest config that is read, in bytes. Real ones are a few KB.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The names of Oumi's commands in a request.
const COMMANDS: &str = "train evaluate eval infer synth analyze tune quantize";
/// The top-level keys that make a file a job config: where and how to run.
const JOB_KEYS: &str = "resources setup run";
/// Top-level keys of the configs that the commands of Oumi 0.9 read: each of these configs has at least one of them.
const OUMI_KEYS: &str = "model data training tuning tasks evaluation generation inference_config inference_engine input_path \
    output_path output_dir engine remote_params strategy strategy_params dataset_source dataset_name dataset_path analyzers";
/// The advice about a recipe that is no file yet.
const FETCH: &str = "run `oumi fetch oumi://configs/recipes/…` in a terminal and pass the path of the file that it saves";

/// A command of the `oumi` program (oumi 0.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OumiCommand {
    /// Its name in a request.
    pub(crate) name: &'static str,
    pub(crate) subcommand: &'static str,
}

impl OumiCommand {
    /// Parses the name of a command, in any case.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wanted = text.trim().to_lowercase();
        let name = COMMANDS.split(' ').find(|name| *name == wanted);
        let name = name.ok_or_else(|| {
            JobError::invalid(format!("`command` {text:?} is not known"))
                .with_hint(format!("use one of: {}", COMMANDS.replace(' ', ", ")))
        })?;
        let subcommand = match name {
            "eval" => "evaluate",
            "synth" => "synthesize",
            name => name,
        };
        Ok(Self { name, subcommand })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Absolute.
    pub path: PathBuf,
    /// A job config; any other is the input of an `oumi` command.
    pub is_job: bool,
    /// `model.model_name`, there or in `inference_config`, or `unknown`.
    pub model_name: String,
    /// `training.output_dir` or `tuning.output_dir`, else `output_dir`, else `output_path`; empty where the config has none of them.
    pub output_dir: String,
    pub document: Map<String, Value>,
}

impl Config {
    /// Reads the config at `config_path`, which may be relative to `cwd` or begin with `~`. Each error says what to correct.
    pub(crate) fn read(config_path: &str, cwd: &Path) -> Result<Self> {
        let path = cwd.join(expand_home(config_path));
        let at = path.display();
        let text = read_bounded(&path, MAX_CONFIG_BYTES).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound if !config_path.ends_with(".yaml") => {
                    format!("check the path; if it is the alias of a recipe, {FETCH}")
                }
                _ => "check `config_path` and `client_cwd`".to_owned(),
            };
            JobError::invalid(format!("cannot read the config {at}: {error}")).with_hint(hint)
        })?;
        let read = parse(&text).and_then(|document| Self::from_document(path.clone(), document));
        read.map_err(|error| {
            JobError::invalid(format!("the config {at} is not usable: {}", error.message))
                .with_hint("correct the file and try again")
        })
    }

    fn from_document(path: PathBuf, document: Map<String, Value>) -> Result<Self> {
        let text_at = |path: &str| {
            let mut keys = path.split('/');
            let section = document.get(keys.next()?)?;
            let value = keys.try_fold(section, |value, key| value.get(key))?;
            value.as_str().map(str::to_owned)
        };
        let first_of = |paths: &str| paths.split(' ').find_map(text_at);
        let has_one_of = |keys: &str| keys.split(' ').any(|key| document.contains_key(key));
        let is_job = has_one_of(JOB_KEYS);
        if !is_job && !has_one_of(OUMI_KEYS) {
            return Err(JobError::invalid(
                "it has none of the keys of a config of Oumi (`model`, `data`, `training` and others) and none of a job \
                 config (`resources`, `setup`, `run`)",
            ));
        }
        Ok(Self {
            is_job,
            model_name: first_of("model/model_name inference_config/model/model_name")
                .unwrap_or_else(|| "unknown".to_owned()),
            output_dir: first_of("training/output_dir tuning/output_dir output_dir output_path")
                .unwrap_or_default(),
            path,
            document,
        })
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.document.get(key).and_then(Value::as_str)
    }

    /// Lists what Oumi does with it that its user may not expect.
    pub(crate) fn surprises(&self, command: OumiCommand) -> Vec<String> {
        let has_input = self.text("input_path").is_some_and(|path| !path.is_empty());
        let has_home = self.output_dir.split('/').any(|part| part == "~");
        let home = "Oumi takes `~` in the output folder for a folder named `~`, and only a training's checkpoints go to the \
            home folder: write the full path";
        let input = "the config has no `input_path`: Oumi asks for prompts at a terminal, which a job does not have, and \
            infers nothing; name a JSONL file there";
        let found = [
            (has_home, home),
            (command.name == "infer" && !has_input, input),
        ];
        let found = found.iter().filter(|(is_so, _)| *is_so && !self.is_job);
        found.map(|(_, words)| (*words).to_owned()).collect()
    }

    /// Returns the cloud that the config's `resources` ask for, in lower case: by `cloud`, or by SkyPilot's `infra` (such as
    /// `gcp/us-west1`), there or in the first choice of its `any_of`.
    pub(crate) fn cloud(&self) -> Option<String> {
        let resources = self.document.get("resources")?;
        let choice = ["any_of", "ordered"].map(|key| resources.get(key)?.get(0));
        let mut places = std::iter::once(resources).chain(choice.into_iter().flatten());
        let name = places.find_map(|place| {
            let text = |key: &str| place.get(key).and_then(Value::as_str);
            text("cloud").or_else(|| text("infra")?.split('/').next())
        })?;
        match name.trim().to_lowercase().as_str() {
            "" | "*" => None,
            "kubernetes" => Some("k8s".to_owned()),
            name => Some(name.to_owned()),
        }
    }
}

/// Returns the project folder of a call: `client_cwd`, else the folder of a config whose path is absolute.
pub(crate) fn project_folder(client_cwd: &str, config_path: &str) -> Result<PathBuf> {
    if let Some((scheme, rest)) = config_path.split_once("://") {
        // Oumi's own command line takes recipes.
        let hint = match scheme.to_lowercase().as_str() {
            "oumi" => FETCH.replace("oumi://configs/recipes/…", config_path),
            "file" => format!("pass the path alone: {rest}"),
            _ => "download it, and pass the path of the file".to_owned(),
        };
        let error = format!("`config_path` {config_path:?} is no file on this machine");
        return Err(JobError::invalid(error).with_hint(hint));
    }
    let config = expand_home(config_path);
    let named = expand_home(client_cwd.trim());
    let problem = match config.parent() {
        _ if named.is_absolute() && named.is_dir() => return Ok(named),
        _ if named.is_absolute() => "is not a folder",
        // It would depend on the folder that the server was started in.
        _ if !named.as_os_str().is_empty() => "is no absolute path",
        Some(folder) if folder.is_absolute() => return Ok(folder.to_owned()),
        _ => "is missing, and `config_path` is no full path",
    };
    Err(JobError::invalid(format!("`client_cwd` {problem}"))
        .with_hint("pass the full path of the project folder"))
}

pub(crate) fn expand_home(path: &str) -> PathBuf {
    match (Path::new(path).strip_prefix("~"), dirs::home_dir()) {
        (Ok(below), Some(home)) if below.as_os_str().is_empty() => home,
        (Ok(below), Some(home)) => home.join(below),
        _ => PathBuf::from(path),
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JobError::invalid(format!("it is not UTF-8 ({error})")))?;
    let options = serde_saphyr::options! {
        // `.inf` is a value that Oumi takes, and none that JSON has.
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        // As in YAML 1.1, which Oumi reads.
        legacy_octal_numbers: true,
        with_snippet: false,
        // Real configs have some hundred values; these keep a bomb within a second and some megabytes.
        budget: serde_saphyr::budget! {
            max_nodes: 20_000,
            max_recorded_anchor_bytes: 4 * 1024 * 1024,
            max_total_scalar_bytes: 4 * 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 40_000,
        },
        // A tag such as `!!python/object/apply:os.system` asks whoever reads the file to run something: Oumi refuses it too,
        // and shown without its tag it would look like plain text to the user who is asked to agree.
        reject_unsupported_tags: true,
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options.clone()) {
        Ok(Value::Object(mut document)) => {
            if let Some(Value::Object(envs)) = document.get_mut("envs")
                && let Ok(source) = serde_saphyr::from_str_with_options::<EnvsSource>(text, options)
            {
                for (name, written) in source.envs {
                    let value = envs.entry(name).or_insert(Value::Null);
                    *value = written.map_or(Value::Null, |written| as_text(written, value).into());
                }
            }
            Ok(document)
        }
        Ok(Value::Null) => Err(JobError::invalid("it is empty")),
        Ok(_) => Err(JobError::invalid(
            "its root is not a mapping of keys to values",
        )),
        Err(error) => {
            let mut cause = &error;
            while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = cause {
                cause = error;
            }
            Err(JobError::invalid(match cause {
                Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
                    "it holds or nests more than a config does, aliases expanded".to_owned()
                }
                _ => error.render_with_formatter(&UserMessageFormatter),
            }))
        }
    }
}

/// The variables of a config, as they are written.
#[derive(Deserialize)]
struct EnvsSource {
    envs: BTreeMap<String, Option<String>>,
}

/// Returns the text that Oumi makes of a variable that is not quoted and reads as a number or a truth.
fn as_text(written: String, read: &Value) -> String {
    // Numbers of YAML 1.2, which are text to Oumi's reader.
    let is_text = |prefix| written.trim_start_matches(['+', '-']).starts_with(prefix);
    match read {
        _ if ["0o", "0O", "0X", "0B"].into_iter().any(is_text) => written,
        // YAML 1.1 takes `y` for a truth, and Oumi's reader does not.
        Value::Bool(truth) if written.len() > 1 => if *truth { "True" } else { "False" }.to_owned(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => written,
    }
}

#[cfg(test)]
mod tests;
