//! What was previewed, so that a launch can be held against it: the plan, by an id, and how another one differs.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::launcher::{LaunchPlan, LaunchSpec};
use crate::redact::is_secret_name;
use crate::sync::lock;

/// How long a preview holds.
const HOLDS: Duration = Duration::from_secs(24 * 60 * 60);
/// How many are kept, and how many bytes of them.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// How many differences are told, and how much of each text.
const TOLD: usize = 8;
const TOLD_TEXT: usize = 80;

/// The plans that were shown. They are kept in memory: after a restart the person is shown another preview.
pub(super) struct Previews {
    /// Nobody outside knows it, so that no value can be guessed from a digest.
    salt: String,
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    plan_id: String,
    plan: String,
    at: Instant,
}

impl Previews {
    pub(super) fn new() -> Self {
        Self {
            salt: uuid::Uuid::new_v4().simple().to_string(),
            kept: Mutex::default(),
        }
    }

    /// Keeps what is shown of a plan, for its id. The same plan has the same id.
    pub(super) fn keep(&self, spec: &LaunchSpec, plan: &LaunchPlan, named: bool) -> String {
        let plan = self.resolved(spec, plan, named).to_string();
        let plan_id = self.digest(&["plan", &plan]);
        let mut kept = lock(&self.kept);
        kept.retain(|kept| kept.plan_id != plan_id && kept.at.elapsed() < HOLDS);
        kept.push_back(Kept {
            plan_id: plan_id.clone(),
            plan,
            at: Instant::now(),
        });
        let bytes = |kept: &VecDeque<Kept>| kept.iter().map(|kept| kept.plan.len()).sum::<usize>();
        while kept.len() > KEPT || (kept.len() > 1 && bytes(&kept) > KEPT_BYTES) {
            kept.pop_front();
        }
        plan_id
    }

    /// Whether a plan is the one that was shown under this id; an error says how it differs.
    pub(super) fn check(
        &self,
        plan_id: &str,
        spec: &LaunchSpec,
        plan: &LaunchPlan,
        named: bool,
    ) -> Result<(), String> {
        let shown = {
            let kept = lock(&self.kept);
            let found = kept
                .iter()
                .find(|kept| kept.plan_id == plan_id && kept.at.elapsed() < HOLDS);
            found.map(|kept| kept.plan.clone())
        };
        let shown = shown.ok_or_else(|| {
            format!(
                "no preview {plan_id:?} is known (one holds for a day, and not over a restart of the server); call run_job with \
                 dry_run=true again and show that to the user"
            )
        })?;
        let shown: Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
        let mut told = Vec::new();
        differences(
            "",
            Some(&shown),
            Some(&self.resolved(spec, plan, named)),
            &mut told,
        );
        if told.is_empty() {
            return Ok(());
        }
        let more = told.len().saturating_sub(TOLD);
        told.truncate(TOLD);
        if more > 0 {
            told.push(format!("{more} more"));
        }
        Err(format!(
            "what would run is no longer what was shown: {}; call run_job with dry_run=true again and show that to the user",
            told.join("; ")
        ))
    }

