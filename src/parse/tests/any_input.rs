//! Whatever the input is: damaged, random or large.

use std::time::{Duration, Instant};

use crate::parse::oumi::{found_existing_cluster, launched, oumi_log_lines, oumi_statuses};
use crate::parse::sky::{clusters, queue, sky_cancel, sky_log_lines, sky_teardown};
use crate::parse::{
    MAX_SENTENCE, failure_reason, is_valid_cluster_name, is_valid_slurm_cluster_name,
    json_document, last_line, state_of, strip_terminal,
};
use serde_json::Value;

use super::captures::{capture, names};

/// Asks everything of `text`.
fn read_all(text: &str) {
    let stripped = strip_terminal(text);
    assert!(!stripped.contains('\u{1b}'));
    assert_eq!(
        strip_terminal(&stripped),
        stripped,
        "stripping twice changes nothing"
    );
    drop(json_document::<Value>(text));
    drop(queue(text));
    drop(clusters(text));
    drop((
        launched(text),
        found_existing_cluster(text),
        oumi_statuses(text),
    ));
    drop((oumi_log_lines(text), sky_log_lines(text)));
    for sentence in [failure_reason(text), last_line(text)]
        .into_iter()
        .flatten()
    {
        assert!(!sentence.is_empty() && !sentence.contains('\n'));
        assert!(sentence.chars().count() <= MAX_SENTENCE);
    }
    drop((sky_cancel(text), sky_teardown(text)));
    let _ = (
        state_of(text),
        is_valid_cluster_name(text),
        is_valid_slurm_cluster_name(text),
    );
}

/// Pseudo-random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }
}

#[test]
fn nothing_that_is_cut_off_or_damaged_causes_a_panic() {
    let mut dice = Dice(0x0b5e_55ed);
    for name in names() {
        let whole = capture(&name).output();
        read_all(&whole);
        for _ in 0..4 {
            let from = dice.below(whole.len());
            let to = from + dice.below(whole.len() - from);
            let mut bytes = whole.as_bytes()[from..to].to_vec();
            read_all(&String::from_utf8_lossy(&bytes));
            for _ in 0..dice.below(20) {
                let at = dice.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(dice.below(256)).unwrap();
                }
            }
            read_all(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn random_bytes_and_random_controls_cause_no_panic() {
    let mut dice = Dice(0xdead_beef);
    let pieces = [
        "\u{1b}",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "\r",
        "\u{8}",
        "\u{9b}",
        "\u{9c}",
        "\u{7}",
        "K",
        "2K",
        "m",
        "\\",
        "│",
        "┃",
        "╭",
        "Cluster: ",
        "Job ",
        "Status",
        "1 ",
        "queued on cluster ",
        "x.",
        "Found an existing cluster: ",
        "é",
        " ",
        ":",
        "Error: ",
        "Traceback (most recent call last):",
        "a.BError",
        "Failed to get the job queue for cluster '",
        "'.",
        "\"",
        ",",
        "(",
        "pid=",
        ") ",
        "…",
        "+",
        "Tailing logs of ",
        "]][",
        "Reason: ",
        "...done.",
        "skipped.",
        "🅱",
    ];
    for _ in 0..1000 {
        let text: String = (0..dice.below(40))
            .map(|_| pieces[dice.below(pieces.len())])
            .collect();
        read_all(&text);
        let bytes: Vec<u8> = (0..dice.below(200))
            .map(|_| u8::try_from(dice.below(256)).unwrap())
            .collect();
        read_all(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn large_outputs_cost_time_in_proportion() {
    let size = 64 << 10;
    for piece in [
        "[1,\n",
        "{\n",
        "[\n",
        "{\"a\":\n",
        "[]\n",
        "\u{1b}[",
        "\u{1b}]",
        "\r",
        "x\u{8}",
        "Job ",
        "\nJob 1 queued on cluster \n",
        "Failed to get the job queue for cluster '",
        "Error: x\n",
        "(a, pid=1) x\n",
        "│ │ 1 │ RUNNING │ │\n",
        "x",
        "║",
        "Traceback (most recent call last):\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        "a.b.",
        "\n",
        "Cluster: ",
    ] {
        let text = piece.repeat(size / piece.len());
        let start = Instant::now();
        read_all(&text);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{piece:?} took {took:?}");
    }
}
