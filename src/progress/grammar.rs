//! Names and values in the text that trainers print: in a dictionary of Python or JSON, or in a line whose parts may be
//! separated in any way (`step: 22  loss: 6.2`, `Step 3 | loss:1.1 lr:2e-05`, `iter 100: loss 3.1, time 23ms`).

use std::sync::LazyLock;

use memchr::memchr_iter;

use super::tqdm::clock;
use crate::text::patterns::Patterns;

/// `-1.5e-05`, `1,234`, `nan`, `Infinity`.
const NUMBER: &str = r"[-+]?(?:(?i:nan|inf(?:inity)?)\b|(?:[0-9]+(?:,[0-9]{3}\b)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)";

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
    let bytes = line.as_bytes();
    let (mut name_start, mut word_end, mut is_file) = (0, 0, false);
    let mut read = 0;
    while read < dictionary {
        let mut at = read;
        read += 1;
        let next = bytes[read..dictionary].first().unwrap_or(&b' ');
        let may_begin = match bytes[at] {
            b'0'..=b'9' | b'+' | b'-' | b'.' => true,
            b'n' | b'N' => matches!(next, b'a' | b'A'),
            b'i' | b'I' => matches!(next, b'n' | b'N'),
            _ => false,
        };
        let length = may_begin.then(|| number_length(&line[at..dictionary]));
        let Some(length) = length.flatten() else {
            continue;
        };
        read = at + length;
        let before = &line[..at];
        let last = before.as_bytes().last().copied().unwrap_or(b' ');
        let mut calls = CONSTRUCTORS.iter().filter(|_| last == b'(');
        let call = calls.find(|call| before.ends_with(**call));
        if is_word(last) && matches!(bytes[at], b'-' | b'+') {
            at += 1;
        } else if is_word(last) || last == b'.' || last == b'(' && call.is_none() {
            continue;
        }
        if at >= word_end {
            let start = bytes[..at].iter().rposition(u8::is_ascii_whitespace);
            let start = start.map_or(0, |blank| blank + 1);
            let length = bytes[at..].iter().position(u8::is_ascii_whitespace);
            word_end = length.map_or(line.len(), |length| at + length);
            is_file = may_be_file(&bytes[start..word_end]) && FILE.is_match(&line[start..word_end]);
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
        let is_unit = |c: char| c.is_ascii_alphabetic() || c == '%';
        name_start = line.len() - line[read..].trim_start_matches(is_unit).len();
    }
}

/// Gives `each` every entry of the dictionary that begins at `start`, as [`pairs`] does, those of dictionaries in it by names
/// such as `train/loss`. Returns where it ends.
pub(super) fn entries<'a>(
    line: &'a str,
    start: usize,
    mut each: impl FnMut(&str, &'a str, &'a str),
) -> usize {
    let (bytes, mut at) = (line.as_bytes(), start);
    // The names of the brackets that are open, and that of the newest entry.
    let (mut open, mut newest) = (Vec::new(), None);
    let mut key = 0..0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                let start = at + 1;
                at = start;
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != quote) {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                key = start..at;
            }
            b'{' | b'[' | b'(' => open.push(newest.take()),
            b'}' | b']' | b')' => {
                open.pop();
                if open.is_empty() {
                    return at + 1;
                }
            }
            b',' => newest = None,
            b':' if open.len() <= MAX_DEPTH => {
                newest = (key.end + 1 == at && key.len() <= MAX_NAME).then(|| &line[key.clone()]);
                if let Some(name) = newest {
                    let (value, before) = (&line[at + 1..], &line[..key.start - 1]);
                    entry(name, value, before, &open[1..], &mut each);
                }
            }
            _ => {}
        }
        at += 1;
    }
    line.len()
}

