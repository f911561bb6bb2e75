//! A line's bytes as text, and where a line may be cut.

use std::borrow::Cow;

use memchr::memchr;

/// A line as text: valid, without what cannot be shown, no longer than `max`.
pub(super) fn text_of(bytes: &[u8], left_out: u64, raw: bool, max: usize) -> Cow<'_, str> {
    let bytes = if raw { bytes } else { trim_end(bytes) };
    let excess = bytes.len().saturating_sub(max);
    let left_out = left_out + excess as u64;
    let mut text = if left_out > 0 {
        let end = past_half_a_secret(bytes.get(excess..).unwrap_or_default());
        Cow::Owned(format!(
            "[… {left_out}{CUT}{}",
            String::from_utf8_lossy(end)
        ))
    } else {
        lossy(bytes)
    };
    if raw && text.contains(is_led_by) {
        text = Cow::Owned(text.replace(is_led_by, "\u{fffd}"));
    } else if !raw && memchr(0xc2, text.as_bytes()).is_some() && text.contains(is_c1) {
        text = Cow::Owned(text.chars().filter(|c| !is_c1(*c)).collect());
    }
    text
}

/// `bytes` as text, what is none replaced. Checked as a whole first, which is several times as fast.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// What stands in a line whose beginning was left out, after how much that is.
const CUT: &str = " bytes of this line left out] ";

/// Whether the beginning of a line of `text` was left out.
pub(in crate::logs) fn has_cut_line(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), CUT.as_bytes()).is_some()
}

/// What leads a terminal, and is not shown even raw: a carriage return is, since it tells the states of a line apart.
fn is_led_by(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r')
}

/// The control characters above ASCII.
fn is_c1(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}')
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let length = bytes
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'))
        .map_or(0, |last| last + 1);
    bytes.get(..length).unwrap_or_default()
}

/// `bytes`, cut at the front, from the next word on if that is near: half a word misleads.
pub(in crate::logs) fn whole_words(bytes: &[u8]) -> &[u8] {
    let near = bytes.get(..NEAR.min(bytes.len())).unwrap_or_default();
    let from = near
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .or_else(|| near.iter().position(|byte| byte & 0xc0 != 0x80))
        .unwrap_or(0);
    bytes.get(from..).unwrap_or_default()
}

/// The same, for what was cut before secrets are hidden in it: half a secret is not known as one, so that what can be of
/// one goes, too.
fn past_half_a_secret(bytes: &[u8]) -> &[u8] {
    let words = whole_words(bytes);
    match words.first() {
        Some(b' ' | b'\t') => words,
        _ => whole_words(bytes.get(NEAR..).unwrap_or_default()),
    }
}

/// How far from a cut a blank is looked for: words of a text, and secrets, are no longer.
pub(in crate::logs) const NEAR: usize = 512;
