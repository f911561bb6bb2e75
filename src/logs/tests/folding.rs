//! Readable text from raw bytes.

use std::time::{Duration, Instant};

use crate::logs::fold::{CUT, MAX_LINE, fold};

#[test]
fn ordinary_text_stays_as_it_is() {
    let text = "one\n\ttwo  three\n    Ünïcode ██ 日本\nlast\n";
    assert_eq!(fold(text.as_bytes()), text);
    assert_eq!(fold(b"no end"), "no end\n");
    let far_up = format!("{}\u{1b}[99Ax\n", "line\n".repeat(40));
    assert!(
        fold(far_up.as_bytes()).contains('x'),
        "a cursor goes up as far as there are rows"
    );
    assert_eq!(fold(b""), "");
}

#[test]
fn of_a_line_with_carriage_returns_the_last_state_is_left() {
    assert_eq!(fold(b"10%\r50%\r100%\ndone\n"), "100%\ndone\n");
    assert_eq!(fold(b"dos\r\nlines\r\n"), "dos\nlines\n");
    // A shorter state leaves nothing of the longer one.
    assert_eq!(fold(b"downloading\rdone\n"), "done\n");
    // tqdm clears its bar with blanks before another line is written.
    assert_eq!(
        fold(b"\r 3/6 [..]\r          \r{'loss': 1}\n\r 4/6 [..]"),
        "{'loss': 1}\n 4/6 [..]\n"
    );
    // A bar that was cleared for good leaves nothing.
    assert_eq!(fold(b"\r 3/6\r      \r\nnext\n"), "\nnext\n");
}

#[test]
fn nested_bars_of_tqdm_are_folded_as_a_terminal_shows_them() {
    let nested = b"\router 0\n\rinner 0\x1b[A\n\rinner 9\x1b[A\router 1\n\rinner 0\x1b[A\n\rinner 5\x1b[A\n\nend\n";
    assert_eq!(fold(nested), "outer 1\ninner 5\nend\n");
}

#[test]
fn a_real_run_with_evaluation_bars_reads_like_a_terminal() {
    let log = include_bytes!("../../../tests/fixtures/logs/oumi-0.9-trl-sft-eval.log");
    let text = fold(log);
    assert!(!text.contains(['\r', '\x1b']));
    let bars: Vec<&str> = text.lines().filter(|line| line.contains("%|")).collect();
    assert_eq!(
        bars,
        [
            "Loading weights: 100%|██████████| 21/21 [00:00<00:00, 23338.73it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 237.88it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 526.33it/s]",
            "100%|██████████| 12/12 [00:03<00:00,  3.21it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 907.66it/s]",
        ]
    );
    let metrics: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(metrics.len(), 12 + 3 + 1);
    assert_eq!(
        metrics
            .iter()
            .filter(|line| line.contains("eval_loss"))
            .count(),
        3
    );
}

#[test]
fn real_standard_error_with_cursor_movements_is_folded() {
    let text = fold(include_bytes!(
        "../../../tests/fixtures/logs/oumi-0.9-trl-sft.stderr"
    ));
    assert_eq!(
        text.lines()
            .skip(2)
            .filter(|line| line.contains("%|"))
            .collect::<Vec<_>>(),
        [
            "Loading weights: 100%|██████████| 21/21 [00:00<00:00, 3324.79it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 342.11it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 461.62it/s]",
            "100%|██████████| 6/6 [00:00<00:00, 20.51it/s]",
            "Writing model shards: 100%|██████████| 1/1 [00:00<00:00, 520.77it/s]",
        ]
    );
}

