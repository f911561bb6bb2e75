//! Asks the user through the client: by an elicitation that the call waits for (2025-06-18, 2025-11-25), or by an
//! `InputRequiredResult` (2026-07-28). To the latter the client answers by calling again with a random text that names the
//! question. It is valid for the same tool and arguments, for the same subject, for [`ANSWER_TIMEOUT`], in this process, and once.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rmcp::model::{
    CallToolRequestParams, ClientResult, ElicitRequest, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationSchema, InputRequest, InputRequiredResult, ProtocolVersion,
    ServerRequest,
};
use rmcp::service::PeerRequestOptions;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Context;
use crate::error::{JobError, Result};
use crate::service::consent::{ConsentPrompt, ConsentProvider};
use crate::settings::env_vars;
use crate::sync::lock;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The most questions that are kept for a client that calls again.
const MAX_PENDING: usize = 256;
/// The name of our one elicitation among those of a call.
const PROMPT_ID: &str = "consent";

/// The questions that clients answer by calling again, the newest first.
#[derive(Default)]
pub(super) struct PendingPrompts(Mutex<VecDeque<PendingPrompt>>);

struct PendingPrompt {
    state: String,
    call: Vec<u8>,
    subject: String,
    asked_at: Instant,
}

impl PendingPrompts {
    /// Keeps a question, and returns the state that names it.
    fn keep(&self, subject: String, call: Vec<u8>) -> String {
        let state = uuid::Uuid::new_v4().to_string();
        let mut prompts = lock(&self.0);
        prompts.truncate(MAX_PENDING - 1);
        prompts.push_front(PendingPrompt {
            state: state.clone(),
            call,
            subject,
            asked_at: Instant::now(),
        });
        state
    }

    /// Returns the subject of a question, for the one use of its state.
    fn redeem(&self, state: &str, call: &[u8]) -> Result<String> {
        let mut prompts = lock(&self.0);
        prompts.retain(|prompt| prompt.asked_at.elapsed() <= ANSWER_TIMEOUT);
        let mut known = prompts.iter();
        let known = known.position(|prompt| prompt.state == state && prompt.call == call);
        let prompt = known.and_then(|known| prompts.remove(known));
        prompt.map(|prompt| prompt.subject).ok_or_else(|| {
            JobError::blocked(
                "this request state is not valid: it is that of another call or of an earlier server, was used already, \
                 or is more than 10 minutes old",
            )
            .with_hint("call the tool again without it, so that the user is asked")
        })
    }
}

/// Returns the protocol version, if its client can ask the user in it.
fn asking_version(context: &Context) -> Option<ProtocolVersion> {
    let modes = context.client_capabilities()?.elicitation?;
    // 2025-06-18 knew no modes.
    let has_forms = modes.form.is_some() || modes.url.is_none();
    let version = context.protocol_version()?;
    (has_forms && version >= ProtocolVersion::V_2025_06_18).then_some(version)
}

/// The client of a call, as the way to ask its user.
pub(super) struct ElicitingCaller {
    prompts: Arc<PendingPrompts>,
    context: Context,
    version: ProtocolVersion,
    /// The digest of the tool and its arguments.
    call: Vec<u8>,
    /// The state and the answer, when the client calls again.
    answer: Option<(String, Value)>,
    required: Mutex<Option<InputRequiredResult>>,
}

impl ElicitingCaller {
    /// `None` for a client that has no way to ask its user.
    pub(super) fn new(
        request: &CallToolRequestParams,
        context: &Context,
        prompts: Arc<PendingPrompts>,
    ) -> Option<Self> {
        let version = asking_version(context)?;
        let mut arguments = Value::from(request.arguments.clone().unwrap_or_default());
        // A client may give them in another order when it calls again.
        arguments.sort_all_objects();
        let responses = request.input_responses.as_ref();
        let response = responses.and_then(|responses| responses.get(PROMPT_ID).cloned());
        Some(Self {
            prompts,
            context: context.clone(),
            version,
            call: Sha256::digest(format!("{} {arguments}", request.name)).to_vec(),
            answer: request.request_state.clone().zip(response),
            required: Mutex::default(),
        })
    }

