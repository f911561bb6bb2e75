//! Names and values in the text that trainers print: in a dictionary of Python or JSON, or in a line whose parts may be
//! separated in any way (`step: 22  loss: 6.2`, `Step 3 | loss:1.1 lr:2e-05`, `iter 100: loss 3.1, time 23ms`).

use memchr::memchr_iter;

use crate::text::end_of;

/// The longest name that is considered, in bytes.
const MAX_NAME: usize = 64;

/// Dictionaries are read as far as they are within so many brackets, their own among them.
const MAX_DEPTH: usize = 3;

/// The constructors that Python shows around a number.
const CONSTRUCTORS: [&str; 4] = ["tensor(", "np.float64(", "np.float32(", "np.int64("];

/// The ends of the names of files that are printed beside metrics.
const EXTENSIONS: [&str; 11] = [
    "ckpt",
    "pt",
    "pth",
    "bin",
    "safetensors",
    "distcp",
    "json",
    "jsonl",
    "yaml",
    "log",
    "py",
];

/// Gives `each` every pair in a line without a dictionary: its name, the text from its value on, and the line before it. A name
/// is the text before a number, back to the number before it or to a separator. Numbers in paths and names of files are passed
/// over.
pub(super) fn pairs<'a>(line: &'a str, mut each: impl FnMut(&str, &'a str, &'a str)) {
    let bytes = line.as_bytes();
    let (mut name_start, mut word_end, mut is_file) = (0, 0, false);
    let mut read = 0;
    while read < bytes.len() {
        let mut at = read;
        read += 1;
        let may_begin = matches!(
            bytes[at],
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'n' | b'N' | b'i' | b'I'
        );
        let length = may_begin.then(|| number_length(&line[at..]));
        let Some(length) = length.flatten() else {
            continue;
        };
        read = at + length;
        let before = &line[..at];
        let last = before.as_bytes().last().copied().unwrap_or(b' ');
        let call = CONSTRUCTORS.iter().find(|call| before.ends_with(**call));
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
            is_file = names_file(&line[start..word_end]);
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
    let (mut open, mut depth, mut newest) = ([None; MAX_DEPTH], 0, None);
    let mut key = 0..0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                let (start, is_backslash) = (at + 1, |byte: &&u8| **byte == b'\\');
                let mut quotes = memchr_iter(quote, &bytes[start..]).map(|length| start + length);
                // One behind a backslash is a part of the text, unless that is behind another one.
                let backslashes = |at: &usize| bytes[..*at].iter().rev().take_while(is_backslash);
                let end = quotes.find(|quote| backslashes(quote).count() % 2 == 0);
                key = start..end.unwrap_or(bytes.len());
                at = key.end;
            }
            b'{' | b'[' | b'(' => {
                if let Some(bracket) = open.get_mut(depth) {
                    *bracket = newest.take();
                }
                depth += 1;
            }
            b'}' | b']' | b')' if depth == 1 => return at + 1,
            b'}' | b']' | b')' => depth -= 1,
            b',' => newest = None,
            b':' if depth <= MAX_DEPTH => {
                newest = (key.end + 1 == at && key.len() <= MAX_NAME).then(|| &line[key.clone()]);
                if let Some(name) = newest {
                    let (value, before) = (value(&line[at + 1..]), &line[..key.start - 1]);
                    let within = open[1..depth].iter().copied();
                    if depth == 1 {
                        each(name, value, before);
                    } else if let Some(within) = within.collect::<Option<Vec<&str>>>() {
                        each(&format!("{}/{name}", within.join("/")), value, before);
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    line.len()
}

/// The text from a value on, without what Python shows around it.
fn value(text: &str) -> &str {
    let is_value = |byte| !matches!(byte, b' ' | b'\'' | b'"' | b'[');
    let start = text.bytes().position(is_value);
    let text = &text[start.unwrap_or(text.len())..];
    let may_be_call = matches!(text.as_bytes(), [b't' | b'n', ..]);
    let mut calls = CONSTRUCTORS.iter().filter(|_| may_be_call);
    calls
        .find_map(|call| text.strip_prefix(call))
        .unwrap_or(text)
}

/// Finds the brace that a dictionary in a line begins with.
pub(super) fn dictionary_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    memchr_iter(b'{', bytes).find(|brace| matches!(bytes.get(brace + 1), Some(b'\'' | b'"')))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Tells if a word is the path or the name of a file.
fn names_file(word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '~');
    let inner = word.trim_matches(|c| !is_part(c));
    let extension = inner.rsplit_once('.').map(|(_, extension)| extension);
    inner.starts_with(['/', '~'])
        || word.contains('/') && (word.contains("./") || word.contains("://"))
        || extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// The name at the end of a text: without the unit of the number before, separators, and what joins it to its value.
fn clean(text: &str) -> &str {
    let text = end_of(text, MAX_NAME);
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

/// Finds the length of the number that a text begins with: `-1.5e-05`, `1,234`, `.5`, `nan`, `Infinity`.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits_end = |mut end: usize| {
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
        end
    };
    let start = usize::from(matches!(bytes, [b'-' | b'+', ..]));
    let mut end = digits_end(start);
    while end > start && bytes.get(end) == Some(&b',') && digits_end(end + 1) == end + 4 {
        end += 4;
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits_end(end + 1);
    }
    if !bytes[start..end].iter().any(u8::is_ascii_digit) {
        // The longest has 8 letters, and all of a line may be one word.
        let word = bytes[start..].chunks(9).next()?;
        let word = word.split(|byte| !is_word(*byte)).next()?;
        let mut names = ["nan", "inf", "infinity"].iter();
        let is_number = names.any(|name| name.as_bytes().eq_ignore_ascii_case(word));
        return is_number.then_some(start + word.len());
    }
    if let Some([b'e' | b'E', behind @ ..]) = bytes.get(end..) {
        let exponent = end + 1 + usize::from(matches!(behind, [b'-' | b'+', ..]));
        if digits_end(exponent) > exponent {
            end = digits_end(exponent);
        }
    }
    Some(end)
}

/// Parses the number that a text begins with: `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_ascii_start();
    let (digits, rest) = text.split_at(number_length(text)?);
    let number: f64 = match digits.parse() {
        Ok(number) => number,
        // The comma is that of a decimal: `2,345e-05`.
        Err(_) if digits.contains(['e', 'E']) => return None,
        Err(_) => digits.replace(',', "").parse().ok()?,
    };
    let factor = match rest.as_bytes() {
        // So is this one: `1,72`.
        [b',', b'0'..=b'9', ..] if !digits.contains(['.', 'e', 'E']) => return None,
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
    let total = behind.strip_prefix('/');
    let total = total.or_else(|| behind.strip_prefix("of "))?;
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

/// Parses `[h:]mm:ss` as seconds. `None` for `?`.
pub(super) fn clock(text: &str) -> Option<f64> {
    let (mut before, mut part) = (0.0, None);
    for byte in text.trim_ascii().bytes() {
        match byte {
            b'0'..=b'9' => part = Some(part.unwrap_or(0.0) * 10.0 + f64::from(byte - b'0')),
            b':' => (before, part) = ((before + part?) * 60.0, None),
            _ => return None,
        }
    }
    Some(before + part?)
}
