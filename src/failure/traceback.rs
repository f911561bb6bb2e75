//! The final lines of the last traceback in a log.

use std::sync::LazyLock;

use regex::Regex;

/// The most lines of the message that are given, after the line that names the exception.
const MESSAGE_LINES: usize = 10;

/// The most lines of the last frame that are given.
const FRAME_LINES: usize = 4;

/// The most that is given, in bytes.
const MOST: usize = 2_000;

const HEADER: &str = "Traceback (most recent call last):";

/// The last frame and the exception of the last traceback in `log`; without one, the last line that begins with `Error:`.
/// The one in which torchrun says that a worker failed is passed over for that worker's own.
pub(crate) fn traceback_end(log: &str) -> Option<String> {
    let lines: Vec<Line<'_>> = log.lines().map(Line::of).collect();
    let headers = (0..lines.len())
        .rev()
        .filter(|at| lines[*at].text.contains(HEADER));
    let mut ends = headers.filter_map(|header| end_of(&lines, header));
    let last = ends.next();
    let found = match last {
        Some(last) if last.contains("ChildFailedError") => ends
            .find(|end| !end.contains("ChildFailedError"))
            .or(Some(last)),
        Some(last) => Some(last),
        None => error_line(&lines),
    }?;
    let end = found.floor_char_boundary(MOST);
    Some(match end < found.len() {
        true => format!("{}…", &found[..end]),
        false => found,
    })
}

/// A line without what torchrun and SkyPilot put before it.
struct Line<'a> {
    prefix: &'a str,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let length = PREFIX
            .as_ref()
            .and_then(|prefix| prefix.find(line))
            .map_or(0, |found| found.end());
        let (prefix, text) = line.split_at(length);
        Self { prefix, text }
    }

    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }
}

/// The end of the traceback whose header is the line `header`. Lines of other ranks in between are passed over.
fn end_of(lines: &[Line<'_>], header: usize) -> Option<String> {
    let begin = lines.get(header)?;
    let exception_pattern = EXCEPTION.as_ref()?;
    let mut own = lines
        .get(header + 1..)?
        .iter()
        .filter(|line| line.prefix == begin.prefix)
        .take_while(|line| !line.text.contains(HEADER));
    let mut frame: Vec<&str> = Vec::new();
    let exception = own.by_ref().take(2_000).find_map(|line| {
        let text = line.text.trim_end();
        if line.indent() <= begin.indent() && exception_pattern.is_match(text.trim_start()) {
            return Some(text);
        }
        if text.trim_start().starts_with("File ") {
            frame.clear();
        }
        if frame.len() < FRAME_LINES && !text.trim_start().starts_with(['^', '~']) {
            frame.push(text);
        }
        None
    })?;
    let mut end: Vec<&str> = frame;
    end.push(exception);
    for line in own.take(MESSAGE_LINES) {
        let text = line.text.trim_end();
        let over = [
            "During handling",
            "The above exception",
            "If you believe",
            "[20",
            "====",
            "----",
            HEADER,
        ];
        if over.iter().any(|other| text.starts_with(other)) {
            break;
        }
        end.push(text);
    }
    while end.last().is_some_and(|line| line.is_empty()) {
        end.pop();
    }
    Some(end.join("\n"))
}

/// What Oumi says about a config that is wrong, without a traceback.
fn error_line(lines: &[Line<'_>]) -> Option<String> {
    let last = (0..lines.len())
        .rev()
        .find(|at| lines[*at].text.starts_with("Error: "))?;
    let text: Vec<&str> = lines[last..]
        .iter()
        .take(4)
        .map(|line| line.text.trim_end())
        .take_while(|text| !text.is_empty())
        .collect();
    Some(text.join("\n"))
}

static PREFIX: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?:\([^()\s]*,? ?(?:rank=\d+, )?pid=\d+[^)]*\) ?)?(?:\[(?:rank|default)\d+\]: ?)?",
    )
    .ok()
});

/// `SomeError: text`, `package.module.SomeError`, `KeyboardInterrupt`.
static EXCEPTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^[A-Za-z_][\w.]*(?::(?: |$)|(?:Error|Exception|Interrupt|SystemExit|StopIteration|Timeout|Expired)$)",
    )
    .ok()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_are_patterns() {
        assert!(PREFIX.is_some() && EXCEPTION.is_some());
    }
}
