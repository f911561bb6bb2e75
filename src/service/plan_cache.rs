//! The plans that were shown, so that a launch can be checked against what the user saw.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::prepare::PreparedLaunch;
use crate::error::JobError;
use crate::redact::is_secret_name;
use crate::sync::lock;
use crate::text::shorten;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PLANS: usize = 32;
/// The differences that an error lists, and the bytes of each path and value in it.
const MAX_DIFFS: usize = 8;
const MAX_DIFF_BYTES: usize = 80;
/// Marks the hash of a secret. It stands where JSON stands, and no JSON begins like this.
const SECRET: &str = "secret:";
const ANOTHER_DRY_RUN: &str = "call run_job with dry_run=true again and show that to the user";

/// The path of each value of a plan, with its JSON or the hash of a secret.
type Values = BTreeMap<String, String>;

/// Caches plans in memory: after a restart of the server another dry run is needed.
#[derive(Default)]
pub(super) struct PlanCache {
    /// Keyed at random, so that no secret can be guessed from its hash.
    hasher: RandomState,
    plans: Mutex<VecDeque<CachedPlan>>,
}

#[derive(Clone)]
struct CachedPlan {
    plan_id: String,
    job_id: String,
    values: Values,
    created: Instant,
}

impl PlanCache {
    /// Caches what a launch would do, under the id of its job, and returns its plan id.
    pub(super) fn insert(&self, launch: &PreparedLaunch) -> String {
        let plan_id = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let plan = CachedPlan {
            plan_id: plan_id.clone(),
            job_id: launch.spec.identity.job_id.clone(),
            values: self.values(launch),
            created: Instant::now(),
        };
        let mut plans = lock(&self.plans);
        plans.truncate(MAX_PLANS - 1);
        plans.push_front(plan);
        plan_id
    }

    /// Returns the id of the job that a plan would start.
    pub(super) fn job_id(&self, plan_id: &str) -> Result<String, JobError> {
        self.find(plan_id).map(|plan| plan.job_id)
    }

    /// Checks that a launch, prepared under the plan's job id, does what was shown; the error lists the differences.
    pub(super) fn check(&self, plan_id: &str, launch: &PreparedLaunch) -> Result<(), JobError> {
        let (before, now) = (self.find(plan_id)?.values, self.values(launch));
        let paths = before
            .keys()
            .chain(now.keys().filter(|path| !before.contains_key(*path)));
        let changed = paths.filter(|path| before.get(*path) != now.get(*path));
        let mut diffs: Vec<String> = changed
            .map(|path| describe(path, before.get(path), now.get(path)))
            .collect();
        if diffs.is_empty() {
            return Ok(());
        }
        if diffs.len() > MAX_DIFFS {
            let more = diffs.len() - MAX_DIFFS;
            diffs.truncate(MAX_DIFFS);
            diffs.push(format!("{more} more"));
        }
        let error = format!("the job differs from the dry run: {}", diffs.join("; "));
        Err(JobError::blocked(error).with_hint(ANOTHER_DRY_RUN))
    }

    fn find(&self, plan_id: &str) -> Result<CachedPlan, JobError> {
        let plans = lock(&self.plans);
        let found = plans
            .iter()
            .find(|plan| plan.plan_id == plan_id && plan.created.elapsed() < TTL);
        found.cloned().ok_or_else(|| {
            JobError::blocked(format!(
                "plan_id {:?} is not known (it is valid for a day, and not after a restart of the server)",
                shorten(plan_id, MAX_DIFF_BYTES)
            ))
            .with_hint(ANOTHER_DRY_RUN)
        })
    }

    /// Lists everything that decides what a launch does. What has no effect is left out, so that it may differ.
    fn values(&self, launch: &PreparedLaunch) -> Values {
        let (spec, plan) = (&launch.spec, &launch.plan);
        let process = &plan.process;
        // The name of a new cluster may be another by now: it is made up of those that are free.
        let is_new = spec.identity.cluster.is_empty();
        let known = |word: &String| {
            if is_new && *word == plan.cluster {
                String::new()
            } else {
                word.clone()
            }
        };
        let steps = process.plan.steps.iter();
        let steps: Vec<Vec<String>> = steps
            .map(|step| step.argv.iter().map(known).collect())
            .collect();
        let envs = spec.config.document.get("envs").and_then(Value::as_object);
        let mut envs = envs.cloned().unwrap_or_default();
        let ours = spec.envs.iter();
        envs.extend(ours.map(|(name, value)| (name.clone(), value.as_str().into())));
        let mut document = spec.config.document.clone();
        document.remove("envs");
        let plan = json!({
            "command": spec.command.name(),
            "cloud": spec.identity.cloud,
            "cluster_name": known(&plan.cluster),
            "client_cwd": spec.client_cwd,
            "config_path": spec.config.path,
            "config": document,
            "job_config": plan.job_config,
            "runs": steps,
            "working_dir": process.plan.working_dir,
            "autostop_minutes": plan.autostop,
            "max_seconds": process.plan.time_limit_seconds,
            "envs": envs,
            // The launcher of a cloud job has other variables than the job.
            "process": { "envs": process.envs },
        });
        let mut values = Values::new();
        self.flatten(String::new(), &plan, false, &mut values);
        values
    }

    fn flatten(&self, path: String, value: &Value, is_secret: bool, into: &mut Values) {
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
                let hash = self.hasher.hash_one(value.to_string());
                into.insert(path, format!("{SECRET}{hash}"));
            }
            _ => {
                into.insert(path, value.to_string());
            }
        }
    }
}

fn describe(path: &str, before: Option<&String>, now: Option<&String>) -> String {
    let path = shorten(path, MAX_DIFF_BYTES);
    let [before, now] = [before, now].map(|value| value.map_or("not there", String::as_str));
    if [before, now].iter().any(|value| value.starts_with(SECRET)) {
        format!("`{path}` has another value (not shown)")
    } else if before.len().max(now.len()) > MAX_DIFF_BYTES {
        format!("`{path}` is another text")
    } else {
        format!("`{path}` was {before}, is {now}")
    }
}
