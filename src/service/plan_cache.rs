//! The plans that were shown, so that a launch can be checked against what the user saw.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
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
/// The bytes of a plan id, and of a list of differences, that an error repeats.
const MAX_QUOTE: usize = 800;
/// The longest text, in bytes, that a difference shows.
const MAX_SHOWN: usize = 80;
const ANOTHER_DRY_RUN: &str = "call run_job with dry_run=true again and show that to the user";

/// Caches plans in memory: after a restart of the server another dry run is needed.
#[derive(Default)]
pub(super) struct PlanCache {
    plans: Mutex<VecDeque<Arc<CachedPlan>>>,
    hasher: RandomState,
}

pub(super) struct CachedPlan {
    plan_id: String,
    pub(super) job_id: String,
    /// What decides what the launch does; what may be secret, as salted hashes.
    effects: Value,
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
            effects: self.hashed(&effects(launch), true),
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

    /// Checks that a launch, prepared under the plan's job id, does what was shown; the error lists the differences.
    pub(super) fn check(&self, plan: &CachedPlan, launch: &PreparedLaunch) -> Result<()> {
        let (now, mut found) = (self.hashed(&effects(launch), true), Vec::new());
        differences("", Some(&plan.effects), Some(&now), &mut found);
        if found.is_empty() {
            return Ok(());
        }
        let found = found.join(", ");
        let found = shorten(&found, MAX_QUOTE);
        let error = format!("the job differs from the dry run in {found}");
        Err(JobError::blocked(error).with_hint(ANOTHER_DRY_RUN))
    }

    /// Replaces all by hashes but names, and the numbers, truths and short texts that may be shown.
    fn hashed(&self, value: &Value, may_be_shown: bool) -> Value {
        match value {
            Value::Object(fields) => {
                let hashed = |(name, value): (&String, _)| {
                    // A script may hold a value of `envs`.
                    let is_open = !["envs", "setup", "run", "runs"].contains(&name.as_str());
                    let may_be_shown = may_be_shown && is_open && !is_secret_name(name);
                    (name.clone(), self.hashed(value, may_be_shown))
                };
                fields.iter().map(hashed).collect()
            }
            Value::Number(_) | Value::Bool(_) if may_be_shown => value.clone(),
            Value::String(text) if may_be_shown && text.len() <= MAX_SHOWN => value.clone(),
            _ => json!([self.hasher.hash_one(value.to_string())]),
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

fn differences(path: &str, before: Option<&Value>, now: Option<&Value>, found: &mut Vec<String>) {
    if let (Some(Value::Object(before)), Some(Value::Object(now))) = (before, now) {
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        for name in names {
            let path = format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
            differences(&path, before.get(name), now.get(name), found);
        }
    } else if before != now {
        found.push(match (before, now) {
            // Hashes are lists.
            (Some(before), Some(now)) if !before.is_array() && !now.is_array() => {
                format!("`{path}` ({before}, now {now})")
            }
            _ => format!("`{path}`"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(before: Value, now: Value) -> String {
        let (plans, mut found) = (PlanCache::default(), Vec::new());
        let [before, now] = [before, now].map(|value| plans.hashed(&value, true));
        differences("", Some(&before), Some(&now), &mut found);
        found.join(", ")
    }

    #[test]
    fn null_is_not_what_is_absent() {
        let nested = json!({ "a": { "b": 1, "c": 2 } });
        for (before, now, found) in [
            (json!({ "a": 1 }), json!({ "a": 1, "b": null }), "`b`"),
            (json!({ "a": null }), json!({ "a": null }), ""),
            (json!({ "a": {} }), json!({}), "`a`"),
            (
                json!({ "a": { "b": 1 } }),
                json!({ "a.b": 1 }),
                "`a`, `a.b`",
            ),
            (
                nested,
                json!({ "a": { "c": 2, "b": 2 } }),
                "`a.b` (1, now 2)",
            ),
            (
                json!({ "a": "x" }),
                json!({ "a": true }),
                "`a` (\"x\", now true)",
            ),
            (json!({ "a": [1] }), json!({ "a": 1 }), "`a`"),
        ] {
            assert_eq!(compared(before, now), found);
        }
    }

    #[test]
    fn secrets_are_not_kept() {
        let long = format!("{}hunter22", "x".repeat(MAX_SHOWN));
        let config = json!({
            "envs": { "A": "hunter22", "B": 22 }, "list": ["hunter22"], "api_key": { "a": "hunter22" }, "long": long,
            "run": "go hunter22",
        });
        let kept = PlanCache::default().hashed(&config, true).to_string();
        assert!(
            kept.contains("envs") && !kept.contains("hunter22"),
            "{kept}"
        );
    }
}
