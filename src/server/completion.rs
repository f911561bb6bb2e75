//! What a client offers while a person types an argument.

use std::cmp::Reverse;

use rmcp::ErrorData;
use rmcp::model::{ArgumentInfo, CompletionInfo, Reference};

use super::{prompts, shown};
use crate::service::JobService;

/// The values that the argument may have, going by what was typed of it.
pub(super) async fn complete(
    service: &JobService,
    reference: &Reference,
    argument: &ArgumentInfo,
) -> Result<CompletionInfo, ErrorData> {
    let is_known = match reference {
        Reference::Prompt(prompt) => prompts::has_argument(&prompt.name, &argument.name)?,
        Reference::Resource(resource) => {
            let error = format!("Unknown resource template: {}", shown(&resource.uri));
            return Err(ErrorData::invalid_params(error, None));
        }
        _ => false,
    };
    if !is_known {
        let error = format!("Unknown argument: {}", shown(&argument.name));
        return Err(ErrorData::invalid_params(error, None));
    }
    let values = match argument.name.as_str() {
        prompts::JOB_ID => job_ids(service, &argument.value).await,
        _ => Vec::new(),
    };
    CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error, None))
}

/// The ids of the recorded jobs that begin so, newest first, at most as many as a client may be given.
pub(super) async fn job_ids(service: &JobService, prefix: &str) -> Vec<String> {
    let mut records = match service.registry().records().await {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(%error, "cannot offer the ids of jobs");
            return Vec::new();
        }
    };
    records.sort_by_key(|record| Reverse(record.submitted_at()));
    records
        .into_iter()
        .map(|record| record.job_id)
        .filter(|job_id| job_id.starts_with(prefix))
        .take(CompletionInfo::MAX_VALUES)
        .collect()
}