    /// Everything that decides what a launch does. Where a name was made up for this call alone, it is left out; a secret is
    /// there as a digest.
    fn resolved(&self, spec: &LaunchSpec, plan: &LaunchPlan, named: bool) -> Value {
        let steps: Vec<&[String]> = plan
            .process
            .plan
            .steps
            .iter()
            .map(|step| step.argv.as_slice())
            .collect();
        let mut envs: Map<String, Value> = match spec.config.document.get("envs") {
            Some(Value::Object(envs)) => envs.clone(),
            _ => Map::new(),
        };
        let texts = |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
        envs.extend(spec.envs.iter().map(texts));
        // Beside them, since the launcher of a cloud job has others than the job.
        let of_process: Map<String, Value> = plan
            .process
            .envs
            .iter()
            .filter(|(name, value)| envs.get(*name).and_then(Value::as_str) != Some(value))
            .map(texts)
            .collect();
        let mut resolved = json!({
            "command": spec.command.name(),
            "cloud": spec.identity.cloud,
            "cluster_name": spec.identity.cluster,
            "job_name": named.then_some(&spec.identity.job_id),
            "client_cwd": spec.client_cwd,
            "config_path": spec.config.path,
            "config": spec.config.document,
            "job_config": plan.job_config,
            "runs": steps,
            "working_dir": plan.process.plan.working_dir,
            "envs": envs,
            "process": { "envs": of_process },
        });
        // Only what was made up: such a name is long and stands nowhere else. A new cluster is called by the job's.
        let mut made_up = Vec::new();
        if !named {
            if spec.identity.cluster.is_empty() && !plan.cluster.is_empty() {
                made_up.push((plan.cluster.as_str(), "<a new cluster>"));
            }
            made_up.push((spec.identity.job_id.as_str(), "<the job id>"));
        }
        renamed(&mut resolved, &made_up);
        self.without_secrets(&mut resolved, false);
        resolved
    }

    fn without_secrets(&self, value: &mut Value, is_secret: bool) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.without_secrets(
                        field,
                        is_secret || name == "envs" || is_secret_name(name),
                    );
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.without_secrets(item, is_secret);
                }
            }
            Value::Null => {}
            secret if is_secret => {
                let digest = self.digest(&["value", &secret.to_string()]);
                *secret = format!("{SECRET}{digest}").into();
            }
            _ => {}
        }
    }

    fn digest(&self, parts: &[&str]) -> String {
        let mut hasher = Sha256::new();
        for part in [self.salt.as_str()].iter().chain(parts) {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

/// How a digest of a secret begins.
const SECRET: &str = "secret:";

/// Puts other texts in the place of names, also within texts and as keys.
fn renamed(value: &mut Value, names: &[(&str, &str)]) {
    let rename = |text: &str| {
        let mut text = text.to_owned();
        for (name, other) in names {
            text = text.replace(name, other);
        }
        text
    };
    match value {
        Value::String(text) => *text = rename(text),
        Value::Array(items) => items.iter_mut().for_each(|item| renamed(item, names)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut field)| {
                    renamed(&mut field, names);
                    (rename(&name), field)
                })
                .collect();
        }
        _ => {}
    }
}

fn differences(path: &str, shown: Option<&Value>, now: Option<&Value>, told: &mut Vec<String>) {
    match (shown, now) {
        (Some(shown), Some(now)) if shown == now => {}
        (Some(Value::Object(shown)), Some(Value::Object(now))) => {
            let added = now.keys().filter(|name| !shown.contains_key(*name));
            for name in shown.keys().chain(added) {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                differences(&path, shown.get(name), now.get(name), told);
            }
        }
        (shown, now) => {
            let is_secret = |value: Option<&Value>| {
                value.is_some_and(|value| {
                    value.as_str().is_some_and(|text| text.starts_with(SECRET))
                })
            };
            told.push(if is_secret(shown) || is_secret(now) {
                format!("`{path}` has another value (not shown)")
            } else {
                let (shown, now) = (text_of(shown), text_of(now));
                let same = shown.chars().zip(now.chars());
                let same = same.take_while(|(one, other)| one == other).count();
                format!(
                    "`{path}` was {}, is {}",
                    around(&shown, same),
                    around(&now, same)
                )
            });
        }
    }
}

fn text_of(value: Option<&Value>) -> String {
    value.map_or_else(|| "not there".to_owned(), Value::to_string)
}

/// As much of a text as is told, where it begins to differ.
fn around(text: &str, differs_at: usize) -> String {
    let skipped = differs_at.saturating_sub(TOLD_TEXT / 4);
    let begin = if skipped > 0 { "…" } else { "" };
    let mut rest = text.chars().skip(skipped);
    let part: String = rest.by_ref().take(TOLD_TEXT).collect();
    let end = if rest.next().is_some() { "…" } else { "" };
    format!("{begin}{part}{end}")
}
