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

/// Gives `each` every name in `line` and the text from its value on. A name is the text before a number, back to the
/// number before it or to a separator.
pub(super) fn pairs<'a>(line: &'a str, mut each: impl FnMut(&'a str, &'a str)) {
    let bytes = line.as_bytes();
    let is_word = |at: usize| {
        let byte = bytes.get(at).copied().unwrap_or_default();
        byte.is_ascii_alphanumeric() || byte == b'_'
    };
    let (mut at, mut name_start) = (0, 0);
    while at < bytes.len() {
        let start = at;
        let digits = start + usize::from(matches!(bytes[at], b'-' | b'+'));
        let in_word = match bytes.get(..start).unwrap_or_default() {
            [.., before, b'-' | b'+'] => before.is_ascii_alphanumeric(),
            [.., before] => is_word(start - 1) || matches!(before, b'(' | b'.'),
            [] => false,
        };
        if in_word || !bytes.get(digits).is_some_and(u8::is_ascii_digit) {
            at += 1;
            if !in_word
                && is_non_finite(bytes, digits)
                && let Some(name) = line.get(name_start..start)
                && name.trim_end().ends_with([':', '=', 's', 'm'])
            {
                each(clean(name), &line[start..]);
                at = digits + 3;
                name_start = at;
            }
            continue;
        }
        at = digits;
        while is_word(at) && !bytes[at].is_ascii_alphabetic()
            || matches!(bytes.get(at), Some(b'.' | b','))
                && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
            || matches!(bytes.get(at..at + 2), Some([b'e' | b'E', b'-' | b'+']))
        {
            at += 1 + usize::from(matches!(bytes[at], b'e' | b'E'));
        }
        // `epoch=0/micro_step=34`: the number is a part of the next name.
        let in_path = bytes.get(at) == Some(&b'/') && !bytes.get(at + 1).is_some_and(is_count);
        if let Some(name) = line.get(name_start..start)
            && !in_path
        {
            each(clean(name), &line[start..]);
            // A unit may be attached: `8.1K`, `23ms`.
            let is_unit = |byte: &&u8| byte.is_ascii_alphabetic() || **byte == b'%';
            let rest = bytes.get(at..).unwrap_or_default().iter();
            at += rest.take_while(is_unit).count();
            name_start = at;
        }
    }
}

fn is_count(byte: &u8) -> bool {
    byte.is_ascii_digit() || *byte == b' '
}

fn is_non_finite(bytes: &[u8], at: usize) -> bool {
    bytes
        .get(at..at + 3)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
        && !bytes.get(at + 3).is_some_and(u8::is_ascii_alphanumeric)
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
        '|', ',', ';', '[', ']', '(', ')', '<', '>', '{', '\'', '"', '\t', ':', '=',
    ];
    let start = name.rfind(separators).map_or(0, |at| at + 1);
    let name = text[start..].trim_start_matches(['%', '/']).trim_start();
    name.rsplit_once("  ").map_or(name, |(_, name)| name)
}

/// Parses the number that a text begins with, however Python or a person wrote it: `'5.943'`, `np.float64(0.5)`,
/// `[5e-05, 1e-05]`, `1,234`, `8.1K`, `nan`. Gives the rest too.
pub(super) fn number(text: &str) -> Option<(f64, &str)> {
    // Nearly every number is a plain one.
    if let Ok(number) = text.parse() {
        return Some((number, ""));
    }
    let mut text = text.trim_start().trim_start_matches(['\'', '"', '[']);
    for wrapper in ["np.float64(", "np.float32(", "np.int64(", "tensor("] {
        text = text.strip_prefix(wrapper).unwrap_or(text);
    }
    let bytes = text.as_bytes();
    let mut end = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is_group = |at: usize| (1..4).all(|digit| is_digit(at + digit)) && !is_digit(at + 4);
    if let Some(word) = bytes.get(end..end + 3)
        && (word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
    {
        return Some((text[..end + 3].parse().ok()?, &text[end + 3..]));
    }
    while let Some(byte) = bytes.get(end) {
        let exponent = match bytes.get(end + 1) {
            Some(b'-' | b'+') => end + 2,
            _ => end + 1,
        };
        match byte {
            b'0'..=b'9' | b'.' => end += 1,
            b',' if end > 0 && is_group(end) => end += 4,
            b'e' | b'E' if end > 0 && is_digit(exponent) => end = exponent,
            _ => break,
        }
    }
    let (digits, rest) = text.split_at(end);
    let number: f64 = if digits.contains(',') {
        digits.replace(',', "").parse().ok()?
    } else {
        digits.parse().ok()?
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

/// Parses `1:02:03`, `39m 0s`, `12.5s` as seconds.
pub(super) fn duration(text: &str) -> Option<f64> {
    let text = text.trim().trim_matches(['\'', '"']);
    let clock_end = text.find(|c: char| !c.is_ascii_digit() && c != ':');
    let (digits, _) = text.split_at(clock_end.unwrap_or(text.len()));
    if digits.contains(':') {
        return clock(digits);
    }
    let (mut seconds, mut rest) = (None, text);
    while let Some((count, unit)) = number(rest.trim_start()) {
        let factor = match unit.trim_start().as_bytes().first() {
            Some(b'd') => 86_400.0,
            Some(b'h') => 3600.0,
            Some(b'm') => 60.0,
            Some(b's') => 1.0,
            _ => break,
        };
        seconds = Some(seconds.unwrap_or(0.0) + count * factor);
        rest = unit
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_alphabetic());
    }
    seconds
}
