//! Lines that come again at once, and states of one progress bar on lines of their own.

use std::ops::Range;

use memchr::{memchr_iter, memrchr};

/// A line of the folded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// What it says.
    pub text: &'a str,
    /// How often it was repeated at once; 0 for nearly every line.
    pub repeated: u64,
    /// Where it begins, in bytes from the beginning of what was folded.
    pub start: u64,
}

/// Folded lines, put together.
#[derive(Debug, Default)]
pub struct Text {
    /// The lines, each with its end.
    pub text: String,
    /// How many that is.
    pub lines: usize,
}

impl Text {
    /// Adds a line, and how often it was repeated on a line of its own. One that came twice is simply given twice.
    pub fn add(&mut self, line: Line<'_>) {
        let mut add = |text: &str| {
            self.text.push_str(text);
            self.text.push('\n');
            self.lines += 1;
        };
        add(line.text);
        match line.repeated {
            0 => {}
            1 => add(line.text),
            times => add(&format!("… repeated {times} times")),
        }
    }
}

/// The newest line that has left the rows, held back to see whether it is repeated.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub text: String,
    repeated: u64,
    start: u64,
    any: bool,
    bar: Option<Bar>,
}

/// What a line says that is the state of a progress bar.
#[derive(Debug, Clone)]
struct Bar {
    /// Where its label ends.
    label: usize,
    /// Where its total stands.
    total: Range<usize>,
    percent: u32,
}

impl Held {
    /// Takes the next line, and gives `sink` the one before unless the two are one.
    pub fn take(&mut self, text: &str, start: u64, sink: &mut impl FnMut(Line<'_>)) {
        if self.any && self.text == text {
            if !text.is_empty() && self.bar.is_none() {
                self.repeated += 1;
            }
            return;
        }
        let bar = Bar::of(text);
        if !(self.any
            && bar
                .as_ref()
                .is_some_and(|bar| self.is_earlier_state(text, bar)))
        {
            self.give(sink);
            self.start = start;
        }
        self.text.clear();
        self.text.push_str(text);
        self.repeated = 0;
        self.any = true;
        self.bar = bar;
    }

    /// Whether what is held is an earlier state of the bar that `text` shows: the same label, the same total, and not at
    /// its end yet, since after that another bar begins.
    fn is_earlier_state(&self, text: &str, bar: &Bar) -> bool {
        self.bar.as_ref().is_some_and(|held| {
            held.percent < 100
                && held.percent <= bar.percent
                && held.label == bar.label
                && self.text.get(..held.label) == text.get(..bar.label)
                && self.text.get(held.total.clone()) == text.get(bar.total.clone())
        })
    }

    /// Gives `sink` what is held.
    pub fn give(&mut self, sink: &mut impl FnMut(Line<'_>)) {
        if self.any {
            sink(Line {
                text: &self.text,
                repeated: self.repeated,
                start: self.start,
            });
            self.any = false;
        }
    }
}

impl Bar {
    /// Reads `<label> 12%|███  | 12/100 [00:01<00:07, 9.51it/s]`, as tqdm writes it.
    fn of(line: &str) -> Option<Self> {
        let bytes = line.as_bytes();
        if bytes.last() != Some(&b']') {
            return None;
        }
        let percent = memchr_iter(b'%', bytes).find(|at| bytes.get(at + 1) == Some(&b'|'))?;
        let open = memrchr(b'[', bytes)?;
        let slash = memrchr(b'/', bytes.get(percent..open)?)? + percent;
        let label = bytes
            .get(..percent)?
            .iter()
            .rposition(|byte| !matches!(byte, b' ' | b'0'..=b'9' | b'.'))
            .map_or(0, |last| last + 1);
        let number = bytes.get(label..percent)?;
        Some(Self {
            label,
            total: slash..open,
            percent: number.iter().filter(|byte| byte.is_ascii_digit()).fold(
                0,
                |number: u32, digit| {
                    number
                        .saturating_mul(10)
                        .saturating_add(u32::from(digit - b'0'))
                },
            ),
        })
    }
}
