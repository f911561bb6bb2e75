//! Jobs as resources. `jobs://running` and `jobs://completed` are the answers of `list_jobs`, `jobs://{job_id}` that of `poll_status`, and
//! `jobs://{job_id}/logs` the end of the log. An id is percent-encoded. It is looked up in the registry and never used as a path.
//! The status of a job whose id is `running` or `completed` has no URI.

use std::cmp::Reverse;

use percent_encoding::{percent_decode_str, utf8_percent_encode};
use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde::Serialize;
use serde_json::json;

use super::{Answer, internal, truncated};
use crate::job_identity::JobIdentity;
use crate::redact::{IN_URLS, Redactor};
use crate::service::JobService;
use crate::service::answers::to_json;
use crate::service::requests::{ListRequest, LogsRequest, StatusFilter};
use crate::text::clean_controls;

/// The number of newest jobs that are listed, each with its log. All can be read.
const LISTED_JOBS: usize = 20;

const SCHEME: &str = "jobs://";
const LOG: &str = "/logs";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

fn job_uri(job_id: &str) -> String {
    format!("{SCHEME}{}", utf8_percent_encode(job_id, IN_URLS))
}

/// Reads the job of a URI, and if it is that of its log. Some clients fill templates without escaping.
fn parse(uri: &str) -> Option<(String, bool)> {
    let rest = uri.strip_prefix(SCHEME)?;
    let (id, is_log) = match rest.strip_suffix(LOG) {
        Some(id) => (id, true),
        None => (rest, false),
    };
    let job_id = percent_decode_str(id).decode_utf8().ok()?;
    let is_id = !id.is_empty() && !id.contains(['/', '?', '#']);
    (is_id && !job_id.contains(char::is_control)).then(|| (job_id.into_owned(), is_log))
}

/// Lists the two lists and the newest jobs with their logs. Asks no launcher.
pub(super) async fn list(service: &JobService) -> Answer<ListResourcesResult> {
    let resource = |id: &str, title: &str, description: &str, is_log: bool| {
        let (end, kind) = if is_log { (LOG, TEXT) } else { ("", JSON) };
        Resource::new(job_uri(id) + end, format!("{}{end}", clean_controls(id)))
            .with_title(title)
            .with_description(description)
            .with_mime_type(kind)
    };
    let running = "The jobs that are not done, each with its current status";
    let completed = "The jobs that are done, however they ended";
    let mut resources = vec![
        resource("running", "Running jobs", running, false),
        resource("completed", "Completed jobs", completed, false),
    ];
    let records = service.registry().records().await.map_err(internal)?;
    let mut records = Vec::from_iter(records.iter().rev());
    records.sort_by_key(|record| Reverse(record.submitted_at()));
    for record in records.iter().take(LISTED_JOBS) {
        let (id, name) = (record.job_id.as_str(), clean_controls(&record.job_id));
        let what = format!(
            "{} of {} on {}, submitted {}",
            record.command, record.model_name, record.cloud, record.submit_time
        );
        let what = Redactor::default().redact(&what);
        let what = clean_controls(&what);
        if !["running", "completed"].contains(&id) {
            resources.push(resource(id, &format!("Job {name}"), &what, false));
        }
        resources.push(resource(id, &format!("Log of {name}"), &what, true));
    }
    Ok(ListResourcesResult::with_all_items(resources))
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    let job = ResourceTemplate::new("jobs://{job_id}", "job")
        .with_title("Job status")
        .with_description("The status of a job, asked of its launcher")
        .with_mime_type(JSON);
    let log = ResourceTemplate::new("jobs://{job_id}/logs", "job_logs")
        .with_title("Job log")
        .with_description("The end of a job's output, stdout and stderr together")
        .with_mime_type(TEXT);
    ListResourceTemplatesResult::with_all_items(vec![job, log])
}

pub(super) async fn read(service: &JobService, uri: String) -> Answer<ReadResourceResult> {
    let (job_id, is_log) = parse(&uri).ok_or_else(|| not_found(&uri))?;
    let list = match job_id.as_str() {
        "running" if !is_log => Some(StatusFilter::Running),
        "completed" if !is_log => Some(StatusFilter::Completed),
        _ => None,
    };
    let record = service.registry().get(&job_id).await.map_err(internal)?;
    let job = JobIdentity::of(&job_id);
    let (error, contents) = if let Some(status) = list {
        let limit = ListRequest::default().limit;
        let list = service.list(ListRequest { status, limit }).await;
        (list.error.clone(), to_text(&list)?)
    } else if record.is_none() {
        return Err(not_found(&uri));
    } else if is_log {
        let request = LogsRequest {
            job,
            ..LogsRequest::default()
        };
        let log = service.logs(request).await;
        (log.error, log.logs)
    } else {
        // Even where the launcher could not be asked, the answer says what is known.
        (None, to_text(&service.poll(job).await)?)
    };
    if let Some(error) = error {
        return Err(internal(error));
    }
    let kind = if is_log { TEXT } else { JSON };
    let contents = ResourceContents::text(contents, uri).with_mime_type(kind);
    Ok(ReadResourceResult::new(vec![contents]))
}

fn to_text(answer: &impl Serialize) -> Answer<String> {
    Ok(to_json(answer).map_err(internal)?.to_string())
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
        let ids = [
            "train_1a2b3c",
            "a b",
            "a/b",
            "..",
            "100%",
            "%41",
            "ü€😀",
            "a?b#c",
            "running",
        ];
        for id in ids {
            let (job, log) = (job_uri(id), job_uri(id) + LOG);
            assert_eq!(parse(&job), Some((id.to_owned(), false)), "{job}");
            assert_eq!(parse(&log), Some((id.to_owned(), true)), "{log}");
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
            assert_eq!(parse(uri), None, "{uri}");
        }
    }
}
