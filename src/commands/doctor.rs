//! `doctor`: what a user runs first, and pastes into a report of a bug. It changes nothing.

mod checks;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::jobs::Format;
use super::text::{labelled, terminal_width};
use super::{CommandResult, exit_code, note, print, until_interrupted};
use crate::error::JobError;
use crate::process::runner::Cli;
use crate::redact::Redactor;
use crate::serve::wire;
use crate::text::clean_controls;

/// The width of the result and the name in front of a sentence.
const LABEL: usize = 19;

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
    fn new(name: &'static str, outcome: Outcome, message: impl ToString) -> Self {
        Self {
            name,
            outcome,
            message: message.to_string(),
            advice: None,
        }
    }

    /// Reports what was found, or with `outcome` why it was not.
    fn of(name: &'static str, found: Result<String, JobError>, outcome: Outcome) -> Self {
        match found {
            Ok(found) => Self::new(name, Outcome::Ok, found),
            Err(error) => Self {
                advice: error.hint,
                ..Self::new(name, outcome, error.message)
            },
        }
    }

    fn advise(self, advice: impl ToString) -> Self {
        Self {
            advice: Some(advice.to_string()),
            ..self
        }
    }

    /// Hides what looks like a secret: programs print what they like.
    fn sanitized(mut self) -> Self {
        for text in std::iter::once(&mut self.message).chain(&mut self.advice) {
            *text = clean_controls(&Redactor::default().redact(text)).into_owned();
        }
        self
    }

    fn render(&self, width: Option<usize>) -> String {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failure => "failure",
        };
        let label = format!("{outcome:9}{:10}", self.name);
        let mut text = labelled(&label, &self.message, width);
        if let Some(advice) = &self.advice {
            text.push('\n');
            text.push_str(&labelled(
                &" ".repeat(LABEL),
                &format!("-> {advice}"),
                width,
            ));
        }
        text
    }
}

/// Checks everything and prints the report. Returns 1 where something failed. `program` is this program.
pub fn run(output: Format, program: &Path) -> ExitCode {
    if io::stderr().is_terminal() {
        note("Looking at everything, which takes up to a minute …");
    }
    // With slots of its own, so that no check waits for another's.
    let (wired, cli) = (wire(program), Cli::default());
    let queries = wired.as_ref().map(|wired| &wired.queries);
    let programs: Vec<&Cli> = queries.into_iter().chain([&cli]).collect();
    exit_code(until_interrupted(
        async { print_report(&checks::run(&wired, &cli).await, output) },
        &programs,
    ))
}

fn print_report(checks: &[Check], output: Format) -> CommandResult {
    let failed = checks.iter().any(|check| check.outcome == Outcome::Failure);
    print(&if output.json {
        let version = env!("CARGO_PKG_VERSION");
        let report = json!({ "version": version, "ok": !failed, "checks": checks });
        serde_json::to_string_pretty(&report)?
    } else {
        report(checks, terminal_width())
    })?;
    Ok(ExitCode::from(u8::from(failed)))
}

fn report(checks: &[Check], width: Option<usize>) -> String {
    let lines = checks.iter().map(|check| check.render(width) + "\n");
    let count = |outcome| {
        checks
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    };
    let summary = match (count(Outcome::Failure), count(Outcome::Warning)) {
        (0, 0) => "All is well.".to_owned(),
        (failures, warnings) => format!("Failures: {failures}; warnings: {warnings}."),
    };
    lines.collect::<String>() + "\n" + &summary
}

#[cfg(test)]
#[path = "tests/doctor.rs"]
mod tests;
