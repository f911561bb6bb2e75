//! Jobs as resources: their URIs, and what is read at them.
//!
//! `jobs://running` and `jobs://completed` are the answers of `list_jobs`, `jobs://{job_id}` that of `poll_status`, and
//! `jobs://{job_id}/logs` the end of the log. An id is percent-encoded. It is looked up in the registry and never used as a path.
//! The status of a job whose id is `running` or `completed` has no URI.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde_json::{Value, json};

use super::truncated;
use crate::registry::JobRecord;
use crate::service::JobService;
use crate::service::answers::JobAnswer;
use crate::service::requests::{JobQuery, ListRequest, LogsRequest, StatusFilter};
use crate::text::clean_controls;

/// The number of newest jobs that are listed, each with its log. All can be read.
const LISTED_JOBS: usize = 20;

const SCHEME: &str = "jobs://";
const JOB_TEMPLATE: &str = "jobs://{job_id}";
const LOG_TEMPLATE: &str = "jobs://{job_id}/logs";
const JSON: &str = "application/json";

#[derive(Debug, Clone, PartialEq, Eq)]
enum JobUri {
    Running,
    Completed,
    Job(String),
    Log(String),
}

impl JobUri {
    /// Parses a URI, whether or not there is such a job.
    fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(SCHEME)?;
        if rest.contains(['?', '#']) {
            return None;
        }
        match rest.split_once('/') {
            Some((id, "logs")) => decode(id).map(Self::Log),
            Some(_) => None,
            None => Some(match decode(rest)? {
                id if id == "running" => Self::Running,
                id if id == "completed" => Self::Completed,
                id => Self::Job(id),
            }),
        }
    }

    /// The job of the URI; `None` for the lists.
    fn job_id(&self) -> Option<&str> {
        match self {
            Self::Running | Self::Completed => None,
            Self::Job(id) | Self::Log(id) => Some(id),
        }
    }
}

/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encode(id: &str) -> String {
    utf8_percent_encode(id, ESCAPED).to_string()
}

/// Decodes the id in a URI. Some clients fill templates without escaping, so unescaped characters are taken as they are.
fn decode(text: &str) -> Option<String> {
    let id = percent_decode_str(text).decode_utf8().ok()?;
    (!id.is_empty() && !id.contains(char::is_control)).then(|| id.into_owned())
}

/// Lists the two lists and the newest jobs with their logs. Asks no launcher.
pub(super) async fn list(service: &JobService) -> Result<ListResourcesResult, ErrorData> {
    let mut resources = vec![
        Resource::new("jobs://running", "running")
            .with_title("Running jobs")
            .with_description("The jobs that are not done, each with its status now")
            .with_mime_type(JSON),
        Resource::new("jobs://completed", "completed")
            .with_title("Completed jobs")
            .with_description("The jobs that are done, well or badly")
            .with_mime_type(JSON),
    ];
    for record in newest(service).await?.iter().take(LISTED_JOBS) {
        let (id, name) = (encode(&record.job_id), clean_controls(&record.job_id));
        let what = format!(
            "{} of {} on {}, submitted {}",
            record.command, record.model_name, record.cloud, record.submit_time
        );
        let what = clean_controls(&what);
        if JobUri::parse(&format!("{SCHEME}{id}")) == Some(JobUri::Job(record.job_id.clone())) {
            let job = Resource::new(format!("{SCHEME}{id}"), name.clone())
                .with_title(format!("Job {name}"))
                .with_description(what.clone())
                .with_mime_type(JSON);
            resources.push(job);
        }
        let log = Resource::new(format!("{SCHEME}{id}/logs"), format!("{name}/logs"))
            .with_title(format!("Log of {name}"))
            .with_description(format!("The end of its log: {what}"))
            .with_mime_type("text/plain");
        resources.push(log);
    }
    Ok(ListResourcesResult::with_all_items(resources))
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    let job = ResourceTemplate::new(JOB_TEMPLATE, "job")
        .with_title("Job status")
        .with_description("How a job is, asked of what runs it")
        .with_mime_type(JSON);
    let log = ResourceTemplate::new(LOG_TEMPLATE, "job_logs")
        .with_title("Job log")
        .with_description("The end of a job's output, stdout and stderr together")
        .with_mime_type("text/plain");
    ListResourceTemplatesResult::with_all_items(vec![job, log])
}

