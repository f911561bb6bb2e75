//! What ended a job: the errors in its log that nothing survived, and the one that came first.

use super::causes::TABLE;
use crate::progress::tqdm::Bar;
use crate::text::traceback::{Exception, Level, Line, exceptions, lines};

/// The most lines of an error that is no exception.
const MAX_ERROR_LINES: usize = 4;

/// The end of a log.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) lines: Vec<Line<'a>>,
    /// The lines that no step or loss follows.
    pub(super) last: Vec<usize>,
    /// The exceptions that nothing survived.
    exceptions: Vec<Exception>,
    /// The other lines that report an error which nothing survived.
    errors: Vec<usize>,
}

impl<'a> Ending<'a> {
    /// Reads a log. `reason` is what the launcher gave as the reason of the failure; it counts as an error at the end.
    pub(super) fn read(log: &'a str, reason: Option<&'a str>) -> Self {
        let signs = &TABLE.signs;
        let mut all = lines(log);
        let log_end = all.len();
        all.extend(reason.into_iter().flat_map(lines));
        let mut exceptions = exceptions(&all);
        let mut is_code = vec![false; all.len()];
        for exception in &exceptions {
            for at in exception.start..=exception.at {
                is_code[at] |= all[at].source == all[exception.at].source;
            }
        }
        let mut last_bar = None;
        let found = (0..log_end).filter(|at| !is_code[*at]);
        let found = found.map(|at| (at, sign(&all[at], &mut last_bar)));
        let found: Vec<(usize, u32)> = found.filter(|(_, sign)| *sign > 0).collect();
        let last = (0..all.len()).filter(|at| !is_survived(&all, &found, *at));
        let last: Vec<usize> = last.collect();
        exceptions.retain(|exception| {
            let is_retried = signs.goes_on.is_match(all[exception.at].text);
            last.contains(&exception.at) && (exception.is_traceback() || !is_retried)
        });
        let errors = last.iter().copied().filter(|at| {
            let Line { text, level, .. } = all[*at];
            let is_error = match level {
                Some(Level::Error) => true,
                Some(Level::Warning) => false,
                _ => *at >= log_end || signs.error.is_match(text),
            };
            is_error && !is_code[*at] && !signs.goes_on.is_match(text)
        });
        Self {
            errors: errors.collect(),
            exceptions,
            last,
            lines: all,
        }
    }

