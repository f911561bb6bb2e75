//! Names and values in the text that trainers print: in a dictionary of Python or JSON, or in a line whose parts may be
//! separated in any way (`step: 22  loss: 6.2`, `Step 3 | loss:1.1 lr:2e-05`, `iter 100: loss 3.1, time 23ms`).

use std::sync::LazyLock;

use memchr::memchr_iter;

use super::tqdm::clock;
use crate::text::patterns::Patterns;
use crate::text::trim_start;

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

/// Dictionaries are read as far as they are within so many brackets, their own among them.
const MAX_DEPTH: usize = 3;

/// The constructors that Python shows around a number.
const CONSTRUCTORS: [&str; 4] = ["tensor(", "np.float64(", "np.float32(", "np.int64("];

/// Gives `each` every pair in `line` before its first dictionary: its name, the text from its value on, and the line before it.
/// A name is the text before a number, back to the number before it or to a separator. Numbers in paths and names of files are
/// passed over.
pub(super) fn pairs<'a>(line: &'a str, mut each: impl FnMut(&str, &'a str, &'a str)) {
    let dictionary = dictionary_start(line).unwrap_or(line.len());
    let (mut name_start, mut word_end, mut is_file) = (0, 0, false);
    let is_blank = |c: char| c.is_ascii_whitespace();
    let numbers = (dictionary > 0).then(|| NUMBERS.find_iter(&line[..dictionary]));
    for found in numbers.into_iter().flatten() {
        let mut at = found.start();
        let before = &line[..at];
        let call = CONSTRUCTORS.iter().find(|call| before.ends_with(**call));
        if before.ends_with(is_word) && found.as_str().starts_with(['-', '+']) {
            at += 1;
        } else if before.ends_with(|c| is_word(c) || c == '.')
            || before.ends_with('(') && call.is_none()
        {
            continue;
        }
        if at >= word_end {
            let start = before.rfind(is_blank).map_or(0, |blank| blank + 1);
            let length = line[at..].find(is_blank);
            word_end = length.map_or(line.len(), |length| at + length);
            is_file = FILE.is_match(&line[start..word_end]);
        }
        let Some(name) = line.get(name_start..at).filter(|_| !is_file) else {
            name_start = word_end;
            continue;
        };
        let name = call
            .and_then(|call| name.strip_suffix(call))
            .unwrap_or(name);
        each(clean(name), &line[at..], &line[..at]);
        // A unit may be attached: `8.1K`, `23ms`.
        let after = line[found.end()..].trim_start_matches(|c: char| is_letter(c) || c == '%');
        name_start = line.len() - after.len();
    }
}

/// Gives `each` every entry of the dictionary that begins at `start`, as [`pairs`] does, those of dictionaries in it by names
/// such as `train/loss`. Returns where it ends.
pub(super) fn entries<'a>(
    line: &'a str,
    start: usize,
    mut each: impl FnMut(&str, &'a str, &'a str),
) -> usize {
    // The names of the brackets that are open, and that of the newest entry.
    let (mut open, mut newest) = (Vec::new(), None);
    let mut quote = None;
    let mut bytes = line.bytes().enumerate().skip(start);
    while let Some((at, byte)) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(end), _) => quote = Some(end).filter(|end| *end != byte),
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'{' | b'[' | b'(') => open.push(newest.take()),
            (None, b'}' | b']' | b')') => {
                open.pop();
                if open.is_empty() {
                    return at + 1;
                }
            }
            (None, b',') => newest = None,
            (None, b':') if open.len() <= MAX_DEPTH => {
                newest = entry(line, at, &open[1..], &mut each);
            }
            _ => {}
        }
    }
    line.len()
}

/// Gives `each` the entry of a dictionary whose colon is at `colon`, and returns its name. `within` names the dictionaries that
/// this one is in; one without a name is not read.
fn entry<'a>(
    line: &'a str,
    colon: usize,
    within: &[Option<&str>],
    each: &mut impl FnMut(&str, &'a str, &'a str),
) -> Option<&'a str> {
    let (before, value) = line.split_at(colon);
    let key = before.strip_suffix(['\'', '"'])?;
    let (before, name) = key.rsplit_once(['\'', '"'])?;
    let value = value[1..].trim_start();
    let value = value.trim_start_matches(['\'', '"', '[']);
    let is_call = value.starts_with(is_letter);
    let mut calls = CONSTRUCTORS.iter().filter(|_| is_call);
    let value = calls
        .find_map(|one| value.strip_prefix(one))
        .unwrap_or(value);
    match within.iter().copied().collect::<Option<Vec<&str>>>() {
        Some(within) if !within.is_empty() => {
            each(&format!("{}/{name}", within.join("/")), value, before);
        }
        Some(_) => each(name, value, before),
        None => {}
    }
    Some(name)
}

/// Finds the brace that a dictionary in a line begins with.
pub(super) fn dictionary_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    memchr_iter(b'{', bytes).find(|brace| matches!(bytes.get(brace + 1), Some(b'\'' | b'"')))
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

/// Parses the number that a text begins with: `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_ascii_start();
    let plain = trim_start(text, |byte| byte.is_ascii_digit() || byte == b'.');
    let mut end = text.len() - plain.len();
    // Most numbers are nothing but digits: the search costs more than parsing them.
    let goes_on = matches!(plain.as_bytes(), [b'e' | b'E' | b',', ..]);
    let mut number = None;
    if !goes_on {
        number = text[..end].parse::<f64>().ok();
    }
    if number.is_none() {
        end = NUMBER_AT_START.find(text)?.end();
        number = text[..end].replace(',', "").parse().ok();
    }
    let (number, rest) = (number?, &text[end..]);
    let factor = match rest.as_bytes() {
        [_, next, ..] if next.is_ascii_alphanumeric() => 1.0,
        [b'k' | b'K', ..] => 1e3,
        [b'M', ..] => 1e6,
        [b'B' | b'G', ..] => 1e9,
        _ => 1.0,
    };
    Some((number * factor, rest))
}

/// Parses the total of a count, from the text behind it: `/ 1,200` or `of 1,200`, but no date.
pub(super) fn total(behind: &str) -> Option<f64> {
    let behind = behind.trim_start();
    let total = behind.strip_prefix('/').or(behind.strip_prefix("of "));
    let (total, rest) = number(total?)?;
    (!rest.starts_with('/')).then_some(total)
}

/// Parses `1:02:03`, `39m 0s`, `12.5s`, `1 day, 2:03:04` as seconds.
pub(super) fn duration(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (None, text);
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let is_clock = |c: char| c.is_ascii_digit() || c == ':';
        let digits = &rest[..rest.find(|c| !is_clock(c)).unwrap_or(rest.len())];
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

pub(super) fn whole(value: f64) -> Option<u64> {
    (0.0..1e15).contains(&value).then_some(value as u64)
}
