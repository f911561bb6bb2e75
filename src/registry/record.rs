//! One record of the registry, and which records are too old to keep.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value};

use crate::job_identity::JobIdentity;

/// The number of records that are kept.
pub(crate) const KEEP_RECORDS: usize = 200;

/// The identity of a job and what it was submitted with. The fields and their names are the Python server's; all are texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct JobRecord {
    /// Our id.
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
    /// The model the config names.
    pub(crate) model_name: String,
    /// The time of submission, ISO 8601.
    pub(crate) submit_time: String,
    /// The folder the job writes to.
    pub(crate) output_dir: String,
    /// Fields of a newer version; they survive a rewrite.
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

    fn fields(&mut self) -> [(&'static str, &mut String); 9] {
        [
            ("job_id", &mut self.job_id),
            ("command", &mut self.command),
            ("config_path", &mut self.config_path),
            ("cloud", &mut self.cloud),
            ("cluster_name", &mut self.cluster_name),
            ("oumi_job_id", &mut self.oumi_job_id),
            ("model_name", &mut self.model_name),
            ("submit_time", &mut self.submit_time),
            ("output_dir", &mut self.output_dir),
        ]
    }

    /// Reads a JSON object; `None` where it has no id, or one of these fields is no text.
    pub(super) fn from_json(value: Value) -> Option<Self> {
        let Value::Object(mut object) = value else {
            return None;
        };
        // The Python server once stored it; the state of a job is never stored here.
        object.remove("status");
        let mut record = Self::default();
        for (name, field) in record.fields() {
            match object.remove(name) {
                Some(Value::String(text)) => *field = text,
                None | Some(Value::Null) => {}
                Some(_) => return None,
            }
        }
        // Anew: an object without its fields keeps their room.
        record.other = object.into_iter().collect();
        (!record.job_id.is_empty()).then_some(record)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut record = self.clone();
        let mut object: Map<String, Value> = record
            .fields()
            .into_iter()
            .map(|(name, field)| (name.to_owned(), Value::from(std::mem::take(field))))
            .collect();
        object.extend(record.other);
        Value::Object(object)
    }
}

/// Selects the records to prune if their jobs are done: those submitted before `oldest_kept`, then the oldest beyond [`KEEP_RECORDS`].
pub(crate) fn expired(records: &[JobRecord], oldest_kept: DateTime<Utc>) -> Vec<&JobRecord> {
    let is_young = |record: &&JobRecord| record.submitted_at().is_some_and(|at| at >= oldest_kept);
    let (mut young, mut expired): (Vec<_>, Vec<_>) = records.iter().partition(is_young);
    if let Some(excess) = young.len().checked_sub(KEEP_RECORDS) {
        young.sort_by_key(|record| record.submitted_at());
        expired.extend(young.drain(..excess));
    }
    expired
}
