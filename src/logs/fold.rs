//! Readable text from the raw bytes of a log: what a terminal would show in the end, line by line.
//!
//! - A carriage return starts its line anew, so of a progress bar only the last state is left. Bars that move the cursor up
//!   (`ESC [ A`, as nested bars of tqdm do) rewrite the lines above, as far as [`REACH`] lines back.
//! - Terminal escapes and other control characters are gone; a backspace takes a character with it. Tabs stay.
//! - What is no UTF-8, and runs of NUL, become `U+FFFD`.
//! - A line that comes again at once is given once, with how often it was repeated. Only exact repeats count: lines that
//!   differ in a number may differ in what matters. The one exception are states of one progress bar on lines of their
//!   own, as loggers and line-wise transports leave them: of those the last is kept, as on a terminal.
//! - Blanks at the ends of lines are gone, and so is every blank line after a blank line.
//!
//! It takes time linear in its input and, whatever that is, a bounded amount of memory: of a line longer than
//! [`MAX_LINE`] the end is kept.

mod escapes;
mod repeats;
mod text;

use std::collections::VecDeque;

use memchr::{memchr, memrchr_iter};

use escapes::{Escape, after_colour, may_move_up};
use repeats::Held;
pub use repeats::{Line, Text};
pub(crate) use text::lossy;
use text::text_of;
pub(super) use text::{NEAR, has_cut_line, whole_words};

/// The longest line that is kept whole, in bytes. Of a longer one the end is kept.
pub const MAX_LINE: usize = 16 * 1024;

/// How many lines back a cursor movement reaches; tqdm uses no more than 20 where there is no terminal.
pub const REACH: usize = 32;

/// Folds a log, piece by piece: the pieces may be cut anywhere.
#[derive(Debug, Default)]
pub struct Folder {
    /// The lines that a cursor movement still reaches, the newest last. Never empty once there was input.
    rows: VecDeque<Row>,
    /// The row the cursor is in.
    at: usize,
    /// The next text replaces the row: there was a carriage return, or the cursor came back to it.
    anew: bool,
    escape: Escape,
    held: Held,
    /// How many bytes were pushed before those in hand.
    pushed: u64,
    /// Lines are only split and made valid text.
    raw: bool,
    max_line: usize,
}

#[derive(Debug, Default)]
struct Row {
    bytes: Vec<u8>,
    /// How many bytes before those were left out.
    left_out: u64,
    /// Where the row was begun.
    start: u64,
}

impl Folder {
    /// A folder that folds.
    pub fn new() -> Self {
        Self {
            max_line: MAX_LINE,
            ..Self::default()
        }
    }

    /// A folder that leaves lines as they are, but makes them valid text and keeps the end of one longer than
    /// `max_line`.
    pub fn raw(max_line: usize) -> Self {
        Self {
            raw: true,
            max_line: max_line.max(1),
            ..Self::default()
        }
    }

