//! The exceptions in what Python programs print, between the lines of other processes. The forms of lines are data:
//! `traceback.yaml`.

use std::sync::LazyLock;

use serde::Deserialize;

use super::patterns::Patterns;

/// The most lines of a traceback, of its last frame, and of its message that are read.
const MAX_FRAMES: usize = 2_000;
const MAX_FRAME: usize = 4;
const MAX_MESSAGE: usize = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forms {
    prefix: Patterns,
    error: Patterns,
    warning: Patterns,
    info: Patterns,
    process: Patterns,
    header: Patterns,
    exception: Patterns,
    named: Patterns,
    after_message: Patterns,
    passed_over: Patterns,
    raised_from: Patterns,
    while_handling: Patterns,
}

fn read_forms() -> serde_json::Result<Forms> {
    super::from_yaml(include_str!("traceback.yaml"))
}

/// Read once; a test reads them too, and fails where one is wrong.
static FORMS: LazyLock<Forms> = LazyLock::new(|| read_forms().unwrap_or_default());

/// A line of a log, parted from what launchers and loggers put before it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// The line as it was printed.
    pub(crate) raw: &'a str,
    /// The process that printed it, as far as prefixes tell: `rank1/`, `(train, pid=12)/rank0/`; empty without one.
    pub(crate) source: String,
    pub(crate) level: Option<Level>,
    /// The rest behind the prefixes.
    pub(crate) text: &'a str,
}

/// The level that a logger put before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

/// An exception. The numbers are those of lines.
#[derive(Debug, Default)]
pub(crate) struct Exception {
    /// The first line: a traceback's header, or `at`.
    pub(crate) start: usize,
    /// The line that names the exception.
    pub(crate) at: usize,
    /// The last frame.
    pub(crate) frame: Vec<usize>,
    /// The lines after `at`.
    pub(crate) message: Vec<usize>,
    /// The exceptions that this one was raised from, and their messages.
    pub(crate) raised_from: Vec<usize>,
}

/// Splits a log into lines.
pub(crate) fn lines(log: &str) -> Vec<Line<'_>> {
    log.lines().map(Line::split).collect()
}

impl<'a> Line<'a> {
    fn split(raw: &'a str) -> Self {
        let mut line = Self {
            raw,
            source: String::new(),
            level: None,
            text: raw,
        };
        while let Some(prefix) = FORMS.prefix.find(line.text).filter(|found| found.end() > 0) {
            line.text = &line.text[prefix.end()..];
            line.add_prefix(prefix.as_str());
        }
        line
    }

    fn add_prefix(&mut self, prefix: &str) {
        let found = FORMS.process.captures_iter(prefix).next();
        let name = found.map_or(String::new(), |found| {
            let kind = match (found.name("host"), found.name("local")) {
                (Some(_), _) => "",
                (_, Some(_)) => "local",
                _ => "rank",
            };
            let name = found.iter().skip(1).flatten().next();
            format!("{kind}{}", name.map_or("", |name| name.as_str()))
        });
        if !name.is_empty() && !self.source.split('/').any(|part| part == name) {
            self.source.push_str(&name);
            self.source.push('/');
        }
        let levels = [
            (&FORMS.error, Level::Error),
            (&FORMS.warning, Level::Warning),
            (&FORMS.info, Level::Info),
        ];
        let level = levels.into_iter().find(|(form, _)| form.is_match(prefix));
        self.level = level.map(|(_, level)| level).or(self.level);
    }

    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn is_header(&self) -> bool {
        FORMS.header.is_match(self.text)
    }
}

impl Exception {
    pub(crate) fn is_traceback(&self) -> bool {
        self.start < self.at
    }
}

/// Finds the exceptions in a log, in the order in which they were printed. Those are left out while which another was
/// raised, and those that Python reports and passes over.
pub(crate) fn exceptions(lines: &[Line<'_>]) -> Vec<Exception> {
    let mut found: Vec<Exception> = Vec::new();
    let mut is_read = vec![false; lines.len()];
    for start in 0..lines.len() {
        let source = &lines[start].source;
        let is_named = !is_read[start] && FORMS.named.is_match(lines[start].text);
        let exception = match lines[start].is_header() {
            true => traceback(lines, start),
            false => is_named.then(|| Exception {
                start,
                at: start,
                message: message(lines, start, start),
                ..Exception::default()
            }),
        };
        let Some(mut exception) = exception else {
            continue;
        };
        for at in (start..=exception.at).chain(exception.message.iter().copied()) {
            is_read[at] |= lines[at].source == *source;
        }
        let mut before = lines[..start].iter().rev();
        let before = before.find(|line| line.source == *source && !line.text.trim().is_empty());
        let before = before.map_or("", |line| line.text.trim());
        let is_passed_over = FORMS.passed_over.is_match(before);
        if is_passed_over || matches!(lines[start].level, Some(Level::Warning | Level::Info)) {
            continue;
        }
        let is_raised_from = FORMS.raised_from.is_match(before);
        let first = found
            .iter()
            .rposition(|first| lines[first.at].source == *source);
        if let Some(first) = first
            && (is_raised_from || FORMS.while_handling.is_match(before))
        {
            let first = found.remove(first);
            if is_raised_from {
                exception.raised_from = first.raised_from;
                exception.raised_from.push(first.at);
                exception.raised_from.extend(first.message);
            }
        }
        found.push(exception);
    }
    found
}

/// Reads the traceback that begins at the line `start`, of the lines of its process.
fn traceback(lines: &[Line<'_>], start: usize) -> Option<Exception> {
    let begin = &lines[start];
    let own = (start + 1..lines.len()).filter(|at| lines[*at].source == begin.source);
    let own = own.take_while(|at| !lines[*at].is_header());
    let mut frame = Vec::new();
    for at in own.take(MAX_FRAMES) {
        let text = lines[at].text.trim();
        if lines[at].indent() <= begin.indent() && FORMS.exception.is_match(text) {
            return Some(Exception {
                start,
                at,
                frame,
                message: message(lines, start, at),
                ..Exception::default()
            });
        }
        // Rich marks the line that failed.
        if text.starts_with("File ") || text == "File" || text.contains('❱') {
            frame.clear();
        }
        if frame.len() < MAX_FRAME && !text.starts_with(['^', '~', '╭', '╰']) {
            frame.push(at);
        }
    }
    None
}

/// Reads the message below the line `at`, which names the exception of the traceback that begins at `start`.
fn message(lines: &[Line<'_>], start: usize, at: usize) -> Vec<usize> {
    let begin = &lines[start];
    let own = (at + 1..lines.len()).filter(|below| lines[*below].source == begin.source);
    let is_message = |below: &usize| {
        let text = lines[*below].text.trim();
        lines[*below].level == begin.level
            && !FORMS.after_message.is_match(text)
            && !is_between(text)
    };
    let mut message: Vec<usize> = own.take(MAX_MESSAGE).take_while(is_message).collect();
    while message
        .pop_if(|last| lines[*last].text.trim().is_empty())
        .is_some()
    {}
    message
}

/// Tells if a text begins with the name of an exception: `a.b.SomeError: …`.
pub(crate) fn names_exception(text: &str) -> bool {
    FORMS.named.is_match(text)
}

/// Tells if a line stands between the exceptions of a chain, or begins a traceback.
pub(crate) fn is_between(line: &str) -> bool {
    let between = [&FORMS.header, &FORMS.raised_from, &FORMS.while_handling];
    between.iter().any(|form| form.is_match(line))
}

#[cfg(test)]
mod tests {
    #[test]
    fn forms_are_readable() {
        super::read_forms().unwrap();
    }
}
