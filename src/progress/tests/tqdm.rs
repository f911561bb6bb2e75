//! Bars of tqdm in all their forms.

use crate::progress::tqdm::{Bar, BarState};

#[test]
fn parses_all_forms() {
    // Line, label, done, total, seconds left, rate, unit.
    type Case<'a> = (
        &'a str,
        &'a str,
        f64,
        Option<f64>,
        Option<f64>,
        Option<f64>,
        &'a str,
    );
    let cases: [Case<'_>; 7] = [
        (
            "Training:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s, loss=0.12]",
            "Training",
            6.0,
            Some(50.0),
            Some(9.0),
            Some(4.51),
            "it",
        ),
        (
            "  2%|▎         | 1/40 [26:01:05<1000:00:48,  5.00s/it]",
            "",
            1.0,
            Some(40.0),
            Some(3_600_048.0),
            Some(0.2),
            "it",
        ),
        (
            "  0%|          | 0/6 [00:00<?, ?it/s]",
            "",
            0.0,
            Some(6.0),
            None,
            None,
            "it",
        ),
        (
            " 50%|#####     | 3.0/6.0 [00:01<00:01,  2.00it/s]",
            "",
            3.0,
            Some(6.0),
            Some(1.0),
            Some(2.0),
            "it",
        ),
        (
            "Steps: 6it [00:01,  4.51it/s]",
            "Steps",
            6.0,
            None,
            None,
            Some(4.51),
            "it",
        ),
        (
            "1|25|Loss: 1.63: 100%|███| 25/25 [01:00<00:00,  2.40s/it]",
            "1|25|Loss: 1.63",
            25.0,
            Some(25.0),
            Some(0.0),
            Some(1.0 / 2.4),
            "it",
        ),
        (
            "Epoch 4/5:  96%|█ | 32/33 [00:32<01:30,  2.50step/s]",
            "Epoch 4/5",
            32.0,
            Some(33.0),
            Some(90.0),
            Some(2.5),
            "step",
        ),
    ];
    for (line, label, done, total, seconds_left, per_second, unit) in cases {
        let bar = Bar::parse(line).unwrap();
        assert_eq!(
            (bar.label, bar.done, bar.total),
            (label, done, total),
            "{line}"
        );
        assert_eq!(
            (bar.seconds_left, bar.per_second, bar.unit),
            (seconds_left, per_second, unit),
            "{line}"
        );
    }
}

#[test]
fn rejects_other_text() {
    for line in [
        "",
        "50%",
        "50%|",
        "100%|x| 5/5",
        "100%|x| 5/5 [",
        "5%|x| a/b [c<d, e]",
        "it [",
        "100% | done [x]",
    ] {
        assert_eq!(Bar::parse(line), None, "{line}");
    }
}

#[test]
fn state_continues_earlier_one() {
    let state = |line: &'static str| BarState::parse(line.as_bytes());
    let half = state("a:  50%|█ | 3/6 [00:01<00:09,  4.51it/s]").unwrap();
    let whole = state("a: 100%|██| 6/6 [00:02<00:00,  4.51it/s]").unwrap();
    assert!(whole.continues(&half) && !half.continues(&whole) && !whole.continues(&whole));
    for other in [
        "b:  60%|█ | 4/6 [00:01<00:09,  4.51it/s]",
        "a:  60%|█ | 5/9 [00:01<00:09,  4.51it/s]",
    ] {
        assert!(!state(other).unwrap().continues(&half), "{other}");
    }
    assert!(
        state("  2%|█ | 1/60 [00:01<00:09,  4.51it/s, loss=1]")
            .unwrap()
            .has_metrics
    );
    assert!(
        state("  2%|█ | 1/60 [00:01<00:09,  4.51it/s]\x1b[A")
            .unwrap()
            .is_nested
    );
    assert_eq!(state("  2%|█ | 1/60 [00:01<00:09,  4.51it/s] Saved."), None);
}
