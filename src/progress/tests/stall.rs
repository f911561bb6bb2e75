//! Stalls: ten minutes and twenty usual gaps of silence.

use std::time::Duration;

use crate::progress::stall::Stall;

#[test]
fn needs_ten_minutes_and_twenty_gaps() {
    // The gap between writes, their number, the silence, whether it is a stall; times in seconds.
    for (gap, writes, silence, is_stall) in [
        (1, 20, 599, false),
        (1, 20, 601, true),
        (60, 20, 1199, false),
        (60, 20, 1201, true),
        (1800, 20, 9 * 3600, false),
        (1800, 20, 11 * 3600, true),
        (1, 6, 601, true),
        (1, 5, 100_000, false),
        (1, 0, 100_000, false),
    ] {
        let time = Duration::from_secs(gap) * u32::max(writes, 1).saturating_sub(1);
        let stall = Stall::check(time, writes, Duration::from_secs(silence));
        assert_eq!(stall.is_some(), is_stall, "{gap} {writes} {silence}");
    }
}

#[test]
fn sentence_names_silence_and_gap() {
    let stall = Stall {
        silent: Duration::from_secs(7200),
        usual_gap: Duration::from_secs(100),
    };
    assert_eq!(
        stall.sentence(),
        "silent for 2 h; usually it grows every 100 s"
    );
}
