//! The job config of a cloud launch: a job config merged with the call, or a training config wrapped into one.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::LaunchSpec;
use crate::settings::config::{ConfigKind, expand_home};

/// What a hidden value is shown as.
const HIDDEN: &str = "***";
/// Credentials that Oumi's hubs are reached with; they are mounted where they exist.
const CREDENTIALS: [&str; 2] = ["~/.cache/huggingface/token", "~/.netrc"];

/// A job config that can be launched, and what the caller should know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobConfig {
    /// The config itself, with the values of `envs`: never to be shown or logged.
    pub document: Map<String, Value>,
    /// What was changed or cannot apply.
    pub warnings: Vec<String>,
}

impl JobConfig {
    /// The config for `spec`. `shell_envs` says that Oumi writes `export NAME=value` into a script without quoting the value
    /// (oumi 0.9 on slurm, polaris, perlmutter and frontier), so that the caller's values are quoted for it here.
    pub fn new(spec: &LaunchSpec, shell_envs: bool) -> Self {
        let mut warnings = Vec::new();
        let mut document = match spec.config.kind {
            ConfigKind::Job => passed_through(spec, &mut warnings),
            ConfigKind::Training => wrapped(spec),
        };
        merge_resources(&mut document, spec, &mut warnings);
        let quoted = |value: &String| {
            let quoted = shell_envs.then(|| shlex::try_quote(value).ok()).flatten();
            Value::from(quoted.map_or_else(|| value.clone(), |quoted| quoted.into_owned()))
        };
        merge(
            &mut document,
            "envs",
            spec.envs
                .iter()
                .map(|(name, value)| (name.clone(), quoted(value))),
        );
        merge(
            &mut document,
            "file_mounts",
            spec.file_mounts
                .iter()
                .map(|(to, from)| (to.clone(), from.clone().into())),
        );
        Self { document, warnings }
    }

    /// The job's name on its cluster.
    pub fn name(&self) -> &str {
        self.document
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The config as it may be shown: the values of `envs` hidden.
    pub fn shown(&self) -> Value {
        let mut document = self.document.clone();
        if let Some(envs) = document.get_mut("envs").and_then(Value::as_object_mut) {
            envs.values_mut().for_each(|value| *value = HIDDEN.into());
        }
        Value::Object(document)
    }

    /// The config as Oumi reads it from a file. It is JSON, which is YAML too: every text is quoted, so that no value can be
    /// taken for another type or end its line.
    pub fn to_yaml(&self) -> Result<String, serde_json::Error> {
        let mut document = Value::Object(self.document.clone());
        escape_interpolation(&mut document);
        let json = serde_json::to_string_pretty(&document)?;
        let mut yaml = String::with_capacity(json.len());
        for character in json.chars() {
            match character {
                // What YAML 1.1 does not allow raw, or takes for a line end.
                '\u{7f}'..='\u{9f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{feff}'
                | '\u{fffe}'
                | '\u{ffff}' => {
                    yaml.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                _ => yaml.push(character),
            }
        }
        // Oumi 0.9 puts a backslash before every `${` it finds in the file, which this hides from it.
        Ok(yaml.replace("${", "\\u0024{"))
    }
}

/// Oumi loads the file with OmegaConf, which would replace `${…}`: in front of it, n backslashes become 2n + 1, which
/// OmegaConf reads as n and a `${` that is meant as it stands.
fn escape_interpolation(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("${") => {
            let mut escaped = String::with_capacity(text.len() + 8);
            let mut backslashes = 0;
            let mut characters = text.chars().peekable();
            while let Some(character) = characters.next() {
                if character == '$' && characters.peek() == Some(&'{') {
                    escaped.extend(std::iter::repeat_n('\\', backslashes + 1));
                }
                backslashes = if character == '\\' {
                    backslashes + 1
                } else {
                    0
                };
                escaped.push(character);
            }
            *text = escaped;
        }
        Value::Object(object) => object.values_mut().for_each(escape_interpolation),
        Value::Array(array) => array.iter_mut().for_each(escape_interpolation),
        _ => {}
    }
}

/// `job_id` as a name that SkyPilot takes for a job (words of letters and digits, with `.`, `_` or `-` between them) and
/// that Slurm's command line, into which Oumi writes it as it stands, takes for one word.
pub(super) fn plain_name(job_id: &str) -> String {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
    if job_id.split(['.', '_', '-']).all(is_word) {
        return job_id.to_owned();
    }
    let words = job_id.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [] => "job".to_owned(),
        words => words.join("-"),
    }
}