/// Gives `each` an entry of a dictionary. `within` names the dictionaries that this one is in; one without a name is not read.
fn entry<'a>(
    name: &str,
    value: &'a str,
    before: &'a str,
    within: &[Option<&str>],
    each: &mut impl FnMut(&str, &'a str, &'a str),
) {
    let value = value
        .trim_ascii_start()
        .trim_start_matches(['\'', '"', '[']);
    let is_call = value.starts_with(|c: char| c.is_ascii_alphabetic());
    let mut calls = CONSTRUCTORS.iter().filter(|_| is_call);
    let in_call = calls.find_map(|call| value.strip_prefix(call));
    let value = in_call.unwrap_or(value);
    if within.is_empty() {
        each(name, value, before);
    } else if let Some(within) = within.iter().copied().collect::<Option<Vec<&str>>>() {
        each(&format!("{}/{name}", within.join("/")), value, before);
    }
}

/// Finds the brace that a dictionary in a line begins with.
pub(super) fn dictionary_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    memchr_iter(b'{', bytes).find(|brace| matches!(bytes.get(brace + 1), Some(b'\'' | b'"')))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Tells most numbers from [`FILE`] at a glance.
fn may_be_file(word: &[u8]) -> bool {
    let mut twos = word.windows(2);
    twos.any(|two| matches!(two, [b'/' | b'~', _] | [b'.', b'a'..=b'z' | b'/']))
}

/// The name at the end of a text: without the unit of the number before, separators, and what joins it to its value.
fn clean(text: &str) -> &str {
    let text = &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_NAME))..];
    let text = text.trim_end_matches(['=', ':', '[', ' ', '\'', '"']);
    // The parentheses of a unit are a part of the name.
    let inner = text.strip_suffix(')').and_then(|text| text.rfind('('));
    let mut start = inner.unwrap_or(text.len());
    let is_name = |before: &[u8]| match before {
        [] | [.., b' ', b' '] | [.., b' ', b'-', b' '] | [.., 0xe2, 0x80, 0xa2] => false, // •
        [
            ..,
            b'\t' | b'(' | b')' | b',' | b':'..=b'>' | b'[' | b']' | b'{' | b'|',
        ] => false,
        _ => true,
    };
    while is_name(&text.as_bytes()[..start]) {
        start -= 1;
    }
    text[start..].trim_start_matches(['%', '/', '-', '.', ' ', '\'', '"'])
}

/// Finds the length of the number that a text begins with. Most are nothing but digits: the search costs more than parsing them.
fn number_length(text: &str) -> Option<usize> {
    let (bytes, mut length) = (text.as_bytes(), 0);
    let (mut has_digit, mut has_point) = (false, false);
    loop {
        let goes_on = || matches!(bytes.get(length + 1), Some(b'0'..=b'9' | b'-' | b'+'));
        match bytes.get(length) {
            Some(b'0'..=b'9') => has_digit = true,
            Some(b'.') if !has_point => has_point = true,
            Some(b'e' | b'E' | b',') if goes_on() => break,
            _ if has_digit => return Some(length),
            _ => break,
        }
        length += 1;
    }
    NUMBER_AT_START.find(text).map(|found| found.end)
}

/// Parses the number that a text begins with: `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_ascii_start();
    let (digits, rest) = text.split_at(number_length(text)?);
    let grouped = || digits.replace(',', "").parse().ok();
    let number: f64 = digits.parse().ok().or_else(grouped)?;
    // A comma may be that of a decimal: `1,72`.
    if matches!(rest.as_bytes(), [b',', b'0'..=b'9', ..]) && !digits.contains(['.', 'e', 'E']) {
        return None;
    }
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
    let behind = behind.trim_ascii_start();
    let total = match behind.as_bytes() {
        [b'/', ..] => &behind[1..],
        [b'o', b'f', b' ', ..] => &behind[3..],
        _ => return None,
    };
    let (total, rest) = number(total)?;
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
        rest = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    }
}

pub(super) fn whole(value: f64) -> Option<u64> {
    (0.0..1e15).contains(&value).then_some(value as u64)
}
