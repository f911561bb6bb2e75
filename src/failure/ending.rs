//! What ended a job: the errors in its log that nothing survived, and the one that came first.

use super::causes::TABLE;
use crate::progress::tqdm::Bar;
use crate::text::pattern::Pattern;
use crate::text::traceback::{Exception, Level, Line, exceptions, lines};

/// The most lines below one that reports an error which are read as a part of it.
const MAX_ERROR_LINES: usize = 4;

/// The end of a log.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) lines: Vec<Line<'a>>,
    /// The lines that no step or loss follows.
    is_last: Vec<bool>,
    /// The exceptions that nothing survived.
    pub(super) exceptions: Vec<Exception>,
    /// The lines that report an error which nothing survived.
    errors: Vec<usize>,
}

/// A sign that the job went on after what stands above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// A step, a loss, or the word that it goes on.
    Certain,
    /// A line of information, or one that begins a further stage.
    Likely,
}

impl<'a> Ending<'a> {
    /// Reads a log. `reason` is what the launcher gave as the reason of the failure; it counts as an error at the end.
    pub(super) fn read(log: &'a str, reason: Option<&'a str>) -> Self {
        let mut lines = lines(log);
        let from_log = lines.len();
        let reason = reason.into_iter().flat_map(crate::text::traceback::lines);
        lines.extend(reason);
        let exceptions = exceptions(&lines);
        let mut is_code = vec![false; lines.len()];
        for exception in &exceptions {
            let own = (exception.start..=exception.at)
                .filter(|at| lines[*at].source == lines[exception.at].source);
            own.for_each(|at| is_code[at] = true);
        }
        let mut bars = LastBar::default();
        let signs: Vec<(usize, Sign)> = (0..from_log)
            .filter(|at| !is_code[*at])
            .filter_map(|at| Some((at, sign(&lines[at], &mut bars)?)))
            .collect();
        let is_last: Vec<bool> = (0..lines.len())
            .map(|at| !is_survived(&lines, &signs, at))
            .collect();
        let is_error = |at: &usize| {
            let line = &lines[*at];
            is_last[*at]
                && !is_code[*at]
                && !GOES_ON.is_match(line.text)
                && line.level != Some(Level::Warning)
                && (line.level == Some(Level::Error)
                    || *at >= from_log
                    || ERROR.is_match(line.text))
        };
        let is_end = |exception: &Exception| {
            let is_retried =
                !exception.is_traceback() && GOES_ON.is_match(lines[exception.at].text);
            is_last[exception.at] && !is_retried
        };
        Self {
            errors: (0..lines.len()).filter(is_error).collect(),
            exceptions: exceptions.into_iter().filter(is_end).collect(),
            is_last,
            lines,
        }
    }

