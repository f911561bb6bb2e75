//! The tools: what a model sees of them, and how a call is read and answered.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::elicitation::Person;
use super::{Server, progress, shown};
use crate::service::JobService;
use crate::service::answers::{
    CancelAnswer, ClusterAnswer, JobAnswer, ListAnswer, LogsAnswer, PollAnswer, RunAnswer,
};
use crate::service::requests::{
    CancelRequest, DownRequest, ListRequest, LogsRequest, PollRequest, RunRequest, StopRequest,
};
use crate::text::clean_controls;

#[tool_router]
impl Server {
    /// Start an Oumi job from a config file, on this machine or a cloud, or preview it. By default (dry_run=true) nothing
    /// starts and the answer shows exactly what would: show that to the user. A real launch needs dry_run=false,
    /// confirm=true and user_confirmation="EXECUTE", given only once the user agreed. The answer's job_id names the job from
    /// then on; next call poll_status with it.
    #[tool(
        title = "Run a job",
        input_schema = input_schema::<RunRequest>(),
        output_schema = output_schema::<RunAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = true)
    )]
    async fn run_job(
        &self,
        Extension(person): Extension<Arc<Person>>,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResponse {
        let tell = progress::tell(&context);
        self.asking(person, arguments, async |service, request: RunRequest| {
            service.run_told(request, &tell).await
        })
        .await
    }

    /// How a job is, asked of what runs it: status (its own word), state (PENDING RUNNING SUCCEEDED FAILED CANCELLED UNKNOWN)
    /// and is_done; how far it is; why it failed. Give job_id, or oumi_job_id and cloud for a job started elsewhere. `next`
    /// says when to ask again.
    #[tool(
        title = "Job status",
        input_schema = input_schema::<PollRequest>(),
        output_schema = output_schema::<PollAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn poll_status(
        &self,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        let tell = progress::tell(&context);
        answer(arguments, |request: PollRequest| async {
            tokio::select! {
                answer = self.service.poll_until(request, &tell) => answer,
                () = context.ct.cancelled() => PollAnswer::failure("the call was given up".to_owned()),
            }
        })
        .await
    }

    /// A job's output, stderr included, also while it runs: its end, what is new since a cursor, or what matches grep.
    #[tool(
        title = "Job log",
        input_schema = input_schema::<LogsRequest>(),
        output_schema = output_schema::<LogsAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn get_job_logs(&self, arguments: JsonObject) -> CallToolResult {
        let mut picture = None;
        let mut answered = answer(arguments, async |request: LogsRequest| {
            let mut answer = self.service.logs(request).await;
            picture = answer.picture.take();
            answer
        })
        .await;
        let picture = picture.map(|png| ContentBlock::image(BASE64.encode(png), "image/png"));
        answered.content.extend(picture);
        answered
    }

    /// End a job and all its processes; what it computed and did not save is lost. Answers after at most some 10 s whether it
    /// has ended, or what is left and how to force it (force=true kills). A job that has ended is refused with its status.
    #[tool(
        title = "Cancel a job",
        input_schema = input_schema::<CancelRequest>(),
        output_schema = output_schema::<CancelAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn cancel_job(
        &self,
        Extension(person): Extension<Arc<Person>>,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> CallToolResponse {
        let tell = progress::tell(&context);
        self.asking(
            person,
            arguments,
            async |service, request: CancelRequest| service.cancel_told(request, &tell).await,
        )
        .await
    }

    /// The known jobs, newest first, each with its status now; `warnings` names what could not be asked. Use it to find a
    /// job_id again. status: all, running (not done) or completed (done, well or badly).
    #[tool(
        title = "List jobs",
        input_schema = input_schema::<ListRequest>(),
        output_schema = output_schema::<ListAnswer>(),
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn list_jobs(&self, arguments: JsonObject) -> CallToolResult {
        answer(arguments, |request: ListRequest| self.service.list(request)).await
    }

    /// Stop a cloud cluster: its machines end, and so do the jobs on it; its disks are kept and cost a little. Not every cloud
    /// can; down_cluster always can.
    #[tool(
        title = "Stop a cluster",
        input_schema = input_schema::<StopRequest>(),
        output_schema = output_schema::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn stop_cluster(
        &self,
        Extension(person): Extension<Arc<Person>>,
        arguments: JsonObject,
    ) -> CallToolResponse {
        self.asking(person, arguments, async |service, request: StopRequest| {
            service.stop_cluster(request).await
        })
        .await
    }

    /// Delete a cloud cluster with everything on its disks, and so end its costs. Needs confirm=true and
    /// user_confirmation="DOWN", given only once the user agreed.
    #[tool(
        title = "Delete a cluster",
        input_schema = input_schema::<DownRequest>(),
        output_schema = output_schema::<ClusterAnswer>(),
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true)
    )]
    async fn down_cluster(
        &self,
        Extension(person): Extension<Arc<Person>>,
        arguments: JsonObject,
    ) -> CallToolResponse {
        self.asking(person, arguments, async |service, request: DownRequest| {
            service.down_cluster(request).await
        })
        .await
    }
}

