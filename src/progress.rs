//! How far a training run is and how it goes, from what its trainer prints and writes.
//!
//! Only what was said is given: a figure that nobody printed is absent. The one difficulty is progress bars, since much
//! else draws them: downloads, the preparation of data sets, the loading of weights, evaluation. A bar is one of training
//! when one of these holds:
//!
//! - its label says so (`Training`, `Training Progress`, and torchtune's `1|25|Loss: 1.63`), or
//! - it carries a loss (`loss=0.12` behind its speed) and its label is not of an evaluation, or
//! - it has no label, counts plain iterations, is no nested bar, and is tied to the trainer: it is the first such bar after
//!   the line with which Oumi or the Hugging Face Trainer begins, or its total is the one that was announced, or it stands
//!   exactly at the step of which the trainer prints the loss. Where the trainer does not print the step, it must have moved
//!   between two printed losses.
//!
//! Bars of Lightning (`Epoch 3`) count batches within an epoch: from them come the epoch and the loss, no step. Bars of
//! inference (`Processed prompts`) and evaluation (`Running … requests`) are given where there is no training at all.

pub mod bar;
pub mod figures;
pub mod files;
pub mod history;
pub mod lines;
pub mod rhythm;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDateTime, Utc};
use memchr::{memchr2, memmem, memrchr, memrchr2};
use schemars::JsonSchema;
use serde::Serialize;

use crate::logs::fold::fold;
use bar::Bar;
use figures::{Figures, Kind, dictionary};
use history::History;

/// Of a log, this much of the beginning is looked at, where it is said how many steps there will be…
const HEAD: u64 = 256 * 1024;

/// … and this much of the end.
const TAIL: u64 = 4 * 1024 * 1024;

/// A segment of a log that has not ended is kept up to this length.
const LONGEST_SEGMENT: usize = 64 * 1024;

/// A dictionary that is printed over several lines is put together up to this length.
const LONGEST_DICTIONARY: usize = 8 * 1024;

/// How many bars are watched until it is known which of them is that of the training.
const CANDIDATES: usize = 8;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Progress {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// When the newest of them was written, at the latest: RFC 3339, UTC.
    pub measured_at: Option<String>,
    /// Where they come from.
    pub source: String,
}

impl Progress {
    /// The age of the newest figure at `now`.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let measured_at = DateTime::parse_from_rfc3339(self.measured_at.as_deref()?).ok()?;
        now.duration_since(SystemTime::from(measured_at)).ok()
    }

    /// Says when the newest figure was written.
    pub fn measured(mut self, at: SystemTime) -> Self {
        self.measured_at =
            Some(DateTime::<Utc>::from(at).to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        self
    }

    /// The two together: what the newer one says, and what only the older one does.
    pub fn merged(self, other: Self) -> Self {
        // RFC 3339 in UTC sorts as text.
        let (mut newer, older) = match self.measured_at >= other.measured_at {
            true => (self, other),
            false => (other, self),
        };
        // Both count the same steps, so the greater count is the newer one, however late it was written.
        newer.figures.fill(&older.figures, false);
        newer.figures.step = newer.figures.step.max(older.figures.step);
        if !newer.source.contains(&older.source) {
            newer.source = format!("{}, {}", newer.source, older.source);
        }
        newer
    }
}

/// How far the run is whose log is at `path`: from its beginning and its end, whatever its size. None when it does not say.
///
/// # Errors
/// What the file system said.
pub fn read_log(path: &Path) -> io::Result<Option<(Progress, History)>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let end = metadata.len();
    let mut scanner = Scanner::default();
    let tail = end.saturating_sub(TAIL);
    let mut read = |from: u64, to: u64| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        (&file).take(to - from).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if tail > 0 {
        scanner.push(&read(0, HEAD.min(tail))?);
        scanner.skip();
    }
    scanner.push(&read(tail, end)?);
    Ok(scanner
        .progress(metadata.modified()?)
        .map(|progress| (progress, scanner.into_history())))
}