    /// The text of some lines, in which every run of blanks is one, since Oumi wraps its lines where nobody gives it the
    /// width of a terminal.
    pub(super) fn text(&self, lines: &[usize]) -> String {
        let words = lines
            .iter()
            .flat_map(|at| self.lines[*at].text.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    }

    /// The errors, each with the lines that belong to it. Of tracebacks only those that tell of another error: the rest are
    /// for [`Self::root`].
    pub(super) fn errors(&self) -> Vec<Vec<usize>> {
        let exceptions = self
            .exceptions
            .iter()
            .map(|exception| (exception, words(exception)));
        let mut errors: Vec<Vec<usize>> = exceptions
            .filter(|(exception, words)| {
                !exception.is_traceback() || TABLE.points_elsewhere(&self.text(words))
            })
            .map(|(_, words)| words)
            .collect();
        for at in &self.errors {
            if errors.iter().any(|lines| lines.contains(at)) {
                continue;
            }
            let begin = &self.lines[*at];
            let below = (at + 1..self.lines.len())
                .filter(|below| self.lines[*below].source == begin.source)
                .take_while(|below| {
                    let line = &self.lines[*below];
                    line.level.is_none() && !line.text.is_empty() && !self.errors.contains(below)
                });
            errors.push(
                [*at]
                    .into_iter()
                    .chain(below.take(MAX_ERROR_LINES - 1))
                    .collect(),
            );
        }
        errors.sort();
        errors
    }

    /// Finds the exception that the job failed of: of the process that its launcher names, else the first one. The last
    /// exception of a process is the one that ended it.
    pub(super) fn root(&self) -> Option<&Exception> {
        let end = self.text(&self.last);
        let own = self
            .exceptions
            .iter()
            .filter(|exception| exception.is_traceback());
        let own = own.filter(|exception| !TABLE.is_consequence(&self.text(&words(exception))));
        let own: Vec<&Exception> = own.collect();
        let source = |exception: &Exception| self.lines[exception.at].source.as_str();
        let in_report = |exception: &&&Exception| {
            self.lines[exception.start]
                .text
                .trim()
                .starts_with("traceback :")
        };
        let named = first_to_fail(&end).into_iter().find_map(|name| {
            let mut own = own.iter().rev();
            own.find(|exception| source(exception).split('/').any(|part| part == name))
        });
        if let Some(found) = own.iter().rev().find(in_report).or(named) {
            return Some(found);
        }
        if TABLE.signs.root_was_killed.is_match(&end) {
            return None;
        }
        let has_launcher = self.has_launcher();
        let mut ends: Vec<&Exception> = Vec::new();
        for exception in own.into_iter().rev() {
            match ends.iter_mut().find(|end| source(end) == source(exception)) {
                // Processes without a name, one of which failed of the other: nothing stands between their ends.
                Some(end) if has_launcher && self.is_next(exception, end) => *end = exception,
                Some(_) => {}
                None => ends.push(exception),
            }
        }
        ends.into_iter().min_by_key(|exception| exception.at)
    }

    /// Tells if nothing stands between two exceptions.
    fn is_next(&self, first: &Exception, second: &Exception) -> bool {
        let end = first.message.last().unwrap_or(&first.at) + 1;
        let between = self.lines.get(end..second.start).unwrap_or_default();
        between.iter().all(|line| line.text.trim().is_empty())
    }

    /// Tells if a launcher of several processes ended with the job.
    pub(super) fn has_launcher(&self) -> bool {
        TABLE.signs.launcher.is_match(&self.text(&self.last))
    }
}

/// The lines of an exception that say what it is, with those of the exceptions that it was raised from.
fn words(exception: &Exception) -> Vec<usize> {
    let message = exception.message.iter();
    let lines = [&exception.at]
        .into_iter()
        .chain(message)
        .chain(&exception.raised_from);
    lines.copied().collect()
}

/// Finds the processes that launchers name as those that failed first, as parts of [`Line::source`]; the most certain first.
fn first_to_fail(end: &str) -> Vec<String> {
    let mut names = Vec::new();
    for pattern in &TABLE.signs.first_to_fail {
        let mut found: Vec<_> = pattern.captures_iter(end).collect();
        found.sort_by_key(|found| found.name("time").map_or("", |time| time.as_str()));
        for found in found {
            let code = found.name("code").map_or("", |code| code.as_str());
            // Killed of the death of another.
            if code.starts_with('-') || code == "137" || code == "143" {
                continue;
            }
            for (group, kind) in [("rank", "rank"), ("local", "local"), ("host", "")] {
                let name = found.name(group);
                names.extend(name.map(|name| format!("{kind}{}", name.as_str())));
            }
        }
    }
    names
}

/// Tells how certain a line is a sign that the job went on after what stands above it: 2 for a step, a loss, and the word
/// that it goes on; 1 for a line of information and one that begins a further stage; 0 for the rest. `last_bar` is how far
/// the last bar was.
fn sign(line: &Line<'_>, last_bar: &mut Option<f64>) -> u32 {
    let signs = &TABLE.signs;
    let text = line.text.trim();
    if let Some(bar) = Bar::parse(text) {
        // A program that ends draws its bar once more, and by then some steps were done that it had not drawn.
        let done = bar.done as f64;
        let steps = done - last_bar.unwrap_or(done);
        let moves = steps > 1.0 + bar.per_second.unwrap_or(1.0);
        if moves || steps <= 0.0 {
            *last_bar = Some(done);
        }
        return if moves { 2 } else { 0 };
    }
    let is_figure = line.level != Some(Level::Error) && signs.figure.is_match(text);
    let is_information = line.level == Some(Level::Info) && !signs.shutdown.is_match(text);
    if text.is_empty() || signs.report.is_match(text) {
        0
    } else if is_figure || signs.goes_on.is_match(text) {
        2
    } else {
        u32::from(is_information || signs.stage.is_match(text))
    }
}

/// Tells if a job went on after the line `at`. The signs of other processes count for less: they may do one more step when
/// one has failed.
fn is_survived(lines: &[Line<'_>], signs: &[(usize, u32)], at: usize) -> bool {
    let mut sum = 0;
    let mut after = signs.iter().rev().take_while(|(after, _)| *after > at);
    after.any(|(after, sign)| {
        let is_own = lines[*after].source.starts_with(&lines[at].source);
        sum += sign - u32::from(!is_own);
        sum >= 2
    })
}
