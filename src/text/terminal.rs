//! A terminal as far as it decides what is left to read: which text is written over, and what is no text.

use std::borrow::Cow;
use std::collections::VecDeque;

use memchr::{memchr, memrchr};
use vte::{Params, Parser, Perform};

use super::{HIDDEN, MASK, lossy};

/// The lines that the cursor can go up: nested bars of tqdm need up to 20 where there is no terminal.
const MAX_CURSOR_UP: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub text: Cow<'a, str>,
    /// Offset of the line's first byte in the input.
    pub start: u64,
}

/// Takes lines of output, and gives back those that the cursor can no longer reach.
#[derive(Default)]
pub(crate) struct Terminal<'a> {
    /// The lines within reach of the cursor, the newest last.
    pub(crate) rows: VecDeque<Row<'a>>,
    /// The row of the cursor; `rows.len()` before anything is written into a new row.
    at: usize,
    /// The next text replaces the row.
    at_start: bool,
}

impl<'a> Terminal<'a> {
    /// Writes a line that begins at `start`; `line` has no line end.
    pub(crate) fn write(&mut self, line: &'a [u8], start: u64) -> Option<Row<'a>> {
        let is_new = self.at == self.rows.len();
        let plain = is_new.then(|| plain_text(line)).flatten();
        let is_plain = plain.is_some();
        if is_new {
            let text = plain.unwrap_or_default();
            self.rows.push_back(Row { text, start });
        }
        if !is_plain {
            // The parser takes quadratic time for bytes that are no text.
            Parser::new().advance(self, lossy(line).as_bytes());
        }
        if self.rows.len() <= MAX_CURSOR_UP {
            return None;
        }
        self.at -= 1;
        self.rows.pop_front()
    }

    pub(crate) fn end_line(&mut self) {
        self.at += 1;
        // Down onto a row that is there: text replaces it, and without text it stays.
        self.at_start = self.at < self.rows.len();
    }

    fn clear(&mut self, rows: std::ops::Range<usize>) {
        let rows = self.rows.range_mut(rows);
        rows.for_each(|row| row.text = Cow::default());
    }
}

impl Perform for Terminal<'_> {
    fn print(&mut self, c: char) {
        if c == '\u{7f}' {
            return;
        }
        if std::mem::take(&mut self.at_start) {
            self.clear(self.at..self.at + 1);
        }
        if let Some(row) = self.rows.get_mut(self.at) {
            row.text.to_mut().push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        let row = self.rows.get_mut(self.at);
        match byte {
            b'\r' => self.at_start = true,
            b'\t' => self.print('\t'),
            0x08 if !self.at_start => drop(row.and_then(|row| row.text.to_mut().pop())),
            MASK => HIDDEN.chars().for_each(|c| self.print(c)),
            // One mark for any number of them: a log that grew without being written has millions.
            0 if self.at_start || !row.is_some_and(|row| row.text.ends_with('\u{fffd}')) => {
                self.print('\u{fffd}');
            }
            _ => {}
        }
    }

    /// Obeys the sequences that decide which text is replaced. All others, colours above all, mean nothing here.
    fn csi_dispatch(&mut self, params: &Params, _: &[u8], _: bool, action: char) {
        let number = params.iter().next().and_then(|param| param.first());
        let number = number.map_or(0, |number| usize::from(*number));
        let last = self.rows.len().saturating_sub(1);
        match action {
            'A' | 'F' => {
                // A row more than the cursor reaches is about to leave.
                let top = self.rows.len().saturating_sub(MAX_CURSOR_UP);
                self.at = self.at.saturating_sub(number.max(1)).max(top);
            }
            'B' | 'E' => self.at = (self.at + number.max(1)).min(last),
            // Erase the line: from the cursor, which changes something only at its beginning; else up to it, or all of it.
            'K' if number > 0 || self.at_start => self.clear(self.at..self.at + 1),
            'J' if number == 0 && self.at_start => self.clear(self.at..last + 1),
            _ => {}
        }
        if matches!(action, 'A' | 'B' | 'E' | 'F') || action == 'G' && number <= 1 {
            self.at_start = true;
        }
    }
}

/// Returns the text of a line that needs no parser, as nearly all: without colours, and of the states of a bar the last.
fn plain_text(line: &[u8]) -> Option<Cow<'_, str>> {
    if is_plain(line) {
        return Some(lossy(line));
    }
    if memchr(0x1b, line).is_none() {
        return last_state(line);
    }
    let text = without_colours(str::from_utf8(line).ok()?)?;
    if is_plain(text.as_bytes()) {
        return Some(text.into());
    }
    last_state(text.as_bytes()).map(|state| state.into_owned().into())
}

fn last_state(line: &[u8]) -> Option<Cow<'_, str>> {
    let end = line.iter().rposition(|byte| *byte != b'\r');
    let states = &line[..end.map_or(0, |at| at + 1)];
    let state = memrchr(b'\r', states).map_or(states, |at| &states[at + 1..]);
    let is_last = is_plain(state) && memchr(0x08, line).is_none();
    is_last.then(|| lossy(state))
}

/// Removes the escapes of colours: most of those there are, and they mean nothing here. `None` where there are others.
pub(crate) fn without_colours(line: &str) -> Option<String> {
    let (mut text, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(escape) = memchr(0x1b, rest.as_bytes()) {
        text.push_str(&rest[..escape]);
        let number = rest[escape + 1..].strip_prefix('[')?;
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b';');
        let digits = number.bytes().take_while(is_digit);
        rest = number[digits.count()..].strip_prefix('m')?;
    }
    text.push_str(rest);
    Some(text)
}

/// Tells if a line has no control characters. 0xC2 leads those above ASCII, and little else.
fn is_plain(line: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let is_plain = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && !matches!(byte, 0x7f | 0xc2));
    let (words, rest) = line.as_chunks();
    // Eight at once: the high bit of a byte is set in one of these, unless it is from 0x20 to 0x7e.
    for bytes in words {
        let word = u64::from_ne_bytes(*bytes);
        let bits = word | word.wrapping_sub(EACH * 0x20) | word.wrapping_add(EACH);
        if bits & (EACH * 0x80) != 0 && !bytes.iter().all(is_plain) {
            return false;
        }
    }
    rest.iter().all(is_plain)
}
