//! Reading logs: the end, new text, matches.

mod folding;
pub mod log;
mod new_text;
mod searching;
mod secrets;
mod tails;