/// Finds figures in a log as it grows. It is given the raw log, not folded text, since of a bar that is drawn over it needs
/// the earlier states too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    figures: Figures,
    history: History,
    source: Option<&'static str>,
    /// What inference or an evaluation says, in case there is no training.
    requests: Figures,
    training_bar: Option<BarKey>,
    candidates: Vec<Candidate>,
    /// A training has begun, and its bar has not come yet.
    begun: bool,
    announced_total: Option<u64>,
    /// The trainer prints the step itself.
    step_printed: bool,
    /// The last loss came without its step, and the bar may have been drawn late: its next state tells.
    unsettled: bool,
    /// The end of the input, of which the end has not come.
    rest: Vec<u8>,
    /// That end has been read already.
    rest_read: bool,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    /// The last time stamp in the log, and the first one after the newest figure.
    last_stamp: Option<NaiveDateTime>,
    stamp_after: Option<NaiveDateTime>,
}

#[derive(Debug, Clone, PartialEq)]
struct BarKey {
    label: String,
    total: Option<u64>,
}

/// A bar that may be the training's.
#[derive(Debug, Clone)]
struct Candidate {
    total: u64,
    done: u64,
    /// Where it stood at the last loss, and the step of that loss if it was printed.
    at_loss: Option<(u64, Option<u64>)>,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                return;
            };
            let (first, after) = bytes.split_at(end + 1);
            self.rest.extend_from_slice(first);
            let whole = std::mem::take(&mut self.rest);
            if !(self.rest_read && end == 0) {
                self.whole(&whole);
            }
            bytes = after;
        }
        let end = memrchr2(b'\n', b'\r', bytes).map_or(0, |last| last + 1);
        let (whole, rest) = bytes.split_at(end);
        self.whole(whole);
        self.keep(rest);
    }

    /// Says that what comes next does not follow on what came last.
    pub fn skip(&mut self) {
        self.rest.clear();
        self.dictionary = None;
    }

    /// The progress so far. `written` is when the log was last written to.
    pub fn progress(&self, written: SystemTime) -> Option<Progress> {
        let since = self
            .stamp_after
            .zip(self.last_stamp)
            .and_then(|(after, last)| (last - after).to_std().ok())
            .unwrap_or_default();
        let measured_at = written.checked_sub(since).unwrap_or(written);
        let (figures, source) = match self.source {
            Some(source) => (self.figures.clone(), source),
            None if self.requests != Figures::default() => {
                (self.requests.clone(), "the log (requests)")
            }
            None => return None,
        };
        let mut figures = figures;
        if figures.seconds_left.is_none()
            && let (Some(step), Some(total), Some(speed)) =
                (figures.step, figures.total_steps, figures.steps_per_second)
        {
            figures.seconds_left = total.checked_sub(step).map(|steps| steps as f64 / speed);
        }
        let progress = Progress {
            figures,
            measured_at: None,
            source: source.to_owned(),
        };
        Some(progress.measured(measured_at))
    }

    /// The losses so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The losses, at the end.
    pub fn into_history(self) -> History {
        self.history
    }

    /// Keeps the end of the input until it goes on, and reads it already if it looks whole: the newest state of a bar has
    /// no end until the next one is drawn.
    fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
        if self.rest.len() > LONGEST_SEGMENT {
            let excess = self.rest.len() - LONGEST_SEGMENT / 2;
            self.rest.drain(..excess);
        }
        self.rest_read = matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}'));
        if self.rest_read {
            let rest = std::mem::take(&mut self.rest);
            self.whole(&rest);
            self.rest = rest;
        }
    }

    /// Reads segments: what stands between line ends and carriage returns. Only those that may hold something are looked
    /// at more closely.
    fn whole(&mut self, bytes: &[u8]) {
        let Some(hits) = HITS.as_ref() else { return };
        let mut at = 0;
        let mut figure_end = None;
        while let Some(hit) = bytes.get(at..).and_then(|rest| match self.dictionary {
            Some(_) => Some(0),
            None => hits.find(rest).map(|found| found.start()),
        }) {
            if at >= bytes.len() {
                break;
            }
            let hit = at + hit;
            let start = bytes
                .get(at..hit)
                .and_then(|before| memrchr2(b'\n', b'\r', before))
                .map_or(at, |end| at + end + 1);
            let end = bytes
                .get(hit..)
                .and_then(|after| memchr2(b'\n', b'\r', after))
                .map_or(bytes.len(), |end| hit + end);
            if let Some(segment) = bytes.get(start..end)
                && self.segment(segment)
            {
                figure_end = Some(end);
            }
            at = end + 1;
        }
        self.stamps(bytes, figure_end);
    }

    fn stamps(&mut self, bytes: &[u8], figure_end: Option<usize>) {
        let from = figure_end.unwrap_or(0);
        if figure_end.is_some() {
            self.stamp_after = None;
        }
        let figures = self.source.is_some() || self.requests != Figures::default();
        if figures && self.stamp_after.is_none() {
            self.stamp_after = bytes.get(from..).and_then(first_stamp);
        }
        self.last_stamp = last_stamp(bytes).or(self.last_stamp);
    }

    /// Reads a segment; whether there were figures in it.
    fn segment(&mut self, segment: &[u8]) -> bool {
        let nested = memmem::find(segment, b"\x1b[A").is_some();
        let text: Cow<'_, str> = match memchr::memchr(0x1b, segment) {
            Some(_) => Cow::Owned(fold(segment)),
            None => String::from_utf8_lossy(segment),
        };
        let text = without_prefix(text.trim_end());
        if let Some(mut begun) = self.dictionary.take().filter(|_| !text.starts_with("{'")) {
            // Bars are drawn between the lines of it.
            if !text.contains("%|") {
                begun.push(' ');
                begun.push_str(text);
                return self.dictionaries(&begun);
            }
            self.dictionary = Some(begun);
        }
        if lines::begins_training(text) {
            self.training_bar = None;
            self.candidates.clear();
            self.begun = true;
            return false;
        }
        if let Some(total) = lines::announced_total(text) {
            self.announced_total = Some(total);
            return false;
        }
        let brace = memchr::memchr(b'{', text.as_bytes()).unwrap_or(text.len());
        let (before, after) = text.split_at(brace);
        let mut found = Bar::of(before).is_some_and(|bar| self.bar(&bar, nested));
        if !after.is_empty() {
            found |= self.dictionaries(after);
        } else if let Some((figures, kind)) = lines::figures(text) {
            self.said(figures, kind, "the trainer's own log lines");
            found = true;
        } else if let Some(speed) = lines::generation_speed(text) {
            self.requests.tokens_per_second = Some(speed);
            found = true;
        }
        found
    }

    /// Reads the dictionaries in `text`.
    fn dictionaries(&mut self, text: &str) -> bool {
        let mut found = false;
        let mut rest = text;
        while let Some(start) = rest.find(['{']) {
            let begun = &rest[start..];
            match dictionary(begun) {
                Some((pairs, length)) => {
                    let (figures, kind) = Figures::of(pairs);
                    if kind.is_training() {
                        self.said(figures, kind, "the trainer's metrics in the log");
                        found = true;
                    }
                    rest = &begun[length..];
                }
                None => {
                    let is_one = matches!(begun.as_bytes().get(1), Some(b'\'' | b'"'));
                    if is_one && begun.len() < LONGEST_DICTIONARY && !begun.contains('}') {
                        self.dictionary = Some(begun.to_owned());
                        return found;
                    }
                    rest = &begun[1..];
                }
            }
        }
        found
    }

    /// Takes over what a trainer said.
    fn said(&mut self, mut figures: Figures, kind: Kind, source: &'static str) {
        self.source = Some(source);
        self.step_printed |= figures.step.is_some();
        if kind.loss {
            self.tie_bar(figures.step);
        }
        // An evaluation is of the step the training stands at. A loss without its step is of that of the bar.
        let stands_at = kind.eval_loss || (self.training_bar.is_some() && !self.step_printed);
        if figures.step.is_none() && stands_at {
            figures.step = self.figures.step;
        }
        let step = figures.step;
        self.unsettled = kind.loss && !self.step_printed && step.is_some();
        self.history.push(&figures);
        if kind.summary {
            figures.seconds_left = step
                .filter(|step| self.figures.total_steps == Some(*step))
                .map(|_| 0.0);
        } else if figures.step != self.figures.step || figures.steps_per_second.is_some() {
            // What the bar said of the time belongs to another step.
            self.figures.seconds_left = None;
        }
        self.figures.update(&figures);
    }

    /// Finds out which bar is that of the training, when a loss is printed: see the top of this module.
    fn tie_bar(&mut self, step: Option<u64>) {
        let mut tied = None;
        for candidate in &mut self.candidates {
            let moved = candidate
                .at_loss
                .is_some_and(|(done, _)| candidate.done > done);
            if candidate.total > 0
                && match step {
                    Some(step) => candidate.done == step,
                    None => moved,
                }
            {
                tied = Some((candidate.total, candidate.done));
            }
            candidate.at_loss = Some((candidate.done, step));
        }
        if self.training_bar.is_none()
            && let Some((total, done)) = tied
        {
            self.tie(total, done);
        }
    }

    fn tie(&mut self, total: u64, done: u64) {
        self.training_bar = Some(BarKey {
            label: String::new(),
            total: Some(total),
        });
        self.figures.total_steps = Some(total);
        self.figures.step = self.figures.step.max(Some(done));
        self.source.get_or_insert(BAR);
        self.begun = false;
    }

    /// Reads a state of a bar; whether it told anything of the training.
    fn bar(&mut self, bar: &Bar<'_>, nested: bool) -> bool {
        let total = bar.total.map(|total| total as u64);
        let done = bar.done as u64;
        let (carried, carried_kind) = Figures::of(bar.figures());
        let lower = bar.label.to_lowercase();
        let evaluates = ["eval", "valid", "test", "predict", "sanity"]
            .iter()
            .any(|word| lower.contains(word));
        if lower == "processed prompts"
            || (lower.starts_with("running ") && lower.ends_with(" requests"))
        {
            return self.requests(bar, total, done);
        }
        if evaluates {
            return false;
        }
        if let Some(epoch) = epoch_label(bar.label) {
            return self.epoch_bar(bar, epoch, carried, carried_kind);
        }
        if let Some((epoch, step, loss)) = torchtune_label(bar.label) {
            let part = total.map_or(0.0, |total| done as f64 / total.max(1) as f64);
            let figures = Figures {
                step: Some(step),
                epoch: Some(epoch.saturating_sub(1) as f64 + part.min(1.0)),
                loss: Some(loss),
                steps_per_second: bar.per_second,
                ..Figures::default()
            };
            self.history.push(&figures);
            self.figures.update(&figures);
            self.source = Some(BAR);
            return true;
        }
        if lower.starts_with("epoch") {
            // Somebody's own loop: its bar counts within an epoch, from 0 or 1, nobody knows.
            if !carried_kind.loss {
                return false;
            }
            self.source.get_or_insert(BAR);
            self.figures.update(&Figures {
                steps_per_second: bar.per_second,
                ..carried
            });
            return true;
        }
        let labelled = matches!(lower.as_str(), "training" | "training progress");
        let key = BarKey {
            label: lower,
            total,
        };
        let known = labelled || carried_kind.loss || self.training_bar.as_ref() == Some(&key);
        if !known {
            return self.candidate(bar, total, done, nested);
        }
        self.training_bar = Some(key);
        self.begun = false;
        self.take_bar(bar, total, done, carried);
        if carried_kind.loss {
            let figures = self.figures.clone();
            self.history.push(&Figures {
                eval_loss: None,
                ..figures
            });
        }
        true
    }

    fn take_bar(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64, carried: Figures) {
        self.source.get_or_insert(BAR);
        let behind = self.step_printed && self.figures.step.is_some_and(|step| step > done);
        if behind {
            // Bars are drawn a little late; what the trainer printed is newer.
            return;
        }
        if std::mem::take(&mut self.unsettled) {
            self.history.settle(done);
        }
        self.figures.update(&carried);
        self.figures.step = Some(done);
        self.figures.total_steps = total.or(self.figures.total_steps);
        self.figures.seconds_left = bar.seconds_left;
        if bar.per_second.is_some() {
            self.figures.steps_per_second = bar.per_second;
        }
    }

    /// An unlabelled bar: whether it is that of the training is to be found out.
    fn candidate(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64, nested: bool) -> bool {
        let Some(total) = total.filter(|_| bar.label.is_empty() && bar.unit == "it" && !nested)
        else {
            return false;
        };
        let mut after_loss = false;
        match self
            .candidates
            .iter_mut()
            .find(|candidate| candidate.total == total)
        {
            Some(candidate) => {
                candidate.done = done;
                // It is drawn anew right after a loss was printed, at the step of that loss.
                after_loss = candidate
                    .at_loss
                    .is_some_and(|(_, step)| step == Some(done));
            }
            None => {
                if self.candidates.len() >= CANDIDATES {
                    self.candidates.remove(0);
                }
                self.candidates.push(Candidate {
                    total,
                    done,
                    at_loss: None,
                });
            }
        }
        if self.training_bar.is_none()
            && (self.begun || self.announced_total == Some(total) || after_loss)
        {
            self.tie(total, done);
            self.take_bar(bar, Some(total), done, Figures::default());
            return true;
        }
        false
    }

    /// A bar of Lightning: one for each epoch.
    fn epoch_bar(&mut self, bar: &Bar<'_>, epoch: u64, carried: Figures, kind: Kind) -> bool {
        if !kind.loss && !bar.postfix.contains("v_num=") {
            return false;
        }
        let part = bar.total.map_or(0.0, |total| bar.done / total.max(1.0));
        let figures = Figures {
            epoch: Some(epoch as f64 + part.min(1.0)),
            steps_per_second: bar.per_second,
            ..carried
        };
        self.source = Some(BAR);
        self.training_bar = None;
        self.figures.update(&figures);
        self.figures.step = figures.step;
        self.figures.total_steps = None;
        self.figures.seconds_left = None;
        self.history.push(&figures);
        true
    }

    fn requests(&mut self, bar: &Bar<'_>, total: Option<u64>, done: u64) -> bool {
        self.requests.step = Some(done);
        self.requests.total_steps = total;
        self.requests.seconds_left = bar.seconds_left;
        self.requests.steps_per_second = bar.per_second;
        if let Some((_, speed)) = bar.postfix.split_once("output: ") {
            self.requests.tokens_per_second = speed.split(' ').next().and_then(figures::number);
        }
        true
    }
}

