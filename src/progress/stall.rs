//! The detector of logs that have fallen silent: for ten minutes, and for twenty times as long as is usual between two
//! writes.

use std::time::Duration;

/// A shorter silence is never a stall: saving a large checkpoint and compiling take minutes.
const MIN_SILENCE: Duration = Duration::from_secs(10 * 60);

/// A silence of this many usual gaps is a stall.
const MIN_GAPS: u32 = 20;

/// With fewer writes than this the usual gap is unknown.
const MIN_WRITES: u32 = 6;

/// The first and last write to a log, from any fixed moment on, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StallDetector {
    first: Duration,
    last: Duration,
    writes: u32,
}

/// A silence that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) silent: Duration,
    pub(crate) usual_gap: Duration,
}

impl StallDetector {
    pub(crate) fn new(first: Duration, last: Duration, writes: u32) -> Self {
        Self {
            first,
            last,
            writes,
        }
    }

    /// The mean gap between two writes. `None` while too few are known.
    pub(crate) fn usual_gap(&self) -> Option<Duration> {
        let is_known = self.writes >= MIN_WRITES;
        is_known.then(|| self.last.saturating_sub(self.first) / (self.writes - 1).max(1))
    }

    /// Checks a log that has been silent for `silent`.
    pub(crate) fn check(&self, silent: Duration) -> Option<Stall> {
        let usual_gap = self.usual_gap()?;
        let is_stall = silent > MIN_SILENCE && silent > usual_gap.saturating_mul(MIN_GAPS);
        is_stall.then_some(Stall { silent, usual_gap })
    }
}

impl Stall {
    pub(crate) fn sentence(&self) -> String {
        format!(
            "silent for {}; usually it grows every {}",
            span(self.silent),
            span(self.usual_gap.max(Duration::from_secs(1)))
        )
    }
}

/// A duration for a person to read.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