impl Server {
    /// Answers a call that the person may be asked about first.
    async fn asking<Q: DeserializeOwned, A: JobAnswer>(
        &self,
        person: Arc<Person>,
        arguments: JsonObject,
        ask: impl AsyncFnOnce(JobService, Q) -> A,
    ) -> CallToolResponse {
        let service = self.service.asking(person.clone());
        let answered = answer(arguments, async |request| ask(service, request).await).await;
        person.or_ask(answered)
    }
}

/// The tools. Their descriptions are the comments above, without the ends of the lines.
pub(super) fn router() -> ToolRouter<Server> {
    let mut router = Server::tool_router();
    for tool in router.map.values_mut() {
        if let Some(description) = &mut tool.attr.description {
            *description = description.replace('\n', " ").into();
        }
    }
    router
}

/// Reads the arguments of a call, has it answered, and gives the answer both as structured content and as text. Arguments
/// that do not fit are answered like any other failure: in the tool's own fields.
async fn answer<Q, A, F>(arguments: JsonObject, ask: impl FnOnce(Q) -> F) -> CallToolResult
where
    Q: DeserializeOwned,
    A: JobAnswer,
    F: Future<Output = A>,
{
    let answered = match read_arguments(arguments) {
        Ok(request) => ask(request).await,
        Err(error) => A::failure(clean_controls(&error).into_owned()),
    };
    let (content, is_error) = match serde_json::to_value(&answered) {
        Ok(content) => (content, !answered.is_success()),
        Err(error) => (
            json!({ "success": false, "error": error.to_string() }),
            true,
        ),
    };
    let mut result = CallToolResult::success(vec![ContentBlock::text(content.to_string())]);
    result.structured_content = Some(content);
    result.is_error = Some(is_error);
    result
}

/// Arguments as a request, or a sentence that says which field, what was given and what is allowed. A `null` counts as
/// not given. What was given is not repeated for `envs`, whose values are secret.
pub(super) fn read_arguments<Q: DeserializeOwned>(mut arguments: JsonObject) -> Result<Q, String> {
    arguments.retain(|_, value| !value.is_null());
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let (path, reason) = (error.path().to_string(), error.inner().to_string());
        let (path, reason) = (shown(&path), shown(&reason));
        match path.as_ref() {
            "." => format!("the arguments do not fit: {reason}; correct them and call again"),
            _ if path == "envs" || path.starts_with("envs.") => {
                format!("the argument `{path}` does not fit: environment variables are texts; correct it and call again")
            }
            // The reason names the unknown field already.
            _ if reason.starts_with("unknown field") => format!("{reason}; correct the arguments and call again"),
            _ => format!("the argument `{path}` does not fit: {reason}; correct it and call again"),
        }
    })
}

fn input_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    slim(schema_for_input::<T>().unwrap_or_else(|error| {
        // Only a type that is no object can come here, and every request is one.
        tracing::error!(%error, "a tool has no schema");
        Default::default()
    }))
}

