//! `completions`: the script by which a shell completes commands, options and the ids of jobs. The shell runs this program for
//! each completion, so that the script stays true when the program is replaced.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap_complete::CompletionCandidate;

use super::CommandResult;
use super::setup::own_path;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;

/// The variable that asks for the script of a shell, and in the script for a completion.
pub const VARIABLE: &str = "COMPLETE";

/// Becomes the program that prints the script, which names it as it was called.
pub fn print_script(program: &Path, shell: &str) -> CommandResult {
    let mut command = Command::new(program);
    Err(command.arg0(own_path()?).env(VARIABLE, shell).exec().into())
}

/// Lists the ids in the registry, newest first. A shell shows no error, so that a registry that cannot be read has none.
pub(super) fn job_ids() -> Vec<CompletionCandidate> {
    let data_dir = DataDir::from_environment().ok();
    let read = data_dir.and_then(|it| JobRegistry::new(it).read().ok());
    let (records, _) = read.unwrap_or_default();
    let candidate = |(order, record): (usize, &JobRecord)| {
        let what = format!("{} on {}", record.command, record.cloud);
        let id = CompletionCandidate::new(OsString::from(&record.job_id));
        id.help(Some(what.into())).display_order(Some(order))
    };
    records.iter().rev().enumerate().map(candidate).collect()
}
