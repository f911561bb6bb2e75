//! Text made fit for reading: without terminal escapes, without control characters, shortened, without the prefix that
//! SkyPilot puts before a job's lines; the end of a file, and a position in it; and the names of signals.

pub(crate) mod cursor;
pub(crate) mod patterns;
mod terminal;
pub(crate) mod traceback;

use std::borrow::Cow;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::{DeserializeOwned, Error};
use serde_json::Value;

use crate::settings::data_dir::open_regular;
use patterns::Patterns;

pub(crate) const HIDDEN: &str = "***";

/// A byte in the place of a secret, which is shown as [`HIDDEN`]: ASCII's "substitute".
pub(crate) const MASK: u8 = 0x1a;

pub(crate) use terminal::{Row, Terminal, without_colours};

/// Reads YAML by way of JSON: a reader of it for each type would take 12 KB of the program.
pub(crate) fn from_yaml<T: DeserializeOwned>(yaml: &str) -> serde_json::Result<T> {
    let value: Value = serde_saphyr::from_str(yaml).map_err(Error::custom)?;
    serde_json::from_value(value)
}

/// Removes escape sequences and other terminal controls. A line that was written over keeps its last state, as on a terminal.
pub(crate) fn strip_escapes(text: &str) -> Cow<'_, str> {
    if !has_control(text) {
        return Cow::Borrowed(text);
    }
    let mut terminal = Terminal::default();
    let mut rows = Vec::new();
    for line in text.split_inclusive('\n') {
        rows.extend(terminal.write(line.trim_end_matches('\n').as_bytes(), 0));
        terminal.end_line();
    }
    rows.extend(terminal.rows);
    let lines: Vec<_> = rows.into_iter().map(|row| row.text).collect();
    let line_end = if text.ends_with('\n') { "\n" } else { "" };
    Cow::Owned(lines.join("\n") + line_end)
}

/// Newline and tab count as text.
fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// Tells if a text has a control character. The bytes of most texts rule it out.
fn has_control(text: &str) -> bool {
    let may_be = |byte: &u8| *byte < 0x20 || matches!(byte, 0x7f | 0xc2);
    text.as_bytes().iter().any(may_be) && text.contains(is_control)
}

/// Replaces control characters but newlines and tabs by `U+FFFD`: without a mark a name would look like another one.
pub(crate) fn clean_controls(text: &str) -> Cow<'_, str> {
    if !has_control(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace(is_control, "\u{fffd}"))
}

/// Puts a text on one line that reads as it stands: without control characters and those that turn the direction of writing.
pub(crate) fn one_line(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    let text = text.replace(['\n', '\t'], " ");
    text.replace(|c: char| c.is_control() || turns(c), "\u{fffd}")
}

/// Cuts a text to `max_bytes` bytes; one that was cut ends with `…`.
pub(crate) fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", &text[..end]))
}

/// The last `max_bytes` bytes of a text, without a character that is cut.
pub(crate) fn end_of(text: &str, max_bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..]
}

/// The most names that a sentence lists.
const MAX_NAMES: usize = 20;

/// Joins names, the first [`MAX_NAMES`] of them.
pub(crate) fn join_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names = Vec::from_iter(names);
    let first = names[..names.len().min(MAX_NAMES)].join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Reads the last `max_bytes` bytes of a file, from the start of a line on where one starts in them.
pub(crate) fn read_tail(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = open_regular(path)?;
    let start = file.metadata()?.len().saturating_sub(max_bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    if start > 0 {
        let line_end = memchr::memchr(b'\n', &bytes).filter(|at| at + 1 < bytes.len());
        bytes.drain(..line_end.map_or(0, |at| at + 1));
    }
    Ok(bytes)
}

/// As [`String::from_utf8_lossy`], which reads byte by byte: most bytes are text, which is seen many at once.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The process that SkyPilot names before each line of a job.
pub(crate) const SKYPILOT_PID: &str = r"\([^()\n]*[, ]pid=\d+(?:[, ][^()\n]*)?\)";

static SKYPILOT_PREFIX: LazyLock<Patterns> = LazyLock::new(|| {
    let colours = r"(?:\x1b\[[\d;]*m)*";
    Patterns::new(&format!("^{colours}{SKYPILOT_PID}{colours} "))
});

/// Splits a line behind the prefix that SkyPilot puts before each line of a job, in colours or not: `(train, pid=12) `, and
/// with several nodes `(worker1, rank=1, pid=12, ip=10.0.0.2) `. A line without one has an empty prefix.
pub(crate) fn split_skypilot_prefix(line: &str) -> (&str, &str) {
    line.split_at(SKYPILOT_PREFIX.find(line).map_or(0, |prefix| prefix.end))
}

/// Formats a time for a name, such as `20261129T181644`.
pub(crate) fn compact(time: DateTime<Utc>) -> String {
    let text = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    text.replace(['-', ':', 'Z'], "")
}

/// Formats seconds as hours, such as `1.5 h`.
pub(crate) fn hours(seconds: u64) -> String {
    format!("{} h", (seconds as f64 / 0.36).round() / 10_000.0)
}

/// Formats a duration in its largest unit, such as `5 min`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Formats a number with at most four decimals, none of them padding.
pub(crate) fn short_number(value: f64) -> String {
    match value.abs() {
        f64::MIN_POSITIVE..1e-3 | 1e7..f64::INFINITY => {
            let rounded = format!("{value:.3e}").parse().unwrap_or(value);
            format!("{rounded:e}")
        }
        _ => ((value * 1e4).round() / 1e4 + 0.0)
            .to_string()
            .to_lowercase(),
    }
}

/// Formats a signal as its number, with its name where it has one: `9 (SIGKILL)`.
pub(crate) fn signal_name(number: i32) -> String {
    let status = ExitStatus::from_raw(number).to_string();
    let signal = status.strip_prefix("signal: ").map(str::to_owned);
    signal.unwrap_or_else(|| number.to_string())
}

#[cfg(test)]
mod tests;
