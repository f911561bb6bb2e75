//! `doctor`: what a user runs first, and pastes into a report of a bug. It changes nothing.

mod checks;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::jobs::Format;
use super::{CommandResult, exit_code, note, print, until_interrupted};
use crate::error::JobError;
use crate::process::runner::Cli;
use crate::redact::Redactor;
use crate::serve::wire;
use crate::text::clean_controls;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// Something does not work that need not matter.
    Warning,
    /// Jobs cannot be run, or not as they were meant to.
    Failure,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    outcome: Outcome,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    /// Reports what was found, or with `outcome` why it was not. Hides what looks like a secret: programs print what they like.
    fn new(name: &'static str, found: Result<String, JobError>, outcome: Outcome) -> Self {
        let (outcome, message, advice) = match found {
            Ok(found) => (Outcome::Ok, found, None),
            Err(error) => (outcome, error.message, error.hint),
        };
        let clean = |text: String| clean_controls(&Redactor::default().redact(&text)).into_owned();
        Self {
            name,
            outcome,
            message: clean(message),
            advice: advice.map(clean),
        }
    }
}

/// Checks everything and prints the report. Returns 1 where something failed. `program` is this program.
pub fn run(output: Format, program: &Path) -> ExitCode {
    if io::stderr().is_terminal() {
        note("Looking at everything, which takes up to a minute …");
    }
    // With slots of its own, so that no check waits for another's.
    let (wired, cli) = (wire(program), Cli::default());
    exit_code(until_interrupted(async {
        print_report(&checks::run(&wired, &cli).await, output)
    }))
}

fn print_report(checks: &[Check], output: Format) -> CommandResult {
    let failed = checks.iter().any(|check| check.outcome == Outcome::Failure);
    print(&if output.json {
        let version = env!("CARGO_PKG_VERSION");
        let report = json!({ "version": version, "ok": !failed, "checks": checks });
        serde_json::to_string_pretty(&report)?
    } else {
        report(checks)
    })?;
    Ok(ExitCode::from(u8::from(failed)))
}

fn report(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let outcome = match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failure => "failure",
        };
        let advice = check.advice.as_ref();
        let advice = advice.map(|advice| format!("{:19}-> {advice}\n", ""));
        let (name, message) = (check.name, &check.message);
        format!(
            "{outcome:9}{name:10}{message}\n{}",
            advice.unwrap_or_default()
        )
    };
    let wrong = checks.iter().filter(|check| check.outcome != Outcome::Ok);
    let summary = match wrong.count() {
        0 => "All is well.".to_owned(),
        count => format!("To look at: {count}."),
    };
    checks.iter().map(line).collect::<String>() + "\n" + &summary
}

#[cfg(test)]
#[path = "tests/doctor.rs"]
mod tests;