#[test]
fn terminal_escapes_and_control_characters_are_removed() {
    let escapes = b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \x1b(Bb\x1b[?25lc\x1b7\x1b=d\x1bPq#0\x1b\\e\x07\x0b\x7f\n";
    assert_eq!(fold(escapes), "red alink bcde\n");
    // What pip writes: the line is erased before it is written again.
    assert_eq!(fold(b"10%\r\x1b[K20%\x1b[2K\rdone\n"), "done\n");
    assert_eq!(fold("a\u{85}b\u{9b}c\u{a0}d\n".as_bytes()), "abc\u{a0}d\n");
    assert_eq!(
        fold(b"1/9 [=>..]\x08\x08\x08\x08\x08\x08 [==>.]\n"),
        "1/9  [==>.]\n"
    );
}

#[test]
fn an_escape_that_never_ends_does_not_swallow_the_log() {
    assert_eq!(fold(b"a\x1b]0;no end\nnext\n"), "a\nnext\n");
    assert_eq!(fold(b"a\x1b[12\nnext\n"), "a\nnext\n");
    assert_eq!(fold(b"a\x1b"), "a\n");
    // One that is cut off by another.
    assert_eq!(fold(b"\x1b]0;title\x1b[31mred\x1b[0m\n"), "red\n");
}

#[test]
fn what_is_no_text_is_replaced_and_a_hole_in_the_file_is_one_mark() {
    assert_eq!(fold(b"a\xffb\xe2\x96c\n"), "a\u{fffd}b\u{fffd}c\n");
    let mut hole = b"a".to_vec();
    hole.resize(1_000_000, 0);
    hole.extend(b"b\n");
    assert_eq!(fold(&hole), "a\u{fffd}b\n");
}

#[test]
fn exact_repeats_are_counted_and_near_ones_are_kept() {
    let mut log = b"start\n".to_vec();
    log.extend(b"WARNING: again\n".repeat(813));
    log.extend(b"end\n");
    assert_eq!(
        fold(&log),
        "start\nWARNING: again\n… repeated 812 times\nend\n"
    );
    assert_eq!(fold(b"twice\ntwice\nx\n"), "twice\ntwice\nx\n");
    assert_eq!(
        fold(b"step 1\nstep 2\nstep 3\n"),
        "step 1\nstep 2\nstep 3\n"
    );
    assert_eq!(fold(b"a\n\n\n   \n\nb\n\n\n"), "a\n\nb\n");
}

#[test]
fn states_of_one_bar_on_lines_of_their_own_leave_the_last() {
    let bars = "Map: 10%|█ | 1/10 [00:01<00:09, 1.0it/s]\nMap: 90%|█ | 9/10 [00:09<00:01, 1.0it/s]\nMap: 10%|█ | 1/20 [00:01<00:09, 1.0it/s]\nEval: 15%|█ | 3/20 [00:01<00:09, 1.0it/s]\n";
    assert_eq!(
        fold(bars.as_bytes()),
        "Map: 90%|█ | 9/10 [00:09<00:01, 1.0it/s]\nMap: 10%|█ | 1/20 [00:01<00:09, 1.0it/s]\nEval: 15%|█ | 3/20 [00:01<00:09, 1.0it/s]\n"
    );
}

#[test]
fn a_line_of_20_mb_keeps_its_end_and_says_so() {
    let mut line = vec![b'x'; 20_000_000];
    line.extend(b" the END\nnext\n");
    let text = fold(&line);
    assert!(text.starts_with(&format!("{CUT}xx")), "{}", &text[..60]);
    assert!(text.ends_with("x the END\nnext\n"));
    assert!(text.len() < MAX_LINE + 100);
}

#[test]
fn nothing_makes_it_slow_or_fail() {
    // Each of these would take minutes if its cost grew with the square.
    let far: Vec<Vec<u8>> = vec![
        b"\x1b[A\n".repeat(200_000),
        b"x\x1b[Ay\n".repeat(100_000),
        [vec![b'x'; 15_000], b"\x1b[A\n".repeat(100_000)].concat(),
        b"\x08".repeat(400_000),
        b"\x1b".repeat(400_000),
        b"\x1b]".repeat(200_000),
        b"%|".repeat(200_000),
        b"5%|]\n".repeat(100_000),
        b"\xc2".repeat(400_000),
        b"\r".repeat(400_000),
        b"\n".repeat(400_000),
        b"\0\r".repeat(200_000),
    ];
    for log in far {
        let start = Instant::now();
        fold(&log);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}…",
            String::from_utf8_lossy(&log[..10])
        );
    }
}

#[test]
fn any_bytes_become_text_without_control_characters() {
    // A small generator, always the same: all the bytes that mean something, in any order.
    let alphabet: &[&[u8]] = &[
        b"\x1b",
        b"[",
        b"]",
        b"A",
        b"B",
        b"K",
        b"J",
        b"m",
        b"2",
        b";",
        b"\n",
        b"\r",
        b"\x08",
        b"\0",
        b"\x07",
        b"\xc2",
        b"\x85",
        b"\xe2\x96\x88",
        b"\xff",
        b"text ",
        b"%|",
        b"| 1/2 [",
        b"]",
        b"\x1b\\",
        b"\t",
    ];
    let mut state = 1_u64;
    for _ in 0..2_000 {
        let mut log = Vec::new();
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            log.extend(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        let text = fold(&log);
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'),
            "{text:?} from {log:?}"
        );
    }
}

#[test]
fn half_a_token_is_not_shown_where_a_line_is_cut() {
    let end = " end".repeat(MAX_LINE / 4 - 4);
    assert!(!fold(format!("key hf_{}{end}", "T".repeat(40)).as_bytes()).contains("TTTT"));
}
