//! The plans that were shown, so that a launch can be checked against what the user saw.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::costs::Costs;
use super::prepare::PreparedLaunch;
use crate::error::{JobError, Result};
use crate::redact::is_secret_name;
use crate::sync::lock;
use crate::text::shorten;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PLANS: usize = 32;
/// The differences that an error lists, and the bytes of each path and value in it.
const MAX_DIFFS: usize = 8;
const MAX_DIFF_BYTES: usize = 80;
const ANOTHER_DRY_RUN: &str = "call run_job with dry_run=true again and show that to the user";

/// Caches plans in memory: after a restart of the server another dry run is needed.
#[derive(Default)]
pub(super) struct PlanCache {
    plans: Mutex<VecDeque<CachedPlan>>,
    hasher: RandomState,
}

struct CachedPlan {
    plan_id: String,
    job_id: String,
    values: Values,
    costs: Option<Costs>,
    created: Instant,
}

/// The values that decide what a launch does, by their paths.
type Values = BTreeMap<String, Fingerprint>;

#[derive(PartialEq)]
struct Fingerprint {
    hash: u64,
    /// The value itself, where an error may show it.
    text: Option<String>,
}

impl PlanCache {
    /// Caches what a launch would do, under the id of its job, and returns its plan id.
    pub(super) fn insert(&self, launch: &PreparedLaunch) -> String {
        let plan_id = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let plan = CachedPlan {
            plan_id: plan_id.clone(),
            job_id: launch.spec.identity.job_id.clone(),
            values: self.values(&effects(launch)),
            costs: launch.costs.clone(),
            created: Instant::now(),
        };
        let mut plans = lock(&self.plans);
        plans.truncate(MAX_PLANS - 1);
        plans.push_front(plan);
        plan_id
    }

    /// Returns the id of the job that a plan would start.
    pub(super) fn job_id(&self, plan_id: &str) -> Result<String> {
        self.read(plan_id, |plan| plan.job_id.clone())
    }

    /// Returns the costs that a plan was shown with.
    pub(super) fn costs(&self, plan_id: &str) -> Option<Costs> {
        self.read(plan_id, |plan| plan.costs.clone()).ok()?
    }

    /// Checks that a launch, prepared under the plan's job id, does what was shown; the error lists the differences.
    pub(super) fn check(&self, plan_id: &str, launch: &PreparedLaunch) -> Result<()> {
        let now = self.values(&effects(launch));
        let mut diffs = self.read(plan_id, |plan| differences(&plan.values, &now))?;
        if diffs.is_empty() {
            return Ok(());
        }
        let more = diffs.len().saturating_sub(MAX_DIFFS);
        if more > 0 {
            diffs.truncate(MAX_DIFFS);
            diffs.push(format!("{more} more"));
        }
        let error = format!("the job differs from the dry run: {}", diffs.join("; "));
        Err(JobError::blocked(error).with_hint(ANOTHER_DRY_RUN))
    }

    fn read<T>(&self, plan_id: &str, read: impl FnOnce(&CachedPlan) -> T) -> Result<T> {
        let plans = lock(&self.plans);
        let mut valid = plans.iter().filter(|plan| plan.created.elapsed() < TTL);
        let found = valid.find(|plan| plan.plan_id == plan_id);
        found.map(read).ok_or_else(|| {
            JobError::blocked(format!(
                "plan_id {:?} is not known (it is valid for a day, and not after a restart of the server)",
                shorten(plan_id, MAX_DIFF_BYTES)
            ))
            .with_hint(ANOTHER_DRY_RUN)
        })
    }

    fn values(&self, effects: &Value) -> Values {
        let mut values = Values::new();
        self.add(&mut values, String::new(), false, effects);
        values
    }

