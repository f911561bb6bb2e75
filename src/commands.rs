//! The commands of a person at a shell.

pub mod jobs;
mod log;
mod text;
mod wait;
