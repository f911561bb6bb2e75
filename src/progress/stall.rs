//! Logs that have fallen silent: for ten minutes, and for twenty times as long as is usual between two writes.

use std::time::Duration;

use crate::text::span;

/// A shorter silence is never a stall: saving a large checkpoint and compiling take minutes.
const MIN_SILENCE: Duration = Duration::from_secs(10 * 60);

/// A silence of this many usual gaps is a stall.
const MIN_GAPS: u32 = 20;

/// With fewer writes than this the usual gap is unknown.
const MIN_WRITES: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) silent: Duration,
    pub(crate) usual_gap: Duration,
}

impl Stall {
    /// Checks a log that has been silent for `silent` after so many `writes` within `time`.
    pub(crate) fn check(time: Duration, writes: u32, silent: Duration) -> Option<Self> {
        let usual_gap = time.checked_div(writes.saturating_sub(1))?;
        let least = MIN_SILENCE.max(usual_gap.saturating_mul(MIN_GAPS));
        (writes >= MIN_WRITES && silent > least).then_some(Self { silent, usual_gap })
    }

    pub(crate) fn sentence(&self) -> String {
        let gap = span(self.usual_gap.max(Duration::from_secs(1)));
        format!(
            "silent for {}; usually it grows every {gap}",
            span(self.silent)
        )
    }
}
