//! Reads an Oumi YAML file: which kind of config it is, and the few fields the server needs. The rest is left to Oumi.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// The largest config that is read, in bytes. Real ones are a few KB.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The config could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `client_cwd` is relative: nobody can tell to what.
    #[error(
        "`client_cwd` must be an absolute path, not {0:?}; pass the full path of the project folder"
    )]
    RelativeCwd(String),
    /// `client_cwd` is no folder.
    #[error("`client_cwd` {0} is not a folder; pass the full path of the project folder")]
    NoSuchCwd(PathBuf),
    /// The file could not be read.
    #[error("cannot read the config {path}: {reason}; check `config_path` and `client_cwd`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no YAML that Oumi could take.
    #[error("the config {path} is not usable: {reason}; correct the file and try again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What Oumi is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OumiCommand {
    name: &'static str,
    subcommand: &'static str,
}

impl OumiCommand {
    const ALL: [Self; 8] = [
        Self::new("train", "train"),
        Self::new("evaluate", "evaluate"),
        Self::new("eval", "evaluate"),
        Self::new("infer", "infer"),
        Self::new("synth", "synthesize"),
        Self::new("analyze", "analyze"),
        Self::new("tune", "tune"),
        Self::new("quantize", "quantize"),
    ];

    const fn new(name: &'static str, subcommand: &'static str) -> Self {
        Self { name, subcommand }
    }

    /// The command a caller named, trimmed and case-blind.
    pub fn parse(text: &str) -> Option<Self> {
        let wanted = text.trim().to_lowercase();
        Self::ALL.into_iter().find(|command| command.name == wanted)
    }

    /// The names a caller can give, for a sentence.
    pub fn names() -> String {
        Self::ALL.map(|command| command.name).join(", ")
    }

    /// The name the caller gave.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The subcommand of the `oumi` program (oumi 0.9).
    pub fn subcommand(self) -> &'static str {
        self.subcommand
    }
}

impl fmt::Display for OumiCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Which kind of config a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigKind {
    /// It says where and how to run: a top-level `resources`, `setup` or `run`.
    Job,
    /// It says what Oumi is to do.
    Training,
}

/// A config, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file, absolute.
    pub path: PathBuf,
    /// Which kind it is.
    pub kind: ConfigKind,
    /// `model.model_name`, or `unknown`.
    pub model_name: String,
    /// `training.output_dir`, else `output_dir`, else `./output`.
    pub output_dir: String,
    /// All of it.
    pub document: Map<String, Value>,
}

impl Config {
    /// Reads the config at `config_path`, which may be relative to `client_cwd` or begin with `~`.
    ///
    /// # Errors
    /// When the folder or the file cannot be used; each error says what to correct.
    pub fn read(config_path: &str, client_cwd: &str) -> Result<Self, ConfigError> {
        let cwd = Path::new(client_cwd);
        if !cwd.is_absolute() {
            return Err(ConfigError::RelativeCwd(client_cwd.to_owned()));
        }
        if !cwd.is_dir() {
            return Err(ConfigError::NoSuchCwd(cwd.to_owned()));
        }
        let path = cwd.join(expand_home(config_path));
        let text = read_bounded(&path).map_err(|reason| ConfigError::Unreadable {
            path: path.clone(),
            reason,
        })?;
        let document = parse(&text).map_err(|reason| ConfigError::Invalid {
            path: path.clone(),
            reason,
        })?;
        Ok(Self::from_document(path, document))
    }

    fn from_document(path: PathBuf, document: Map<String, Value>) -> Self {
        let is_job = ["resources", "setup", "run"]
            .iter()
            .any(|key| document.contains_key(*key));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let below = |section: &str, key: &str| {
            text(document.get(section).and_then(|section| section.get(key)))
        };
        Self {
            kind: if is_job {
                ConfigKind::Job
            } else {
                ConfigKind::Training
            },
            model_name: below("model", "model_name").unwrap_or_else(|| "unknown".to_owned()),
            output_dir: below("training", "output_dir")
                .or_else(|| text(document.get("output_dir")))
                .unwrap_or_else(|| "./output".to_owned()),
            path,
            document,
        }
    }

