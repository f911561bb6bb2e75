//! Reaches the person through the client: by an elicitation that the call waits for (2025-06-18, 2025-11-25), or by an answer
//! that asks for input, to which the client calls again (2026-07-28).
//!
//! In the second way the call that comes again carries a state of ours. The client holds it meanwhile, so it is sealed: it
//! is good for this tool with these arguments, for what the person was shown, for some minutes, in this process, and once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientResult,
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequiredResult, ProtocolVersion, RequestStateCodec, RequestStateError,
    SealOptions, ServerRequest,
};
use rmcp::service::{PeerRequestOptions, RequestContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::service::consent::{Asking, Consent, Question};
use crate::sync::lock;

/// How long a person may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10 * 60);
/// The most questions that wait for a person at once. Each takes up the room of a call, and behind calls that find none no
/// answer would be read.
const MOST_QUESTIONS: usize = 16;
/// The name of our one question among those of a call.
const KEY: &str = "consent";

/// What the questions of all calls have in common.
pub(super) struct Questions {
    codec: RequestStateCodec,
    /// The states that were answered, until they have expired.
    answered: Mutex<HashMap<String, Instant>>,
    room: Semaphore,
}

impl Default for Questions {
    fn default() -> Self {
        // Each has 122 random bits. A state of an earlier process is refused, and the person is asked anew.
        let key = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        Self {
            codec: RequestStateCodec::new_unchecked(key.concat()),
            answered: Mutex::default(),
            room: Semaphore::new(MOST_QUESTIONS),
        }
    }
}

/// What a state holds.
#[derive(Serialize, Deserialize)]
struct State {
    about: String,
    nonce: String,
}

impl Questions {
    fn seal(&self, about: &str, call: &[u8], ttl: Duration) -> Result<String, RequestStateError> {
        let state = State {
            about: about.to_owned(),
            nonce: uuid::Uuid::new_v4().to_string(),
        };
        let options = SealOptions::new().associated_data(call).ttl(ttl);
        self.codec.seal_json_with(&state, &options)
    }

    fn open(&self, sealed: &str, call: &[u8]) -> Result<State, String> {
        let opened = self.codec.open_json_with(sealed, call);
        opened.map_err(|error| match error {
            RequestStateError::Expired => format!(
                "the person was asked more than {} minutes ago; call the tool anew, so that they are asked again",
                ANSWER_WITHIN.as_secs() / 60
            ),
            _ => "the request state is none that this server gave for this call (one of before a restart is none either); call \
                  the tool without it, so that the person is asked"
                .to_owned(),
        })
    }

    /// Takes an answer to a question, once.
    fn take(&self, state: &State) -> Result<(), String> {
        let mut answered = lock(&self.answered);
        answered.retain(|_, at| at.elapsed() <= ANSWER_WITHIN);
        match answered.insert(state.nonce.clone(), Instant::now()) {
            None => Ok(()),
            Some(_) => Err(
                "this answer of the person was used already; call the tool anew, so that they are asked again"
                    .to_owned(),
            ),
        }
    }
}

/// The way to a person that a client has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    None,
    Elicitation,
    InputRequired,
}

fn way_of(version: Option<ProtocolVersion>, client: Option<ClientCapabilities>) -> Way {
    let takes_forms = client
        .and_then(|client| client.elicitation)
        .is_some_and(|it| {
            // The older of the two versions knew no modes.
            it.form.is_some() || it.url.is_none()
        });
    match version {
        Some(version) if takes_forms && version >= ProtocolVersion::V_2026_07_28 => {
            Way::InputRequired
        }
        Some(version) if takes_forms && version >= ProtocolVersion::V_2025_06_18 => {
            Way::Elicitation
        }
        _ => Way::None,
    }
}

