//! The plans that dry runs showed, so that a launch can be checked against what the user saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::prepare::PreparedLaunch;
use crate::error::JobError;
use crate::redact::is_secret_name;
use crate::sync::lock;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PLANS: usize = 32;
/// The differences that an error lists, and the characters of each value that it shows.
const MAX_DIFFS: usize = 8;
const MAX_VALUE_CHARS: usize = 80;
/// Marks the digest of a secret. It stands where JSON stands, and no JSON begins like this.
const SECRET: &str = "secret:";

/// A plan as lines: the path of each value, and its JSON or the digest of a secret.
type CanonicalPlan = BTreeMap<String, String>;

/// Caches plans in memory: after a restart of the server another dry run is needed.
pub(super) struct PlanCache {
    /// Random, so that no secret can be guessed from a digest.
    salt: String,
    plans: Mutex<VecDeque<CachedPlan>>,
}

struct CachedPlan {
    plan_id: String,
    plan: CanonicalPlan,
    created: Instant,
}

impl PlanCache {
    pub(super) fn new() -> Self {
        Self {
            salt: uuid::Uuid::new_v4().simple().to_string(),
            plans: Mutex::default(),
        }
    }

    /// Caches what a launch would do and returns its plan id. Equal plans have equal ids.
    pub(super) fn insert(&self, launch: &PreparedLaunch) -> String {
        let plan = self.canonical(launch);
        let plan_id = self.digest(plan.iter().flat_map(|(path, value)| [path, value]));
        let mut plans = lock(&self.plans);
        plans.retain(|cached| cached.plan_id != plan_id && cached.created.elapsed() < TTL);
        plans.truncate(MAX_PLANS - 1);
        plans.push_front(CachedPlan {
            plan_id: plan_id.clone(),
            plan,
            created: Instant::now(),
        });
        plan_id
    }

    /// Checks that a launch does what was shown under `plan_id`; the error lists the differences.
    pub(super) fn check(&self, plan_id: &str, launch: &PreparedLaunch) -> Result<(), JobError> {
        let hint = "call run_job with dry_run=true again and show that to the user";
        let plans = lock(&self.plans);
        let mut cached = plans.iter().filter(|cached| cached.created.elapsed() < TTL);
        let Some(cached) = cached.find(|cached| cached.plan_id == plan_id) else {
            let error = format!(
                "plan_id {plan_id:?} is not known (it is valid for a day, and not after a restart of the server)"
            );
            return Err(JobError::blocked(error).with_hint(hint));
        };
        let mut diffs = diff(&cached.plan, &self.canonical(launch));
        if diffs.is_empty() {
            return Ok(());
        }
        if diffs.len() > MAX_DIFFS {
            let more = diffs.len() - MAX_DIFFS;
            diffs.truncate(MAX_DIFFS);
            diffs.push(format!("{more} more"));
        }
        let error = format!("the job differs from the dry run: {}", diffs.join("; "));
        Err(JobError::blocked(error).with_hint(hint))
    }

    /// Lists everything that decides what a launch does. Generated names are masked: they differ from call to call.
    fn canonical(&self, launch: &PreparedLaunch) -> CanonicalPlan {
        let (spec, plan) = (&launch.spec, &launch.plan);
        let process = &plan.process;
        let steps: Vec<_> = process.plan.steps.iter().map(|step| &step.argv).collect();
        let mut envs = match spec.config.document.get("envs") {
            Some(Value::Object(envs)) => envs.clone(),
            _ => serde_json::Map::new(),
        };
        envs.extend(
            spec.envs
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().into())),
        );
        let document = json!({
            "command": spec.command.name(),
            "cloud": spec.identity.cloud,
            "cluster_name": spec.identity.cluster,
            "job_name": launch.is_named.then_some(&spec.identity.job_id),
            "client_cwd": spec.client_cwd,
            "config_path": spec.config.path,
            "config": spec.config.document,
            "job_config": plan.job_config,
            "runs": steps,
            "working_dir": process.plan.working_dir,
            "envs": envs,
            // The launcher of a cloud job has other variables than the job.
            "process": { "envs": process.envs },
        });
        let mut canonical = CanonicalPlan::new();
        self.flatten(String::new(), &document, false, &mut canonical);
        if launch.is_named {
            return canonical;
        }
        let mut masks = vec![(spec.identity.job_id.as_str(), "<the job id>")];
        if spec.identity.cluster.is_empty() && !plan.cluster.is_empty() {
            // First: the name of a new cluster holds the job's.
            masks.insert(0, (&plan.cluster, "<a new cluster>"));
        }
        let mask = |text: String| {
            let masked = masks.iter();
            masked.fold(text, |text, (name, mask)| text.replace(name, mask))
        };
        let lines = canonical.into_iter();
        lines
            .map(|(path, value)| (mask(path), mask(value)))
            .collect()
    }

    fn flatten(&self, path: String, value: &Value, is_secret: bool, into: &mut CanonicalPlan) {
        // Quoted where it could be read as another path.
        let join = |name: &str| match (path.as_str(), name.contains(['.', '[', '"'])) {
            ("", _) => name.to_owned(),
            (_, true) => format!("{path}.{name:?}"),
            (_, false) => format!("{path}.{name}"),
        };
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    let is_secret = is_secret || name == "envs" || is_secret_name(name);
                    self.flatten(join(name), field, is_secret, into);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(format!("{path}[{index}]"), item, is_secret, into);
                }
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) if is_secret => {
                into.insert(
                    path,
                    format!("{SECRET}{}", self.digest([&value.to_string()])),
                );
            }
            _ => {
                into.insert(path, value.to_string());
            }
        }
    }

    fn digest<'a>(&'a self, parts: impl IntoIterator<Item = &'a String>) -> String {
        let mut hasher = Sha256::new();
        for part in [&self.salt].into_iter().chain(parts) {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn diff(shown: &CanonicalPlan, now: &CanonicalPlan) -> Vec<String> {
    let added = now.keys().filter(|path| !shown.contains_key(*path));
    let differs = |path: &&String| shown.get(*path) != now.get(*path);
    let describe = |path: &String| {
        let [was, is] =
            [shown.get(path), now.get(path)].map(|value| value.map_or("not there", String::as_str));
        if was.starts_with(SECRET) || is.starts_with(SECRET) {
            return format!("`{path}` has another value (not shown)");
        }
        let pairs = was.chars().zip(is.chars());
        let common = pairs.take_while(|(one, other)| one == other).count();
        format!(
            "`{path}` was {}, is {}",
            excerpt(was, common),
            excerpt(is, common)
        )
    };
    shown
        .keys()
        .chain(added)
        .filter(differs)
        .map(describe)
        .collect()
}

/// Cuts a long value down to where it begins to differ.
fn excerpt(value: &str, differs_at: usize) -> String {
    let start = differs_at.saturating_sub(MAX_VALUE_CHARS / 4);
    let part: String = value.chars().skip(start).take(MAX_VALUE_CHARS).collect();
    let before = if start > 0 { "…" } else { "" };
    let after = if value.chars().nth(start + MAX_VALUE_CHARS).is_some() {
        "…"
    } else {
        ""
    };
    format!("{before}{part}{after}")
}