/// Reads the resource at a URI.
pub(super) async fn read(service: &JobService, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let uri_kind = find(service, uri).await?;
    let contents = match uri_kind {
        JobUri::Running => list_of(service, StatusFilter::Running).await?,
        JobUri::Completed => list_of(service, StatusFilter::Completed).await?,
        // Also when the launcher could not be asked: the answer then says what is known.
        JobUri::Job(job_id) => value_of(&service.poll(JobQuery::of(&job_id)).await)?.to_string(),
        JobUri::Log(job_id) => {
            let request = LogsRequest {
                job: JobQuery::of(&job_id),
                ..LogsRequest::default()
            };
            let answer = value_of(&service.logs(request).await)?;
            let log = succeeded(answer)?["logs"].take();
            let log = log.as_str().unwrap_or_default();
            return Ok(ReadResourceResult::new(vec![ResourceContents::text(
                log, uri,
            )]));
        }
    };
    let contents = ResourceContents::text(contents, uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents]))
}

/// Parses a URI and checks that its job is known.
async fn find(service: &JobService, uri: &str) -> Result<JobUri, ErrorData> {
    let uri_kind = JobUri::parse(uri).ok_or_else(|| not_found(uri))?;
    if let Some(job_id) = uri_kind.job_id() {
        let record = service.registry().get(job_id).await.map_err(internal)?;
        record.ok_or_else(|| not_found(uri))?;
    }
    Ok(uri_kind)
}

async fn list_of(service: &JobService, status: StatusFilter) -> Result<String, ErrorData> {
    let request = ListRequest {
        status,
        ..ListRequest::default()
    };
    let answer = value_of(&service.list(request).await)?;
    succeeded(answer).map(|answer| answer.to_string())
}

/// The records of all jobs, newest first.
async fn newest(service: &JobService) -> Result<Vec<JobRecord>, ErrorData> {
    let mut records = service.registry().records().await.map_err(internal)?;
    records.reverse();
    records.sort_by_key(|record| std::cmp::Reverse(record.submitted_at()));
    Ok(records)
}

fn value_of(answer: &impl JobAnswer) -> Result<Value, ErrorData> {
    answer.to_json().map_err(internal)
}

/// Turns an answer that failed into an error.
fn succeeded(answer: Value) -> Result<Value, ErrorData> {
    match answer["error"].as_str() {
        Some(error) => Err(ErrorData::internal_error(error.to_owned(), None)),
        None => Ok(answer),
    }
}

fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// The code is that of the versions before 2026-07-28; rmcp replaces it in the newer one.
fn not_found(uri: &str) -> ErrorData {
    let uri = truncated(uri);
    let error =
        format!("Resource not found: {uri:?}; resources/list and list_jobs show what there is");
    ErrorData::resource_not_found(error, Some(json!({ "uri": uri })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip() {
        for id in [
            "train_20261124_1a2b3c",
            "a b",
            "a/b",
            "..",
            "100%",
            "%41",
            "ü€😀",
            "a?b#c",
        ] {
            let uri = format!("{SCHEME}{}", encode(id));
            assert_eq!(
                JobUri::parse(&uri),
                Some(JobUri::Job(id.to_owned())),
                "{uri}"
            );
            let log = format!("{uri}/logs");
            assert_eq!(
                JobUri::parse(&log),
                Some(JobUri::Log(id.to_owned())),
                "{log}"
            );
        }
    }

    #[test]
    fn malformed_uris_are_refused() {
        for uri in [
            "",
            "jobs:",
            "jobs://",
            "jobs:///logs",
            "jobs://../..",
            "jobs://a/b",
            "jobs://a/logs/",
            "jobs://a/../logs",
            "jobs://a?b",
            "jobs://a#b",
            "jobs://%ff",
            "jobs://%00",
            "jobs://a%0a",
            "JOBS://a",
            "file:///etc/passwd",
        ] {
            assert_eq!(JobUri::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn reserved_ids_have_a_log_only() {
        assert_eq!(JobUri::parse("jobs://running"), Some(JobUri::Running));
        // RFC 3986: an escape that needs none means the same.
        assert_eq!(JobUri::parse("jobs://%72unning"), Some(JobUri::Running));
        assert_eq!(JobUri::parse("jobs://completed"), Some(JobUri::Completed));
        let log = JobUri::Log("running".to_owned());
        assert_eq!(JobUri::parse("jobs://running/logs"), Some(log));
    }
}