/// The person in front of the client of a call.
pub(super) struct Person {
    questions: Arc<Questions>,
    context: RequestContext<RoleServer>,
    way: Way,
    /// A digest of the tool and its arguments.
    call: Vec<u8>,
    /// The state that came again, and the person's answer.
    state: Option<String>,
    response: Option<Value>,
    /// What to answer instead of the tool: that the person is to be asked.
    required: Mutex<Option<InputRequiredResult>>,
}

impl Person {
    /// Whoever is behind a call.
    pub(super) fn of(
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
        questions: Arc<Questions>,
    ) -> Self {
        let arguments = request.arguments.clone().map(Value::Object);
        let call = (&request.name, in_order(arguments.unwrap_or_default()));
        let responses = request.input_responses.as_ref();
        Self {
            questions,
            context: context.clone(),
            way: way_of(context.protocol_version(), context.client_capabilities()),
            // Only a map without texts as keys cannot be written, and there is none.
            call: Sha256::digest(serde_json::to_vec(&call).unwrap_or_default()).to_vec(),
            state: request.request_state.clone(),
            response: responses.and_then(|responses| responses.get(KEY).cloned()),
            required: Mutex::default(),
        }
    }

    /// The answer of a tool, unless the person is to be asked first.
    pub(super) fn or_ask(&self, answered: CallToolResult) -> CallToolResponse {
        let mut required = lock(&self.required);
        match required.take() {
            Some(required) => CallToolResponse::InputRequired(required),
            None => CallToolResponse::Complete(answered),
        }
    }

    /// Sends the question to the client and waits for the answer.
    async fn elicit(&self, question: &Question) -> Result<String, String> {
        let Ok(_room) = self.questions.room.try_acquire() else {
            return Err(format!(
                "{MOST_QUESTIONS} questions wait for the person already; call again when they have answered"
            ));
        };
        let not_asked = |error: &dyn std::fmt::Display| {
            format!("the client said that it can ask the person, and could not: {error}")
        };
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(form(question)));
        let sent = self
            .context
            .peer
            .send_request_with_option(request, PeerRequestOptions::default());
        let mut sent = sent.await.map_err(|error| not_asked(&error))?;
        let (withdrawn, reason) = tokio::select! {
            answered = &mut sent.rx => {
                let answered = answered.map_err(|_| "the client is gone".to_owned())?;
                return match answered.map_err(|error| not_asked(&error))? {
                    ClientResult::ElicitResult(result) => agreed(&result).map(|()| question.about.clone()),
                    _ => Err(not_asked(&"its answer is none")),
                };
            }
            () = tokio::time::sleep(ANSWER_WITHIN) => (
                "nobody answered in time",
                format!("nobody answered within {} minutes", ANSWER_WITHIN.as_secs() / 60),
            ),
            () = self.context.ct.cancelled() => ("the call was given up", "the call was given up".to_owned()),
        };
        // What is asked for no longer need not stand on a screen.
        if let Err(error) = sent.cancel(Some(withdrawn.to_owned())).await {
            tracing::debug!(%error, "a question could not be withdrawn");
        }
        Err(reason)
    }

    /// Takes the answer that came with the call, or has the client asked for one.
    fn input(&self, question: &Question) -> Result<String, String> {
        let questions = &self.questions;
        if let (Some(sealed), Some(response)) = (&self.state, &self.response) {
            let state = questions.open(sealed, &self.call)?;
            questions.take(&state)?;
            let result: ElicitResult = serde_json::from_value(response.clone())
                .map_err(|error| format!("the answer to the question cannot be read: {error}"))?;
            return agreed(&result).map(|()| state.about);
        }
        let state = questions
            .seal(&question.about, &self.call, ANSWER_WITHIN)
            .map_err(|error| error.to_string())?;
        let asked = InputRequest::Elicitation(ElicitRequest::new(form(question)));
        let asked = BTreeMap::from([(KEY.to_owned(), asked)]);
        let mut required = lock(&self.required);
        *required = Some(InputRequiredResult::new(Some(asked), Some(state)));
        Err("the person is to be asked first".to_owned())
    }
}