    /// Takes the next piece of the log and gives `sink` the lines that nothing can change any more.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Line<'_>)) {
        if bytes.is_empty() {
            return;
        }
        if self.rows.is_empty() {
            self.rows.push_back(Row::default());
        }
        let mut rest = bytes;
        if !self.raw {
            rest = self.push_unreachable(bytes, sink);
        }
        let reach = if self.raw { 1 } else { REACH };
        while !rest.is_empty() {
            rest = self.step(rest, bytes.len(), reach, sink);
        }
        self.pushed += bytes.len() as u64;
    }

    /// Takes the next thing from `rest`, which is the end of a piece of `length` bytes, and gives back what follows.
    fn step<'a>(
        &mut self,
        rest: &'a [u8],
        length: usize,
        reach: usize,
        sink: &mut impl FnMut(Line<'_>),
    ) -> &'a [u8] {
        if self.escape != Escape::None {
            let (rest, control) = self.escape.take(rest);
            if let Some((what, number)) = control {
                self.control(what, number);
            }
            return rest;
        }
        let after = match self.raw {
            true => {
                let (text, after) = rest.split_at(memchr(b'\n', rest).unwrap_or(rest.len()));
                self.text(text);
                after
            }
            false => self.text_and_colours(rest),
        };
        if after.len() < rest.len() {
            return after;
        }
        let Some((first, after)) = rest.split_first() else {
            return rest;
        };
        match first {
            b'\n' => self.new_line(self.pushed + (length - after.len()) as u64, reach, sink),
            b'\r' => self.anew = true,
            0x1b => self.escape = Escape::Start,
            0x08 => self.back(),
            0 => self.nul(),
            _ => {}
        }
        after
    }

    /// Takes from `bytes` the plain lines at the beginning that no cursor movement in the rest can reach, and gives back
    /// that rest. It is what makes ordinary text fast: such lines need not be copied.
    fn push_unreachable<'a>(
        &mut self,
        bytes: &'a [u8],
        sink: &mut impl FnMut(Line<'_>),
    ) -> &'a [u8] {
        let mut rest = bytes;
        if self.escape != Escape::None || self.at + 1 < self.rows.len() || may_move_up(bytes) {
            return rest;
        }
        let Some(end) = memrchr_iter(b'\n', bytes).nth(REACH) else {
            return rest;
        };
        self.at = 0;
        while self.rows.len() > 1 {
            if let Some(row) = self.rows.pop_front() {
                self.row(&row, sink);
            }
        }
        while bytes.len() - rest.len() <= end {
            let fresh = self.rows.front().is_some_and(Row::is_fresh);
            let plain = plain_length(rest);
            if fresh && rest.get(plain) == Some(&b'\n') {
                let start = self.pushed + (bytes.len() - rest.len()) as u64;
                let (line, after) = rest.split_at(plain);
                rest = after.get(1..).unwrap_or_default();
                self.anew = false;
                self.bytes(line, start, 0, sink);
                if let Some(row) = self.rows.front_mut() {
                    row.start = start + plain as u64 + 1;
                }
                continue;
            }
            rest = self.step(rest, bytes.len(), 1, sink);
        }
        rest
    }

    /// Says that `bytes` bytes of the current line came before and are not given.
    pub fn left_out(&mut self, bytes: u64) {
        if self.rows.is_empty() {
            self.rows.push_back(Row::default());
        }
        if let Some(row) = self.rows.get_mut(self.at) {
            row.left_out += bytes;
        }
    }

    /// How many bytes of text are still held back, line ends included.
    pub fn pending(&self) -> usize {
        let held = self.held.text.len() + 1;
        let rows = self.rows.iter().filter(|row| !row.bytes.is_empty());
        held + rows.map(|row| row.bytes.len() + 1).sum::<usize>()
    }

    /// Gives the lines that are left. Blank lines at the end are not.
    pub fn finish(mut self, sink: &mut impl FnMut(Line<'_>)) {
        self.flush(sink);
        self.held.give(sink);
    }

    /// Gives the lines that are left, except the one that has not ended: that is returned.
    pub fn finish_holding(mut self, sink: &mut impl FnMut(Line<'_>)) -> Option<String> {
        let unfinished = self.take_unfinished();
        self.flush(sink);
        self.held.give(sink);
        unfinished
    }

    /// Takes out the last row with text, if no line end stood after it.
    fn take_unfinished(&mut self) -> Option<String> {
        let row = self.rows.pop_back()?;
        let text = text_of(&row.bytes, row.left_out, self.raw, self.max_line);
        (!text.is_empty()).then(|| text.into_owned())
    }

    fn flush(&mut self, sink: &mut impl FnMut(Line<'_>)) {
        if self.raw {
            // The one row there is: nothing, if the log ended with a line end.
            self.rows.retain(|row| !row.bytes.is_empty());
        }
        while !self.raw && self.rows.back().is_some_and(Row::is_blank) {
            self.rows.pop_back();
        }
        while let Some(row) = self.rows.pop_front() {
            self.row(&row, sink);
        }
    }

    /// Takes the text at the beginning of `rest`, passing over the colours in it, and gives back what follows.
    fn text_and_colours<'a>(&mut self, mut rest: &'a [u8]) -> &'a [u8] {
        let Some(row) = self.rows.get_mut(self.at) else {
            return rest;
        };
        loop {
            let (text, after) = rest.split_at(plain_length(rest));
            if !text.is_empty() {
                if std::mem::take(&mut self.anew) {
                    row.clear();
                }
                row.append(text, self.max_line);
            }
            match after
                .split_first()
                .map(|(first, next)| (*first, after_colour(next)))
            {
                Some((0x1b, Some(next))) => rest = next,
                _ => return after,
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        let max = self.max_line;
        let Some(row) = self.rows.get_mut(self.at).filter(|_| !text.is_empty()) else {
            return;
        };
        if std::mem::take(&mut self.anew) {
            row.clear();
        }
        row.append(text, max);
    }

    fn new_line(&mut self, start: u64, reach: usize, sink: &mut impl FnMut(Line<'_>)) {
        self.anew = false;
        if self.at + 1 < self.rows.len() {
            // Back down onto a line that is there: what comes replaces it, and if nothing comes it stays.
            self.at += 1;
            self.anew = true;
            return;
        }
        if self.rows.len() < reach {
            self.rows.push_back(Row {
                start,
                ..Row::default()
            });
            self.at += 1;
        } else if let Some(mut row) = self.rows.pop_front() {
            self.row(&row, sink);
            row.clear();
            row.start = start;
            self.rows.push_back(row);
        }
    }

    fn back(&mut self) {
        if let Some(row) = self.rows.get_mut(self.at).filter(|_| !self.anew) {
            while row.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
        }
    }

    /// One mark for any number of them: a log that was grown without being written has millions.
    fn nul(&mut self) {
        const MARK: &[u8] = "\u{fffd}".as_bytes();
        let marked = !self.anew
            && self
                .rows
                .get(self.at)
                .is_some_and(|row| row.bytes.ends_with(MARK));
        if !marked {
            self.text(MARK);
        }
    }

    /// Those that say which text is replaced. All others, colours above all, mean nothing here.
    fn control(&mut self, what: u8, number: u32) {
        let rows = usize::try_from(number.max(1)).unwrap_or(REACH);
        match what {
            b'A' | b'F' => {
                self.at = self.at.saturating_sub(rows);
                self.anew = true;
            }
            b'B' | b'E' => {
                self.at = self
                    .at
                    .saturating_add(rows)
                    .min(self.rows.len().saturating_sub(1));
                self.anew = true;
            }
            b'G' if number <= 1 => self.anew = true,
            // Erase the line: from the cursor, which tells only at its beginning; else up to the cursor, or all of it.
            b'K' if number > 0 || self.anew => {
                if let Some(row) = self.rows.get_mut(self.at) {
                    row.clear();
                }
            }
            // Erase what is below.
            b'J' if number == 0 && self.anew => {
                for row in self.rows.iter_mut().skip(self.at) {
                    row.clear();
                }
            }
            _ => {}
        }
    }

    /// A line that no cursor movement reaches any more.
    fn row(&mut self, row: &Row, sink: &mut impl FnMut(Line<'_>)) {
        self.bytes(&row.bytes, row.start, row.left_out, sink);
    }

    fn bytes(&mut self, bytes: &[u8], start: u64, left_out: u64, sink: &mut impl FnMut(Line<'_>)) {
        let text = text_of(bytes, left_out, self.raw, self.max_line);
        self.line(&text, start, sink);
    }

    fn line(&mut self, text: &str, start: u64, sink: &mut impl FnMut(Line<'_>)) {
        if self.raw {
            sink(Line {
                text,
                repeated: 0,
                start,
            });
            return;
        }
        self.held.take(text, start, sink);
    }
}

impl Row {
    fn clear(&mut self) {
        self.bytes.clear();
        self.left_out = 0;
    }

    fn is_fresh(&self) -> bool {
        self.bytes.is_empty() && self.left_out == 0
    }

    fn is_blank(&self) -> bool {
        self.bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'))
    }

    /// Appends `text`. At most twice `max` bytes are held, and the front is cut seldom enough for this to stay linear.
    fn append(&mut self, text: &[u8], max: usize) {
        let length = self.bytes.len() + text.len();
        if length > 2 * max {
            let excess = length - max;
            self.left_out += excess as u64;
            self.bytes.drain(..excess.min(self.bytes.len()));
            let from = text.len().saturating_sub(max);
            self.bytes
                .extend_from_slice(text.get(from..).unwrap_or_default());
        } else {
            self.bytes.extend_from_slice(text);
        }
    }
}

/// How many bytes at the beginning of `bytes` are neither control characters nor line ends.
fn plain_length(bytes: &[u8]) -> usize {
    const CHUNK: usize = 32;
    let is_control = |byte: u8| ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f);
    let mut plain = 0;
    // Without branches inside, so that it becomes vector instructions.
    for chunk in bytes.chunks_exact(CHUNK) {
        if chunk
            .iter()
            .fold(false, |any, byte| any | is_control(*byte))
        {
            break;
        }
        plain += CHUNK;
    }
    let (words, rest) = bytes.get(plain..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        let controls = controls(u64::from_le_bytes(*word));
        if controls != 0 {
            return plain + controls.trailing_zeros() as usize / 8;
        }
        plain += 8;
    }
    plain
        + rest
            .iter()
            .position(|byte| is_control(*byte))
            .unwrap_or(rest.len())
}

/// The highest bit of each byte of `word` that is a control character and no tab.
fn controls(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // No byte carries over into the next, so the others are untouched.
    let below = |word: u64, limit: u64| {
        !(((word & (EACH * 0x7f)) + EACH * (0x80 - limit)) | word) & (EACH * 0x80)
    };
    let is = |byte: u64| below(word ^ (EACH * byte), 1);
    (below(word, 0x20) & !is(0x09)) | is(0x7f)
}

/// `bytes`, folded.
pub fn fold(bytes: &[u8]) -> String {
    let mut text = Text::default();
    let mut folder = Folder::new();
    folder.push(bytes, &mut |line| text.add(line));
    folder.finish(&mut |line| text.add(line));
    text.text
}
