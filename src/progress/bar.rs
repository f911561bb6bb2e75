//! A state of a tqdm progress bar.

use memchr::{memchr, memchr_iter, memmem, memrchr};

/// What a progress bar says. It borrows the line it stands in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar<'a> {
    /// What stands before the percentage, without the colon; often nothing.
    pub label: &'a str,
    /// How far it is.
    pub done: f64,
    /// Of how many, where that is known.
    pub total: Option<f64>,
    /// The seconds it expects to need.
    pub seconds_left: Option<f64>,
    /// How many in a second.
    pub per_second: Option<f64>,
    /// What it counts: `it` unless the program says otherwise.
    pub unit: &'a str,
    /// What the program added: `loss=0.12, lr=1e-5`.
    pub postfix: &'a str,
}

impl<'a> Bar<'a> {
    /// The bar in `line`: `label:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s, loss=0.12]`, or without a total
    /// `label: 6it [00:01,  4.51it/s]`.
    pub fn of(line: &'a str) -> Option<Self> {
        let line = line.trim_end();
        let Some(percent) = percent(line.as_bytes()) else {
            return Self::without_total(line);
        };
        let label = line
            .get(..percent)?
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == '.');
        let open = percent + memchr(b'[', line.as_bytes().get(percent..)?)?;
        let close = open + memchr(b']', line.as_bytes().get(open..)?)?;
        let counts = line.get(percent..open)?;
        let (done, total) = counts
            .get(memrchr(b'|', counts.as_bytes())? + 1..)?
            .split_once('/')?;
        let (times, rest) = split_comma(line.get(open + 1..close)?);
        let (_, left) = times.split_once('<')?;
        let (rate, postfix) = split_comma(rest);
        let (per_second, unit) = rate_and_unit(rate)?;
        Some(Self {
            label: label.trim_end_matches(':').trim(),
            done: count(done)?,
            total: count(total),
            seconds_left: clock(left),
            per_second,
            unit,
            postfix,
        })
    }

    fn without_total(line: &'a str) -> Option<Self> {
        let open = memmem::find(line.as_bytes(), b"it [")?;
        let count = line.get(..open)?;
        let label = count.trim_end_matches(|c: char| c.is_ascii_digit());
        let (times, rest) = split_comma(line.get(open + 4..)?.split(']').next()?);
        clock(times)?;
        let (rate, postfix) = split_comma(rest);
        let (per_second, unit) = rate_and_unit(rate)?;
        Some(Self {
            done: self::count(count.get(label.len()..)?)?,
            label: label.trim_end_matches([':', ' ']),
            total: None,
            seconds_left: None,
            per_second,
            unit,
            postfix,
        })
    }

    /// The values of the postfix, by their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.postfix
            .split(", ")
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
    }
}

/// A number of things done or to do.
fn count(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// Where in a line a bar's `%|` stands.
pub(super) fn percent(line: &[u8]) -> Option<usize> {
    memchr_iter(b'%', line).find(|at| line.get(at + 1) == Some(&b'|'))
}

fn split_comma(text: &str) -> (&str, &str) {
    text.split_once(',')
        .map_or((text.trim(), ""), |(one, rest)| (one.trim(), rest.trim()))
}

/// Reads `4.51it/s`, `1.87s/it`, `?it/s`.
fn rate_and_unit(text: &str) -> Option<(Option<f64>, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '?'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: Option<f64> = number.parse().ok().filter(|rate| *rate > 0.0);
    if let Some(unit) = unit.strip_prefix("s/") {
        return Some((number.map(|seconds| 1.0 / seconds), unit.trim()));
    }
    Some((number, unit.strip_suffix("/s")?.trim()))
}

/// The seconds that `[h:]mm:ss` says; none for `?`.
fn clock(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |seconds, part| {
        let part: u32 = part.trim().parse().ok()?;
        Some(seconds * 60.0 + f64::from(part))
    })
}
