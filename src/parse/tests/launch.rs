//! Who the job became, in the output of `oumi launch up`.

use crate::parse::oumi::{MIN_WIDTH, found_existing_cluster, launched};

use super::captures::capture;

#[test]
fn every_captured_launch_says_who_the_job_became() {
    for (name, id, cluster) in [
        ("oumi-sky/up-blocking", "6", "skyc1"),
        ("oumi-sky/up-detach-new", "1", "skyc2"),
        ("oumi-slurm/up-blocking", "1", "root@localhost"),
        (
            "oumi-slurm/up-detach-existing-cluster",
            "2",
            "root@localhost",
        ),
        ("oumi-slurm/up-fail-blocking", "3", "root@localhost"),
        ("oumi-slurm/up-no-logdir", "10", "root@localhost"),
        ("oumi-slurm/up-train-blocking", "11", "root@localhost"),
    ] {
        let launched = launched(&capture(name).output()).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(launched.oumi_job_id, id, "{name}");
        assert_eq!(launched.cluster.as_deref(), Some(cluster), "{name}");
    }
    for name in [
        "oumi-slurm/up-bad-config",
        "oumi-slurm/up-no-cluster",
        "oumi-slurm/up-unreachable",
    ] {
        assert_eq!(launched(&capture(name).output()), None, "{name}");
    }
}

#[test]
fn a_launch_that_ended_early_is_known_by_what_skypilot_said() {
    let new = capture("oumi-sky/up-detach-new").out;
    let found = launched(&new[..new.find("Job 1 queued").unwrap()]).unwrap();
    assert_eq!(
        (found.oumi_job_id.as_str(), found.cluster.as_deref()),
        ("1", Some("skyc2"))
    );
    let existing = capture("oumi-sky/up-blocking").out;
    let found = launched(&existing[..existing.find("Job 6 queued").unwrap()]).unwrap();
    assert_eq!(
        (found.oumi_job_id.as_str(), found.cluster.as_deref()),
        ("6", Some("skyc1"))
    );
    assert_eq!(launched(&new[..new.find("Job submitted").unwrap()]), None);
}

#[test]
fn an_existing_cluster_is_noticed() {
    let found = |name: &str| found_existing_cluster(&capture(name).out);
    assert_eq!(found("oumi-sky/up-blocking").as_deref(), Some("skyc1"));
    assert_eq!(found("oumi-slurm/up-blocking"), None);
    assert_eq!(
        found("oumi-slurm/up-detach-existing-cluster").as_deref(),
        Some("root@localhost")
    );
    assert_eq!(found("oumi-sky/up-detach-new"), None);
}

/// Wraps `sentence` as Oumi's console does: at words, which keep their space where it fits, and words longer than a line
/// over lines of their own. Checked against the real one at widths 30, 40 and 80.
fn wrapped(sentence: &str, width: usize) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in sentence.split_inclusive(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + word.trim_end().len() <= width {
            line.push_str(word);
        } else if word.trim_end().len() <= width {
            lines.push(word.to_owned());
        } else {
            let pieces = word.as_bytes().chunks(width);
            lines.extend(pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap()));
        }
    }
    for line in &mut lines {
        if line.len() > width {
            line.truncate(line.trim_end().len());
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.join("\n") + "\n"
}

#[test]
fn sentences_that_were_hard_wrapped_read_the_same_at_any_width() {
    let clusters = [
        "c".to_owned(),
        "root@localhost".to_owned(),
        "oumi-train-20261124-120000-abcdef".to_owned(),
        "a.very.long.cluster.name.that.does.not.fit.in.thirty".to_owned(),
        "a234567890123456789012345678.b-xy".to_owned(),
        "x.".repeat(80) + "y",
    ];
    for width in MIN_WIDTH..=200 {
        for cluster in &clusters {
            for id in ["1", "12345", "sb-4GF7Zq7Zq7Zq7Zq7Zq7Zq7"] {
                let output = [
                    wrapped(&format!("Found an existing cluster: {cluster}."), width),
                    "[2026-11-24 18:50:53,592][oumi][INFO]][slurm_client.py:869] Rsync done: 0\n"
                        .to_owned(),
                    wrapped(&format!("Job {id} queued on cluster {cluster}."), width),
                    wrapped(&format!("Running job {id} in detached mode."), width),
                ]
                .concat();
                let found = launched(&output).unwrap_or_else(|| panic!("{width}: {output}"));
                assert_eq!(found.oumi_job_id, id, "{width}: {output}");
                assert_eq!(found.cluster.as_ref(), Some(cluster), "{width}: {output}");
                assert_eq!(found_existing_cluster(&output).as_ref(), Some(cluster));
            }
        }
    }
}

#[test]
fn a_launch_in_colour_reads_the_same() {
    let output = "Job \u{1b}[33m1\u{1b}[0m queued on cluster \n\u{1b}[33moumi-train-20261124-120000-abc\u{1b}[0m\n\
                  \u{1b}[33mdef\u{1b}[0m.\nLogging to console...\nJob 2 queued on cluster other.\n";
    let found = launched(output).unwrap();
    assert_eq!(found.oumi_job_id, "1");
    assert_eq!(
        found.cluster.as_deref(),
        Some("oumi-train-20261124-120000-abcdef")
    );
}

#[test]
fn what_only_looks_like_the_sentence_is_not_taken_for_it() {
    for output in [
        "Job 1 queued on cluster",
        "Job 1 queued on cluster c",
        "Job 1 queued on cluster .",
        "Job queued on cluster c.",
        "A Job 1 queued on cluster c.",
        "Job 1\n\nqueued on cluster c.",
        "Jobs 1 queued on cluster c.",
    ] {
        assert_eq!(launched(output), None, "{output:?}");
    }
}
