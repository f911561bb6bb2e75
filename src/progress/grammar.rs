//! Names and values in the text that trainers print: in a dictionary of Python or JSON, or in a line whose parts may be
//! separated in any way (`step: 22  loss: 6.2`, `Step 3 | loss:1.1 lr:2e-05`, `iter 100: loss 3.1, time 23ms`).

use std::sync::LazyLock;

use super::tqdm::clock;
use crate::text::patterns::Patterns;

/// `-1.5e-05`, `1,234`, `nan`, `Infinity`.
const NUMBER: &str = r"[-+]?(?:(?i:nan|inf(?:inity)?)\b|(?:[0-9]+(?:,[0-9]{3}\b)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)";

static NUMBERS: LazyLock<Patterns> = LazyLock::new(|| Patterns::new(NUMBER));
static NUMBER_AT_START: LazyLock<Patterns> =
    LazyLock::new(|| Patterns::new(&format!("^(?:{NUMBER})")));
static FILE: LazyLock<Patterns> = LazyLock::new(|| {
    Patterns::new(
        r"^[^\w/~]*[/~]|\./|://|\.(?:ckpt|pth?|bin|safetensors|distcp|jsonl?|yaml|log|py)[^\w/]*$",
    )
});

/// The longest name that is considered, in bytes.
const MAX_NAME: usize = 64;

/// Reads the dictionary that `text` begins with, `{'loss': '5.943', 'step': 2}`: gives `each` its names and values, and
/// returns its length. `None` if it is none or does not end; what `each` was given by then is void.
pub(super) fn dictionary<'a>(
    text: &'a str,
    mut each: impl FnMut(&'a str, &'a str),
) -> Option<usize> {
    let mut rest = text.strip_prefix('{')?;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some(text.len() - after.len());
        }
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (name, after) = rest[1..].split_once(quote)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = value.split_at(value_end(value)?);
        each(name, value.trim_end());
        rest = after;
    }
}

/// Finds the end of the value that a text begins with: a comma or brace that is inside of nothing.
fn value_end(text: &str) -> Option<usize> {
    let (mut depth, mut open_quote) = (0_u32, None);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (open_quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(quote), _) => open_quote = Some(quote).filter(|quote| *quote != byte),
            (None, b'\'' | b'"') => open_quote = Some(byte),
            (None, b'{' | b'[' | b'(') => depth += 1,
            (None, b'}' | b',') if depth == 0 => return Some(at),
            (None, b'}' | b']' | b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// A name in a line, the text from its value on, and the line up to that value.
pub(super) struct Pair<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) before: &'a str,
}

/// Gives `each` every pair in `line`. A name is the text before a number, back to the number before it or to a separator.
/// Numbers in paths and names of files are passed over.
pub(super) fn pairs<'a>(line: &'a str, mut each: impl FnMut(Pair<'a>)) {
    let (mut name_start, mut word_end, mut is_file) = (0, 0, false);
    let is_blank = |c: char| c.is_ascii_whitespace();
    for found in NUMBERS.find_iter(line) {
        let mut at = found.start();
        let before = &line[..at];
        if before.ends_with(is_word) && found.as_str().starts_with(['-', '+']) {
            at += 1;
        } else if before.ends_with(is_word)
            || before.ends_with('.')
            || before.ends_with('(') && !before.ends_with("tensor(")
        {
            continue;
        }
        if at >= word_end {
            let start = before.rfind(is_blank).map_or(0, |blank| blank + 1);
            word_end = line[at..]
                .find(is_blank)
                .map_or(line.len(), |length| at + length);
            is_file = FILE.is_match(&line[start..word_end]);
        }
        let Some(name) = line.get(name_start..at).filter(|_| !is_file) else {
            name_start = word_end;
            continue;
        };
        each(Pair {
            name: clean(name.strip_suffix("tensor(").unwrap_or(name)),
            value: &line[at..],
            before: &line[..at],
        });
        // A unit may be attached: `8.1K`, `23ms`.
        let after = line[found.end()..].trim_start_matches(|c: char| is_letter(c) || c == '%');
        name_start = line.len() - after.len();
    }
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The name at the end of a text: without the unit of the number before, separators, and what joins it to its value.
fn clean(text: &str) -> &str {
    let text = &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_NAME))..];
    let text = text.trim_end_matches(['=', ':', '[', ' ', '\'', '"']);
    let text = text.rsplit(" - ").next().unwrap_or_default();
    // The parentheses of a unit are a part of the name.
    let inner = text.strip_suffix(')').and_then(|text| text.rfind('('));
    let separators = "|,;[]()<>{\t:=•";
    let name = text[..inner.unwrap_or(text.len())].rfind(|c| separators.contains(c));
    let name = name.map_or(text, |at| &text[at..]);
    let name = name.trim_start_matches(|c| separators.contains(c) || "%/-. '\"".contains(c));
    name.rsplit("  ").next().unwrap_or_default()
}

/// Parses the number that a text begins with, however Python or a person wrote it: `'5.943'`, `np.float64(0.5)`,
/// `[5e-05, 1e-05]`, `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    let mut text = text.trim_start().trim_start_matches(['\'', '"', '[']);
    for wrapper in ["np.float64(", "np.float32(", "np.int64(", "tensor("] {
        text = text.strip_prefix(wrapper).unwrap_or(text);
    }
    let (digits, rest) = text.split_at(NUMBER_AT_START.find(text)?.end());
    let number: f64 = digits.replace(',', "").parse().ok()?;
    let factor = match rest.as_bytes() {
        [_, next, ..] if next.is_ascii_alphanumeric() => 1.0,
        [b'k' | b'K', ..] => 1e3,
        [b'M', ..] => 1e6,
        [b'B' | b'G', ..] => 1e9,
        _ => 1.0,
    };
    Some((number * factor, rest))
}

/// Parses a count and its total, `7 / 1,200`, but no date.
pub(super) fn count(text: &str) -> Option<(f64, f64)> {
    let (done, rest) = number(text)?;
    let (total, rest) = number(rest.trim_start().strip_prefix('/')?)?;
    (!rest.starts_with('/')).then_some((done, total))
}

/// Parses `1:02:03`, `39m 0s`, `12.5s`, `1 day, 2:03:04` as seconds.
pub(super) fn duration(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (None, text);
    loop {
        rest = rest.trim_start_matches([' ', ',', '\'', '"']);
        let digits = rest
            .split(|c: char| !c.is_ascii_digit() && c != ':')
            .next()?;
        if digits.contains(':') {
            return clock(digits).map(|clock| seconds.unwrap_or(0.0) + clock);
        }
        let Some((count, unit)) = number(rest) else {
            return seconds;
        };
        let unit = unit.trim_start();
        let factor = match unit.bytes().next() {
            Some(b'd') => 86_400.0,
            Some(b'h') => 3600.0,
            Some(b'm') => 60.0,
            Some(b's') => 1.0,
            _ => return seconds,
        };
        seconds = Some(seconds.unwrap_or(0.0) + count * factor);
        rest = unit.trim_start_matches(is_letter);
    }
}
