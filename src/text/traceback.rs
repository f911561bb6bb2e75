//! The exceptions that Python programs print, between the lines of other processes. The forms of lines are data: `traceback.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::Captures;
use serde::Deserialize;

use super::from_yaml;
use super::patterns::{Patterns, group};

/// The most lines of a traceback, of its last frame, and of its message that are read.
const MAX_FRAMES: usize = 2_000;
const MAX_FRAME: usize = 4;
const MAX_MESSAGE: usize = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forms {
    prefix: Patterns,
    levels: BTreeMap<Level, Patterns>,
    process: Vec<Patterns>,
    header: Patterns,
    exception: Patterns,
    named: Patterns,
    after_message: Patterns,
    passed_over: Patterns,
    raised_from: Patterns,
    while_handling: Patterns,
}

const YAML: &str = include_str!("traceback.yaml");

/// Read once; a test reads them too, and fails where one is wrong.
static FORMS: LazyLock<Forms> = LazyLock::new(|| from_yaml(YAML).unwrap_or_default());

/// A line of a log, parted from what launchers and loggers put before it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// The process that printed it, as far as prefixes tell: `rank1/`, `(train, pid=12)/rank0/`; empty without one.
    pub(crate) source: String,
    pub(crate) level: Option<Level>,
    /// The rest behind the prefixes.
    pub(crate) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
}

/// An exception, or another error that a program reports. The numbers are those of lines.
#[derive(Debug, Default)]
pub(crate) struct Problem {
    /// The first line: a traceback's header, or `at`.
    pub(crate) start: usize,
    /// The line that names it.
    pub(crate) at: usize,
    pub(crate) frame: Vec<usize>,
    pub(crate) message: Vec<usize>,
    /// The exceptions that this one was raised from, and their messages.
    pub(crate) raised_from: Vec<usize>,
}

pub(crate) fn lines(log: &str) -> Vec<Line<'_>> {
    log.lines().map(Line::split).collect()
}

/// Names the process that a form has found, as a part of [`Line::source`]: a rank, one of its machine, or a host.
pub(crate) fn processes(found: &Captures<'_>) -> Vec<String> {
    let kinds = [("rank", "rank"), ("local", "local"), ("host", "")];
    let named = kinds.map(|(name, kind)| Some(kind.to_owned() + group(found, name)?));
    named.into_iter().flatten().collect()
}

impl<'a> Line<'a> {
    fn split(raw: &'a str) -> Self {
        let mut line = Self {
            source: String::new(),
            level: None,
            text: raw,
        };
        while let Some(prefix) = FORMS.prefix.find(line.text).filter(|found| found.end > 0) {
            let (prefix, text) = line.text.split_at(prefix.end);
            line.text = text;
            let mut forms = FORMS.process.iter();
            let found = forms.find_map(|form| form.captures_iter(prefix).next());
            let process = found.and_then(|found| processes(&found).pop());
            if let Some(process) = process.filter(|process| !line.is_of(process)) {
                line.source += &(process + "/");
            }
            let mut levels = FORMS.levels.iter();
            let level = levels.find(|(_, form)| form.is_match(prefix));
            line.level = level.map(|(level, _)| *level).or(line.level);
        }
        line
    }

    pub(crate) fn is_of(&self, process: &str) -> bool {
        self.source.split('/').any(|part| part == process)
    }

    pub(crate) fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn is_header(&self) -> bool {
        FORMS.header.is_match(self.text)
    }

    /// Tells if it may be a part of what begins with the line `first`: nobody else has printed it in between.
    fn continues(&self, first: &Line<'_>) -> bool {
        self.source == first.source && (self.level.is_none() || self.level == first.level)
    }
}

impl Problem {
    pub(crate) fn is_traceback(&self) -> bool {
        self.start < self.at
    }