fn passed_through(spec: &LaunchSpec, warnings: &mut Vec<String>) -> Map<String, Value> {
    let mut document = spec.config.document.clone();
    if document.get("name").is_none_or(Value::is_null) {
        document.insert("name".to_owned(), plain_name(&spec.identity.job_id).into());
    }
    let working_dir = match spec.config.text("working_dir").map(expand_home) {
        Some(path) => spec.client_cwd.join(path),
        None => spec.client_cwd.clone(),
    };
    document.insert(
        "working_dir".to_owned(),
        working_dir.display().to_string().into(),
    );
    for (name, given) in [
        ("setup_script", &spec.setup_script),
        ("run_script", &spec.run_script),
    ] {
        if given.is_some() {
            warnings.push(format!(
                "`{name}` is ignored: the job config has its own scripts"
            ));
        }
    }
    document
}

fn wrapped(spec: &LaunchSpec) -> Map<String, Value> {
    let mut mounts: Map<String, Value> = CREDENTIALS
        .into_iter()
        .filter(|path| expand_home(path).is_file())
        .map(|path| (path.to_owned(), path.into()))
        .collect();
    let config = match inside(&spec.config.path, &spec.client_cwd) {
        Some(relative) => shell_path(&relative),
        None => {
            // It is not among the files that are synced, so it is mounted beside them.
            let name = format!("oumi-mcp-{}.yaml", spec.identity.job_id);
            mounts.insert(
                format!("~/{name}"),
                spec.config.path.display().to_string().into(),
            );
            format!("\"$HOME\"/{}", quote(&name))
        }
    };
    let nodes = spec.resources.num_nodes.unwrap_or(1);
    let distributed = nodes > 1 || accelerator_count(spec.resources.accelerators.as_deref()) > 1;
    let oumi = if distributed {
        "oumi distributed torchrun -m oumi"
    } else {
        "oumi"
    };
    let run = format!(
        "{RUN_PREAMBLE}{oumi} {} -c {config}\n",
        spec.command.subcommand()
    );
    let document = json!({
        "name": plain_name(&spec.identity.job_id),
        "resources": {},
        "num_nodes": nodes,
        "working_dir": spec.client_cwd,
        "envs": {},
        "file_mounts": mounts,
        "setup": spec.setup_script.clone().unwrap_or_else(|| SETUP.to_owned()),
        "run": spec.run_script.clone().unwrap_or(run),
    });
    // `json!` of braces is an object.
    if let Value::Object(document) = document {
        document
    } else {
        Map::new()
    }
}

const SETUP: &str = "\
set -e
python3 -m pip install 'oumi[gpu]'
export PATH=\"$HOME/.local/bin:$PATH\"
command -v oumi >/dev/null || { echo 'oumi was installed and is not on PATH' >&2; exit 1; }
";

const RUN_PREAMBLE: &str = "\
set -e
export PATH=\"$HOME/.local/bin:$PATH\"
command -v oumi >/dev/null || { echo 'oumi was not found on this cluster: its setup did not install it' >&2; exit 127; }
";

fn merge_resources(
    document: &mut Map<String, Value>,
    spec: &LaunchSpec,
    warnings: &mut Vec<String>,
) {
    let cloud = spec.identity.cloud.as_str();
    if let Some(other) = spec.config.cloud().filter(|other| other != cloud) {
        warnings.push(format!(
            "the config asks for cloud `{other}`; it is launched on `{cloud}`, as `cloud` says"
        ));
    }
    let mut given = vec![("cloud", Value::from(cloud))];
    given.extend(
        spec.resources
            .accelerators
            .as_ref()
            .map(|what| ("accelerators", what.as_str().into())),
    );
    given.extend(spec.resources.use_spot.then_some(("use_spot", true.into())));
    given.extend(
        spec.resources
            .disk_size
            .map(|size| ("disk_size", size.into())),
    );
    merge(
        document,
        "resources",
        given
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(nodes) = spec.resources.num_nodes {
        document.insert("num_nodes".to_owned(), nodes.into());
    }
}

/// Puts entries over those of a section; a section that is no mapping gives way to them.
fn merge(
    document: &mut Map<String, Value>,
    section: &str,
    entries: impl Iterator<Item = (String, Value)>,
) {
    let mut merged = match document.get(section) {
        Some(Value::Object(section)) => section.clone(),
        _ => Map::new(),
    };
    merged.extend(entries);
    document.insert(section.to_owned(), Value::Object(merged));
}

/// How many accelerators `A100:8` means: 8. One without a number is one.
fn accelerator_count(accelerators: Option<&str>) -> u32 {
    let Some(text) = accelerators else { return 0 };
    text.rsplit_once(':')
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(1)
}

/// The path below `folder`; nothing when it is not below it.
fn inside(path: &Path, folder: &Path) -> Option<PathBuf> {
    let relative = path.strip_prefix(folder).ok()?;
    relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| relative.to_owned())
}

