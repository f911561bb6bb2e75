//! A terminal as far as it decides what is left to read: which text is written over, and what is no text.

use std::borrow::Cow;
use std::collections::VecDeque;

use memchr::{memchr, memrchr};
use vte::{Params, Parser, Perform};

use super::{HIDDEN, MASK};

/// The lines that the cursor can go up: nested bars of tqdm need up to 20 where there is no terminal.
const MAX_CURSOR_UP: usize = 32;

/// Cancels an escape sequence that its line left open, as a terminal does: it must not swallow the next line.
const CANCEL: &[u8] = b"\x18";

/// A line as the terminal shows it.
#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    pub text: Cow<'a, str>,
    /// Offset of the line's first byte in the input.
    pub start: u64,
    /// The bytes at the line's beginning that were not given to the terminal.
    pub left_out: u64,
}

/// Takes lines of output and gives those to `sink` that the cursor can no longer reach.
pub(crate) struct Terminal<'a, F> {
    parser: Parser,
    screen: Screen<'a>,
    sink: F,
}

#[derive(Default)]
struct Screen<'a> {
    /// The lines within reach of the cursor, the newest last.
    rows: VecDeque<Row<'a>>,
    /// The row of the cursor; `rows.len()` before anything is written into a new row.
    at: usize,
    /// The next text replaces the row.
    at_start: bool,
}

impl<'a, F: FnMut(Row<'a>)> Terminal<'a, F> {
    pub(crate) fn new(sink: F) -> Self {
        Self {
            parser: Parser::new(),
            screen: Screen::default(),
            sink,
        }
    }

    /// Writes a line that begins at `start`; `line` has no line end, and lacks its first `left_out` bytes.
    pub(crate) fn write(&mut self, line: &'a [u8], start: u64, left_out: u64) {
        let screen = &mut self.screen;
        let is_new = screen.at == screen.rows.len();
        if is_new {
            screen.rows.push_back(Row {
                start,
                left_out,
                ..Row::default()
            });
            if screen.rows.len() > MAX_CURSOR_UP
                && let Some(row) = screen.rows.pop_front()
            {
                screen.at -= 1;
                (self.sink)(row);
            }
        }
        // Nearly all lines are plain, or a bar of which only the last state counts: these are not copied.
        let plain = if is_plain(line) {
            Some(line)
        } else {
            last_state(line)
        };
        if let Some(plain) = plain.filter(|_| is_new)
            && let Some(row) = screen.rows.get_mut(screen.at)
        {
            row.text = lossy(plain);
            if plain.len() < line.len() {
                row.left_out = 0;
            }
        } else {
            // The parser takes quadratic time for bytes that are no text.
            self.parser.advance(screen, lossy(line).as_bytes());
            self.parser.advance(screen, CANCEL);
        }
    }

    /// Ends the line.
    pub(crate) fn end_line(&mut self) {
        self.screen.at += 1;
        // Down onto a row that is there: text replaces it, and without text it stays.
        self.screen.at_start = self.screen.at < self.screen.rows.len();
    }

    /// Takes the last row out, so that `finish` does not give it.
    pub(crate) fn take_last(&mut self) -> Option<Row<'a>> {
        self.screen.rows.pop_back()
    }

    /// Gives the rows that are left.
    pub(crate) fn finish(mut self) {
        self.screen.rows.into_iter().for_each(&mut self.sink);
    }
}

impl Screen<'_> {
    fn clear(&mut self, rows: std::ops::Range<usize>) {
        for row in self.rows.range_mut(rows) {
            row.text = Cow::Borrowed("");
            row.left_out = 0;
        }
    }

    fn clear_row(&mut self) {
        self.clear(self.at..self.at + 1);
    }
}

impl Perform for Screen<'_> {
    fn print(&mut self, c: char) {
        if c == '\u{7f}' {
            return;
        }
        if std::mem::take(&mut self.at_start) {
            self.clear_row();
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
            0x08 if !self.at_start => {
                row.and_then(|row| row.text.to_mut().pop());
            }
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
            'A' | 'F' => self.at = self.at.saturating_sub(number.max(1)),
            'B' | 'E' => self.at = (self.at + number.max(1)).min(last),
            // Erase the line: from the cursor, which changes something only at its beginning; else up to it, or all of it.
            'K' if number > 0 || self.at_start => self.clear_row(),
            'J' if number == 0 && self.at_start => self.clear(self.at..last + 1),
            _ => {}
        }
        if matches!(action, 'A' | 'B' | 'E' | 'F') || action == 'G' && number <= 1 {
            self.at_start = true;
        }
    }
}

/// Says whether a line has no control characters. 0xC2 leads those above ASCII, and little else.
fn is_plain(line: &[u8]) -> bool {
    let is_control = |byte: u8| ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f) | (byte == 0xc2);
    // Without branches inside, so that it becomes vector instructions.
    line.chunks(256).all(|chunk| {
        !chunk
            .iter()
            .fold(false, |any, byte| any | is_control(*byte))
    })
}

/// The text that is left of a line which only carriage returns divide.
fn last_state(line: &[u8]) -> Option<&[u8]> {
    let mut end = line.len();
    while let Some(at) = memrchr(b'\r', line.get(..end)?) {
        let state = line.get(at + 1..end)?;
        if !state.is_empty() {
            return (is_plain(state) && memchr(0x1b, line).is_none()).then_some(state);
        }
        end = at;
    }
    line.get(..end).filter(|state| is_plain(state))
}

/// Reads bytes as text and replaces what is none. Checks them as a whole first, which is several times as fast.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}