impl Consent for Person {
    fn can_ask(&self) -> bool {
        self.way != Way::None
    }

    fn ask<'a>(&'a self, question: &'a Question) -> Asking<'a> {
        Box::pin(async move {
            match self.way {
                Way::None => Err("this client cannot ask the person".to_owned()),
                Way::Elicitation => self.elicit(question).await,
                Way::InputRequired => self.input(question),
            }
        })
    }
}

/// A form with nothing to fill in: to accept it is to agree.
fn form(question: &Question) -> ElicitRequestParams {
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: question.text.clone(),
        requested_schema: ElicitationSchema::new(BTreeMap::new()),
    }
}

fn agreed(result: &ElicitResult) -> Result<(), String> {
    match result.action {
        ElicitationAction::Accept => Ok(()),
        ElicitationAction::Decline => {
            Err("the person declined; do not call again unless they ask for it".to_owned())
        }
        _ => Err(
            "the person closed the question without an answer; do not call again unless they ask for it"
                .to_owned(),
        ),
    }
}

/// A value with its fields in one order: a client may give them in another when it calls again.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(name, field)| (name, in_order(field)))
                .collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(in_order).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_good_for_its_call_for_a_time_in_this_process_and_once() {
        let questions = Questions::default();
        let sealed = questions.seal("plan", b"call", ANSWER_WITHIN).unwrap();
        let state = questions.open(&sealed, b"call").unwrap();
        assert_eq!(state.about, "plan");
        assert_eq!(questions.take(&state), Ok(()));
        assert!(questions.take(&state).unwrap_err().contains("used already"));

        let error = |opened: Result<State, String>| opened.err().unwrap();
        let foreign = "none that this server gave";
        assert!(error(questions.open(&sealed, b"another call")).contains(foreign));
        assert!(error(Questions::default().open(&sealed, b"call")).contains(foreign));
        assert!(error(questions.open("rs1.forged.state", b"call")).contains(foreign));
        let begun = std::time::Instant::now();
        let old = questions.seal("plan", b"call", Duration::ZERO).unwrap();
        // It is old from the next millisecond on.
        let expired = std::iter::repeat_with(|| questions.open(&old, b"call"))
            .take_while(|_| begun.elapsed() < Duration::from_secs(10))
            .find_map(Result::err);
        assert!(expired.unwrap().contains("10 minutes ago"));
    }

    #[test]
    fn a_person_is_reached_where_the_version_and_the_client_have_a_way() {
        let client = |elicitation: Value| {
            Some(serde_json::from_value(json!({ "elicitation": elicitation })).unwrap())
        };
        let (form, url) = (json!({ "form": {} }), json!({ "url": {} }));
        for (version, elicitation, way) in [
            (ProtocolVersion::V_2025_03_26, json!({}), Way::None),
            (ProtocolVersion::V_2025_06_18, json!({}), Way::Elicitation),
            (ProtocolVersion::V_2025_11_25, form, Way::Elicitation),
            (ProtocolVersion::V_2025_11_25, url, Way::None),
            (ProtocolVersion::V_2026_07_28, json!({}), Way::InputRequired),
        ] {
            assert!(
                way_of(Some(version.clone()), client(elicitation)) == way,
                "{version}"
            );
            assert!(way_of(Some(version), Some(ClientCapabilities::default())) == Way::None);
        }
        assert!(way_of(None, client(json!({}))) == Way::None);
    }

    #[test]
    fn the_order_of_arguments_means_nothing_and_their_values_do() {
        let order = |text: &str| in_order(serde_json::from_str(text).unwrap()).to_string();
        assert_eq!(
            order(r#"{"b":{"y":1,"x":[{"q":1,"p":2}]},"a":2}"#),
            order(r#"{"a":2,"b":{"x":[{"p":2,"q":1}],"y":1}}"#)
        );
        assert_ne!(order(r#"{"a":[1,2]}"#), order(r#"{"a":[2,1]}"#));
    }
}
