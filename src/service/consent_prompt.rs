//! What a person is asked: all that they need to know before they agree, in lines that no value can imitate.

use serde_json::{Map, Value};

use super::consent::Question;
use crate::launcher::{ClusterAction, ClusterInfo, JobIdentity, LaunchPlan, LaunchSpec};

/// Asks for a job to be cancelled that was not started here.
pub(super) fn cancel_question(job: &JobIdentity, facts: Option<&ClusterInfo>) -> Question {
    let mut text = Lines::of("Cancel this job? It was not started by this server.");
    text.line("Job", &job.oumi_job_id);
    text.line("Cloud", &job.cloud);
    text.line("Cluster", &job.cluster);
    text.cluster(&job.cloud, facts);
    text.say("What it computed and did not save is lost.");
    text.about(format!(
        "cancel {:?} on {:?} {:?}",
        job.oumi_job_id, job.cloud, job.cluster
    ))
}

/// Asks for a cluster to be stopped or deleted.
pub(super) fn cluster_question(
    action: ClusterAction,
    cloud: &str,
    cluster: &str,
    facts: Option<&ClusterInfo>,
) -> Question {
    let (title, consequence) = match action {
        ClusterAction::Stop => (
            "Stop this cluster?",
            "The jobs on it end. Its disks are kept and cost a little.",
        ),
        ClusterAction::Down => (
            "Delete this cluster?",
            "The jobs on it end, and everything on its disks is lost.",
        ),
    };
    let mut text = Lines::of(title);
    text.line("Cloud", cloud);
    text.line("Cluster", cluster);
    text.cluster(cloud, facts);
    text.say(consequence);
    text.about(format!("{action:?} {cloud:?} {cluster:?}"))
}

/// Asks for a job to be started. `about` is what the plan is known by.
pub(super) fn launch_question(
    spec: &LaunchSpec,
    plan: &LaunchPlan,
    facts: Option<&ClusterInfo>,
    about: String,
) -> Question {
    let cloud = &spec.identity.cloud;
    let mut text = Lines::of("Start this job?");
    let scripts = match plan.job_config.as_ref().and_then(Value::as_object) {
        Some(config) => {
            text.line("Cloud", cloud);
            text.machines(spec, plan, config);
            text.cluster(cloud, facts);
            config
        }
        None => {
            text.line("Cloud", "none, it runs on this machine");
            text.line("Runs", &plan.command_line);
            &spec.config.document
        }
    };
    text.line("Does", spec.command.name());
    text.line("Config", &spec.config.path.display().to_string());
    text.line("Model", &spec.config.model_name);
    text.line("Project folder", &spec.client_cwd.display().to_string());
    let names = |value: Option<&Value>| -> Vec<String> {
        let fields = value.and_then(Value::as_object).into_iter().flatten();
        fields.map(|(name, _)| name.clone()).collect()
    };
    let mounts = scripts.get("file_mounts").and_then(Value::as_object);
    let mounts = mounts.into_iter().flatten();
    let mounts: Vec<String> = mounts
        .map(|(to, from)| format!("{to} from {}", said(from)))
        .collect();
    text.line("Files copied", &mounts.join(", "));
    let mut variables = names(scripts.get("envs"));
    variables.extend(spec.envs.keys().cloned());
    variables.sort();
    variables.dedup();
    text.line("Variables (values not shown)", &variables.join(", "));
    for warning in &plan.warnings {
        text.line("Note", warning);
    }
    for name in ["setup", "run"] {
        if let Some(script) = scripts.get(name).and_then(Value::as_str) {
            text.script(name, script);
        }
    }
    text.about(about)
}

