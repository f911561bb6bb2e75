//! The one parser of tqdm's progress bars.

use memchr::{memchr, memchr_iter, memchr3, memmem, memrchr};

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
}

impl<'a> Bar<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let bytes = line.as_bytes();
        let (label, done, total, open) = if let Some(percent) = find_percent(bytes) {
            let open = percent + memchr(b'[', bytes.get(percent..)?)?;
            let counts = line.get(percent..open)?;
            let counts = counts.get(memrchr(b'|', counts.as_bytes())? + 1..)?;
            let (done, total) = counts.split_once('/')?;
            (line.get(..percent)?, done, Some(total), open)
        } else {
            let open = memmem::find(bytes, b"it [")?;
            let counted = line.get(..open)?;
            let label = counted.trim_end_matches(|c: char| c.is_ascii_digit());
            (label, counted.get(label.len()..)?, None, open + 3)
        };
        let (times, rest) = split_comma(line.get(open + 1..)?.split(']').next()?);
        let (_, left) = times.split_once('<').unwrap_or((times, ""));
        clock(times.split('<').next()?)?;
        let (rate, postfix) = split_comma(rest);
        let (per_second, unit) = rate_and_unit(rate)?;
        let label = label.trim_end_matches(|c: char| c.is_ascii_digit() || " .%".contains(c));
        Some(Self {
            label: label.trim_end_matches(':').trim(),
            done: count(done)?,
            total: total.and_then(count),
            seconds_left: clock(left),
            per_second,
            unit,
            postfix,
        })
    }
}

/// The parts of a bar that tell which bar it is. Cheaper than [`Bar`]: states of one bar that follow on each other are
/// folded into the last one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BarState<'a> {
    /// The bytes before the percentage.
    pub(crate) label: &'a [u8],
    pub(crate) percent: u32,
    /// The total with its slash.
    pub(crate) total: &'a [u8],
    /// The program adds metrics of its own behind the speed.
    pub(crate) has_metrics: bool,
    /// The cursor goes up after the bar, so another one stands above it.
    pub(crate) is_nested: bool,
}

impl<'a> BarState<'a> {
    /// Parses a line that is the state of a bar and nothing else.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let percent = find_percent(line)?;
        let (before, bar) = line.split_at(percent);
        let open = memchr(b'[', bar)?;
        let (counts, times) = bar.split_at(open);
        let slash = memrchr(b'/', counts)?;
        let first = memchr3(b']', b'{', b'=', times)?;
        let has_metrics = times.get(first) != Some(&b']');
        let close = if has_metrics {
            memchr(b']', times)?
        } else {
            first
        };
        let after = times.get(close + 1..)?.trim_ascii_end();
        let is_nested = after.starts_with(b"\x1b[A");
        if !is_nested && !after.is_empty() {
            return None;
        }
        let is_label = |byte: &u8| !matches!(byte, b' ' | b'0'..=b'9' | b'.');
        let label = before.iter().rposition(is_label).map_or(0, |last| last + 1);
        let digits = std::str::from_utf8(before.get(label..)?).ok()?.trim();
        Some(Self {
            label: before.get(..label)?,
            percent: digits.parse::<f64>().map_or(0, |percent| percent as u32),
            total: counts.get(slash..)?,
            has_metrics,
            is_nested,
        })
    }

    /// Tells whether this is a state of the bar of `earlier`: the same label and total, and `earlier` is not at its end,
    /// since after that another bar begins.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        earlier.percent < 100
            && earlier.percent <= self.percent
            && (earlier.label, earlier.total) == (self.label, self.total)
    }
}

fn count(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = || {
        text.parse::<f64>()
            .ok()
            .filter(|number| (0.0..1e15).contains(number))
    };
    text.parse()
        .ok()
        .or_else(|| number().map(|number| number as u64))
}

/// The place of a bar's `%|`.
fn find_percent(line: &[u8]) -> Option<usize> {
    memchr_iter(b'%', line).find(|at| line.get(at + 1) == Some(&b'|'))
}

fn split_comma(text: &str) -> (&str, &str) {
    text.split_once(',')
        .map_or((text.trim(), ""), |(one, rest)| (one.trim(), rest.trim()))
}

/// Parses `4.51it/s`, `1.87s/it`, `?it/s`.
fn rate_and_unit(text: &str) -> Option<(Option<f64>, &str)> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || ".?".contains(c));
    let number = text[..text.len() - unit.len()].parse().ok();
    let number = number.filter(|rate: &f64| *rate > 0.0);
    if let Some(unit) = unit.strip_prefix("s/") {
        return Some((number.map(|seconds| 1.0 / seconds), unit.trim()));
    }
    Some((number, unit.strip_suffix("/s")?.trim()))
}

/// Parses `[h:]mm:ss` as seconds. `None` for `?`.
pub(super) fn clock(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |seconds, part| {
        let part: u32 = part.trim().parse().ok()?;
        Some(seconds * 60.0 + f64::from(part))
    })
}
