//! Stalls: ten minutes and twenty usual gaps of silence.

use std::time::Duration;

use crate::progress::stall::StallDetector;

#[test]
fn needs_ten_minutes_and_twenty_gaps() {
    // The gap between writes, the silence, whether it is a stall; all in seconds.
    for (gap, silence, is_stall) in [
        (1, 599, false),
        (1, 601, true),
        (60, 1199, false),
        (60, 1201, true),
        (1800, 9 * 3600, false),
        (1800, 11 * 3600, true),
    ] {
        let (first, last) = (
            Duration::from_secs(1000),
            Duration::from_secs(1000 + 19 * gap),
        );
        let detector = StallDetector::new(first, last, 20);
        assert_eq!(detector.usual_gap(), Some(Duration::from_secs(gap)));
        let stall = detector.check(Duration::from_secs(silence));
        assert_eq!(stall.is_some(), is_stall, "{gap} {silence}");
    }
}

#[test]
fn sentence_names_silence_and_gap() {
    let detector = StallDetector::new(Duration::ZERO, Duration::from_secs(1900), 20);
    let sentence = detector
        .check(Duration::from_secs(7200))
        .unwrap()
        .sentence();
    assert!(
        sentence.contains("silent for 2 h") && sentence.contains("every 100 s"),
        "{sentence}"
    );
}

#[test]
fn needs_six_writes() {
    let detector = StallDetector::new(Duration::ZERO, Duration::from_secs(4), 5);
    assert_eq!(detector.check(Duration::from_secs(100_000)), None);
}
