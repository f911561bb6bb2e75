//! The jobs as resources: their addresses, and what is read at them.
//!
//! `jobs://running` and `jobs://completed` are lists, `jobs://{job_id}` is how a job is, `jobs://{job_id}/logs` the end of its
//! log: what `list_jobs`, `poll_status` and `get_job_logs` answer, by the same way. An id stands percent-encoded in its
//! address. It is looked for in the registry and is never a path. A job whose id is `running` or `completed` is known to the
//! tools only; its log has an address like any other.

use rmcp::ErrorData;
use rmcp::model::{
    ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::shown;
use super::tools::read_arguments;
use crate::registry::JobRecord;
use crate::service::JobService;
use crate::service::requests::{JobQuery, ListRequest, LogsRequest, StatusFilter};
use crate::text::clean_controls;

/// How many of the newest jobs stand in the list, each with its log. All can be read.
const LISTED_JOBS: usize = 20;

const SCHEME: &str = "jobs://";
const JOB_TEMPLATE: &str = "jobs://{job_id}";
const LOG_TEMPLATE: &str = "jobs://{job_id}/logs";
const JSON: &str = "application/json";

/// What an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// The jobs that are not done.
    Running,
    /// The jobs that are done, well or badly.
    Completed,
    /// How a job is.
    Job(String),
    /// The end of a job's log.
    Log(String),
}

impl Address {
    /// Reads an address. Nothing when it has the form of none; whether there is such a job is another question.
    fn parse(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(SCHEME)?;
        if rest.contains(['?', '#']) {
            return None;
        }
        match rest.split_once('/') {
            Some((id, "logs")) => decoded(id).map(Self::Log),
            Some(_) => None,
            None => Some(match decoded(rest)? {
                id if id == "running" => Self::Running,
                id if id == "completed" => Self::Completed,
                id => Self::Job(id),
            }),
        }
    }

    /// The job that is meant; nothing for the lists.
    fn job_id(&self) -> Option<&str> {
        match self {
            Self::Running | Self::Completed => None,
            Self::Job(id) | Self::Log(id) => Some(id),
        }
    }
}

/// An id as it stands in an address (RFC 3986: all but the unreserved characters as the escapes of their bytes).
fn encoded(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// The id in an address. What needs an escape and has none is taken as it is, since some clients fill templates so; an escape
/// that is none, or bytes that are no text, mean no id.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            other => other,
        });
    }
    let id = String::from_utf8(bytes).ok()?;
    (!id.is_empty() && !id.contains(char::is_control)).then_some(id)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// The two lists, and the newest jobs with their logs. No launcher is asked.
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
        let (id, name) = (encoded(&record.job_id), clean_controls(&record.job_id));
        let what = format!(
            "{} of {} on {}, submitted {}",
            record.command, record.model_name, record.cloud, record.submit_time
        );
        let what = clean_controls(&what);
        if Address::parse(&format!("{SCHEME}{id}")) == Some(Address::Job(record.job_id.clone())) {
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

/// The addresses that hold an id.
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

/// What stands at an address now.
pub(super) async fn read(service: &JobService, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let address = find(service, uri).await?;
    let contents = match address {
        Address::Running => list_of(service, StatusFilter::Running).await?,
        Address::Completed => list_of(service, StatusFilter::Completed).await?,
        // With what is known of it also when what runs it could not be asked.
        Address::Job(job_id) => {
            let query = JobQuery {
                job_id,
                ..JobQuery::default()
            };
            value_of(&service.poll(query).await)?.to_string()
        }
        Address::Log(job_id) => {
            let wanted = json!({ "job_id": job_id });
            let request: LogsRequest =
                read_arguments(wanted.as_object().cloned().unwrap_or_default())
                    .map_err(|error| ErrorData::internal_error(error, None))?;
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

/// The address that a URI is, if something stands there.
async fn find(service: &JobService, uri: &str) -> Result<Address, ErrorData> {
    let address = Address::parse(uri).ok_or_else(|| not_found(uri))?;
    if let Some(job_id) = address.job_id() {
        let record = service.registry().get(job_id).await.map_err(internal)?;
        record.ok_or_else(|| not_found(uri))?;
    }
    Ok(address)
}

async fn list_of(service: &JobService, status: StatusFilter) -> Result<String, ErrorData> {
    let answer = value_of(&service.list(ListRequest { status }).await)?;
    succeeded(answer).map(|answer| answer.to_string())
}

/// The records, the newest first.
async fn newest(service: &JobService) -> Result<Vec<JobRecord>, ErrorData> {
    let mut records = service.registry().records().await.map_err(internal)?;
    records.reverse();
    records.sort_by_key(|record| std::cmp::Reverse(record.submitted_at()));
    Ok(records)
}

/// An answer as a tool gives it.
fn value_of(answer: &impl Serialize) -> Result<Value, ErrorData> {
    serde_json::to_value(answer).map_err(internal)
}

/// An answer, if it is one of success; else its error.
fn succeeded(answer: Value) -> Result<Value, ErrorData> {
    match answer["error"].as_str() {
        Some(error) => Err(ErrorData::internal_error(error.to_owned(), None)),
        None => Ok(answer),
    }
}

fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// The code is that of the older versions; the library gives the newer ones theirs.
fn not_found(uri: &str) -> ErrorData {
    let uri = shown(uri);
    let error =
        format!("Resource not found: {uri:?}; resources/list and list_jobs show what there is");
    ErrorData::resource_not_found(error, Some(json!({ "uri": uri })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_whatever_its_id_holds() {
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
            let uri = format!("{SCHEME}{}", encoded(id));
            assert_eq!(
                Address::parse(&uri),
                Some(Address::Job(id.to_owned())),
                "{uri}"
            );
            let log = format!("{uri}/logs");
            assert_eq!(
                Address::parse(&log),
                Some(Address::Log(id.to_owned())),
                "{log}"
            );
        }
    }

    #[test]
    fn what_has_the_form_of_no_address_is_none() {
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
            "jobs://%",
            "jobs://%4",
            "jobs://%zz",
            "jobs://%ff",
            "jobs://%00",
            "jobs://a%0a",
            "JOBS://a",
            "file:///etc/passwd",
        ] {
            assert_eq!(Address::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn the_lists_have_their_words_and_a_log_has_any() {
        assert_eq!(Address::parse("jobs://running"), Some(Address::Running));
        // RFC 3986: an escape that needs none means the same.
        assert_eq!(Address::parse("jobs://%72unning"), Some(Address::Running));
        assert_eq!(Address::parse("jobs://completed"), Some(Address::Completed));
        let log = Address::Log("running".to_owned());
        assert_eq!(Address::parse("jobs://running/logs"), Some(log));
    }
}
