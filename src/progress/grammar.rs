//! Names and values in the text that trainers print: in a dictionary of Python or JSON, or in a line whose parts may be
//! separated in any way (`step: 22  loss: 6.2`, `Step 3 | loss:1.1 lr:2e-05`, `iter 100: loss 3.1, time 23ms`).

use super::tqdm::clock;

/// The longest name that is considered, in bytes.
const MAX_NAME: usize = 64;

/// Reads the dictionary that `text` begins with, `{'loss': '5.943', 'step': 2}`: gives `each` its names and values, and
/// returns its length. `None` if it is none or does not end; what `each` was given by then is void.
pub(super) fn dictionary<'a>(
    text: &'a str,
    mut each: impl FnMut(&'a str, &'a str),
) -> Option<usize> {
    let bytes = text.as_bytes();
    let skip = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default().iter();
        at + rest
            .take_while(|byte| byte.is_ascii_whitespace() || **byte == b',')
            .count()
    };
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut at = 1;
    loop {
        at = skip(at);
        let quote = *bytes.get(at)?;
        if quote == b'}' {
            return Some(at + 1);
        }
        if quote != b'\'' && quote != b'"' {
            return None;
        }
        let name_end = at + 1 + memchr::memchr(quote, bytes.get(at + 1..)?)?;
        let name = text.get(at + 1..name_end)?;
        at = skip(name_end + 1);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at = skip(at + 1);
        let value_end = value_end(bytes, at)?;
        each(name, text.get(at..value_end)?.trim_ascii_end());
        at = value_end;
    }
}

/// Finds the end of the value that begins at `at`: a comma or brace that is inside of nothing.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        match bytes.get(at)? {
            quote @ (b'\'' | b'"') => loop {
                at += 1;
                match bytes.get(at)? {
                    b'\\' => at += 1,
                    byte if byte == quote => break,
                    _ => {}
                }
            },
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b',' if depth == 0 => return Some(at),
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
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
    let bytes = line.as_bytes();
    let (mut at, mut name_start, mut word_end, mut is_file) = (0, 0, 0, false);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (before, value) = (bytes.get(..at).unwrap_or_default(), line.get(at..));
        let length = match before {
            [.., byte, b'-' | b'+'] if is_word(byte) => 0,
            [.., byte] if is_word(byte) || *byte == b'.' => 0,
            [.., b'('] if !before.ends_with(b"tensor(") => 0,
            _ => number_length(rest),
        };
        let (Some(value), Some(name)) = (value.filter(|_| length > 0), line.get(name_start..at))
        else {
            at += 1;
            continue;
        };
        if at >= word_end {
            let mut start = bytes.get(word_end..at).unwrap_or_default().iter();
            let start = start.rposition(u8::is_ascii_whitespace);
            let start = start.map_or(word_end, |space| word_end + space + 1);
            let length = rest.iter().position(u8::is_ascii_whitespace);
            word_end = length.map_or(bytes.len(), |length| at + length);
            is_file = line.get(start..word_end).is_some_and(is_path);
        }
        if is_file {
            at = word_end;
            name_start = at;
            continue;
        }
        each(Pair {
            name: clean(name.strip_suffix("tensor(").unwrap_or(name)),
            value,
            before: line.get(..at).unwrap_or_default(),
        });
        // A unit may be attached: `8.1K`, `23ms`.
        let is_unit = |byte: &&u8| byte.is_ascii_alphabetic() || **byte == b'%';
        let unit = rest.iter().skip(length).take_while(is_unit).count();
        at += length + unit;
        name_start = at;
    }
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Tells if a word is a path, an address or the name of a file.
fn is_path(word: &str) -> bool {
    if memchr::memchr2(b'/', b'.', word.as_bytes()).is_none() {
        return false;
    }
    let word = word.trim_matches(|c: char| c.is_ascii_punctuation() && !"/~_".contains(c));
    let ending = word.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_file = matches!(
        ending,
        "ckpt"
            | "pt"
            | "pth"
            | "bin"
            | "safetensors"
            | "distcp"
            | "json"
            | "jsonl"
            | "yaml"
            | "log"
            | "py"
    );
    is_file || word.starts_with(['/', '~']) || word.contains("./") || word.contains("://")
}

