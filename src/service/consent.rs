//! Asks the user before something is started or ended that costs money, in lines that no value can imitate.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::JobService;
use super::prepare::PreparedLaunch;
use crate::error::{JobError, Result};
use crate::launcher::job_yaml::is_on;
use crate::launcher::{ClusterInfo, JobIdentity, Offer, check_cloud};
use crate::process::runner::until;
use crate::settings::config::expand_home;
use crate::settings::env_vars;
use crate::settings::policy::AskUser;
use crate::text::{hours, one_line};

/// The wait for SkyPilot's description of a cluster, and for its jobs, which the prompt shows.
const CLUSTER_INFO_WAIT: Duration = Duration::from_secs(15);
/// The bytes of a value, of a script, and of a whole prompt that are shown.
const MAX_VALUE: usize = 400;
const MAX_SCRIPT: usize = 2000;
const MAX_PROMPT: usize = 16_000;
/// The fields of a job config that the prompt shows under labels of its own.
const LABELLED: &str = "name num_nodes envs resources setup run working_dir file_mounts";

#[derive(Debug, Clone)]
pub(crate) struct ConsentPrompt {
    /// Everything the user needs to decide, in lines.
    pub(crate) text: String,
    /// Names what the user agrees to: the id of a plan, or a change in words. Consent to one is none to another.
    pub(crate) subject: String,
}

/// A change that the user is asked about: a job that this server did not start is cancelled, or a cluster stopped or deleted.
pub(super) struct Change<'a> {
    pub(super) question: &'static str,
    /// Without the launcher's id for a cluster.
    pub(super) of: &'a JobIdentity,
    /// The jobs that are being launched onto the cluster.
    pub(super) launching: &'a str,
    pub(super) consequence: &'static str,
}

/// The way to the user of one call.
#[async_trait]
pub(crate) trait ConsentProvider: Send + Sync {
    /// Asks and waits. Returns the subject the user agreed to, which an earlier call may have asked about.
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<String>;
}

impl JobService {
    pub(super) fn can_ask(&self) -> bool {
        self.provider.is_some()
    }

    /// Asks before a change, where the user can be reached; elsewhere the arguments of the call must do.
    pub(super) async fn confirm(&self, change: &Change<'_>) -> Result<()> {
        let asked = self.try_confirm(change).await;
        asked.map_err(|error| error.context("nothing was done"))
    }

    async fn try_confirm(&self, change: &Change<'_>) -> Result<()> {
        let JobIdentity {
            oumi_job_id: job,
            cloud,
            cluster,
            ..
        } = change.of;
        let Some(provider) = &self.provider else {
            // The policy decides by the cloud that the cluster is on.
            let is_needed = self.context.policy.clouds.is_some();
            let cluster = if is_needed { cluster } else { "" };
            return self.cluster_info(cloud, cluster).await.map(drop);
        };
        let launcher = self.context.allowed_launcher(cloud)?;
        let deadline = Instant::now() + CLUSTER_INFO_WAIT;
        let live = until(deadline, launcher.live_jobs(change.of));
        let (info, live) = tokio::join!(self.cluster_info(cloud, cluster), live);
        let info = info?;
        let mut text = PromptText::new(change.question);
        text.field("Job", job);
        text.field("Cloud", cloud);
        text.field("Cluster", cluster);
        text.field("It is", info.as_ref().map_or("", |info| &info.summary));
        if let Some(info) = info.filter(|info| !info.is_stopped) {
            text.field("Price", &info.offer.text());
        }
        let is_cluster = job.is_empty();
        let label = if is_cluster { "Jobs on it" } else { "Its name" };
        text.field(label, live.as_deref().unwrap_or("not known"));
        text.field("Launches under way onto it", change.launching);
        text.line(change.consequence);
        let question = change.question;
        let mut prompt = text.prompt(format!("{question} {job:?} of {cluster:?} on {cloud:?}"));
        for redactor in self.cluster_redactors(cluster).await {
            prompt.text = redactor.redact(&prompt.text);
        }
        if provider.ask(&prompt).await? == prompt.subject {
            return Ok(());
        }
        Err(JobError::blocked("the user agreed to something else")
            .with_hint("call the tool again, so that the user is asked again"))
    }

    /// Describes a cluster, if it exists. The launcher goes by its name alone, so that the cluster may be on another cloud than the
    /// call gives, or on a forbidden one: then this fails.
    pub(super) async fn cluster_info(
        &self,
        cloud: &str,
        cluster: &str,
    ) -> Result<Option<ClusterInfo>> {
        let policy = &self.context.policy;
        let launcher = self.context.allowed_launcher(cloud)?;
        if cluster.is_empty() {
            return Ok(None);
        }
        let deadline = Instant::now() + CLUSTER_INFO_WAIT;
        let info = match until(deadline, launcher.clusters(Some(cluster))).await {
            Ok(list) => list.into_iter().next(),
            Err(error) if policy.clouds.is_some() => return Err(error),
            // The prompt shows the cluster and its price as not known.
            Err(error) => Some(ClusterInfo {
                summary: format!("not known: {error}"),
                offer: Offer::unknown(error.to_string()),
                ..ClusterInfo::default()
            }),
        };
        let found = info.as_ref().and_then(|info| info.cloud.as_deref());
        if policy.clouds.is_some() && info.is_some() {
            let unknown = || {
                JobError::blocked(format!(
                    "the cloud of cluster {cluster} is not known, and not every cloud may be used"
                ))
            };
            policy.check(found.ok_or_else(unknown)?)?;
        }
        check_cloud(cluster, found, cloud, launcher.clouds())?;
        Ok(info)
    }

