//! The one parser of tqdm's progress bars.

use memchr::{memchr, memchr_iter, memmem, memrchr};

use super::grammar::{clock, number, whole};

/// A state of a progress bar, `label:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s, loss=0.12]`, or without a total
/// `label: 6it [00:01,  4.51it/s]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar<'a> {
    /// The text before the percentage, without its colon. Often empty.
    pub(crate) label: &'a str,
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
    /// The remaining time that tqdm expects, in seconds.
    pub(crate) seconds_left: Option<f64>,
    pub(crate) per_second: Option<f64>,
    /// The thing counted: `it` unless the program names another.
    pub(crate) unit: &'a str,
    /// The program's own part: `loss=0.12, lr=1e-5`.
    pub(crate) postfix: &'a str,
    /// What stands behind the bar on its line.
    pub(crate) rest: &'a str,
}

impl<'a> Bar<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let bytes = line.as_bytes();
        // Nearly every line has none.
        memchr(b'[', bytes)?;
        let mut bars = memchr_iter(b'|', bytes);
        let (label, done, total, times) =
            if let Some(bar) = bars.find(|bar| *bar > 0 && bytes[bar - 1] == b'%') {
                let (drawn, times) = line[bar + 1..].split_once('[')?;
                let counts = memrchr(b'|', drawn.as_bytes()).map_or(0, |at| at + 1);
                let (done, total) = drawn[counts..].split_once('/')?;
                (&line[..bar], done, Some(total), times)
            } else {
                let (counted, times) = line.split_at(memmem::find(bytes, b"it [")?);
                let label = counted.trim_end_matches(|c: char| c.is_ascii_digit());
                (label, &counted[label.len()..], None, &times["it [".len()..])
            };
        let (times, rest) = times.split_once(']')?;
        let (times, rate) = times.split_once(',').unwrap_or((times, ""));
        let (rate, postfix) = rate.split_once(',').unwrap_or((rate, ""));
        let (passed, left) = times.split_once('<').unwrap_or((times, ""));
        clock(passed)?;
        let count = |text| whole(number(text)?.0);
        let (per_second, unit) = rate_and_unit(rate.trim_ascii())?;
        let is_percentage = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '.' | '%');
        let label = label.trim_end_matches(is_percentage);
        Some(Self {
            label: label.trim_end_matches(':').trim_ascii(),
            done: count(done)?,
            total: total.and_then(count),
            seconds_left: clock(left),
            per_second,
            unit,
            postfix: postfix.trim_ascii(),
            rest,
        })
    }

    /// Parses a line that is the state of a bar and nothing else.
    pub(crate) fn parse_whole(line: &'a str) -> Option<Self> {
        // Nearly every line is told by its end: the rest is searched for the parts of a bar, several times.
        let may_be = line.trim_ascii_end().ends_with(']');
        let bar = may_be.then(|| Self::parse(line)).flatten();
        bar.filter(|bar| bar.rest.trim_ascii().is_empty())
    }

    /// Tells if this is a state of the bar of `earlier`: the same label and total, and `earlier` is not at its end, since after
    /// that another bar begins.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        earlier.total.is_none_or(|total| earlier.done < total)
            && earlier.done <= self.done
            && (earlier.label, earlier.total) == (self.label, self.total)
    }
}

/// Parses `4.51it/s`, `1.87s/it`, `?it/s`.
fn rate_and_unit(text: &str) -> Option<(Option<f64>, &str)> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '?'));
    let number = text[..text.len() - unit.len()].parse().ok();
    let number = number.filter(|rate: &f64| *rate > 0.0);
    match unit.as_bytes() {
        [b's', b'/', ..] => Some((number.map(|seconds| 1.0 / seconds), unit[2..].trim_ascii())),
        [.., b'/', b's'] => Some((number, unit[..unit.len() - 2].trim_ascii())),
        _ => None,
    }
}