    /// The lines that no step or loss follows.
    pub(super) fn last_lines(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.lines.len()).filter(|at| self.is_last[*at])
    }

    /// The lines of an exception that say what it is, with those of the exceptions that it was raised from.
    pub(super) fn words(exception: &Exception) -> Vec<usize> {
        let own = [exception.at];
        let message = exception.message.iter();
        own.iter()
            .chain(message)
            .chain(&exception.raised_from)
            .copied()
            .collect()
    }

    /// The lines that report errors, each with those that belong to it. Of tracebacks only those that tell of another
    /// error: the rest are for [`Self::root`].
    pub(super) fn errors(&self) -> Vec<Vec<usize>> {
        let mut errors: Vec<Vec<usize>> = Vec::new();
        let reports = |exception: &&Exception| {
            let (text, _) = self.passage(Self::words(exception));
            !exception.is_traceback() || TABLE.points_elsewhere(&text)
        };
        errors.extend(self.exceptions.iter().filter(reports).map(Self::words));
        for at in &self.errors {
            let is_known = errors.iter().any(|lines| lines.contains(at));
            if is_known {
                continue;
            }
            let begin = &self.lines[*at];
            let below = (at + 1..self.lines.len())
                .filter(|below| self.lines[*below].source == begin.source)
                .take_while(|below| {
                    let line = &self.lines[*below];
                    !line.text.trim().is_empty()
                        && line.level.is_none()
                        && !self.errors.contains(below)
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

    /// The text of some lines, in which every run of blanks is one, since Oumi wraps its lines where nobody gives it the
    /// width of a terminal; with the places at which the lines begin.
    pub(super) fn passage(
        &self,
        lines: impl IntoIterator<Item = usize>,
    ) -> (String, Vec<(usize, usize)>) {
        let (mut text, mut starts) = (String::new(), Vec::new());
        for at in lines {
            starts.push((text.len(), at));
            for word in self.lines[at].text.split_whitespace() {
                text.push_str(word);
                text.push(' ');
            }
        }
        (text, starts)
    }

    pub(super) fn is_consequence(&self, lines: &[usize]) -> bool {
        TABLE.is_consequence(&self.passage(lines.iter().copied()).0)
    }

    /// Finds the exception that the job failed of: of the process that its launcher names, else the first one. The last
    /// exception of a process is the one that ended it.
    pub(super) fn root(&self) -> Option<&Exception> {
        let (end, _) = self.passage(self.last_lines());
        let is_own = |exception: &&Exception| {
            exception.is_traceback() && !self.is_consequence(&Self::words(exception))
        };
        let own: Vec<&Exception> = self.exceptions.iter().filter(is_own).collect();
        let in_report = |exception: &&&Exception| {
            self.lines[exception.start]
                .text
                .trim()
                .starts_with("traceback :")
        };
        if let Some(found) = own.iter().rev().find(in_report) {
            return Some(found);
        }
        for name in named_processes(&end) {
            let of_process = |exception: &&&Exception| {
                self.lines[exception.at]
                    .source
                    .split('/')
                    .any(|part| part == name)
            };
            if let Some(found) = own.iter().rev().find(of_process) {
                return Some(found);
            }
        }
        if ROOT_WAS_KILLED.is_match(&end) {
            return None;
        }
        let has_launcher = LAUNCHER.is_match(&end);
        let mut ends: Vec<&Exception> = Vec::new();
        for exception in own.into_iter().rev() {
            let source = &self.lines[exception.at].source;
            match ends
                .iter_mut()
                .find(|end| self.lines[end.at].source == *source)
            {
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
        let end = first.message.last().copied().unwrap_or(first.at) + 1;
        let between = self.lines.get(end..second.start).unwrap_or_default();
        between.iter().all(|line| line.text.trim().is_empty())
    }

    /// Tells if a launcher of several processes ended with the job.
    pub(super) fn has_launcher(&self) -> bool {
        LAUNCHER.is_match(&self.passage(self.last_lines()).0)
    }
}

/// Finds the processes that launchers name as those that failed first, as parts of [`Line::source`]; the most certain first.
fn named_processes(end: &str) -> Vec<String> {
    let mut names = Vec::new();
    for pattern in NAMED_BY_LAUNCHERS.iter() {
        let Some(pattern) = pattern.regex() else {
            continue;
        };
        let mut found: Vec<_> = pattern.captures_iter(end).collect();
        let group = |captures: &regex::Captures<'_>, name: &str| {
            captures
                .name(name)
                .map_or_else(String::new, |found| found.as_str().to_owned())
        };
        // Of the agents of several machines, the one whose process failed first.
        found.sort_by_key(|captures| group(captures, "time"));
        for captures in &found {
            let code = group(captures, "code");
            if code.starts_with('-') || code == "137" || code == "143" {
                continue;
            }
            for (kind, suffix) in [("rank", ""), ("local", ""), ("host", ":")] {
                let name = group(captures, kind);
                let prefix = if kind == "host" { "" } else { kind };
                if !name.is_empty() {
                    names.push(format!("{prefix}{name}{suffix}"));
                }
            }
        }
    }
    names
}

/// The last bar of a progress bar.
#[derive(Default)]
struct LastBar {
    total: Option<f64>,
    done: f64,
}

impl LastBar {
    /// Tells if a bar has moved by more than a second's steps. A program that ends draws its bar once more, and by then some
    /// steps were done that it had not drawn.
    fn moves(&mut self, bar: &Bar<'_>) -> bool {
        let is_same = self.total == bar.total && bar.done >= self.done;
        let moves = bar.done - self.done > 1.0 + bar.per_second.unwrap_or(1.0);
        if !is_same || moves {
            *self = Self {
                total: bar.total,
                done: bar.done,
            };
        }
        is_same && moves
    }
}

fn sign(line: &Line<'_>, last_bar: &mut LastBar) -> Option<Sign> {
    let text = line.text.trim();
    if let Some(bar) = Bar::parse(text) {
        return last_bar.moves(&bar).then_some(Sign::Certain);
    }
    if text.is_empty() || REPORT.is_match(text) {
        None
    } else if GOES_ON.is_match(text) || line.level != Some(Level::Error) && FIGURE.is_match(text) {
        Some(Sign::Certain)
    } else if line.level == Some(Level::Info) && !SHUTDOWN.is_match(text) || STAGE.is_match(text) {
        Some(Sign::Likely)
    } else {
        None
    }
}

/// Tells if a job went on after the line `at`: its process shows it, or, where that prints nothing, two signs of others. One
/// more step may be printed by the others of a process that has failed.
fn is_survived(lines: &[Line<'_>], signs: &[(usize, Sign)], at: usize) -> bool {
    let (mut likely, mut certain) = (0, 0);
    signs
        .iter()
        .rev()
        .take_while(|(after, _)| *after > at)
        .any(|(after, sign)| {
            let is_own = lines[*after].source.starts_with(&lines[at].source);
            match sign {
                Sign::Certain => certain += if is_own { 2 } else { 1 },
                Sign::Likely => likely += usize::from(is_own),
            }
            certain >= 2 || likely >= 2
        })
}

/// The lines of launchers of several processes.
static LAUNCHER: Pattern = Pattern::new(
    r"ChildFailedError|srun: error: |mpirun (?:detected|noticed)|pdsh@|Child process with PID|sigkill_handler|ProcessRaisedException",
);

/// torchrun's report of a process that a signal ended.
static ROOT_WAS_KILLED: Pattern = Pattern::new(r"observed failure\): .{0,200}exitcode : -");

/// What launchers print of the process that failed first. The groups are parts of [`Line::source`].
static NAMED_BY_LAUNCHERS: [Pattern; 5] = [
    Pattern::new(
        r"observed failure\): (?:\[\d+\]: )?time : (?P<time>\S+) (?:host : \S+ )?rank : (?P<rank>\d+) \(local_rank: (?P<local>\d+)\) exitcode : (?P<code>-?\d+)",
    ),
    Pattern::new(r"failed \(exitcode: (?P<code>-?\d+)\) local_rank: (?P<local>\d+)"),
    Pattern::new(
        r"srun: error: \S+ tasks? (?P<rank>\d+): (?:Exited with exit code (?P<code>\d+)|Out Of Memory|Segmentation|Aborted)",
    ),
    Pattern::new(
        r"Process name: \[\[\d+,\d+\],(?P<rank>\d+)\]|\[rank: (?P<local>\d+)\] Child process",
    ),
    Pattern::new(r"pdsh@\S+ (?P<host>[\w.-]+): \S+ exited with exit code"),
];

/// A line that reports an error, of whatever program.
static ERROR: Pattern = Pattern::new(
    r"(?x)^\s*(?:
        (?:[\w./@+-]+:\ )?(?:\w+:\ )?(?:[Ff]atal\ )?(?:[Ee]rror|ERROR|[Ff]atal|FATAL)\b(?:[:\ ]|$)
        | \S*:\ (?:line\ \d+:\ )?(?:\S+:\ )?(?:command\ not\ found|not\ found|[Nn]o\ such|No\ module|[Cc]annot|[Cc]an't|[Uu]nable\ to|[Pp]ermission\ denied|symbol\ lookup)
        | (?:.*\ line\ \d+:\ +\d+\ |\[\d+\]\ +\d+\ )?(?i:killed|terminated|aborted|bus\ error|segmentation\ fault|illegal\ instruction)\b
        | terminate\ called | what\(\): | Fatal\ Python | ssh: | [×✗⨯❌✘]
        | NVRM: | Unable\ to\ determine\ the\ device )
        |\bNCCL\ WARN\ ",
);

/// Reports that are printed as a program ends.
static REPORT: Pattern = Pattern::new(r"^(?:wandb|mlflow|comet|COMET|neptune|Exception ignored)\b");

/// The word that a program goes on after an error.
static GOES_ON: Pattern = Pattern::new(
    r"(?i)(?:^|[,;:.(] ?|will |entering )re-?try(?:ing)?\b|\b(?:trying again|falling back|fall ?back to|continuing|proceeding|skipping|ignoring|ignored)\b",
);

/// A loss or a step.
static FIGURE: Pattern = Pattern::new(
    r#"(?xi)(?:^|[\s{'",|(/_\[])loss['"\]]?\s*[:=|]?\s*['"]?-?(?:\d|nan\b|inf\b)
        | ^\W*(?:global[_\ ]?)?(?:step|iter|iteration|epoch)s?\b[\s:=\[(\#]*\d
        | ['"](?:step|epoch|global_step)['"]:\ *\d"#,
);

/// A line of information about the end.
static SHUTDOWN: Pattern = Pattern::new(
    r"(?i)kill|shut|exit|terminat|clean|stop|clos|abort|fail|finish|error|crash|elapsed|upload|sync|destroy|done|summary|interrupt|signal",
);

/// A line that begins a stage.
static STAGE: Pattern = Pattern::new(
    r"^(?:Loading|Saving|Downloading|Fetching|Resuming|Generating|Tokenizing|Successfully|Starting|Training|Evaluating|Running|Launching|Using|Initializing|\*{3,} )",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        let patterns = [
            &LAUNCHER,
            &ROOT_WAS_KILLED,
            &ERROR,
            &REPORT,
            &GOES_ON,
            &FIGURE,
            &SHUTDOWN,
            &STAGE,
        ];
        let mut all = patterns.into_iter().chain(&NAMED_BY_LAUNCHERS);
        assert!(all.all(|pattern| pattern.regex().is_some()));
    }
}