/// A value of a config as a person reads it.
fn said(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// How much of a value, and of a script, is shown.
const SHOWN_VALUE: usize = 400;
const SHOWN_SCRIPT: usize = 2000;
/// How much of it all.
const SHOWN: usize = 16_000;

/// A text of labelled lines. No value can look like a line of its own, whatever it holds.
struct Lines(String);

impl Lines {
    fn of(title: &str) -> Self {
        Self(title.to_owned())
    }

    fn about(self, about: String) -> Question {
        Question {
            text: shortened(&self.0, SHOWN),
            about,
        }
    }

    fn say(&mut self, line: &str) {
        self.0.push('\n');
        self.0.push_str(line);
    }

    fn line(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.say(&format!(
                "{label}: {}",
                shortened(&plain(value), SHOWN_VALUE)
            ));
        }
    }

    /// A script, each of its lines marked as one.
    fn script(&mut self, label: &str, script: &str) {
        if script.trim().is_empty() {
            return;
        }
        self.say(&format!("{label}:"));
        for line in shortened(script.trim_end(), SHOWN_SCRIPT).lines() {
            self.say(&format!("| {}", plain(line)));
        }
    }

    /// What is asked of a cloud.
    fn machines(&mut self, spec: &LaunchSpec, plan: &LaunchPlan, config: &Map<String, Value>) {
        if spec.identity.cluster.is_empty() {
            self.line("Cluster", &format!("a new one, {}", plan.cluster));
        } else {
            self.line("Cluster", &plan.cluster);
        }
        let mut resources = match config.get("resources") {
            Some(Value::Object(resources)) => resources.clone(),
            _ => Map::new(),
        };
        resources.remove("cloud");
        let accelerators = resources
            .remove("accelerators")
            .filter(|asked| !asked.is_null());
        let accelerators = accelerators
            .as_ref()
            .map_or_else(|| "none".to_owned(), said);
        self.line("Accelerators", &accelerators);
        let nodes = config.get("num_nodes").filter(|asked| !asked.is_null());
        self.line("Nodes", &nodes.map_or_else(|| "1".to_owned(), said));
        let is_spot = resources
            .remove("use_spot")
            .is_some_and(|asked| asked == true);
        self.line("Spot", if is_spot { "yes" } else { "no" });
        for (name, asked) in resources.iter().filter(|(_, asked)| !asked.is_null()) {
            // A name of the config's own is no label of ours.
            self.line(&format!("resources.{}", plain(name)), &said(asked));
        }
    }

    /// What is known of a cluster beside its name.
    fn cluster(&mut self, cloud: &str, facts: Option<&ClusterInfo>) {
        let Some(facts) = facts else { return };
        if let Some(found) = facts.cloud.as_deref().filter(|found| *found != cloud) {
            self.line("Found on cloud", found);
        }
        self.line("It is", &facts.summary);
        if let Some(price) = facts.hourly_price {
            self.say(&format!("Price: {price:.2} $/h"));
        }
    }
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => {
            let left = text[end..].chars().count();
            format!(
                "{}… ({left} more characters; a dry run shows all)",
                &text[..end]
            )
        }
        None => text.to_owned(),
    }
}

/// A text in one line that is read as it stands: nothing that a terminal obeys, or that turns its order around.
fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() || turns(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_look_like_a_line_of_its_own() {
        let mut text = Lines::of("Start this job?");
        text.line("Accelerators", "A100:8\nPrice: 0.00 $/h\u{202e}\r\u{1b}[2J");
        text.script("run", "echo hi\r\nPrice: 0.00 $/h\n\u{2028}Cloud: local");
        assert_eq!(
            text.0,
            "Start this job?\nAccelerators: A100:8 Price: 0.00 $/h\u{fffd}\u{fffd}\u{fffd}[2J\nrun:\n| echo hi\n\
             | Price: 0.00 $/h\n| \u{fffd}Cloud: local"
        );
    }

    #[test]
    fn what_is_too_long_says_how_much_is_missing() {
        let mut text = Lines::of("t");
        text.line("L", &"ä".repeat(SHOWN_VALUE + 3));
        text.script("run", &"x\n".repeat(SHOWN_SCRIPT));
        assert!(text.0.contains("ä… (3 more characters"), "{}", text.0);
        assert!(text.0.len() < 3 * SHOWN_SCRIPT, "{}", text.0.len());
        assert!(text.0.ends_with("a dry run shows all)"), "{}", text.0);
    }
}