/// The fields of an answer explain themselves: no model is shown this schema, and clients pay for its bytes. The formats are
/// Rust's (`uint64`), and strict clients complain of them; that numbers are not below 0 is no news of an answer.
fn output_schema<T: schemars::JsonSchema + 'static>() -> Arc<JsonObject> {
    let mut schema = slim(schema_for_output::<T>());
    Arc::make_mut(&mut schema)
        .values_mut()
        .for_each(without_remarks);
    schema
}

fn without_remarks(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // A field may itself be named so; then it is a schema and no text.
            object.retain(|key, value| match key.as_str() {
                "description" | "format" => !value.is_string(),
                "minimum" => !value.is_number(),
                // As it is without.
                "additionalProperties" => *value != true,
                _ => true,
            });
            object.values_mut().for_each(without_remarks);
        }
        Value::Array(array) => array.iter_mut().for_each(without_remarks),
        _ => {}
    }
}

/// A schema without what a model has no use for: it pays for every byte of it in each conversation.
fn slim(mut schema: Arc<JsonObject>) -> Arc<JsonObject> {
    let slimmed = Arc::make_mut(&mut schema);
    for key in ["$schema", "title", "description"] {
        slimmed.remove(key);
    }
    if let Some(Value::Object(properties)) = slimmed.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.retain(|key, value| {
                key != "format" && !(key == "default" && (value == "" || value.is_null()))
            });
        }
    }
    slimmed.values_mut().for_each(in_common_words);
    schema
}

/// Says the same in what the dialects of all models know: a choice of texts as an `enum`, and one `type` at a time.
fn in_common_words(schema: &mut Value) {
    let object = match schema {
        Value::Object(object) => object,
        Value::Array(items) => return items.iter_mut().for_each(in_common_words),
        _ => return,
    };
    object.values_mut().for_each(in_common_words);
    if let Some(texts) = object.get("oneOf").and_then(texts_to_choose) {
        object.shift_remove("oneOf");
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), texts);
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let types = types.clone();
        object.shift_remove("type");
        let mut common = JsonObject::new();
        common.extend(object.shift_remove_entry("description"));
        let each = types.into_iter().map(|kind| match kind.as_str() {
            Some("null") => json!({ "type": kind }),
            _ => {
                let mut one = JsonObject::from_iter([("type".to_owned(), kind)]);
                one.extend(object.clone());
                one.into()
            }
        });
        common.insert("anyOf".to_owned(), each.collect());
        *object = common;
    }
}

fn texts_to_choose(choices: &Value) -> Option<Value> {
    let text = |choice: &Value| choice.get("const").filter(|text| text.is_string()).cloned();
    choices.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_one_type_at_a_time_and_a_choice_of_texts_is_an_enum() {
        let mut schema = json!({
            "choice": { "description": "which", "oneOf": [
                { "type": "string", "const": "a", "description": "the first" }, { "type": "string", "const": "b" },
            ], "default": "a" },
            "perhaps": { "items": { "description": "some", "type": ["object", "null"], "additionalProperties": true } },
            "either": { "oneOf": [{ "type": "string" }, { "const": 1 }] },
        });
        in_common_words(&mut schema);
        assert_eq!(
            schema,
            json!({
                "choice": { "description": "which", "default": "a", "type": "string", "enum": ["a", "b"] },
                "perhaps": { "items": { "description": "some", "anyOf": [
                    { "type": "object", "additionalProperties": true }, { "type": "null" },
                ] } },
                "either": { "oneOf": [{ "type": "string" }, { "const": 1 }] },
            })
        );
    }

    #[test]
    fn no_schema_has_a_format_that_json_schema_does_not_know() {
        for tool in Server::tool_router().list_all() {
            let schemas =
                serde_json::to_string(&(&tool.input_schema, &tool.output_schema)).unwrap();
            assert!(
                !schemas.contains(r#""format":"#),
                "{}: {schemas}",
                tool.name
            );
        }
    }
}
