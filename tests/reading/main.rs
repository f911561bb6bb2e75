//! What is read out of logs: text, what is new, matches, progress, and why a job failed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failing;
mod folding;
mod following;
mod log;
mod new_text;
mod picturing;
mod progressing;
mod run_files;
mod searching;
mod tails;