/// A relative path as a word of a shell, never an option.
fn shell_path(path: &Path) -> String {
    let text = path.display().to_string();
    quote(&if text.starts_with('-') {
        format!("./{text}")
    } else {
        text
    })
}

/// A word of a shell. Only a NUL cannot be quoted, and no file name holds one.
fn quote(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| "''".to_owned(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::launcher::{JobIdentity, Resources};
    use crate::settings::config::{Config, OumiCommand};

    const NASTY: &[&str] = &[
        "plain",
        "two words",
        "it's \"quoted\"",
        "$HOME ${HOME} \\${HOME} \\\\${x} $${y}",
        "line one\nline two\n",
        "tab\tand trailing space ",
        "yes",
        "1e3",
        "null",
        "- # : {} [] & * ! | > % @ `",
        "schlüssel 鍵 🔑",
        "\u{7f}\u{85}\u{2028}\u{feff}",
        "",
    ];

    fn spec(folder: &Path, config_path: &str, config: &str, cloud: &str) -> LaunchSpec {
        let path = folder.join(config_path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, config).unwrap();
        LaunchSpec {
            identity: JobIdentity {
                job_id: "job-1".into(),
                cloud: cloud.into(),
                ..JobIdentity::default()
            },
            command: OumiCommand::parse("train").unwrap(),
            config: Config::read(path.to_str().unwrap(), folder.to_str().unwrap()).unwrap(),
            client_cwd: folder.to_owned(),
            resources: Resources::default(),
            envs: BTreeMap::new(),
            file_mounts: BTreeMap::new(),
            setup_script: None,
            run_script: None,
        }
    }

    fn run_script(config: &JobConfig) -> &str {
        config.document["run"].as_str().unwrap()
    }

    #[test]
    fn a_job_config_keeps_what_it_says_and_gets_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let text = "resources: {cloud: aws, cpus: 4}\nworking_dir: sub\nenvs: {A: '1', B: '2'}\nrun: echo\nnew_key: kept\n";
        let mut spec = spec(folder.path(), "job.yaml", text, "gcp");
        spec.envs.insert("B".into(), "mine".into());
        spec.resources.accelerators = Some("A100:8".into());
        let config = JobConfig::new(&spec, false);
        assert_eq!(config.name(), "job-1");
        assert_eq!(
            config.document["resources"],
            json!({"cloud": "gcp", "cpus": 4, "accelerators": "A100:8"})
        );
        assert_eq!(
            config.document["working_dir"],
            folder.path().join("sub").to_str().unwrap()
        );
        assert_eq!(config.document["envs"], json!({"A": "1", "B": "mine"}));
        assert_eq!(config.document["new_key"], "kept");
        assert!(
            config.warnings[0].contains("`aws`") && config.warnings[0].contains("`gcp`"),
            "{:?}",
            config.warnings
        );
        assert_eq!(config.shown()["envs"], json!({"A": "***", "B": "***"}));
    }

    #[test]
    fn what_is_written_reads_back_as_it_was_whatever_the_values() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path(), "job.yaml", "run: echo\n", "gcp");
        for (at, value) in NASTY.iter().enumerate() {
            spec.envs.insert(format!("V{at}"), (*value).to_owned());
        }
        let yaml = JobConfig::new(&spec, false).to_yaml().unwrap();
        assert!(!yaml.contains("${"), "Oumi would put a backslash into it");
        let read: Map<String, Value> = serde_saphyr::from_str(&yaml).unwrap();
        for (at, value) in NASTY.iter().enumerate() {
            let read = read["envs"][format!("V{at}")].as_str().unwrap();
            assert_eq!(unescaped_as_omegaconf_does(read), *value);
        }
    }

    /// What OmegaConf 2.3 makes of a text: n backslashes before `${` are n / 2, the last of an odd number being the escape.
    fn unescaped_as_omegaconf_does(text: &str) -> String {
        let mut parts = text.split("${");
        let mut read = parts.next().unwrap().to_owned();
        for part in parts {
            let kept = read.trim_end_matches('\\').len();
            let backslashes = read.len() - kept;
            assert_eq!(backslashes % 2, 1, "this would be replaced: {text}");
            read.truncate(kept + backslashes / 2);
            read = read + "${" + part;
        }
        read
    }

    #[test]
    fn values_are_quoted_where_oumi_writes_them_into_a_script_as_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path(), "job.yaml", "run: echo\n", "slurm");
        for (at, value) in NASTY.iter().enumerate() {
            spec.envs.insert(format!("V{at}"), (*value).to_owned());
        }
        let config = JobConfig::new(&spec, true);
        for (at, value) in NASTY.iter().enumerate() {
            let written = config.document["envs"][format!("V{at}")].as_str().unwrap();
            let script = format!("export V={written}\nprintf %s \"$V\"");
            let said = Command::new("bash").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), *value);
        }
    }

    #[test]
    fn a_wrapped_config_runs_oumi_with_the_very_path_whatever_it_holds() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join(".local/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(
            bin.join("oumi"),
            "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\n",
        )
        .unwrap();
        std::fs::set_permissions(bin.join("oumi"), PermissionsExt::from_mode(0o755)).unwrap();
        for name in [
            "c.yaml",
            "with space/it's $HOME \"x\".yaml",
            "-c.yaml",
            "schlüssel\nneue zeile.yaml",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let spec = spec(folder.path(), name, "model: {}\n", "gcp");
            let config = JobConfig::new(&spec, false);
            let said = Command::new("bash")
                .args(["-c", run_script(&config)])
                .env("HOME", home.path())
                .current_dir(folder.path())
                .output()
                .unwrap();
            let expected = if name.starts_with('-') {
                format!("./{name}")
            } else {
                name.to_owned()
            };
            assert_eq!(
                String::from_utf8(said.stdout).unwrap(),
                format!("[train][-c][{expected}]")
            );
        }
    }

    #[test]
    fn a_cluster_without_oumi_says_so() {
        let home = tempfile::tempdir().unwrap();
        let spec = spec(home.path(), "c.yaml", "model: {}\n", "gcp");
        let config = JobConfig::new(&spec, false);
        let script = run_script(&config);
        let said = Command::new("bash")
            .args(["-c", script])
            .env("HOME", home.path())
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(127));
        assert!(
            String::from_utf8(said.stderr)
                .unwrap()
                .contains("oumi was not found on this cluster")
        );
    }

    #[test]
    fn more_than_one_gpu_or_node_runs_through_torchrun() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path(), "c.yaml", "model: {}\n", "gcp");
        let distributed = |spec: &LaunchSpec| {
            run_script(&JobConfig::new(spec, false)).contains("torchrun -m oumi train -c c.yaml")
        };
        assert!(!distributed(&spec));
        for (accelerators, expected) in [("A100", false), ("A100:1", false), ("A100:8", true)] {
            spec.resources.accelerators = Some(accelerators.into());
            assert_eq!(distributed(&spec), expected, "{accelerators}");
        }
        spec.resources = Resources {
            num_nodes: Some(2),
            ..Resources::default()
        };
        assert!(distributed(&spec));
    }

    #[test]
    fn a_config_outside_the_project_is_mounted() {
        let elsewhere = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(elsewhere.path(), "c.yaml", "model: {}\n", "gcp");
        spec.client_cwd = folder.path().to_owned();
        let config = JobConfig::new(&spec, false);
        assert_eq!(
            config.document["file_mounts"]["~/oumi-mcp-job-1.yaml"],
            elsewhere.path().join("c.yaml").to_str().unwrap()
        );
        assert!(run_script(&config).contains("-c \"$HOME\"/oumi-mcp-job-1.yaml"));
    }
}
