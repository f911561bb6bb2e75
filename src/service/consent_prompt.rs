//! The texts of consent prompts: everything a user needs to decide, in lines that no value can imitate.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::consent::{Change, ConsentPrompt};
use super::prepare::PreparedLaunch;
use crate::launcher::ClusterInfo;
use crate::launcher::job_yaml::is_on;
use crate::settings::config::expand_home;
use crate::text::{hours, one_line};

/// The bytes of a value, of a script, of a whole prompt, and of the config beside it that are shown.
const MAX_VALUE: usize = 400;
const MAX_SCRIPT: usize = 2000;
const MAX_PROMPT: usize = 16_000;
const MAX_CONFIG: usize = 16_000;

pub(super) fn change(change: &Change<'_>, info: Option<&ClusterInfo>) -> ConsentPrompt {
    let mut text = PromptText::new(change.question);
    text.field("Job", change.job);
    text.field("Cloud", change.cloud);
    text.field("Cluster", change.cluster);
    text.cluster(change.cloud, info);
    if let Some(info) = info {
        text.field("Price", &info.offer.text());
    }
    text.field("Launches onto it that are under way", change.launching);
    text.line(change.consequence);
    text.prompt(format!(
        "{} {:?} of {:?} on {:?}",
        change.question, change.job, change.cluster, change.cloud
    ))
}

pub(super) fn launch(
    launch: &PreparedLaunch,
    info: Option<&ClusterInfo>,
    plan_id: String,
) -> ConsentPrompt {
    let mut text = describe("Start this job?", launch, info);
    for name in ["setup", "run"] {
        let config = launch.plan.job_config.as_ref();
        if let Some(script) = config.and_then(|config| config.get(name)?.as_str()) {
            text.script(name, script);
        }
    }
    text.prompt(plan_id)
}

/// Says what a dry run would start, without the scripts.
pub(super) fn preview(launch: &PreparedLaunch) -> String {
    describe("Nothing was started. This would run:", launch, None).0
}

fn describe(title: &str, launch: &PreparedLaunch, info: Option<&ClusterInfo>) -> PromptText {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let mut text = PromptText::new(title);
    let config = plan.job_config.as_ref().unwrap_or(&Value::Null);
    if launch.is_local {
        text.field("Cloud", "none, it runs on this machine");
        if config.is_null() && spec.processes() == Some(1) {
            text.field("Processes", "1; accelerators=\"4\" trains on 4 GPUs");
        }
    } else {
        let (cluster, resources) = (&plan.cluster, &config["resources"]);
        let is_new = spec.identity.cluster.is_empty();
        let is_spot = may_be_spot(resources);
        text.field("Cloud", &spec.identity.cloud);
        text.field(
            "Cluster",
            &format!("{}{cluster}", if is_new { "a new one, " } else { "" }),
        );
        text.field("Accelerators", &plain(&resources["accelerators"], "none"));
        text.field("Nodes", &plain(&config["num_nodes"], "1"));
        text.field("Spot", if is_spot { "yes" } else { "no" });
        text.others("resources", resources);
        text.cluster(&spec.identity.cloud, info);
        if let Some(costs) = &launch.costs {
            text.field("Price", &costs.offer.text());
            text.field("Already", &costs.up_text());
        }
    }
    text.field("Runs", &plan.command_line);
    // Else the command shows both.
    if !config.is_null() {
        text.field("Does", spec.command.name);
        text.field("Config", &spec.config.path.display().to_string());
    }
    text.field("Model", &spec.config.model_name);
    text.field("Output", &spec.config.output_dir);
    text.field("Idle cluster", plan.autostop.as_deref().unwrap_or_default());
    text.field("Time limit", &time_limit(launch).unwrap_or_default());
    // Else the path of the config shows it.
    if spec.config.path.parent() != Some(&spec.client_cwd) {
        text.field("Project folder", &spec.client_cwd.display().to_string());
    }
    let envs = config["envs"].as_object().into_iter().flat_map(Map::keys);
    let names: BTreeSet<&String> = envs.chain(spec.envs.keys()).collect();
    text.field(
        "Variables (values not shown)",
        &join(names.into_iter().cloned()),
    );
    for warning in &plan.warnings {
        text.field("Note", warning);
    }
    text.others("config", config);
    text
}