    /// Lists the lines of a traceback, from its header to the name of the exception.
    pub(crate) fn frames(&self, lines: &[Line<'_>]) -> impl Iterator<Item = usize> {
        let first = &lines[self.start];
        (self.start..=self.at).filter(|at| lines[*at].continues(first))
    }

    /// Lists the lines that say what it is, with those of the exceptions that it was raised from.
    pub(crate) fn words(&self) -> Vec<usize> {
        [&[self.at], &self.message[..], &self.raised_from].concat()
    }

    /// Reads the exception that begins with the first of the lines `own` of a process, if any does.
    fn read(lines: &[Line<'_>], own: &[usize]) -> Option<Self> {
        let (&start, below) = own.split_first()?;
        let begin = &lines[start];
        let (mut at, mut frame, mut message) = (start, Vec::new(), below.iter().copied());
        if begin.is_header() {
            let is_own = |at: &usize| lines[*at].continues(begin);
            let mut frames = message.by_ref().filter(is_own).take(MAX_FRAMES);
            at = loop {
                let at = frames.next().filter(|at| !lines[*at].is_header())?;
                let text = lines[at].text.trim();
                if lines[at].indent() <= begin.indent() && FORMS.exception.is_match(text) {
                    break at;
                }
                // Rich marks the line that failed.
                if text.starts_with("File ") || text == "File" || text.contains('❱') {
                    frame.clear();
                }
                if frame.len() < MAX_FRAME && !text.starts_with(['^', '~', '╭', '╰']) {
                    frame.push(at);
                }
            };
        } else if !FORMS.named.is_match(begin.text) {
            return None;
        }
        let is_message = |below: &usize| {
            let text = lines[*below].text.trim();
            let has_ended = FORMS.after_message.is_match(text) || is_between(text);
            lines[*below].level == begin.level && !has_ended
        };
        let message = message.take(MAX_MESSAGE).take_while(is_message);
        let mut message: Vec<usize> = message.collect();
        let is_blank = |at: &usize| lines[*at].text.trim().is_empty();
        while message.pop_if(|at| is_blank(at)).is_some() {}
        Some(Self {
            start,
            at,
            frame,
            message,
            ..Self::default()
        })
    }
}

/// Finds the exceptions in a log, in the order in which they were printed. Those are left out while which another was
/// raised, and those that Python reports and passes over.
pub(crate) fn exceptions(lines: &[Line<'_>]) -> Vec<Problem> {
    let mut processes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        processes.entry(&line.source).or_default().push(at);
    }
    let found = processes.values().flat_map(|own| of_process(lines, own));
    let mut found: Vec<Problem> = found.collect();
    found.sort_by_key(|exception| exception.start);
    found
}

/// Finds the exceptions in the lines `own` of a process.
fn of_process(lines: &[Line<'_>], own: &[usize]) -> Vec<Problem> {
    let mut found: Vec<Problem> = Vec::new();
    let (mut rest, mut before) = (own, "");
    while let Some((first, below)) = rest.split_first() {
        let Some(mut exception) = Problem::read(lines, rest) else {
            let text = Some(lines[*first].text.trim());
            before = text.filter(|text| !text.is_empty()).unwrap_or(before);
            rest = below;
            continue;
        };
        let last = *exception.message.last().unwrap_or(&exception.at);
        rest = &rest[rest.partition_point(|at| *at <= last)..];
        let above = std::mem::replace(&mut before, lines[last].text.trim());
        let level = lines[exception.start].level;
        let failed = exception.frame.last().unwrap_or(&exception.at);
        let of = [failed, &exception.at].map(|at| lines[*at].text.trim());
        let told = format!("{above}\n{}", of.join("\n"));
        if FORMS.passed_over.is_match(&told) || matches!(level, Some(Level::Warning | Level::Info))
        {
            continue;
        }
        let is_raised_from = FORMS.raised_from.is_match(above);
        if (is_raised_from || FORMS.while_handling.is_match(above))
            && let Some(first) = found.pop()
            && is_raised_from
        {
            exception.raised_from = [first.raised_from, vec![first.at], first.message].concat();
        }
        found.push(exception);
    }
    found
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
        super::from_yaml::<super::Forms>(super::YAML).unwrap();
    }
}
