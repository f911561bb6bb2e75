//! Why a launcher failed, and what it said last, out of all it printed: one line of bounded length each.

use super::strip_terminal;

/// The most characters of a reason or a last line.
pub const MAX_SENTENCE: usize = 500;

/// How much of the end of an output is looked at: a traceback of several parts, hard-wrapped, has room in it.
const TAIL_BYTES: usize = 256 * 1024;

/// What begins a part of a traceback. Cut short, since Oumi wraps lines at the width of the terminal.
const TRACEBACK_PARTS: [&str; 3] = [
    "Traceback (most recent",
    "During handling of the",
    "The above exception was",
];

/// What Oumi prints below every traceback.
const FOOTER: [&str; 2] = [
    "If you believe this is a bug",
    "https://github.com/oumi-ai/oumi/issues",
];

/// Said by every ssh of Oumi to Slurm; it is no reason for anything.
const NOISE: &str = "Pseudo-terminal will not be allocated because stdin is not a terminal.";

/// Why a launcher failed, where its output (stdout, stderr or both) says so: the last line of a traceback, an `Error: …`,
/// or a reason of SkyPilot's own.
pub fn failure_reason(output: &str) -> Option<String> {
    let text = strip_terminal(tail(output));
    let lines: Vec<&str> = text.lines().collect();
    [exception(&lines), error(&lines), usage_error(&lines)]
        .into_iter()
        .flatten()
        .max_by_key(|(line, _)| *line)
        .or_else(|| skypilot_reason(&lines))
        .map(|(_, reason)| sentence(&reason))
        .filter(|reason| !reason.is_empty())
}

/// The last line that says something, without marks and prefixes.
pub fn last_line(output: &str) -> Option<String> {
    let text = strip_terminal(tail(output));
    text.lines()
        .rev()
        .filter(|line| !is_footer(line) && !line.contains('━'))
        .map(undecorated)
        .find(|line| line.contains(char::is_alphanumeric))
        .map(sentence)
}

/// `text` on one line, no longer than [`MAX_SENTENCE`].
pub(super) fn sentence(text: &str) -> String {
    let mut line = String::new();
    for word in text.replace(NOISE, "").split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        // Long enough to know that it has to be cut, however many more bytes there are.
        if line.len() > 4 * MAX_SENTENCE {
            break;
        }
    }
    if let Some((cut, _)) = line.char_indices().nth(MAX_SENTENCE) {
        line.truncate(cut);
        line.pop();
        line.push('…');
    }
    line
}

/// A qualified exception with its message, the module left out: `RuntimeError: Job 77 not found.`
fn exception_text(line: &str) -> Option<String> {
    let (name, message) = named_exception(line)?;
    let class = name.rsplit('.').next().unwrap_or(name);
    Some(match message {
        "" => class.to_owned(),
        message => format!("{class}: {message}"),
    })
}

fn tail(output: &str) -> &str {
    &output[output.ceil_char_boundary(output.len().saturating_sub(TAIL_BYTES))..]
}

/// The exception that ended the program: the first one of the last part of the traceback, else the last there is.
fn exception(lines: &[&str]) -> Option<(usize, String)> {
    let last_part = lines
        .iter()
        .rposition(|line| begins_part(line))
        .unwrap_or(lines.len());
    let at = (last_part..lines.len())
        .find(|at| named_exception(lines[*at]).is_some())
        .or_else(|| {
            lines
                .iter()
                .rposition(|line| named_exception(line).is_some())
        })?;
    // A qualified name that is longer than the terminal is wide stands on two lines.
    let before = at.checked_sub(1).map(|before| lines[before]);
    let name_start =
        before.filter(|line| is_cut_word(line) && is_dotted(line.trim_end_matches('.')));
    let first = format!("{}{}", name_start.unwrap_or_default(), lines[at]);
    let message = unwrapped(&first, &lines[at + 1..]);
    exception_text(&message).map(|text| (at, text))
}

fn begins_part(line: &str) -> bool {
    TRACEBACK_PARTS.iter().any(|part| line.starts_with(part))
}

/// An exception's name and its message, when `line` begins with them.
fn named_exception(line: &str) -> Option<(&str, &str)> {
    let (name, message) = line.split_once(':').unwrap_or((line, ""));
    let class = name.rsplit('.').next()?;
    let known = ["Error", "Exception", "Interrupt", "Exit", "Group"]
        .iter()
        .any(|end| class.ends_with(end));
    let qualified = class.len() < name.len() && class.starts_with(char::is_uppercase);
    let separated = message.is_empty() || message.starts_with(' ');
    // `Error: …` is a sentence, not a class.
    (is_dotted(name) && class != "Error" && separated && (known || (qualified && name != line)))
        .then(|| (name, message.trim()))
}

fn is_dotted(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The last `Error: …` of Oumi, click or SkyPilot.
fn error(lines: &[&str]) -> Option<(usize, String)> {
    let at = lines.iter().rposition(|line| line.starts_with("Error: "))?;
    let message = unwrapped(lines[at], &lines[at + 1..]);
    Some((at, message["Error: ".len()..].to_owned()))
}

/// What stands in the box that Oumi draws around a wrong use of it.
fn usage_error(lines: &[&str]) -> Option<(usize, String)> {
    let at = lines
        .iter()
        .rposition(|line| line.starts_with(['╭', '+']) && line.contains(" Error "))?;
    let inside: Vec<&str> = lines[at + 1..]
        .iter()
        .map_while(|line| line.strip_prefix(['│', '|']))
        .map(|line| line.trim_end_matches(['│', '|']).trim())
        .collect();
    Some((at, inside.join(" ")))
}

/// SkyPilot's own word for what went wrong, where it raised nothing.
fn skypilot_reason(lines: &[&str]) -> Option<(usize, String)> {
    lines.iter().enumerate().rev().find_map(|(at, line)| {
        let line = line.trim();
        ["Reason: ", "ERROR: ", "⨯ "]
            .iter()
            .find_map(|mark| line.strip_prefix(mark))
            .map(|reason| {
                (
                    at,
                    exception_text(reason).unwrap_or_else(|| reason.to_owned()),
                )
            })
    })
}

/// `first` and the lines below it up to the end of the paragraph, as they were before they were wrapped.
fn unwrapped(first: &str, below: &[&str]) -> String {
    let mut text = first.to_owned();
    let mut above = first;
    for line in below {
        let ends = line.trim().is_empty()
            || is_footer(line)
            || begins_part(line)
            || line.starts_with("Error: ")
            || *line == "\"\"\"";
        if ends {
            break;
        }
        if !is_cut_word(above) {
            text.push(' ');
        }
        text.push_str(line);
        above = line;
    }
    text
}

/// Whether `line` is nothing but the beginning of a word that is longer than a line.
fn is_cut_word(line: &str) -> bool {
    line.len() >= super::oumi::MIN_WIDTH && !line.contains(char::is_whitespace)
}

fn is_footer(line: &str) -> bool {
    FOOTER.iter().any(|footer| line.starts_with(footer))
}

/// `line` without the prefix of Oumi's logger and the marks that SkyPilot puts before its lines.
fn undecorated(line: &str) -> &str {
    let line = match line.split_once("]][") {
        Some((prefix, rest)) if prefix.starts_with('[') => {
            rest.split_once("] ").map_or(line, |(_, message)| message)
        }
        _ => line,
    };
    line.trim_matches(|c: char| c.is_whitespace() || (!c.is_ascii() && !c.is_alphanumeric()))
}
