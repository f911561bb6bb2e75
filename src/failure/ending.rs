//! What ended a job: the errors in its log that nothing survived, and the one that came first.

use std::collections::BTreeMap;

use super::causes::TABLE;
use crate::progress::tqdm::Bar;
use crate::text::patterns::group;
use crate::text::traceback::{Level, Line, Problem, exceptions, lines, processes};

/// The most lines below an error that is no exception.
const MAX_BELOW: usize = 3;

#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) lines: Vec<Line<'a>>,
    /// The lines that no step or loss follows, and their text.
    pub(super) last: Vec<usize>,
    text: String,
    /// The exceptions and other errors that nothing survived.
    problems: Vec<Problem>,
}

impl<'a> Ending<'a> {
    /// Reads a log. `reason` is what the launcher gave as the reason of the failure; it counts as an error at the end.
    pub(super) fn read(log: &'a str, reason: Option<&'a str>) -> Self {
        let signs = &TABLE.signs;
        let mut all = lines(log);
        let log_end = all.len();
        all.extend(reason.into_iter().flat_map(lines));
        let mut problems = exceptions(&all);
        let mut is_read = vec![false; all.len()];
        for exception in &problems {
            exception.frames(&all).for_each(|at| is_read[at] = true);
        }
        let mut last_bars = BTreeMap::new();
        let found = (0..log_end).filter(|at| !is_read[*at]);
        let found = found.map(|at| (at, sign(&all[at], &mut last_bars)));
        let found: Vec<(usize, u32)> = found.filter(|(_, sign)| *sign > 0).collect();
        let last = (0..all.len()).filter(|at| !is_survived(&all, &found, *at));
        let last: Vec<usize> = last.collect();
        problems.retain(|exception| {
            let is_retried = signs.goes_on.is_match(all[exception.at].text);
            last.contains(&exception.at) && (exception.is_traceback() || !is_retried)
        });
        for at in problems.iter().flat_map(Problem::words) {
            is_read[at] = true;
        }
        let is_error = |at: &usize| {
            let Line { text, level, .. } = all[*at];
            let is_error = match level {
                Some(Level::Error) => true,
                Some(Level::Warning) => false,
                _ => *at >= log_end || signs.error.is_match(text),
            };
            is_error && !is_read[*at] && !signs.goes_on.is_match(text)
        };
        let errors = last.iter().copied().filter(is_error).map(|at| {
            let own = (at + 1..all.len()).filter(|below| all[*below].source == all[at].source);
            let own = own.take_while(|below| {
                let line = &all[*below];
                let is_other = is_read[*below] || is_error(below);
                line.level.is_none() && !line.text.is_empty() && !is_other
            });
            Problem {
                start: at,
                at,
                message: own.take(MAX_BELOW).collect(),
                ..Problem::default()
            }
        });
        problems.extend(errors);
        problems.sort_by_key(|problem| problem.at);
        Self {
            text: text(&all, &last),
            lines: all,
            last,
            problems,
        }
    }

    pub(super) fn text(&self, lines: &[usize]) -> String {
        text(&self.lines, lines)
    }

    /// Lists the lines of each error. Of tracebacks only those that tell of another error: the rest are for [`Self::root`].
    pub(super) fn errors(&self) -> Vec<Vec<usize>> {
        let is_error = |problem: &&Problem| {
            !problem.is_traceback() || TABLE.points_elsewhere(&self.text(&problem.words()))
        };
        let errors = self.problems.iter().filter(is_error);
        errors.map(Problem::words).collect()
    }