    /// A text at the top level of the config.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.document.get(key).and_then(Value::as_str)
    }

    /// The `cloud` of the config's `resources`, lower case.
    pub fn cloud(&self) -> Option<String> {
        self.document
            .get("resources")?
            .get("cloud")?
            .as_str()
            .map(str::to_lowercase)
    }
}

/// Makes a leading `~` the home folder.
pub fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), dirs::home_dir()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(path),
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    // Opening a pipe would wait for whoever writes to it.
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format!(
            "it is larger than {} KiB, which no config is",
            MAX_CONFIG_BYTES / 1024
        ));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 ({error})"))?;
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
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
        Ok(Value::Null) => Err("it is empty".to_owned()),
        Ok(_) => Err("its root is not a mapping of keys to values".to_owned()),
        Err(error) => {
            let reason = error.to_string();
            Err(if reason.starts_with("budget breached") {
                format!("it holds more than a config does, its aliases written out ({reason})")
            } else {
                reason
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("c.yaml"), text).unwrap();
        Config::read("c.yaml", folder.path().to_str().unwrap())
    }

    #[test]
    fn a_training_config_with_anchors_merge_keys_and_interpolation_is_read() {
        let config = read(
            "base: &base {torch_dtype_str: float32}\nmodel:\n  <<: *base\n  model_name: ${oc.env:MODEL}\n\
             training:\n  output_dir: out/${run}\n  max_grad_norm: .inf\n  learning_rate: 1e-3\n  1: odd key\n",
        )
        .unwrap();
        assert_eq!(config.kind, ConfigKind::Training);
        assert_eq!(config.model_name, "${oc.env:MODEL}");
        assert_eq!(config.output_dir, "out/${run}");
    }

    #[test]
    fn any_of_three_keys_makes_it_a_job_config() {
        for key in ["resources: {cloud: gcp}", "setup: echo", "run: echo"] {
            assert_eq!(read(key).unwrap().kind, ConfigKind::Job, "{key}");
        }
    }

    #[test]
    fn what_is_not_said_has_the_reference_s_defaults() {
        let config = read("data: {}").unwrap();
        assert_eq!(
            (config.model_name.as_str(), config.output_dir.as_str()),
            ("unknown", "./output")
        );
        assert_eq!(read("output_dir: o").unwrap().output_dir, "o");
    }

    #[test]
    fn what_is_no_config_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("- a\n- b\n", "mapping"),
            ("just text", "mapping"),
            ("a: [1", "not usable"),
            ("a: 1\na: 2\n", "not usable"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(reason), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_or_of_depth_is_refused_quickly() {
        let mut aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (new, old) in ('b'..='z').zip('a'..='y') {
            aliases += &format!(
                "{new}: &{new} [*{old},*{old},*{old},*{old},*{old},*{old},*{old},*{old}]\n"
            );
        }
        assert!(read(&aliases).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_relative_folder_a_missing_file_and_a_pipe_are_refused() {
        assert!(
            Config::read("c.yaml", "relative")
                .unwrap_err()
                .to_string()
                .contains("absolute")
        );
        let folder = tempfile::tempdir().unwrap();
        let cwd = folder.path().to_str().unwrap();
        assert!(
            Config::read("none.yaml", cwd)
                .unwrap_err()
                .to_string()
                .contains("none.yaml")
        );
        assert!(
            Config::read(".", cwd)
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
    }

    #[test]
    fn commands_are_trimmed_and_case_blind() {
        assert_eq!(
            OumiCommand::parse(" Eval ").unwrap().subcommand(),
            "evaluate"
        );
        assert_eq!(
            OumiCommand::parse("synth").unwrap().subcommand(),
            "synthesize"
        );
        assert_eq!(OumiCommand::parse("rm -rf"), None);
    }
}
