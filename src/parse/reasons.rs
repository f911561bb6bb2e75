//! Finds the reason of a failure and the last line in the output of a launcher: one line of bounded length each.

use crate::text::traceback::{self, names_exception};
use crate::text::{end_of, shorten, strip_escapes};

/// The longest reason or last line, in bytes.
pub(super) const MAX_LINE: usize = 500;

/// Bytes of the end of an output that are read: room for a traceback of several parts.
const TAIL_BYTES: usize = 256 * 1024;

const ERROR: &str = "Error: ";

/// Printed by Oumi below every traceback.
const FOOTER: [&str; 2] = [
    "If you believe this is a bug",
    "https://github.com/oumi-ai/oumi/issues",
];

/// Printed by each of Oumi's ssh calls to Slurm; never the reason of a failure.
const NOISE: &str = "Pseudo-terminal will not be allocated because stdin is not a terminal.";

/// Finds the reason of a failure in the output of a launcher: the end of a traceback, an `Error: …`, or SkyPilot's `Reason: …`.
pub(crate) fn failure_reason(output: &str) -> Option<String> {
    let text = strip_escapes(end_of(output, TAIL_BYTES));
    let lines: Vec<&str> = text.lines().collect();
    let exceptions = traceback::exceptions(&traceback::lines(&text));
    let exception = exceptions.last().map(|last| last.at);
    // Of Oumi, click or SkyPilot.
    let error = lines.iter().rposition(|line| line.starts_with(ERROR));
    let reason = match exception.max(error) {
        Some(at) => paragraph(lines[at], &lines[at + 1..]),
        None => skypilot_reason(&lines)?.to_owned(),
    };
    Some(one_line(&reason)).filter(|reason| !reason.is_empty())
}

/// Returns the last line with a letter or digit, without the marks and prefixes of Oumi and SkyPilot.
pub(crate) fn last_line(output: &str) -> Option<String> {
    let text = strip_escapes(end_of(output, TAIL_BYTES));
    text.lines()
        .rev()
        .filter(|line| !is_footer(line) && !line.contains('━'))
        .map(undecorated)
        .find(|line| line.contains(char::is_alphanumeric))
        .map(one_line)
}

/// Puts `text` on one line of at most [`MAX_LINE`] bytes.
pub(super) fn one_line(text: &str) -> String {
    let text = text.replace(NOISE, "");
    let words: Vec<&str> = text.split_whitespace().take(MAX_LINE).collect();
    shorten(&words.join(" "), MAX_LINE).into_owned()
}

/// Removes the module before the name of an exception: `RuntimeError: Job 77 not found.`
fn unqualified(text: &str) -> &str {
    let name = text.split(':').next().unwrap_or(text);
    &text[name.rfind('.').map_or(0, |dot| dot + 1)..]
}

/// Finds SkyPilot's own word for what went wrong, where it raised nothing.
fn skypilot_reason<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let mut lines = lines.iter().rev().map(|line| line.trim());
    let marks = ["Reason: ", "ERROR: ", "⨯ "];
    let reason = lines.find_map(|line| marks.iter().find_map(|mark| line.strip_prefix(mark)))?;
    Some(match names_exception(reason) {
        true => unqualified(reason),
        false => reason,
    })
}

/// Joins a line that names an error and the lines below it, up to the end of the paragraph.
fn paragraph(first: &str, below: &[&str]) -> String {
    let ends = |line: &str| {
        line.trim().is_empty()
            || is_footer(line)
            || traceback::is_between(line)
            || line.starts_with(ERROR)
            || line == "\"\"\""
    };
    let message = first.strip_prefix(ERROR);
    let first = message.unwrap_or_else(|| unqualified(first.trim()));
    let below = below.iter().take_while(|line| !ends(line));
    below.fold(first.to_owned(), |text, line| text + " " + line)
}

fn is_footer(line: &str) -> bool {
    FOOTER.iter().any(|footer| line.starts_with(footer))
}

/// Removes the prefix of Oumi's logger and the marks that SkyPilot puts around its lines.
fn undecorated(line: &str) -> &str {
    let message = line
        .split_once("]][")
        .filter(|(prefix, _)| prefix.starts_with('['))
        .and_then(|(_, rest)| rest.split_once("] "))
        .map_or(line, |(_, message)| message);
    message.trim_matches(|c: char| c.is_whitespace() || (!c.is_ascii() && !c.is_alphanumeric()))
}
