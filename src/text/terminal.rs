//! A terminal as far as it decides what is left to read: which text is written over, and what is no text.

use std::collections::VecDeque;
use std::sync::LazyLock;

use memchr::{memchr, memchr2, memrchr};
use regex::bytes::Regex;
use vte::{Params, Parser, Perform};

use super::{HIDDEN, MASK};

/// The lines that the cursor can go up: nested bars of tqdm need up to 20 where there is no terminal.
const MAX_CURSOR_UP: usize = 32;

/// A line as the terminal shows it.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub text: String,
    /// Offset of the line's first byte in the input.
    pub start: u64,
}

/// Takes lines of output, and gives back those that the cursor can no longer reach.
#[derive(Default)]
pub(crate) struct Terminal {
    /// The lines within reach of the cursor, the newest last.
    pub(crate) rows: VecDeque<Row>,
    /// The row of the cursor; `rows.len()` before anything is written into a new row.
    at: usize,
    /// The next text replaces the row.
    at_start: bool,
}

impl Terminal {
    /// Writes a line that begins at `start`; `line` has no line end.
    pub(crate) fn write(&mut self, line: &[u8], start: u64) -> Option<Row> {
        let is_new = self.at == self.rows.len();
        let plain = COLOURS
            .as_ref()
            .map(|colours| colours.replace_all(line, b"".as_slice()));
        let plain = plain.filter(|plain| memchr(0x1b, plain).is_none());
        let line = plain.as_deref().unwrap_or(line);
        // Nearly all lines are plain, or a bar of which only the last state counts: no parser is needed.
        let end = line.iter().rposition(|byte| *byte != b'\r');
        let states = &line[..end.map_or(0, |at| at + 1)];
        let from = memrchr(b'\r', states).map_or(0, |at| at + 1);
        let state = &states[from..];
        if is_new && is_plain(state) && memchr2(0x1b, 0x08, line).is_none() {
            let text = String::from_utf8_lossy(state).into_owned();
            self.rows.push_back(Row { text, start });
        } else {
            if is_new {
                let text = String::new();
                self.rows.push_back(Row { text, start });
            }
            // The parser takes quadratic time for bytes that are no text.
            Parser::new().advance(self, String::from_utf8_lossy(line).as_bytes());
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
        self.rows.range_mut(rows).for_each(|row| row.text.clear());
    }
}

impl Perform for Terminal {
    fn print(&mut self, c: char) {
        if c == '\u{7f}' {
            return;
        }
        if std::mem::take(&mut self.at_start) {
            self.clear(self.at..self.at + 1);
        }
        if let Some(row) = self.rows.get_mut(self.at) {
            row.text.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        let row = self.rows.get_mut(self.at);
        match byte {
            b'\r' => self.at_start = true,
            b'\t' => self.print('\t'),
            0x08 if !self.at_start => drop(row.and_then(|row| row.text.pop())),
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

/// The escapes of colours: most of those there are, and they mean nothing here.
static COLOURS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\x1b\[[0-9;]*m").ok());

/// Tells if a line has no control characters. 0xC2 leads those above ASCII, and little else.
fn is_plain(line: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let is_plain = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && !matches!(byte, 0x7f | 0xc2));
    let (words, rest) = line.as_chunks();
    // Eight at once: the high bit of a byte is set in one of these, unless it is from 0x20 to 0x7e.
    let is_printable = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        (word | word.wrapping_sub(EACH * 0x20) | word.wrapping_add(EACH)) & (EACH * 0x80) == 0
    };
    let mut words = words.iter().filter(|word| !is_printable(word));
    words.all(|word| word.iter().all(is_plain)) && rest.iter().all(is_plain)
}
