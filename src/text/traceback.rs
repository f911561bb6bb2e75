//! The exceptions in what Python programs print, between the lines of other processes.

use super::pattern::Pattern;

const HEADER: &str = "Traceback (most recent call last)";

/// The most lines of a traceback that are read.
const MAX_FRAMES: usize = 2_000;

/// The most lines of the last frame that are kept.
const MAX_FRAME: usize = 4;

/// The most lines of a message that are read, after the one that names the exception.
const MAX_MESSAGE: usize = 40;

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
    let raw: Vec<&str> = log.lines().collect();
    let mut hosts: Vec<&str> = Vec::new();
    for (line, next) in raw.iter().zip(raw.iter().skip(1)) {
        let Some((before, _)) = line.split_once(HEADER) else {
            continue;
        };
        let before = Line::split(before, &hosts).text;
        if let Some(host) = HOST.find(before).map(|found| found.as_str())
            && Line::split(&before[host.len()..], &[]).text.is_empty()
            && next.contains(host)
        {
            hosts.push(host);
        }
    }
    raw.iter().map(|line| Line::split(line, &hosts)).collect()
}

impl<'a> Line<'a> {
    fn split(raw: &'a str, hosts: &[&str]) -> Self {
        let mut line = Self {
            raw,
            source: String::new(),
            level: None,
            text: raw,
        };
        loop {
            if let Some(host) = hosts.iter().find(|host| line.text.starts_with(**host)) {
                line.add_source(host.trim_end());
                line.text = &line.text[host.len()..];
                continue;
            }
            let found = PREFIX.find(line.text);
            let Some(found) = found.filter(|found| found.end() > 0) else {
                return line;
            };
            line.read_prefix(found.as_str());
            line.text = &line.text[found.end()..];
        }
    }

    fn read_prefix(&mut self, prefix: &str) {
        if let Some(rank) = RANK.captures(prefix) {
            let kind = match rank.name("local") {
                Some(_) => "local",
                None => "rank",
            };
            let number = (1..rank.len()).find_map(|group| rank.get(group));
            self.add_source(&format!(
                "{kind}{}",
                number.map_or("", |found| found.as_str())
            ));
        } else if prefix.starts_with('(') {
            self.add_source(prefix.trim());
        }
        let mut words = prefix.split(|c: char| !c.is_ascii_alphanumeric());
        let level = words.find_map(|word| match word {
            "ERROR" | "CRITICAL" | "FATAL" => Some(Level::Error),
            "WARNING" | "WARN" => Some(Level::Warning),
            "INFO" | "DEBUG" => Some(Level::Info),
            // glog's: `E1124 22:05:10.727`; SkyPilot's: `E 11-24 22:05:10`.
            _ if !matches!(word.len(), 1 | 4 | 5) || word[1..].contains(char::is_alphabetic) => {
                None
            }
            _ => match word.as_bytes()[0] {
                b'E' | b'F' => Some(Level::Error),
                b'W' => Some(Level::Warning),
                b'I' | b'D' => Some(Level::Info),
                _ => None,
            },
        });
        self.level = level.or(self.level);
    }

    fn add_source(&mut self, name: &str) {
        if !self.source.split('/').any(|part| part == name) {
            self.source.push_str(name);
            self.source.push('/');
        }
    }

    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn is_header(&self) -> bool {
        self.text.contains(HEADER) || self.text.starts_with("ray.exceptions.RayTaskError")
    }
}

impl Exception {
    pub(crate) fn is_traceback(&self) -> bool {
        self.start < self.at
    }
}

