//! The plans that were shown, so that a launch can be checked against what the user saw.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::costs::Costs;
use super::prepare::{ANOTHER_DRY_RUN, PreparedLaunch};
use crate::error::{JobError, Result};
use crate::sync::lock;
use crate::text::shorten;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PLANS: usize = 32;
/// The bytes of a plan id, and of a list of differences, that an error repeats.
const MAX_QUOTE: usize = 800;

/// What decides what a launch does, as salted hashes: it may be secret.
type Effects = BTreeMap<Vec<String>, u64>;

/// Caches plans in memory: after a restart of the server another dry run is needed.
#[derive(Default)]
pub(super) struct PlanCache {
    plans: Mutex<VecDeque<Arc<CachedPlan>>>,
    hasher: RandomState,
}

pub(super) struct CachedPlan {
    plan_id: String,
    pub(super) job_id: String,
    effects: Effects,
    /// Those that it was shown with.
    pub(super) costs: Option<Costs>,
    created: Instant,
}

impl PlanCache {
    pub(super) fn insert(&self, launch: &PreparedLaunch) -> String {
        let plan_id = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let plan = CachedPlan {
            plan_id: plan_id.clone(),
            job_id: launch.spec.identity.job_id.clone(),
            effects: self.hashed(&effects(launch)),
            costs: launch.costs.clone(),
            created: Instant::now(),
        };
        let mut plans = lock(&self.plans);
        plans.truncate(MAX_PLANS - 1);
        plans.push_front(Arc::new(plan));
        plan_id
    }

    pub(super) fn get(&self, plan_id: &str) -> Result<Arc<CachedPlan>> {
        let plans = lock(&self.plans);
        let mut valid = plans.iter().filter(|plan| plan.created.elapsed() < TTL);
        let found = valid.find(|plan| plan.plan_id == plan_id).cloned();
        found.ok_or_else(|| {
            JobError::blocked(format!(
                "plan_id {:?} is not known (it is valid for a day, and not after a restart of the server)",
                shorten(plan_id, MAX_QUOTE)
            ))
            .with_hint(ANOTHER_DRY_RUN)
        })
    }

    /// Checks that a launch, prepared under the plan's job id, does what was shown; the error names the differences.
    pub(super) fn check(&self, plan: &CachedPlan, launch: &PreparedLaunch) -> Result<()> {
        let found = differences(&plan.effects, &self.hashed(&effects(launch)));
        if found.is_empty() {
            return Ok(());
        }
        let found = found.join(", ");
        let found = shorten(&found, MAX_QUOTE);
        let error = format!("the job differs from the dry run in {found}");
        Err(JobError::blocked(error).with_hint(ANOTHER_DRY_RUN))
    }

    /// Hashes each value, by its name and those of the objects that it is in.
    fn hashed(&self, value: &Value) -> Effects {
        let mut hashes = Effects::new();
        let mut values = vec![(Vec::new(), value)];
        while let Some((path, value)) = values.pop() {
            match value {
                Value::Object(fields) if !fields.is_empty() => {
                    let below = |name: &String| [&path[..], std::slice::from_ref(name)].concat();
                    values.extend(fields.iter().map(|(name, value)| (below(name), value)));
                }
                _ => drop(hashes.insert(path, self.hasher.hash_one(value.to_string()))),
            }
        }
        hashes
    }
}

/// Lists everything that decides what a launch does. What has no effect is left out, so that it may differ.
fn effects(launch: &PreparedLaunch) -> Value {
    let (spec, plan) = (&launch.spec, &launch.plan);
    let process = &plan.process;
    // The name of a new cluster may differ by now: it is made from the names that are free.
    let is_new = spec.identity.cluster.is_empty();
    let is_known = |word: &&String| !is_new || **word != plan.cluster;
    let words = |argv: &Vec<String>| Vec::from_iter(argv.iter().filter(is_known).cloned());
    let steps = process.plan.steps.iter().map(|step| words(&step.argv));
    let envs = spec.config.document.get("envs").and_then(Value::as_object);
    let mut envs = envs.cloned().unwrap_or_default();
    let ours = spec.options.envs.iter();
    envs.extend(ours.map(|(name, value)| (name.clone(), value.as_str().into())));
    let mut document = spec.config.document.clone();
    document.remove("envs");
    json!({
        "command": spec.command.name,
        "cloud": spec.identity.cloud,
        "cluster_name": if is_new { "" } else { &plan.cluster },
        "client_cwd": spec.client_cwd,
        "config_path": spec.config.path,
        "config": document,
        "job_config": plan.job_config,
        "runs": steps.collect::<Vec<_>>(),
        "working_dir": process.plan.working_dir,
        "autostop_minutes": plan.autostop,
        "max_seconds": process.plan.time_limit_seconds,
        "envs": envs,
        // The process that launches a cloud job has other variables than the job.
        "process": { "envs": process.envs },
    })
}

fn differences(shown: &Effects, now: &Effects) -> Vec<String> {
    let paths: BTreeSet<&Vec<String>> = shown.keys().chain(now.keys()).collect();
    let differs = |path: &&Vec<String>| shown.get(*path) != now.get(*path);
    let names = paths.into_iter().filter(differs);
    names.map(|path| format!("`{}`", path.join("."))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(before: Value, now: Value) -> String {
        let plans = PlanCache::default();
        differences(&plans.hashed(&before), &plans.hashed(&now)).join(", ")
    }

    #[test]
    fn null_is_not_what_is_absent() {
        let nested = json!({ "a": { "b": 1, "c": 2 } });
        for (before, now, found) in [
            (json!({ "a": 1 }), json!({ "a": 1, "b": null }), "`b`"),
            (json!({ "a": null }), json!({ "a": null }), ""),
            (json!({ "a": {}, "b": 1 }), json!({ "b": 1 }), "`a`"),
            (
                json!({ "a": { "b": 1 } }),
                json!({ "a.b": 1 }),
                "`a.b`, `a.b`",
            ),
            (nested, json!({ "a": { "c": 2, "b": 2 } }), "`a.b`"),
            (json!({ "a": "x" }), json!({ "a": true }), "`a`"),
            (json!({ "a": [1] }), json!({ "a": 1 }), "`a`"),
        ] {
            assert_eq!(compared(before, now), found);
        }
    }
}
