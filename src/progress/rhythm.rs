//! Whether a log has been silent for long against its own rhythm.
//!
//! A log that said something every second is suspicious after minutes, one that speaks every half hour is not. So the
//! measure is how long it was silent before. Two things are quiet for good reason and are why the floor is high: the
//! saving of a large checkpoint, and the compilation before the first step.

use std::time::Duration;

/// Silence below this is never a stall.
pub const FLOOR: Duration = Duration::from_secs(5 * 60);

/// A silence is a stall when it is this many times longer than the longest usual one.
pub const FACTOR: u32 = 10;

/// With fewer silences than this nothing is known of the rhythm.
const ENOUGH: usize = 5;

/// The most silences that are remembered.
const REMEMBERED: usize = 64;

/// How often a log is written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rhythm {
    silences: Vec<Duration>,
    next: usize,
    last: Option<Duration>,
}

/// That a log has been silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// For how long.
    pub silent: Duration,
    /// How long it usually is at most.
    pub usual: Duration,
}

impl Rhythm {
    /// Notes that the log was last written to at `time`, since any fixed moment. What is seen twice counts once, so the
    /// rhythm is no faster than it is looked at; that only makes it more patient.
    pub fn written_at(&mut self, time: Duration) {
        if let Some(silence) = self.last.and_then(|last| time.checked_sub(last))
            && !silence.is_zero()
        {
            self.silence(silence);
        }
        self.last = self.last.max(Some(time));
    }

    /// Notes a silence that is known otherwise: the seconds a step takes, the time between two stamps in the log.
    pub fn silence(&mut self, silence: Duration) {
        if self.silences.len() < REMEMBERED {
            self.silences.push(silence);
        } else if let Some(oldest) = self.silences.get_mut(self.next) {
            *oldest = silence;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    /// The longest silence that is usual: nine of ten were no longer. None while too few are known.
    pub fn usual(&self) -> Option<Duration> {
        if self.silences.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.silences.clone();
        sorted.sort();
        sorted.get((sorted.len() - 1) * 9 / 10).copied()
    }

    /// Whether a log that has been silent for `silent` has stalled. Never while too little is known of it.
    pub fn stalled(&self, silent: Duration) -> Option<Stalled> {
        let usual = self.usual()?;
        let longest = usual.saturating_mul(FACTOR).max(FLOOR);
        (silent > longest).then_some(Stalled { silent, usual })
    }
}

impl Stalled {
    /// The sentence for the reader.
    pub fn sentence(&self) -> String {
        format!(
            "The log has been silent for {}, and it usually says something every {}: the job may hang. Look at the end of its log, and at its processes or its cluster.",
            span(self.silent),
            span(self.usual.max(Duration::from_secs(1)))
        )
    }
}

/// A length of time for a person to read.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