const BAR: &str = "the progress bar in the log";

/// `Epoch 3` is 3.
fn epoch_label(label: &str) -> Option<u64> {
    label.strip_prefix("Epoch ")?.parse().ok()
}

/// `1|25|Loss: 1.63` is epoch 1, step 25, a loss of 1.63.
fn torchtune_label(label: &str) -> Option<(u64, u64, f64)> {
    let (epoch, rest) = label.split_once('|')?;
    let (step, loss) = rest.split_once("|Loss: ")?;
    Some((
        epoch.parse().ok()?,
        step.parse().ok()?,
        loss.parse().ok().filter(|loss: &f64| loss.is_finite())?,
    ))
}

/// What may be worth a closer look. One search for all, many times faster than a look at each line.
static HITS: LazyLock<Option<regex::bytes::Regex>> = LazyLock::new(|| {
    regex::bytes::Regex::new(
        r#"%\||it \[|\{['"]|loss|throughput|SamplesPerSec|skipped=|Starting training|Running training|optimization steps"#,
    )
    .ok()
});

/// What SkyPilot and torchrun put before each line of a job.
fn without_prefix(text: &str) -> &str {
    let mut text = text;
    if text.starts_with('(')
        && let Some((prefix, rest)) = text.split_once(')')
        && prefix.contains("pid=")
    {
        text = rest.strip_prefix(' ').unwrap_or(rest);
    }
    for prefix in ["[rank", "[default"] {
        if let Some(rest) = text.strip_prefix(prefix)
            && let Some((rank, rest)) = rest.split_once("]:")
            && rank.bytes().all(|byte| byte.is_ascii_digit())
        {
            text = rest;
        }
    }
    text
}

/// The time stamp that a line of Oumi's logger, of `logging` and of many others begins with.
fn stamp(line: &[u8]) -> Option<NaiveDateTime> {
    let text = line.strip_prefix(b"[").unwrap_or(line).get(..19)?;
    if !text.starts_with(b"20") {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.replace('T', " ");
    NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S").ok()
}

fn first_stamp(bytes: &[u8]) -> Option<NaiveDateTime> {
    const LOOKED_AT: usize = 2000;
    bytes
        .split(|byte| *byte == b'\n')
        .take(LOOKED_AT)
        .find_map(stamp)
}

fn last_stamp(bytes: &[u8]) -> Option<NaiveDateTime> {
    const LOOKED_AT: usize = 200;
    let mut end = bytes.len();
    for _ in 0..LOOKED_AT {
        let before = bytes.get(..end)?;
        let start = memrchr(b'\n', before).map_or(0, |at| at + 1);
        if let Some(stamp) = before.get(start..).and_then(stamp) {
            return Some(stamp);
        }
        end = start.checked_sub(1)?;
    }
    None
}