/// The name at the end of a text: without the unit of the number before, separators, and what joins it to its value.
fn clean(text: &str) -> &str {
    let text = &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_NAME))..];
    let text = text.trim_end_matches(['=', ':', '[', ' ', '\'', '"']);
    let text = text.rsplit_once(" - ").map_or(text, |(_, name)| name);
    // The parentheses of a unit are a part of the name.
    let name = match text.strip_suffix(')') {
        Some(inner) => inner.rfind('(').map_or(inner, |open| &inner[..open]),
        None => text,
    };
    let separators = [
        '|', ',', ';', '[', ']', '(', ')', '<', '>', '{', '\t', ':', '=', '•',
    ];
    let start = name.rfind(separators).map_or(0, |at| {
        at + name[at..].chars().next().map_or(1, char::len_utf8)
    });
    let name = text[start..].trim_start_matches(['%', '/', '-', '.', ' ', '\'', '"']);
    name.rsplit_once("  ").map_or(name, |(_, name)| name)
}

/// The length of the number that a text begins with, 0 if it begins with none: `-1.5e-05`, `1,234`, `nan`, `Infinity`.
fn number_length(bytes: &[u8]) -> usize {
    let sign = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if let Some(b'n' | b'N' | b'i' | b'I') = bytes.get(sign) {
        let is_here = |word: &&[u8]| {
            let found = bytes.get(sign..sign + word.len());
            found.is_some_and(|found| found.eq_ignore_ascii_case(word))
                && !bytes.get(sign + word.len()).is_some_and(is_word)
        };
        let words: [&[u8]; 3] = [b"nan", b"inf", b"infinity"];
        return words
            .iter()
            .find(|word| is_here(word))
            .map_or(0, |word| sign + word.len());
    }
    let has_digit = is_digit(sign + usize::from(bytes.get(sign) == Some(&b'.')));
    if !has_digit {
        return 0;
    }
    let is_group = |at: usize| (1..4).all(|digit| is_digit(at + digit)) && !is_digit(at + 4);
    let (mut end, mut has_point) = (sign, false);
    while let Some(byte) = bytes.get(end) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        end = match byte {
            b'0'..=b'9' => end + 1,
            b'.' if !has_point && !bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic) => {
                has_point = true;
                end + 1
            }
            b',' if !has_point && is_group(end) => end + 4,
            b'e' | b'E' if is_digit(exponent) => {
                let digits = bytes.get(exponent..).unwrap_or_default().iter();
                return exponent + digits.take_while(|byte| byte.is_ascii_digit()).count();
            }
            _ => break,
        };
    }
    end
}

/// Parses the number that a text begins with, however Python or a person wrote it: `'5.943'`, `np.float64(0.5)`,
/// `[5e-05, 1e-05]`, `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    let mut text = text.trim_start().trim_start_matches(['\'', '"', '[']);
    for wrapper in ["np.float64(", "np.float32(", "np.int64(", "tensor("] {
        text = text.strip_prefix(wrapper).unwrap_or(text);
    }
    let (digits, rest) = text.split_at(number_length(text.as_bytes()));
    let number: f64 = match digits.parse() {
        Ok(number) => number,
        Err(_) => digits.replace(',', "").parse().ok()?,
    };
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
        let clock_end = rest.find(|c: char| !c.is_ascii_digit() && c != ':');
        let (digits, _) = rest.split_at(clock_end.unwrap_or(rest.len()));
        if digits.contains(':') {
            return clock(digits).map(|clock| seconds.unwrap_or(0.0) + clock);
        }
        let Some((count, unit)) = number(rest) else {
            return seconds;
        };
        let unit = unit.trim_start();
        let factor = match unit.as_bytes().first() {
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
