//! Reads an Oumi YAML file: its kind, and the few fields the server needs. The rest is left to Oumi.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use serde_saphyr::Error;

use crate::error::JobError;
use crate::settings::data_dir::read_bounded;

/// The largest config that is read, in bytes. Real ones are a few KB.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A relative `client_cwd` would depend on the folder the server was started in.
    #[error(
        "`client_cwd` must be an absolute path, not {0:?}; pass the full path of the project folder"
    )]
    RelativeCwd(String),
    #[error("`client_cwd` {0} is not a folder; pass the full path of the project folder")]
    NoSuchCwd(PathBuf),
    #[error("cannot read the config {path}: {reason}; check `config_path` and `client_cwd`")]
    Unreadable { path: PathBuf, reason: String },
    #[error("the config {path} is not usable: {reason}; correct the file and try again")]
    Invalid { path: PathBuf, reason: String },
}

/// A command of the `oumi` program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OumiCommand {
    name: &'static str,
    subcommand: &'static str,
}

impl OumiCommand {
    /// Each name and its subcommand.
    const ALL: [(&str, &str); 8] = [
        ("train", "train"),
        ("evaluate", "evaluate"),
        ("eval", "evaluate"),
        ("infer", "infer"),
        ("synth", "synthesize"),
        ("analyze", "analyze"),
        ("tune", "tune"),
        ("quantize", "quantize"),
    ];

    /// Parses the name of a command, in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let wanted = text.trim().to_lowercase();
        let mut commands = Self::ALL.into_iter();
        let (name, subcommand) = commands.find(|(name, _)| *name == wanted)?;
        Some(Self { name, subcommand })
    }

    /// Lists the names that [`parse`](Self::parse) takes.
    pub(crate) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }

    /// The name in the request.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// The subcommand of the `oumi` program (oumi 0.9).
    pub(crate) fn subcommand(self) -> &'static str {
        self.subcommand
    }
}

impl fmt::Display for OumiCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The kind of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConfigKind {
    /// Has a top-level `resources`, `setup` or `run`: where and how to run.
    Job,
    /// Any other config: input of an `oumi` command.
    Training,
}

/// A config that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Absolute.
    pub path: PathBuf,
    pub kind: ConfigKind,
    /// `model.model_name`, or `unknown`.
    pub model_name: String,
    /// `training.output_dir`, else `output_dir`, else `./output`.
    pub output_dir: String,
    pub document: Map<String, Value>,
}

impl Config {
    /// Reads the config at `config_path`, which may be relative to `client_cwd` or begin with `~`. Each error says what to
    /// correct.
    pub(crate) fn read(config_path: &str, client_cwd: &str) -> Result<Self, ConfigError> {
        let cwd = Path::new(client_cwd);
        if !cwd.is_absolute() {
            return Err(ConfigError::RelativeCwd(client_cwd.to_owned()));
        }
        if !cwd.is_dir() {
            return Err(ConfigError::NoSuchCwd(cwd.to_owned()));
        }
        let path = cwd.join(expand_home(config_path));
        let text =
            read_bounded(&path, MAX_CONFIG_BYTES).map_err(|error| ConfigError::Unreadable {
                path: path.clone(),
                reason: match error.kind() {
                    ErrorKind::FileTooLarge => format!("{error}, which no config is"),
                    _ => error.to_string(),
                },
            })?;
        let document = parse(&text).map_err(|error| ConfigError::Invalid {
            path: path.clone(),
            reason: error.message,
        })?;
        Ok(Self::from_document(path, document))
    }

    fn from_document(path: PathBuf, document: Map<String, Value>) -> Self {
        let text = |section: Option<&Value>| section.and_then(Value::as_str).map(str::to_owned);
        let below = |section: &str, key: &str| text(document.get(section)?.get(key));
        let job_keys = ["resources", "setup", "run"];
        let kind = if job_keys.iter().any(|key| document.contains_key(*key)) {
            ConfigKind::Job
        } else {
            ConfigKind::Training
        };
        Self {
            kind,
            model_name: below("model", "model_name").unwrap_or_else(|| "unknown".to_owned()),
            output_dir: below("training", "output_dir")
                .or_else(|| text(document.get("output_dir")))
                .unwrap_or_else(|| "./output".to_owned()),
            path,
            document,
        }
    }

    /// Returns a text at the top level of the config.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.document.get(key).and_then(Value::as_str)
    }

    /// Returns the `cloud` of the config's `resources`, in lower case.
    pub(crate) fn cloud(&self) -> Option<String> {
        self.document
            .get("resources")?
            .get("cloud")?
            .as_str()
            .map(str::to_lowercase)
    }
}

/// Replaces a leading `~` by the home folder.
pub(crate) fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), dirs::home_dir()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(path),
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, JobError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JobError::invalid(format!("it is not UTF-8 ({error})")))?;
    if text.trim().is_empty() {
        return Err(JobError::invalid("it is empty"));
    }
    let options = serde_saphyr::options! {
        // `.inf` is a value that Oumi takes, and none that JSON has.
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
        // Real configs have some hundred values; these keep a bomb within a second and some megabytes.
        budget: serde_saphyr::budget! {
            max_events: 40_000,
            max_nodes: 20_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 40_000,
            max_recorded_anchor_bytes: 4 * 1024 * 1024,
            max_total_scalar_bytes: 4 * 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 40_000,
        },
        // A tag such as `!!python/object/apply:os.system` asks whoever reads the file to run something: Oumi refuses it too,
        // and shown without its tag it would look like plain text to the person who is asked to agree.
        reject_unsupported_tags: true,
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(document)) => Ok(document),
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
                    format!("it holds more than a config does, its aliases written out ({error})")
                }
                _ => error.to_string(),
            }))
        }
    }
}

#[cfg(test)]
#[path = "tests/config.rs"]
mod tests;
