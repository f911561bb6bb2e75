//! `completions`: the script by which a shell completes commands, options and the ids of jobs. The shell runs this program for
//! each completion, so that the script stays true when the program is replaced.

use std::error::Error;
use std::ffi::OsString;

use clap_complete::CompletionCandidate;
use clap_complete::env::Shells;

use super::setup::own_path;
use crate::registry::{JobRecord, JobRegistry};
use crate::settings::data_dir::DataDir;

/// The variable in which the script says that a completion is asked for.
pub const VARIABLE: &str = "COMPLETE";

pub fn script(shell: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or("give bash, zsh or fish")?;
    let (name, program) = (env!("CARGO_PKG_NAME"), own_path()?.display().to_string());
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, name, name, &program, &mut script)?;
    Ok(String::from_utf8(script)?)
}

/// Lists the ids in the registry, newest first. A shell shows no error, so that a registry that cannot be read has none.
pub(super) fn job_ids() -> Vec<CompletionCandidate> {
    let records = || {
        let registry = JobRegistry::new(DataDir::from_environment().ok()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.ok()?.block_on(registry.records()).ok()
    };
    let records = records().unwrap_or_default();
    let candidate = |(order, record): (usize, &JobRecord)| {
        let what = format!("{} on {}", record.command, record.cloud);
        let id = CompletionCandidate::new(OsString::from(&record.job_id));
        id.help(Some(what.into())).display_order(Some(order))
    };
    records.iter().rev().enumerate().map(candidate).collect()
}
