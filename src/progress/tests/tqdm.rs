//! Bars of tqdm in all their forms.

use crate::progress::tqdm::Bar;

#[test]
fn parses_all_forms() {
    // Line, label, done, total, seconds left, rate, unit.
    type Case<'a> = (
        &'a str,
        &'a str,
        u64,
        Option<u64>,
        Option<f64>,
        Option<f64>,
        &'a str,
    );
    let cases: [Case<'_>; 7] = [
        (
            "Training:  12%|█▏        | 6/50 [00:01<00:09,  4.51it/s, loss=0.12]",
            "Training",
            6,
            Some(50),
            Some(9.0),
            Some(4.51),
            "it",
        ),
        (
            "  2%|▎         | 1/40 [26:01:05<1000:00:48,  5.00s/it]",
            "",
            1,
            Some(40),
            Some(3_600_048.0),
            Some(0.2),
            "it",
        ),
        (
            "  0%|          | 0/6 [00:00<?, ?it/s]",
            "",
            0,
            Some(6),
            None,
            None,
            "it",
        ),
        (
            " 50%|#####     | 3.0/6.0 [00:01<00:01,  2.00it/s]",
            "",
            3,
            Some(6),
            Some(1.0),
            Some(2.0),
            "it",
        ),
        (
            "Steps: 6it [00:01,  4.51it/s]",
            "Steps",
            6,
            None,
            None,
            Some(4.51),
            "it",
        ),
        (
            "1|25|Loss: 1.63: 100%|███| 25/25 [01:00<00:00,  2.40s/it]",
            "1|25|Loss: 1.63",
            25,
            Some(25),
            Some(0.0),
            Some(1.0 / 2.4),
            "it",
        ),
        (
            "Epoch 4/5:  96%|█ | 32/33 [00:32<01:30,  2.50step/s]",
            "Epoch 4/5",
            32,
            Some(33),
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
