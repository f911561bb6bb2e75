//! Progress read out of logs and of the files of a run.

mod fixtures;
mod following;
pub mod progressing;
mod run_files;
