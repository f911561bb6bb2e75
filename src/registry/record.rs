//! One record of the registry, and which records are too old to keep.

use std::sync::LazyLock;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::job_identity::JobIdentity;

/// The number of records that are kept.
pub(crate) const KEEP_RECORDS: usize = 200;

/// The fields that are known here.
static FIELDS: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(JobRecord::default()).unwrap_or_default());

/// The identity of a job and what it was submitted with. The fields and their names are the Python server's; all are texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JobRecord {
    pub(crate) job_id: String,
    /// The verb of `oumi`: `train`, `evaluate`, …
    pub(crate) command: String,
    /// The config file, absolute.
    pub(crate) config_path: String,
    /// The cloud, `local` for this machine.
    pub(crate) cloud: String,
    /// The cluster; empty on this machine.
    pub(crate) cluster_name: String,
    /// The launcher's id; empty until the launch has ended.
    pub(crate) oumi_job_id: String,
    pub(crate) model_name: String,
    /// The time of submission, ISO 8601.
    pub(crate) submit_time: String,
    pub(crate) output_dir: String,
    /// Fields of a newer version; they survive a rewrite.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

impl JobRecord {
    /// Returns the part a launcher is asked with.
    pub(crate) fn identity(&self) -> JobIdentity {
        JobIdentity {
            job_id: self.job_id.clone(),
            cloud: self.cloud.clone(),
            cluster: self.cluster_name.clone(),
            oumi_job_id: self.oumi_job_id.clone(),
        }
    }

    /// Tells if the job has this id, in upper or lower case: on macOS both name the same folder.
    pub(crate) fn is_named(&self, job_id: &str) -> bool {
        self.job_id.to_lowercase() == job_id.to_lowercase()
    }

    /// Parses the time of submission: with `Z`, with an offset, or with neither, which is UTC.
    pub(crate) fn submitted_at(&self) -> Option<DateTime<Utc>> {
        let text = self.submit_time.trim();
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.to_utc())
            .or_else(|_| text.parse::<NaiveDateTime>().map(|time| time.and_utc()))
            .ok()
    }

    /// Reads a JSON object; `None` where it has no id, or one of these fields is no text.
    pub(super) fn from_json(value: Value) -> Option<Self> {
        let Value::Object(mut object) = value else {
            return None;
        };
        // The Python server once stored it; the state of a job is never stored here.
        object.remove("status");
        // It wrote null for what it did not know. Fields of a newer version stay as they are.
        object.retain(|name, value| !value.is_null() || FIELDS.get(name).is_none());
        let read = serde_json::from_value(object.into()).ok();
        read.filter(|record: &Self| !record.job_id.is_empty())
    }
}

/// Selects the records to prune if their jobs are done: those submitted before `oldest_kept`, then the oldest beyond [`KEEP_RECORDS`].
pub(crate) fn expired(records: &[JobRecord], oldest_kept: DateTime<Utc>) -> Vec<&JobRecord> {
    let is_young = |record: &&JobRecord| record.submitted_at().is_some_and(|at| at >= oldest_kept);
    let (mut young, mut expired): (Vec<_>, Vec<_>) = records.iter().partition(is_young);
    if let Some(excess) = young.len().checked_sub(KEEP_RECORDS) {
        young.sort_by_cached_key(|record| record.submitted_at());
        expired.extend(young.drain(..excess));
    }
    expired
}
