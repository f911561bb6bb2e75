//! What is read out of the outputs of `oumi` and `sky`, on what the real ones printed.

#[path = "../../../tests/support/captures.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod captures;

mod any_input;
mod clusters;
mod ending;
mod json;
mod launch;
mod logs;
mod names;
mod queue;
mod reasons;
mod statuses;
