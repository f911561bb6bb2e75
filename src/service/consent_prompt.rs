//! The texts of consent prompts: everything a user needs to decide, in lines that no value can imitate.

use serde_json::{Map, Value};

use super::consent::{ConsentPrompt, ConsentSubject};
use super::prepare::PreparedLaunch;
use crate::launcher::{ClusterAction, ClusterInfo, JobIdentity};
use crate::text::one_line;

/// The characters of a value, of a script and of a whole prompt that are shown.
const MAX_VALUE: usize = 400;
const MAX_SCRIPT: usize = 2000;
const MAX_PROMPT: usize = 16_000;

/// Asks whether a job may be cancelled that this server did not start.
pub(super) fn cancel(job: &JobIdentity, info: Option<&ClusterInfo>) -> ConsentPrompt {
    let mut text = PromptText::new("Cancel this job? It was not started by this server.");
    text.field("Job", &job.oumi_job_id);
    text.field("Cloud", &job.cloud);
    text.field("Cluster", &job.cluster);
    text.cluster(&job.cloud, info);
    text.line("What it computed and did not save is lost.");
    text.prompt(ConsentSubject::Cancel {
        oumi_job_id: job.oumi_job_id.clone(),
        cloud: job.cloud.clone(),
        cluster: job.cluster.clone(),
    })
}

/// Asks whether a cluster may be stopped or deleted.
pub(super) fn teardown(
    action: ClusterAction,
    cloud: &str,
    cluster: &str,
    info: Option<&ClusterInfo>,
) -> ConsentPrompt {
    let (on, of) = (cloud.to_owned(), cluster.to_owned());
    let (title, consequence, subject) = match action {
        ClusterAction::Stop => (
            "Stop this cluster?",
            "The jobs on it end. Its disks are kept and cost a little.",
            ConsentSubject::Stop {
                cloud: on,
                cluster: of,
            },
        ),
        ClusterAction::Down => (
            "Delete this cluster?",
            "The jobs on it end, and everything on its disks is lost.",
            ConsentSubject::Down {
                cloud: on,
                cluster: of,
            },
        ),
    };
    let mut text = PromptText::new(title);
    text.field("Cloud", cloud);
    text.field("Cluster", cluster);
    text.cluster(cloud, info);
    text.line(consequence);
    text.prompt(subject)
}

/// Asks whether a job may be started.
pub(super) fn launch(
    launch: &PreparedLaunch,
    info: Option<&ClusterInfo>,
    subject: ConsentSubject,
) -> ConsentPrompt {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let cloud = &spec.identity.cloud;
    let mut text = PromptText::new("Start this job?");
    let config = match plan.job_config.as_ref().and_then(Value::as_object) {
        Some(config) => {
            text.field("Cloud", cloud);
            text.resources(launch, config);
            text.cluster(cloud, info);
            config
        }
        None => {
            text.field("Cloud", "none, it runs on this machine");
            text.field("Runs", &plan.command_line);
            &spec.config.document
        }
    };
    text.field("Does", spec.command.name());
    text.field("Config", &spec.config.path.display().to_string());
    text.field("Model", &spec.config.model_name);
    text.field("Project folder", &spec.client_cwd.display().to_string());
    let fields = |name: &str| {
        config
            .get(name)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    let mounts = fields("file_mounts").map(|(to, from)| format!("{to} from {}", plain(from)));
    text.field("Files copied", &mounts.collect::<Vec<_>>().join(", "));
    let mut variables: Vec<&String> = fields("envs").map(|(name, _)| name).collect();
    variables.extend(spec.envs.keys());
    variables.sort();
    variables.dedup();
    let variables: Vec<&str> = variables.into_iter().map(String::as_str).collect();
    text.field("Variables (values not shown)", &variables.join(", "));
    for warning in &plan.warnings {
        text.field("Note", warning);
    }
    for name in ["setup", "run"] {
        if let Some(script) = config.get(name).and_then(Value::as_str) {
            text.script(name, script);
        }
    }
    text.prompt(subject)
}

/// Shows a value of a config without the quotes of JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Labelled lines. Each value is made one line, so that it cannot imitate a label.
struct PromptText(String);

impl PromptText {
    fn new(title: &str) -> Self {
        Self(title.to_owned())
    }

    fn prompt(self, subject: ConsentSubject) -> ConsentPrompt {
        ConsentPrompt {
            text: shorten(&self.0, MAX_PROMPT),
            subject,
        }
    }

    fn line(&mut self, line: &str) {
        self.0.push('\n');
        self.0.push_str(line);
    }

    fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let value = shorten(&one_line(value), MAX_VALUE);
            self.line(&format!("{label}: {value}"));
        }
    }

    fn script(&mut self, label: &str, script: &str) {
        if script.trim().is_empty() {
            return;
        }
        self.line(&format!("{label}:"));
        for line in shorten(script.trim_end(), MAX_SCRIPT).lines() {
            self.line(&format!("| {}", one_line(line)));
        }
    }

    fn resources(&mut self, launch: &PreparedLaunch, config: &Map<String, Value>) {
        let cluster = &launch.plan.cluster;
        if launch.spec.identity.cluster.is_empty() {
            self.field("Cluster", &format!("a new one, {cluster}"));
        } else {
            self.field("Cluster", cluster);
        }
        let resources = config.get("resources").and_then(Value::as_object);
        let known = |value: &&Value| !value.is_null();
        let resource = |name: &str| resources.and_then(|all| all.get(name)).filter(known);
        let accelerators = resource("accelerators").map_or_else(|| "none".to_owned(), plain);
        self.field("Accelerators", &accelerators);
        let nodes = config.get("num_nodes").filter(known);
        self.field("Nodes", &nodes.map_or_else(|| "1".to_owned(), plain));
        let is_spot = resource("use_spot").is_some_and(|spot| spot == true);
        self.field("Spot", if is_spot { "yes" } else { "no" });
        for (name, value) in resources.into_iter().flatten() {
            if !matches!(name.as_str(), "cloud" | "accelerators" | "use_spot") && known(&value) {
                // The name is the config's, so it must not look like a label of ours.
                self.field(&format!("resources.{}", one_line(name)), &plain(value));
            }
        }
    }

    fn cluster(&mut self, cloud: &str, info: Option<&ClusterInfo>) {
        let Some(info) = info else { return };
        if let Some(found) = info.cloud.as_deref().filter(|found| *found != cloud) {
            self.field("Found on cloud", found);
        }
        self.field("It is", &info.summary);
        if let Some(price) = info.hourly_price {
            self.line(&format!("Price: {price:.2} $/h"));
        }
    }
}

fn shorten(text: &str, max_chars: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(max_chars) else {
        return text.to_owned();
    };
    let left = text[end..].chars().count();
    format!(
        "{}… ({left} more characters; a dry run shows all)",
        &text[..end]
    )
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
    fn a_long_value_says_what_is_missing() {
        let mut text = PromptText::new("t");
        text.field("L", &"ä".repeat(MAX_VALUE + 3));
        text.script("run", &"x\n".repeat(MAX_SCRIPT));
        assert!(text.0.contains("ä… (3 more characters"), "{}", text.0);
        assert!(text.0.len() < 3 * MAX_SCRIPT, "{}", text.0.len());
        assert!(text.0.ends_with("a dry run shows all)"), "{}", text.0);
    }
}
