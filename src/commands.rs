//! The commands of a person at a shell.

pub mod jobs;
mod log;
pub mod setup;
mod text;
mod wait;
