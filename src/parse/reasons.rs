//! Finds the reason of a failure and the last line in the output of a launcher: one line of bounded length each.

use crate::text::{shorten, strip_escapes};

/// The longest reason or last line, in bytes.
pub(super) const MAX_LINE: usize = 500;

/// Bytes of the end of an output that are read: room for a traceback of several parts.
const TAIL_BYTES: usize = 256 * 1024;

const TRACEBACK_PARTS: [&str; 3] = [
    "Traceback (most recent",
    "During handling of the",
    "The above exception was",
];

/// Printed by Oumi below every traceback.
const FOOTER: [&str; 2] = [
    "If you believe this is a bug",
    "https://github.com/oumi-ai/oumi/issues",
];

/// Printed by each of Oumi's ssh calls to Slurm; never the reason of a failure.
const NOISE: &str = "Pseudo-terminal will not be allocated because stdin is not a terminal.";

/// Finds the reason of a failure in the output of a launcher (stdout, stderr or both): the last line of a traceback, an
/// `Error: …`, or SkyPilot's own `Reason: …`.
pub(crate) fn failure_reason(output: &str) -> Option<String> {
    let text = strip_escapes(tail(output));
    let lines: Vec<&str> = text.lines().collect();
    [exception(&lines), error(&lines), usage_error(&lines)]
        .into_iter()
        .flatten()
        .max_by_key(|(line, _)| *line)
        .map(|(_, reason)| reason)
        .or_else(|| skypilot_reason(&lines))
        .map(|reason| one_line(&reason))
        .filter(|reason| !reason.is_empty())
}

/// Returns the last line with a letter or digit, without the marks and prefixes of Oumi and SkyPilot.
pub(crate) fn last_line(output: &str) -> Option<String> {
    let text = strip_escapes(tail(output));
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

fn tail(output: &str) -> &str {
    &output[output.ceil_char_boundary(output.len().saturating_sub(TAIL_BYTES))..]
}

/// Finds the exception that ended the program: the first one of the last part of the traceback, else the last there is.
fn exception(lines: &[&str]) -> Option<(usize, String)> {
    let last_part = lines.iter().rposition(|line| begins_part(line));
    let found = (last_part.unwrap_or(lines.len())..lines.len())
        .find_map(|at| Some((at, exception_text(lines[at])?)));
    let mut exceptions = lines.iter().enumerate().rev();
    let (at, text) =
        found.or_else(|| exceptions.find_map(|(at, line)| Some((at, exception_text(line)?))))?;
    Some((at, paragraph(text, &lines[at + 1..])))
}

/// Reads an exception and its message, the module left out: `RuntimeError: Job 77 not found.`
fn exception_text(line: &str) -> Option<String> {
    let (name, message) = line.split_once(':').unwrap_or((line, ""));
    let class = name.rsplit('.').next()?;
    let ends = ["Error", "Exception", "Interrupt", "Exit", "Group"];
    let is_known = ends.iter().any(|end| class.ends_with(end));
    let is_qualified = class.len() < name.len() && class.starts_with(char::is_uppercase);
    let is_separated = message.is_empty() || message.starts_with(' ');
    // `Error: …` is a sentence, not a class.
    if !is_dotted(name)
        || class == "Error"
        || !is_separated
        || !(is_known || (is_qualified && name != line))
    {
        return None;
    }
    Some(match message.trim() {
        "" => class.to_owned(),
        message => format!("{class}: {message}"),
    })
}

fn is_dotted(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Finds the last `Error: …` of Oumi, click or SkyPilot.
fn error(lines: &[&str]) -> Option<(usize, String)> {
    let at = lines.iter().rposition(|line| line.starts_with("Error: "))?;
    let message = lines[at].strip_prefix("Error: ")?.to_owned();
    Some((at, paragraph(message, &lines[at + 1..])))
}

/// Reads the box that Oumi draws around a wrong use of its options.
fn usage_error(lines: &[&str]) -> Option<(usize, String)> {
    let is_edge = |line: &&str| line.starts_with(['╭', '+']) && line.contains(" Error ");
    let at = lines.iter().rposition(is_edge)?;
    let inside = lines[at + 1..]
        .iter()
        .map_while(|line| line.strip_prefix(['│', '|']))
        .map(|line| line.trim_end_matches(['│', '|']).trim());
    Some((at, inside.collect::<Vec<&str>>().join(" ")))
}

/// Finds SkyPilot's own word for what went wrong, where it raised nothing.
fn skypilot_reason(lines: &[&str]) -> Option<String> {
    let marks = ["Reason: ", "ERROR: ", "⨯ "];
    let marked = |line: &&str| {
        let reason = marks
            .iter()
            .find_map(|mark| line.trim().strip_prefix(mark))?;
        Some(exception_text(reason).unwrap_or_else(|| reason.to_owned()))
    };
    lines.iter().rev().find_map(marked)
}

/// Joins `first` and the lines below it, up to the end of the paragraph.
fn paragraph(mut first: String, below: &[&str]) -> String {
    for line in below {
        let ends = line.trim().is_empty()
            || is_footer(line)
            || begins_part(line)
            || line.starts_with("Error: ")
            || *line == "\"\"\"";
        if ends {
            break;
        }
        first.push(' ');
        first.push_str(line);
    }
    first
}

fn begins_part(line: &str) -> bool {
    TRACEBACK_PARTS.iter().any(|part| line.starts_with(part))
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
