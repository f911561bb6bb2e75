//! The time stamps in a log, which tell how long before its last line the newest metrics were printed.

use std::time::Duration;

use chrono::NaiveDateTime;
use memchr::memrchr;

/// The most lines that are searched for a stamp: from the newest metrics on, and from the end back.
const MAX_LINES: usize = 2000;
const MAX_LAST_LINES: usize = 200;

#[derive(Debug, Clone, Default)]
pub(super) struct Stamps {
    last: Option<NaiveDateTime>,
    /// The first stamp after the newest metrics.
    after_metrics: Option<NaiveDateTime>,
}

impl Stamps {
    /// Reads the next piece of the log. The newest metrics in it end at `metrics_end`.
    pub(super) fn read(&mut self, bytes: &[u8], metrics_end: Option<usize>, has_metrics: bool) {
        if metrics_end.is_some() {
            self.after_metrics = None;
        }
        if has_metrics && self.after_metrics.is_none() {
            let rest = bytes.get(metrics_end.unwrap_or(0)..).unwrap_or_default();
            let mut lines = rest.split(|byte| *byte == b'\n').take(MAX_LINES);
            self.after_metrics = lines.find_map(stamp);
        }
        self.last = last_stamp(bytes).or(self.last);
    }

    /// The time between the newest metrics and the end of the log.
    pub(super) fn since_metrics(&self) -> Duration {
        let between = self.after_metrics.zip(self.last);
        between
            .and_then(|(after, last)| (last - after).to_std().ok())
            .unwrap_or_default()
    }
}

/// Parses the stamp at the start of a line, as Oumi's logger, `logging` and many others write it.
fn stamp(line: &[u8]) -> Option<NaiveDateTime> {
    let text = line.strip_prefix(b"[").unwrap_or(line).get(..19)?;
    if !text.starts_with(b"20") {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.replace('T', " ");
    NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S").ok()
}

fn last_stamp(bytes: &[u8]) -> Option<NaiveDateTime> {
    let mut end = bytes.len();
    for _ in 0..MAX_LAST_LINES {
        let before = bytes.get(..end)?;
        let start = memrchr(b'\n', before).map_or(0, |at| at + 1);
        if let Some(stamp) = before.get(start..).and_then(stamp) {
            return Some(stamp);
        }
        end = start.checked_sub(1)?;
    }
    None
}