fn time_limit(launch: &PreparedLaunch) -> Option<String> {
    let limit = launch.spec.resources.time_limit_seconds?;
    let price = launch
        .costs
        .as_ref()
        .and_then(|costs| costs.offer.highest());
    let cost = price.map(|price| format!(", at most ${:.2}", price * limit as f64 / 3600.0));
    let hours = hours(limit);
    Some(format!("at most {hours}{}", cost.unwrap_or_default()))
}

/// Shows a value of a config, or `absent`, without the quotes and escapes of JSON, in which no secret would be found.
fn plain(value: &Value, absent: &str) -> String {
    match value {
        Value::Null => absent.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", join(items.iter().map(|item| plain(item, "null")))),
        Value::Object(fields) => {
            let field = |(name, value)| format!("{name}: {}", plain(value, "null"));
            format!("{{{}}}", join(fields.iter().map(field)))
        }
        other => other.to_string(),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Cuts a text to `max_bytes`, and counts what is left out.
fn excerpt(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let (start, rest) = text.split_at(text.floor_char_boundary(max_bytes));
    format!("{start}… ({} more bytes in the config)", rest.len())
}

/// Copies a job config; of one with more than [`MAX_CONFIG`] bytes an excerpt, in which no long script hides another field.
pub(super) fn job_config(config: &Value) -> Value {
    let fields = config.as_object().into_iter().flatten();
    let field = |(name, value)| format!("{name}: {}", plain(value, "null"));
    let mut fields: Vec<String> = fields.map(field).collect();
    fields.sort_by_key(String::len);
    let text = fields.join(", ");
    match text.len() <= MAX_CONFIG {
        true => config.clone(),
        false => json!({ "…": excerpt(&text, MAX_CONFIG) }),
    }
}

/// Tells if resources, or one of their choices, ask for spot machines.
fn may_be_spot(resources: &Value) -> bool {
    let choices = ["any_of", "ordered"].into_iter();
    let mut choices = choices
        .filter_map(|name| resources.get(name)?.as_array())
        .flatten();
    resources.get("use_spot").is_some_and(is_on) || choices.any(may_be_spot)
}

fn holds_home(folder: &str) -> bool {
    let home = dirs::home_dir();
    home.is_some_and(|home| home.starts_with(expand_home(folder)))
}

/// Labelled lines. Each value is made one line, so that it cannot imitate a label.
struct PromptText(String);

impl PromptText {
    fn new(title: &str) -> Self {
        Self(title.to_owned())
    }

    fn prompt(self, subject: String) -> ConsentPrompt {
        ConsentPrompt {
            text: excerpt(&self.0, MAX_PROMPT),
            subject,
        }
    }

    fn line(&mut self, line: &str) {
        self.0.push('\n');
        self.0.push_str(line);
    }

    fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let value = excerpt(&one_line(value), MAX_VALUE);
            self.line(&format!("{label}: {value}"));
        }
    }

    /// Shows what else decides what the job does, whatever the config calls it.
    fn others(&mut self, part: &str, config: &Value) {
        let fields = config.as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(_, value)| !value.is_null() && **value != json!({})) {
            match (part, name.as_str(), value) {
                ("config", "name" | "num_nodes" | "envs", _)
                | ("config", "resources", Value::Object(_))
                | ("config", "setup" | "run", Value::String(_))
                | ("resources", "cloud" | "accelerators" | "use_spot", _) => {}
                ("config", "working_dir", Value::String(folder)) if holds_home(folder) => {
                    self.field(
                        "Working folder",
                        &format!("{folder} (your whole home folder)"),
                    );
                }
                ("config", "working_dir", Value::String(folder)) => {
                    self.field("Working folder", folder);
                }
                ("config", "file_mounts", Value::Object(mounts)) => {
                    let mount = |(to, from)| format!("{to} from {}", plain(from, "null"));
                    self.field("Files copied", &join(mounts.iter().map(mount)));
                }
                // The name is the config's, so it must not look like a label of ours.
                _ => self.field(&format!("{part}.{}", one_line(name)), &plain(value, "null")),
            }
        }
    }

    fn script(&mut self, label: &str, script: &str) {
        if script.trim().is_empty() {
            return;
        }
        self.line(&format!("{label}:"));
        for line in excerpt(script.trim_end(), MAX_SCRIPT).lines() {
            self.line(&format!("| {}", one_line(line)));
        }
    }

    fn cluster(&mut self, cloud: &str, info: Option<&ClusterInfo>) {
        let Some(info) = info else { return };
        if let Some(found) = info.cloud.as_deref().filter(|found| *found != cloud) {
            self.field("Found on cloud", found);
        }
        self.field("It is", &info.summary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_imitates_a_label() {
        let mut text = PromptText::new("Start this job?");
        text.field("Accelerators", "A100:8\nPrice: 0.00 $/h\u{202e}\r\u{1b}[2J");
        text.script("run", "echo hi\r\nPrice: 0.00 $/h\n\u{2028}Cloud: local");
        assert_eq!(
            text.0,
            "Start this job?\nAccelerators: A100:8 Price: 0.00 $/h\u{fffd}\u{fffd}\u{fffd}[2J\nrun:\n| echo hi\n\
             | Price: 0.00 $/h\n| \u{fffd}Cloud: local"
        );
    }

    #[test]
    fn spot_is_told_in_every_form() {
        let spot = |resources: &str| may_be_spot(&serde_json::from_str(resources).unwrap());
        for value in [
            "true",
            "1",
            "1.0",
            r#""true""#,
            r#""1""#,
            r#""Yes""#,
            r#""on""#,
            r#""Y""#,
        ] {
            let one = format!(r#"{{"use_spot": {value}}}"#);
            assert!(spot(&one), "{one}");
            assert!(spot(&format!(r#"{{"any_of": [{{}}, {one}]}}"#)), "{one}");
            assert!(
                spot(&format!(r#"{{"use_spot": false, "ordered": [{one}]}}"#)),
                "{one}"
            );
        }
        for value in ["false", "0", r#""false""#, r#""no""#, r#""""#, "null", "[]"] {
            assert!(
                !spot(&format!(r#"{{"use_spot": {value}, "any_of": 1}}"#)),
                "{value}"
            );
        }
    }

    #[test]
    fn a_long_value_says_what_is_missing() {
        let mut text = PromptText::new("t");
        text.field("L", &"ä".repeat(MAX_VALUE));
        text.script("run", &"x\n".repeat(MAX_SCRIPT));
        assert!(
            text.0.contains(&format!("ä… ({MAX_VALUE} more bytes")),
            "{}",
            text.0
        );
        assert!(text.0.len() < 3 * MAX_SCRIPT, "{}", text.0.len());
        assert!(text.0.ends_with("in the config)"), "{}", text.0);
    }
    #[test]
    fn a_config_is_copied_within_its_bound() {
        let small = json!({ "run": "echo hi\n", "envs": { "A": "***" }, "num_nodes": 2, "x": [null, true] });
        assert_eq!(job_config(&small), small);
        let long = json!({ "setup": "x".repeat(800_000), "run": "echo hi" });
        assert!(job_config(&long).to_string().contains("echo hi"));
        let empty = (0..20_000).map(|n| (n.to_string(), json!({})));
        for large in [
            long,
            json!({ "a": vec!["ä".repeat(5000); 50], "b": 1 }),
            json!({ "a": vec![1; 20_000] }),
            (0..2000)
                .map(|n| (n.to_string(), json!("x".repeat(1000))))
                .collect(),
            json!({ "k".repeat(800_000): 1, "b": 2, "c": [3] }),
            empty.collect(),
        ] {
            let text = job_config(&large).to_string();
            assert!(text.len() < 2 * MAX_CONFIG, "{}", text.len());
            assert!(text.contains("more"), "{text}");
        }
    }
}
