//! What a client offers while a person types an argument.

use rmcp::ErrorData;
use rmcp::model::{CompleteRequestParams, CompleteResult, CompletionInfo, Reference};

use super::{prompts, resources, shown};
use crate::service::JobService;

/// The values that may be meant by what was typed of an argument.
pub(super) async fn complete(
    service: &JobService,
    request: &CompleteRequestParams,
) -> Result<CompleteResult, ErrorData> {
    let argument = request.argument.name.as_str();
    let is_known = match &request.r#ref {
        Reference::Prompt(prompt) => prompts::has_argument(&prompt.name, argument)?,
        Reference::Resource(template) => {
            resources::is_template(&template.uri) && argument == prompts::JOB_ID
        }
        _ => false,
    };
    if !is_known {
        let error = format!(
            "no prompt or resource template here has the argument `{}`",
            shown(argument)
        );
        return Err(ErrorData::invalid_params(error, None));
    }
    let values = match argument {
        prompts::JOB_ID => job_ids(service, &request.argument.value).await?,
        // A path, or a cloud that the person has.
        _ => Vec::new(),
    };
    offer(values)
}

/// The ids of the recorded jobs, those that begin with what was typed before those that hold it, the newest first.
pub(super) async fn job_ids(service: &JobService, typed: &str) -> Result<Vec<String>, ErrorData> {
    let typed = typed.to_lowercase();
    let mut ids: Vec<String> = resources::newest(service)
        .await?
        .into_iter()
        .map(|record| record.job_id)
        .filter(|id| id.to_lowercase().contains(&typed))
        .collect();
    ids.sort_by_key(|id| !id.to_lowercase().starts_with(&typed));
    Ok(ids)
}

/// As many of the values as a client may be given, and how many there are.
fn offer(mut values: Vec<String>) -> Result<CompleteResult, ErrorData> {
    let total = u32::try_from(values.len()).ok();
    let more = values.len() > CompletionInfo::MAX_VALUES;
    values.truncate(CompletionInfo::MAX_VALUES);
    CompletionInfo::with_pagination(values, total, more)
        .map(CompleteResult::new)
        .map_err(|error| ErrorData::internal_error(error, None))
}