    /// Returns what to answer in place of the tool, where the user must be asked first.
    pub(super) fn input_required(&self) -> Option<InputRequiredResult> {
        lock(&self.required).take()
    }

    async fn elicit(&self, prompt: &ConsentPrompt) -> Result<String> {
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(form(prompt)));
        let options = PeerRequestOptions::default();
        let sent = self.context.peer.send_request_with_option(request, options);
        let mut sent = sent.await.map_err(not_asked)?;
        let reason = tokio::select! {
            answered = &mut sent.rx => return match answered {
                Ok(Ok(ClientResult::ElicitResult(result))) => accepted(&result, &prompt.subject),
                Ok(Err(error)) => Err(not_asked(error)),
                _ => Err(not_asked("it is gone, or its answer has the wrong type")),
            },
            () = tokio::time::sleep(ANSWER_TIMEOUT) => "nobody answered within 10 minutes",
            () = self.context.ct.cancelled() => "the client cancelled the call",
        };
        // Lets the client close its dialog.
        sent.cancel(Some(reason.to_owned())).await.ok();
        Err(JobError::blocked(reason))
    }

    /// Reads the answer that came with the call, or requires one.
    fn read_input(&self, prompt: &ConsentPrompt) -> Result<String> {
        if let Some((state, response)) = &self.answer {
            let subject = self.prompts.redeem(state, &self.call)?;
            let result = serde_json::from_value(response.clone());
            let result = result.map_err(|_| not_asked("its answer has the wrong type"))?;
            return accepted(&result, &subject);
        }
        let state = self.prompts.keep(prompt.subject.clone(), self.call.clone());
        let request = InputRequest::Elicitation(ElicitRequest::new(form(prompt)));
        let requests = BTreeMap::from([(PROMPT_ID.to_owned(), request)]);
        *lock(&self.required) = Some(InputRequiredResult::new(Some(requests), Some(state)));
        Err(JobError::blocked("the user must be asked first"))
    }
}

#[async_trait]
impl ConsentProvider for ElicitingCaller {
    async fn ask(&self, prompt: &ConsentPrompt) -> Result<String> {
        match self.version >= ProtocolVersion::V_2026_07_28 {
            true => self.read_input(prompt),
            false => self.elicit(prompt).await,
        }
    }
}

/// Builds a form with nothing to fill in: accepting it is consent.
fn form(prompt: &ConsentPrompt) -> ElicitRequestParams {
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: prompt.text.clone(),
        requested_schema: ElicitationSchema::new(BTreeMap::new()),
    }
}

/// Returns the subject, if the user has accepted it.
fn accepted(result: &ElicitResult, subject: &str) -> Result<String> {
    match result.action {
        ElicitationAction::Accept => Ok(subject.to_owned()),
        ElicitationAction::Decline => Err(JobError::blocked("the user declined")
            .with_hint("do not call again unless they ask for it")),
        _ => Err(unseen(
            "the client closed the question without an answer, as unattended clients do without showing it",
        )),
    }
}

fn not_asked(error: impl Display) -> JobError {
    unseen(format!("the client could not ask the user: {error}"))
}

/// The error for a question that perhaps nobody saw.
fn unseen(message: impl Display) -> JobError {
    JobError::blocked(message).with_hint(format!(
        "tell the user: {}=flags in the server's environment makes the flags of the call suffice",
        env_vars::CONSENT
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_state_is_bound_to_call_time_process_and_use() {
        let prompts = PendingPrompts::default();
        let subject = "plan".to_owned();
        let call = b"call".to_vec();
        let state = prompts.keep(subject.clone(), call.clone());
        prompts.redeem(&state, b"another call").unwrap_err();
        let other = PendingPrompts::default();
        other.redeem(&state, &call).unwrap_err();
        prompts.redeem("forged", &call).unwrap_err();
        assert_eq!(prompts.redeem(&state, &call), Ok(subject.clone()));
        let error = prompts.redeem(&state, &call).unwrap_err().to_string();
        assert!(error.contains("used already"), "{error}");
        let state = prompts.keep(subject, call.clone());
        tokio::time::advance(ANSWER_TIMEOUT + Duration::from_secs(1)).await;
        let error = prompts.redeem(&state, &call).unwrap_err().to_string();
        assert!(error.contains("more than 10 minutes old"), "{error}");
    }
}