    /// Asks the user where the policy wants that, and returns the id of the plan that they agreed to, perhaps minutes ago.
    pub(super) async fn confirm_launch(
        &self,
        launch: &mut PreparedLaunch,
        plan_id: &str,
    ) -> Result<Option<String>> {
        let asks_always = self.context.policy.ask == AskUser::Always;
        if launch.is_local && !asks_always {
            return Ok(None);
        }
        let Some(provider) = &self.provider else {
            // With a plan_id the launch was compared with what the user saw.
            if !plan_id.is_empty() {
                return Ok(None);
            }
            if asks_always {
                let variable = env_vars::CONSENT;
                let error = format!("{variable}=always, and this client cannot ask its user");
                return Err(JobError::blocked(error).with_hint(
                    "call run_job with dry_run=true, show that to the user, and give its plan_id",
                ));
            }
            let warning = "no plan_id was given: whether the user saw this job was not checked";
            launch.plan.warnings.push(warning.to_owned());
            return Ok(None);
        };
        let plan_id = self.context.plans.insert(launch);
        let mut text = describe("Start this job?", launch);
        let config = launch.plan.job_config.as_ref();
        for name in ["setup", "run"] {
            let script = config.and_then(|config| config.get(name)?.as_str());
            text.script(name, script.unwrap_or_default());
        }
        let mut prompt = text.prompt(plan_id);
        prompt.text = launch.redactor().redact(&prompt.text);
        self.report("waiting for the user to agree");
        provider.ask(&prompt).await.map(Some)
    }
}

/// Says what a dry run would start, without the scripts.
pub(super) fn preview(launch: &PreparedLaunch) -> String {
    describe("Nothing was started. This would run:", launch).0
}

fn describe(title: &str, launch: &PreparedLaunch) -> PromptText {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let mut text = PromptText::new(title);
    let config = plan.job_config.as_ref().unwrap_or(&Value::Null);
    if launch.is_local {
        text.field("Cloud", "none, it runs on this machine");
        if config.is_null() && spec.processes() == Some(1) {
            text.field("Processes", "1; accelerators=\"4\" trains on 4 GPUs");
        }
    } else {
        let (cluster, resources, info) = (&plan.cluster, &config["resources"], &launch.cluster);
        // Of SkyPilot's clusters alone it is known if they are there.
        let is_new = plan.autostop.is_some() && info.is_none();
        text.field("Cloud", &spec.identity.cloud);
        let new = if is_new { "a new one, " } else { "" };
        text.field("Cluster", &format!("{new}{cluster}"));
        text.field("Accelerators", &plain(&resources["accelerators"], "none"));
        text.field("Nodes", &plain(&config["num_nodes"], "1"));
        let is_spot = is_on(&resources["use_spot"]);
        text.field("Spot", if is_spot { "yes" } else { "no" });
        text.others("resources", resources, "cloud accelerators use_spot");
        text.field("It is", info.as_ref().map_or("", |info| &info.summary));
        if let Some(costs) = &launch.costs {
            text.field("Price", &costs.offer.text());
            text.field("Already", &costs.up_text());
        }
    }
    text.field("Runs", &plan.command_line);
    // Without a job config the command line shows both.
    if !config.is_null() {
        text.field("Does", spec.command.name);
        text.field("Config", &spec.config.path.display().to_string());
    }
    text.field("Model", &spec.config.model_name);
    text.field("Output", &spec.config.output_dir);
    text.field("Idle cluster", plan.autostop.as_deref().unwrap_or_default());
    text.field("Time limit", &time_limit(launch).unwrap_or_default());
    // Otherwise the path of the config shows it.
    if spec.config.path.parent() != Some(&spec.client_cwd) {
        text.field("Project folder", &spec.client_cwd.display().to_string());
    }
    let envs = config["envs"].as_object().into_iter().flat_map(Map::keys);
    let names: BTreeSet<&String> = envs.chain(spec.options.envs.keys()).collect();
    let names = join(names.into_iter().cloned());
    text.field("Variables (values not shown)", &names);
    for warning in &plan.warnings {
        text.field("Note", warning);
    }
    let mut folder = plain(&config["working_dir"], "");
    let is_home = |home: PathBuf| home.starts_with(expand_home(&folder));
    if !folder.is_empty() && dirs::home_dir().is_some_and(is_home) {
        folder += " (with your whole home folder)";
    }
    text.field("Working folder", &folder);
    let mounts = config["file_mounts"].as_object().into_iter().flatten();
    let mounts = mounts.map(|(to, from)| format!("{to} from {}", plain(from, "null")));
    text.field("Files copied", &join(mounts));
    text.others("config", config, LABELLED);
    text
}

fn time_limit(launch: &PreparedLaunch) -> Option<String> {
    let limit = launch.spec.options.time_limit_seconds()?;
    let costs = launch.costs.as_ref();
    let price = costs.and_then(|costs| costs.offer.highest());
    let cost = price.map(|price| {
        let dollars = price * limit as f64 / 3600.0;
        format!(", at most ${dollars:.2} for the run; its setup and the idle cluster cost too")
    });
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

/// Labelled lines. Each value is made one line, so that it cannot imitate a label.
struct PromptText(String);

impl PromptText {
    fn new(title: &str) -> Self {
        Self(title.to_owned())
    }

    fn prompt(self, subject: String) -> ConsentPrompt {
        let text = excerpt(&self.0, MAX_PROMPT);
        ConsentPrompt { text, subject }
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
    fn others(&mut self, part: &str, config: &Value, labelled: &str) {
        for (name, value) in config.as_object().into_iter().flatten() {
            let is_labelled = labelled.split(' ').any(|known| known == name);
            if !is_labelled && !value.is_null() && *value != json!({}) {
                // The name is the config's, so it must not look like a label of ours.
                self.field(&format!("{part}.{}", one_line(name)), &plain(value, "null"));
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
}