/// Finds the exceptions in a log, in the order in which they were printed. Those are left out that others came of, and those
/// that Python reports and passes over.
pub(crate) fn exceptions(lines: &[Line<'_>]) -> Vec<Exception> {
    let mut found: Vec<Exception> = Vec::new();
    let mut is_used = vec![false; lines.len()];
    for start in 0..lines.len() {
        let line = &lines[start];
        let exception = match line.is_header() {
            true => traceback(lines, start),
            false if !is_used[start] && NAMED.is_match(line.text) => Some(Exception {
                start,
                at: start,
                message: message(lines, start, start),
                ..Exception::default()
            }),
            false => None,
        };
        let Some(mut exception) = exception else {
            continue;
        };
        let own = (start..=exception.at).filter(|at| lines[*at].source == line.source);
        for at in own.chain(exception.message.iter().copied()) {
            is_used[at] = true;
        }
        let before = lines[..start].iter().rev();
        let before =
            before.filter(|other| other.source == line.source && !other.text.trim().is_empty());
        let before = before
            .map(|other| other.text.trim())
            .next()
            .unwrap_or_default();
        if PASSED_OVER.is_match(before) {
            continue;
        }
        if before.starts_with(RAISED_FROM) || before.starts_with(WHILE_HANDLING) {
            let first = found
                .iter()
                .rposition(|other| lines[other.at].source == line.source);
            let first = first.map(|first| found.remove(first));
            if let Some(first) = first.filter(|_| before.starts_with(RAISED_FROM)) {
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
    let own = (start + 1..lines.len())
        .filter(|at| lines[*at].source == begin.source)
        .take_while(|at| !lines[*at].is_header());
    let mut frame = Vec::new();
    for at in own.take(MAX_FRAMES) {
        let line = &lines[at];
        let text = line.text.trim();
        if line.indent() <= begin.indent() && AFTER_HEADER.is_match(text) {
            return Some(Exception {
                start,
                at,
                frame,
                message: message(lines, start, at),
                ..Exception::default()
            });
        }
        // Rich draws a box around its frames, and marks the line that failed.
        let in_box = text.starts_with('│');
        let begins_frame =
            text.starts_with("File ") || text == "File" || in_box && BOXED_FRAME.is_match(text);
        if begins_frame {
            frame.clear();
        }
        let is_shown = match in_box {
            true => begins_frame || text.contains('❱'),
            false => !text.starts_with(['^', '~', '╭', '╰']),
        };
        if is_shown && frame.len() < MAX_FRAME {
            frame.push(at);
        }
    }
    None
}

/// Reads the message below the line `at`, which names the exception of the traceback that begins at `start`.
fn message(lines: &[Line<'_>], start: usize, at: usize) -> Vec<usize> {
    let begin = &lines[start];
    let own = (at + 1..lines.len()).filter(|below| lines[*below].source == begin.source);
    let mut message: Vec<usize> = own
        .take(MAX_MESSAGE)
        .take_while(|below| {
            let line = &lines[*below];
            line.level == begin.level
                && !line.is_header()
                && !AFTER_MESSAGE.is_match(line.text.trim())
        })
        .collect();
    while message
        .pop_if(|last| lines[*last].text.trim().is_empty())
        .is_some()
    {}
    message
}

const RAISED_FROM: &str = "The above exception was the direct cause";
const WHILE_HANDLING: &str = "During handling of the above exception";

/// One part of what stands before the text of a line: SkyPilot's, Ray's and vLLM's process; the rank, of torchrun, srun,
/// mpirun and Lightning; and the time, level and place of loggers.
static PREFIX: Pattern = Pattern::new(
    r"(?x)^(?:
    \((?:[^()\n]*[\ ,])?pid=\d+[^()\n]*\)
    | \[\d+,\d+\]<std(?:err|out)>:
    | \[[^\[\]\n]{1,120}\]+:?
    | \ *\d+:\ | \ *\|\ | [-|>]+\ 
    | \d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d\S* | \d\d-\d\d\ \d\d:\d\d:\d\d\S* | \d\d:\d\d:\d\d(?:[.,]\d+)?
    | [EWIDF]\d{3,4}\ \d\d:\d\d:\d\d\S*\ +(?:\d+\ )? | [EWIDF]\ \d\d-\d\d\ \d\d:\d\d:\d\d\S*
    | (?:ERROR|WARNING|WARN|INFO|DEBUG|CRITICAL|FATAL)(?::[\w.]+:|:|\ |$)
    | [\w./-]+\.(?:py|cpp|cc|cu|hpp|h):\d+(?:\]\ ?|\ ) | [\w.]+:[\w<>.]+:\d+\ )\ ?",
);
/// A rank in a prefix.
static RANK: Pattern = Pattern::new(
    r"(?x)\[(?:[Rr]ank[:\ ]*|\d+,)(\d+)[\]\ ] | \[default(?P<local>\d+)\] | ^\ *(\d+):\ $",
);
/// The host that pdsh and the like put before each line, as seen before the header of a traceback.
static HOST: Pattern = Pattern::new(r"^[\w.@-]+: ?");
/// The name of an exception, where the header of a traceback stands above it.
static AFTER_HEADER: Pattern =
    Pattern::new(r"^(?:[A-Za-z_][\w.]*(?:\([\w.]+\))?(?:: |:$)|(?:[A-Za-z_]\w*\.)*[A-Z]\w*$)");
/// The name of an exception without a header.
static NAMED: Pattern = Pattern::new(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Group)(?:\([\w.]+\))?(?:: |:$|$)",
);
static BOXED_FRAME: Pattern = Pattern::new(r"^│ \S+:\d+ in ");
/// What ends a message: the links of a chain of exceptions, Oumi's footer, and what other programs print.
static AFTER_MESSAGE: Pattern = Pattern::new(
    r"^(?:The above exception was|During handling of|If you believe this is a bug|Exception ignored in|(?:wandb|srun|slurmstepd|mpirun|bash|make)\b.{0,3}: |\S+:\d+: \w*Warning: )",
);
/// The line above a traceback that ended nothing.
static PASSED_OVER: Pattern =
    Pattern::new(r"^(?:Exception ignored in|Error in (?:atexit|sys\.)|--- Logging error ---)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        let patterns = [
            &PREFIX,
            &RANK,
            &HOST,
            &AFTER_HEADER,
            &NAMED,
            &BOXED_FRAME,
            &AFTER_MESSAGE,
            &PASSED_OVER,
        ];
        assert!(patterns.iter().all(|pattern| pattern.regex().is_some()));
    }
}