    /// Finds the exception that the job failed of: of the process that its launcher names, else the first one. The last
    /// exception of a process is the one that ended it.
    pub(super) fn root(&self) -> Option<&Problem> {
        let is_own = |exception: &&Problem| {
            exception.is_traceback() && !TABLE.is_consequence(&self.text(&exception.words()))
        };
        let own: Vec<&Problem> = self.problems.iter().rev().filter(is_own).collect();
        let line = |exception: &Problem| &self.lines[exception.at];
        let in_report = own.iter().find(|exception| {
            let header = self.lines[exception.start].text;
            header.trim_start().starts_with("traceback :")
        });
        let named = || {
            let mut names = first_to_fail(&self.text).into_iter();
            names.find_map(|name| own.iter().find(|exception| line(exception).is_of(&name)))
        };
        if let Some(found) = in_report.or_else(named) {
            return Some(found);
        }
        if TABLE.signs.root_was_killed.is_match(&self.text) {
            return None;
        }
        let has_launcher = self.has_launcher();
        let mut ends: Vec<&Problem> = Vec::new();
        for exception in own {
            let source = &line(exception).source;
            match ends.iter_mut().find(|end| line(end).source == *source) {
                // Processes without a name, one of which failed of the other: nothing stands between their ends.
                Some(end) if has_launcher && self.is_next(exception, end) => *end = exception,
                Some(_) => {}
                None => ends.push(exception),
            }
        }
        ends.into_iter().min_by_key(|exception| exception.at)
    }

    /// Tells if nothing stands between two exceptions.
    fn is_next(&self, first: &Problem, second: &Problem) -> bool {
        let end = first.message.last().unwrap_or(&first.at) + 1;
        let between = self.lines.get(end..second.start).unwrap_or_default();
        between.iter().all(|line| line.text.trim().is_empty())
    }

    /// Tells if a launcher of several processes ended with the job.
    pub(super) fn has_launcher(&self) -> bool {
        TABLE.signs.launcher.is_match(&self.text)
    }
}

/// Joins the words of some lines by one blank each, since Oumi wraps its lines where nobody gives it the width of a terminal.
fn text(all: &[Line<'_>], lines: &[usize]) -> String {
    let words = lines.iter().flat_map(|at| all[*at].text.split_whitespace());
    words.collect::<Vec<_>>().join(" ")
}

/// Finds the processes that launchers name as those that failed first, as parts of [`Line::source`]; the most certain first.
fn first_to_fail(end: &str) -> Vec<String> {
    // The codes of SIGKILL and SIGTERM and their like: killed of the death of another. -6 also ends one that raised.
    let is_killed =
        |code: &str| code.starts_with('-') && code != "-6" || code == "137" || code == "143";
    let by_pattern = TABLE.signs.first_to_fail.iter().flat_map(|pattern| {
        let found = pattern.captures_iter(end);
        let mut found: Vec<_> = found
            .filter(|found| !group(found, "code").is_some_and(is_killed))
            .collect();
        found.sort_by_key(|found| group(found, "time"));
        found
    });
    by_pattern.flat_map(|found| processes(&found)).collect()
}

/// Tells how certain a line is a sign that the job went on after what stands above it: 2 for a step, a loss, and the word
/// that it goes on; 1 for a line of information and one that begins a further stage; 0 for the rest. `last_bars` is how far each bar
/// was, by its total.
fn sign(line: &Line<'_>, last_bars: &mut BTreeMap<Option<u64>, f64>) -> u32 {
    let signs = &TABLE.signs;
    let text = line.text.trim();
    if let Some(bar) = Bar::parse(text) {
        // A program that ends draws its bar once more, and by then some steps were done that it had not drawn.
        let done = bar.done as f64;
        let last = last_bars.entry(bar.total).or_insert(done);
        let steps = done - *last;
        let has_moved = steps > 1.0 + bar.per_second.unwrap_or(1.0);
        if has_moved || steps <= 0.0 {
            *last = done;
        }
        return 2 * u32::from(has_moved);
    }
    if text.is_empty() || signs.report.is_match(text) {
        return 0;
    }
    let is_figure = line.level != Some(Level::Error) && signs.figure.is_match(text);
    let is_information = line.level == Some(Level::Info) && !signs.shutdown.is_match(text);
    match is_figure || signs.goes_on.is_match(text) {
        true => 2,
        false => u32::from(is_information || signs.stage.is_match(text)),
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
