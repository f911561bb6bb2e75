//! The plans that were shown, so that a launch can be checked against what the user saw.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::costs::Costs;
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
const ANOTHER_DRY_RUN: &str = "call run_job with dry_run=true again and show that to the user";

/// Caches plans in memory: after a restart of the server another dry run is needed.
#[derive(Default)]
pub(super) struct PlanCache(Mutex<VecDeque<CachedPlan>>);

#[derive(Clone)]
struct CachedPlan {
    plan_id: String,
    job_id: String,
    values: Value,
    costs: Option<Costs>,
    created: Instant,
}

impl PlanCache {
    /// Caches what a launch would do, under the id of its job, and returns its plan id.
    pub(super) fn insert(&self, launch: &PreparedLaunch) -> String {
        let plan_id = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let plan = CachedPlan {
            plan_id: plan_id.clone(),
            job_id: launch.spec.identity.job_id.clone(),
            values: values(launch),
            costs: launch.costs.clone(),
            created: Instant::now(),
        };
        let mut plans = lock(&self.0);
        plans.truncate(MAX_PLANS - 1);
        plans.push_front(plan);
        plan_id
    }

    /// Returns the id of the job that a plan would start.
    pub(super) fn job_id(&self, plan_id: &str) -> Result<String, JobError> {
        self.find(plan_id).map(|plan| plan.job_id)
    }

    /// Returns the costs that a plan was shown with.
    pub(super) fn costs(&self, plan_id: &str) -> Option<Costs> {
        self.find(plan_id).ok()?.costs
    }

    /// Checks that a launch, prepared under the plan's job id, does what was shown; the error lists the differences.
    pub(super) fn check(&self, plan_id: &str, launch: &PreparedLaunch) -> Result<(), JobError> {
        let mut diffs = Vec::new();
        let before = self.find(plan_id)?.values;
        let pair = [Some(&before), Some(&values(launch))];
        compare("", false, pair, &mut diffs);
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

    fn find(&self, plan_id: &str) -> Result<CachedPlan, JobError> {
        let plans = lock(&self.0);
        let mut valid = plans.iter().filter(|plan| plan.created.elapsed() < TTL);
        let found = valid.find(|plan| plan.plan_id == plan_id);
        found.cloned().ok_or_else(|| {
            JobError::blocked(format!(
                "plan_id {:?} is not known (it is valid for a day, and not after a restart of the server)",
                shorten(plan_id, MAX_DIFF_BYTES)
            ))
            .with_hint(ANOTHER_DRY_RUN)
        })
    }
}

/// Lists everything that decides what a launch does. What has no effect is left out, so that it may differ.
fn values(launch: &PreparedLaunch) -> Value {
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
        "command": spec.command.name(),
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

/// Describes how the values of two plans differ, under `path`. Secrets are not shown.
fn compare(path: &str, is_secret: bool, pair: [Option<&Value>; 2], diffs: &mut Vec<String>) {
    // Quoted where it could be read as another path.
    let join = |name: &str| match (path, name.contains(['.', '[', '"'])) {
        ("", _) => name.to_owned(),
        (_, true) => format!("{path}.{name:?}"),
        (_, false) => format!("{path}.{name}"),
    };
    match pair {
        [before, now] if before == now => {}
        [Some(Value::Object(old)), Some(Value::Object(new))] => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                let is_secret = is_secret || name == "envs" || is_secret_name(name);
                let pair = [old, new].map(|fields| fields.get(name));
                compare(&join(name), is_secret, pair, diffs);
            }
        }
        [Some(Value::Array(old)), Some(Value::Array(new))] if old.len() == new.len() => {
            for (index, pair) in old.iter().zip(new).enumerate() {
                let path = format!("{path}[{index}]");
                compare(&path, is_secret, [Some(pair.0), Some(pair.1)], diffs);
            }
        }
        _ => {
            let path = shorten(path, MAX_DIFF_BYTES);
            let show = |value: &Value| value.to_string();
            let [old, new] = pair.map(|value| value.map_or("not there".to_owned(), show));
            // A part of a config may hold secrets under names that are not looked at here.
            let is_part = |value: &&Value| value.is_object() || value.is_array();
            let has_part = pair.iter().flatten().any(is_part);
            diffs.push(if is_secret {
                format!("`{path}` has another value (not shown)")
            } else if has_part || old.len().max(new.len()) > MAX_DIFF_BYTES {
                format!("`{path}` is another value")
            } else {
                format!("`{path}` was {old}, is {new}")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(before: Value, now: Value) -> String {
        let mut diffs = Vec::new();
        compare("", false, [Some(&before), Some(&now)], &mut diffs);
        diffs.join("; ")
    }

    #[test]
    fn null_is_not_what_is_absent() {
        let added = differences(json!({ "a": 1 }), json!({ "a": 1, "max_steps": null }));
        assert_eq!(added, "`max_steps` was not there, is null");
        assert_eq!(differences(json!({ "a": null }), json!({ "a": null })), "");
    }

    #[test]
    fn parts_are_not_shown() {
        let tracker = json!({ "tracker": { "password": "hunter22" } });
        let list = json!({ "tracker": ["hunter22"] });
        for (before, now) in [
            (tracker.clone(), json!({})),
            (tracker.clone(), list.clone()),
            (list, json!({ "tracker": 1 })),
            (tracker, json!({ "tracker": { "password": "other" } })),
        ] {
            let shown = differences(before, now);
            assert!(shown.starts_with("`tracker"), "{shown}");
            assert!(!shown.contains("hunter22"), "{shown}");
        }
    }
}