    fn add(&self, values: &mut Values, path: String, is_secret: bool, value: &Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    // Quoted where it could be read as another path.
                    let path = match (path.as_str(), name.contains(['.', '[', '"'])) {
                        ("", _) => name.clone(),
                        (_, true) => format!("{path}.{name:?}"),
                        (_, false) => format!("{path}.{name}"),
                    };
                    let is_secret = is_secret || name == "envs" || is_secret_name(name);
                    self.add(values, path, is_secret, value);
                }
            }
            _ => {
                let text = value.to_string();
                let hash = self.hasher.hash_one(&text);
                // A list may hold secrets under names that are not looked at here.
                let is_public = !is_secret && !value.is_array() && text.len() <= MAX_DIFF_BYTES;
                let text = is_public.then_some(text);
                values.insert(path, Fingerprint { hash, text });
            }
        }
    }
}

/// Lists everything that decides what a launch does. What has no effect is left out, so that it may differ.
fn effects(launch: &PreparedLaunch) -> Value {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let process = &plan.process;
    // The name of a new cluster may be another by now: it is made up of those that are free.
    let is_new = spec.identity.cluster.is_empty();
    let known = |word: &String| match is_new && *word == plan.cluster {
        true => String::new(),
        false => word.clone(),
    };
    let words = |argv: &Vec<String>| argv.iter().map(known).collect::<Vec<_>>();
    let steps = process.plan.steps.iter().map(|step| words(&step.argv));
    let envs = spec.config.document.get("envs").and_then(Value::as_object);
    let mut envs = envs.cloned().unwrap_or_default();
    let ours = spec.envs.iter();
    envs.extend(ours.map(|(name, value)| (name.clone(), value.as_str().into())));
    let mut document = spec.config.document.clone();
    document.remove("envs");
    json!({
        "command": spec.command.name,
        "cloud": spec.identity.cloud,
        "cluster_name": known(&plan.cluster),
        "client_cwd": spec.client_cwd,
        "config_path": spec.config.path,
        "config": document,
        "job_config": plan.job_config,
        "runs": steps.collect::<Vec<_>>(),
        "working_dir": process.plan.working_dir,
        "autostop_minutes": plan.autostop,
        "max_seconds": process.plan.time_limit_seconds,
        "envs": envs,
        // The launcher of a cloud job has other variables than the job.
        "process": { "envs": process.envs },
    })
}

fn differences(before: &Values, now: &Values) -> Vec<String> {
    let paths: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let different = paths
        .into_iter()
        .filter(|path| before.get(*path) != now.get(*path));
    let different = different.map(|path| {
        let show = |values: &Values| match values.get(path) {
            None => Some("not there".to_owned()),
            Some(value) => value.text.clone(),
        };
        let name = shorten(path, MAX_DIFF_BYTES);
        match show(before).zip(show(now)) {
            Some((old, new)) => format!("`{name}` was {old}, is {new}"),
            None => format!("`{name}` has another value (not shown)"),
        }
    });
    different.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(before: Value, now: Value) -> String {
        let plans = PlanCache::default();
        differences(&plans.values(&before), &plans.values(&now)).join("; ")
    }

    #[test]
    fn null_is_not_what_is_absent() {
        let added = compared(json!({ "a": 1 }), json!({ "a": 1, "max_steps": null }));
        assert_eq!(added, "`max_steps` was not there, is null");
        assert_eq!(compared(json!({ "a": null }), json!({ "a": null })), "");
    }

    #[test]
    fn secrets_are_neither_kept_nor_shown() {
        let tracker = json!({ "tracker": { "password": "hunter22" } });
        let list = json!({ "tracker": ["hunter22"] });
        let plans = PlanCache::default();
        for config in [&tracker, &list, &json!({ "envs": { "A": "hunter22" } })] {
            let kept = plans.values(config);
            assert!(kept.values().all(|value| value.text.is_none()));
        }
        for (before, now) in [
            (tracker.clone(), json!({ "x": 1 })),
            (tracker.clone(), list.clone()),
            (list, json!({ "tracker": 1 })),
            (tracker, json!({ "tracker": { "password": "other" } })),
        ] {
            let shown = compared(before, now);
            assert!(shown.starts_with("`tracker"), "{shown}");
            assert!(!shown.contains("hunter22"), "{shown}");
        }
    }
}
