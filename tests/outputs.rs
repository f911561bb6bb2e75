//! What is read out of the outputs of `oumi` and `sky`, on what the real ones printed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/captures.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod captures;

use std::time::{Duration, Instant};

use captures::{capture, names};
use oumi_mcp_server::launcher::JobState::{Cancelled, Failed, Running, Succeeded};
use oumi_mcp_server::launcher::output::oumi::{
    MIN_WIDTH, found_existing_cluster, launched, no_matching_clusters, no_matching_jobs,
    oumi_log_lines, oumi_statuses,
};
use oumi_mcp_server::launcher::output::sky::{
    QueueFailure, SkyCancel, SkyLogsExit, SkyTeardown, clusters, exit_code, queue, sky_cancel,
    sky_log_lines, sky_teardown,
};
use oumi_mcp_server::launcher::output::{
    MAX_SENTENCE, OutputError, failure_reason, is_valid_cluster_name, is_valid_slurm_cluster_name,
    json_document, last_line, state_of, strip_terminal,
};
use oumi_mcp_server::logs::fold::fold;
use serde_json::{Value, json};

// ---- JSON behind text

#[test]
fn the_json_is_found_behind_the_text_that_stands_before_it() {
    for name in ["sky/repro-check", "sky/queue-none-first", "sky/queue-notup"] {
        let value: Value = json_document(&capture(name).out).unwrap();
        assert!(value.is_object(), "{name}: {value}");
    }
}

#[test]
fn brackets_and_colours_around_the_json_do_not_hide_it() {
    let document = "{\n  \"a\": [\n    1\n  ]\n}";
    for (before, after) in [
        ("", ""),
        ("", "\n\n"),
        ("[1] a line {with} brackets\n[\n{\n[]\n{}\n", "\n"),
        ("[2026-11-24 19:51:30,373][oumi][rank0] said\n", ""),
        ("\u{1b}[33mtext\u{1b}[0m\n\u{1b}[0m", "\u{1b}[0m\n"),
        ("⠙ waiting\r", "\r\n"),
        ("⠙ waiting\u{1b}[2K", ""),
    ] {
        let stdout = format!("{before}{document}{after}");
        let found: Value = json_document(&stdout).unwrap_or_else(|e| panic!("{stdout:?}: {e}"));
        assert_eq!(found, json!({"a": [1]}), "{stdout:?}");
    }
}

#[test]
fn no_json_half_of_it_and_other_json_are_told_apart() {
    let read = |stdout: &str| json_document::<Vec<u32>>(stdout).unwrap_err();
    assert_eq!(read(""), OutputError::NoJson(None));
    assert_eq!(
        read("Traceback (most recent call last):\nValueError: [1]\n").to_string(),
        "answered without JSON; it said: ValueError: [1]"
    );
    assert_eq!(read("text\n[\n  1,\n"), OutputError::CutShort);
    assert_eq!(read("[1, 2"), OutputError::CutShort);
    assert_eq!(
        read("text\n{\"a\": 1}\n").to_string(),
        "answered with JSON of another form than is known: invalid type: map, expected a sequence at line 1 column 0"
    );
    assert!(matches!(read("[1, \"two\"]"), OutputError::OtherForm(why) if why.contains("[1]")));
    // Text behind it: not the last thing said, so not the answer.
    assert!(matches!(read("[1]\nTraceback"), OutputError::NoJson(_)));
}

#[test]
fn every_half_of_a_captured_document_is_an_error() {
    let whole = capture("sky/queue-json-mixed").out;
    let end = whole.rfind('}').unwrap();
    for cut in (0..=end).filter(|cut| whole.is_char_boundary(*cut)) {
        let error = queue(&whole[..cut]).unwrap_err();
        let started = whole[..cut].contains("\n{");
        assert_eq!(error == OutputError::CutShort, started, "{cut}: {error}");
    }
    assert!(queue(&whole[..=end]).is_ok());
}

// ---- sky queue

#[test]
fn a_queue_lists_its_jobs_newest_first() {
    let queue = queue(&capture("sky/queue-json-mixed").out).unwrap();
    assert!(queue.unanswered.is_empty());
    let jobs = &queue.jobs["skyc1"];
    let seen: Vec<_> = jobs
        .iter()
        .map(|job| {
            (
                job.job_id.as_str(),
                job.job_name.as_str(),
                state_of(&job.status),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("3", "longjob", Some((Running, false))),
            ("2", "failjob", Some((Failed, true))),
            ("1", "sky-hi", Some((Succeeded, true))),
        ]
    );
    let longjob = &jobs[0];
    assert_eq!(longjob.submitted_at.map(f64::floor), Some(1795547396.0));
    assert_eq!(longjob.start_at.map(f64::floor), Some(1795547415.0));
    assert_eq!(longjob.end_at, None);
    assert_eq!(longjob.resources, "1x[CPU:1+]");
    assert_eq!(longjob.username, "root");
}

#[test]
fn a_job_whose_setup_failed_never_started() {
    let queue = queue(&capture("sky/queue-json-failsetup").out).unwrap();
    let job = &queue.jobs["skyc3"][0];
    assert_eq!(state_of(&job.status), Some((Failed, true)));
    assert_eq!((job.start_at, job.end_at.is_some()), (None, true));
}

#[test]
fn a_cluster_that_does_not_answer_says_why() {
    let gone = queue(&capture("sky/queue-nocluster-json").out).unwrap();
    assert!(gone.jobs.is_empty());
    assert_eq!(gone.unanswered["nosuch"], QueueFailure::ClusterGone);

    let init = queue(&capture("sky/queue-init").out).unwrap();
    let QueueFailure::ClusterNotUp(reason) = &init.unanswered["skyc1"] else {
        panic!("{:?}", init.unanswered);
    };
    assert_eq!(
        reason,
        "ClusterNotUpError: Cluster 'skyc1' has been stopped or not properly set up. Please re-launch it with `sky start`."
    );

    let three = queue(&capture("sky/queue-notup").out).unwrap();
    assert_eq!(three.unanswered.len(), 3);
    assert_eq!(three.unanswered["nosuch"], QueueFailure::ClusterGone);
    for name in ["init1", "stopped1"] {
        let said = format!("{:?}", three.unanswered[name]);
        assert!(
            said.starts_with("ClusterNotUp(") && said.contains(name),
            "{said}"
        );
    }
}

#[test]
fn another_reason_is_kept_in_the_launchers_words_beside_the_clusters_that_answered() {
    let stdout = "Fetching job queue for: a, b\nFailed to get the job queue for cluster 'b'.\n  \
                  sky.exceptions.CommandError: Command failed with return code 255.\nssh: connect to host\n\
                  {\n  \"a\": []\n}\n";
    let queue = queue(stdout).unwrap();
    assert_eq!(queue.jobs["a"], []);
    assert_eq!(
        queue.unanswered["b"],
        QueueFailure::Other(
            "CommandError: Command failed with return code 255. ssh: connect to host".into()
        )
    );
}

#[test]
fn a_queue_of_no_clusters_is_no_error() {
    for name in ["sky/queue-none", "sky/queue-none-first"] {
        assert_eq!(
            queue(&capture(name).out).unwrap(),
            Default::default(),
            "{name}"
        );
    }
}

#[test]
fn fields_that_are_new_missing_or_of_another_type_cost_no_job() {
    let stdout = r#"{"c": [
      {"job_id": "7", "status": "RUNNING", "submitted_at": "soon", "start_at": 0, "new": {"deep": [1]}},
      {"job_id": 6, "status": null, "job_name": "a\u001b[31mb\nc", "end_at": 5},
      {"status": "RUNNING"}]}"#;
    let jobs = &queue(stdout).unwrap().jobs["c"];
    assert_eq!(jobs.len(), 2);
    assert_eq!(
        (
            jobs[0].job_id.as_str(),
            jobs[0].submitted_at,
            jobs[0].start_at
        ),
        ("7", None, None)
    );
    assert_eq!(
        (jobs[1].status.as_str(), jobs[1].job_name.as_str()),
        ("", "ab c")
    );
    assert_eq!(jobs[1].end_at, Some(5.0));
}

// ---- sky status

#[test]
fn clusters_are_read_as_sky_shows_them() {
    assert_eq!(clusters(&capture("sky/status-empty-json").out).unwrap(), []);
    let up = clusters(&capture("sky/status-up-json").out).unwrap();
    let cluster = &up[0];
    assert_eq!(
        (cluster.name.as_str(), cluster.status.as_str()),
        ("skyc1", "UP")
    );
    assert_eq!((cluster.autostop_minutes, cluster.to_down), (None, false));
    assert_eq!(cluster.cloud.as_deref(), Some("Slurm"));
    assert_eq!(cluster.region.as_deref(), Some("labslurm"));
    assert_eq!(cluster.nodes, Some(1));
    assert_eq!(cluster.resources.as_deref(), Some("1x(cpus=1, mem=1, ...)"));
    assert_eq!(
        (cluster.accelerators.as_deref(), cluster.hourly_price),
        (None, None)
    );
    assert_eq!(cluster.launched_at, Some(1795547289.0));
    let three = clusters(&capture("sky/status-three-json").out).unwrap();
    let statuses: Vec<_> = three
        .iter()
        .map(|cluster| cluster.status.as_str())
        .collect();
    assert_eq!(statuses, ["UP", "INIT", "STOPPED"]);
}

#[test]
fn a_price_is_taken_from_any_field_a_version_may_have_for_it() {
    for (field, price) in [
        (r#""price": 1.5"#, Some(1.5)),
        (r#""hourly_price": 2"#, Some(2.0)),
        (r#""cost_per_hour": "3.25""#, Some(3.25)),
        (r#""hourly_cost": "$ 4.00""#, Some(4.0)),
        (r#""price": null, "hourly_cost": 1"#, Some(1.0)),
        (r#""price": -1"#, None),
        (r#""price": "NaN""#, None),
        (r#""price": "free""#, None),
        (r#""other": 1"#, None),
    ] {
        let stdout = format!(
            r#"[{{"name": "c", {field}, "autostop": 60, "to_down": true,
            "accelerators": {{"A100": 8}}}}, {{"no": "name"}}]"#
        );
        let found = clusters(&stdout).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hourly_price, price, "{field}");
        assert_eq!(
            (found[0].autostop_minutes, found[0].to_down),
            (Some(60), true)
        );
        assert_eq!(found[0].accelerators.as_deref(), Some(r#"{"A100":8}"#));
    }
}

// ---- sky logs, cancel, stop, down

#[test]
fn the_lines_of_a_job_lose_the_heading_and_the_prefix_they_share() {
    assert_eq!(
        sky_log_lines(&capture("sky/logs-nofollow-running").out),
        "step 38\nstep 39\nstep 40\n"
    );
    assert_eq!(
        fold(sky_log_lines(&capture("sky/logs-nofollow-failed").out).as_bytes()),
        "├── Waiting for task resources on 1 node.\n\
         └── Job started. Streaming logs... (Ctrl-C to exit log streaming; job will not be killed)\n\
         about to fail\n\
         srun: error: vm: task 0: Exited with exit code 3\n\
         ERROR: Job 2 failed with return code list: [3]\n\
         ✓ Job finished (status: FAILED).\n\
         srun: error: vm: task 0: Exited with exit code 100\n"
    );
    assert_eq!(sky_log_lines(&capture("sky/logs-nocluster").out), "");
    // The job's own colours are for whoever reads the log to take away.
    assert_eq!(
        sky_log_lines("\u{1b}[36m(x, pid=1)\u{1b}[0m \u{1b}[1mbold\n"),
        "\u{1b}[1mbold\n"
    );
}

#[test]
fn the_end_of_a_failed_job_s_log_tells_the_exit_code_of_the_first_node_that_failed() {
    let log = sky_log_lines(&capture("sky/logs-nofollow-failed").out);
    assert_eq!(exit_code(&log), Some(3));
    let several = "ERROR: Job 2 failed with return code list: [0, 137, 1]";
    assert_eq!(exit_code(several), Some(137));
    for other in [
        "",
        "failed with return code list: [",
        "failed with return code list: [x, 0]",
    ] {
        assert_eq!(exit_code(other), None, "{other}");
    }
}

#[test]
fn prefixes_that_tell_nodes_apart_are_kept() {
    let two =
        "(head, rank=0, pid=1) a\n(worker1, rank=1, pid=2, ip=10.0.0.2) b\n(not a prefix) c\n";
    assert_eq!(sky_log_lines(two), two);
    let one = "(setup pid=1) a\nplain\n(setup pid=1) b";
    assert_eq!(sky_log_lines(one), "a\nplain\nb");
    // What becomes of a line does not depend on others: the next answer may not have them.
    assert_eq!(sky_log_lines("(setup pid=1) a\n(x, pid=2) b\n"), "a\nb\n");
    assert_eq!(sky_log_lines("(x, pid=1) 1%\r(x, pid=1) 2%\n"), "1%\r2%\n");
    for as_it_is in [
        "(x, pid=y) a\n",
        "(a (b, pid=1) c\n",
        "(x, pid=1)a\n",
        "(pid=1) a\n",
        "(x, pid=1",
    ] {
        assert_eq!(sky_log_lines(as_it_is), as_it_is);
    }
}

#[test]
fn the_exit_code_of_sky_logs_tells_of_the_job() {
    for (name, exit) in [
        ("sky/logs-nofollow-running", SkyLogsExit::RunningOrSucceeded),
        ("sky/logs-nofollow", SkyLogsExit::RunningOrSucceeded),
        ("sky/logs-nofollow-failed", SkyLogsExit::Failed),
        ("sky/logs-failsetup", SkyLogsExit::Failed),
        ("sky/logs-status-running", SkyLogsExit::NotFinished),
        ("sky/logs-nofollow-unknown", SkyLogsExit::NotFound),
        ("sky/logs-status-cancelled", SkyLogsExit::Cancelled),
        ("sky/logs-nocluster", SkyLogsExit::NoLogs),
    ] {
        assert_eq!(
            SkyLogsExit::from_code(Some(capture(name).exit)),
            exit,
            "{name}"
        );
    }
    assert_eq!(SkyLogsExit::from_code(None), SkyLogsExit::NoLogs);
}

#[test]
fn a_cancel_says_what_it_did() {
    let cancel = |name: &str| sky_cancel(&capture(name).output());
    assert_eq!(
        cancel("sky/cancel-running"),
        SkyCancel::Cancelled(vec!["3".into()])
    );
    assert_eq!(cancel("sky/cancel-done"), SkyCancel::NoneCancelled);
    assert_eq!(cancel("sky/cancel-unknown"), SkyCancel::NoneCancelled);
    assert_eq!(cancel("sky/cancel-nocluster"), SkyCancel::ClusterGone);
    let SkyCancel::ClusterNotUp(reason) = cancel("sky/cancel-notup") else {
        panic!("{:?}", cancel("sky/cancel-notup"));
    };
    assert!(reason.contains("'stopped1' (status: STOPPED)"), "{reason}");
    assert_eq!(
        sky_cancel("Cancelled job ID(s): 3, 12\n"),
        SkyCancel::Cancelled(vec!["3".into(), "12".into()])
    );
    assert_eq!(
        sky_cancel(""),
        SkyCancel::Failed("it did not say why".into())
    );
    assert_eq!(
        sky_cancel("RuntimeError: SkyPilot API server process exited unexpectedly."),
        SkyCancel::Failed("RuntimeError: SkyPilot API server process exited unexpectedly.".into())
    );
}

#[test]
fn stopping_and_turning_down_say_what_they_did() {
    let teardown = |name: &str| sky_teardown(&capture(name).output());
    assert_eq!(teardown("sky/down"), SkyTeardown::Done);
    assert_eq!(teardown("sky/stop"), SkyTeardown::Done);
    assert_eq!(teardown("sky/down-nocluster"), SkyTeardown::ClusterNotFound);
    assert_eq!(teardown("sky/stop-nocluster"), SkyTeardown::ClusterNotFound);
    assert_eq!(
        teardown("sky/stop-unsupported"),
        SkyTeardown::CannotStop("Stopping is currently not supported for slurm.".into())
    );
    // From the source of SkyPilot: it was never seen to fail here.
    let failed = "\nTerminating cluster c...failed. \nReason: sky.exceptions.CommandError: it broke.\n\
                  Terminating 1 cluster                  0% -:--:--\nCluster(s) failed. See details above.\n";
    assert_eq!(
        sky_teardown(failed),
        SkyTeardown::Failed("CommandError: it broke.".into())
    );
}

// ---- oumi launch up

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

// ---- oumi launch status, logs

fn rows(name: &str) -> Vec<(String, String, String)> {
    let rows = oumi_statuses(&capture(name).out).into_iter();
    rows.map(|row| (row.cluster, row.oumi_job_id, row.status))
        .collect()
}

fn row(cluster: &str, id: &str, status: &str) -> (String, String, String) {
    (cluster.to_owned(), id.to_owned(), status.to_owned())
}

#[test]
fn the_tables_of_a_status_are_read_at_any_width() {
    let expected = [
        row("root@localhost", "1", "COMPLETED"),
        row("root@localhost", "2", "RUNNING"),
    ];
    for name in [
        "status-inflight",
        "status-inflight-cols30",
        "status-inflight-cols200",
    ] {
        assert_eq!(rows(&format!("oumi-slurm/{name}")), expected, "{name}");
    }
    assert_eq!(
        rows("oumi-slurm/status-inflight-id"),
        [row("root@localhost", "2", "RUNNING")]
    );
    let wide = capture("oumi-slurm/status-inflight").out;
    let widened = wide
        .replace('─', &"─".repeat(60))
        .replace("  ", &" ".repeat(120));
    assert_eq!(oumi_statuses(&widened).len(), 2);
}

#[test]
fn the_tables_of_all_clouds_and_of_a_terminal_are_read() {
    assert_eq!(
        rows("oumi-sky/status-existing-cluster").first(),
        Some(&row("skyc1", "5", "JobStatus.CANCELLED"))
    );
    assert_eq!(rows("oumi-sky/status-existing-cluster").len(), 5);
    let all = rows("oumi/status-all");
    assert_eq!(all.first(), Some(&row("skyc2", "1", "JobStatus.CANCELLED")));
    assert_eq!(all.len(), 10);
    let coloured = rows("oumi-slurm/status-tty");
    assert_eq!(coloured.len(), 9);
    assert_eq!(coloured[7], row("root@localhost", "8", "RUNNING"));
}

#[test]
fn every_status_in_a_table_is_a_known_word() {
    for name in names().iter().filter(|name| name.contains("/status-")) {
        for (_, id, status) in rows(name) {
            assert!(state_of(&status).is_some(), "{name}: {id} is {status}");
        }
    }
}

#[test]
fn tables_of_a_narrow_terminal_and_one_without_box_characters_are_read() {
    // As the real console draws them.
    let narrow = "╭─ Cluster: a-very-long-clus─╮\n\
                  │ ┏━━━━━┳━━━━━━━━━━━━━━━━━━┓ │\n\
                  │ ┃ Job ┃ Status           ┃ │\n\
                  │ ┡━━━━━╇━━━━━━━━━━━━━━━━━━┩ │\n\
                  │ │ 1   │ JobStatus.FAILE… │ │\n\
                  │ │ 13  │ CANCELLED by     │ │\n\
                  │ │     │ 0                │ │\n\
                  │ └─────┴──────────────────┘ │\n\
                  ╰────────────────────────────╯\n";
    let rows = oumi_statuses(narrow);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].cluster, "a-very-long-clus");
    assert_eq!(state_of(&rows[0].status), Some((Failed, true)));
    assert_eq!(rows[1].status, "CANCELLED by 0");
    assert_eq!(state_of(&rows[1].status), Some((Cancelled, true)));
    let ascii = "+----------------------- Cluster: x -----------------------+\n\
                 | +---------------+                                        |\n\
                 | | Job | Status  |                                        |\n\
                 | |-----+---------|                                        |\n\
                 | | 1   | RUNNING |                                        |\n\
                 | +---------------+                                        |\n\
                 +----------------------------------------------------------+\n";
    let rows = oumi_statuses(ascii);
    assert_eq!((rows.len(), rows[0].cluster.as_str()), (1, "x"));
    assert_eq!(
        (rows[0].oumi_job_id.as_str(), rows[0].status.as_str()),
        ("1", "RUNNING")
    );
}

#[test]
fn no_matching_jobs_is_no_row() {
    let unknown = capture("oumi-slurm/status-unknown-id").out;
    assert!(no_matching_jobs(&unknown) && oumi_statuses(&unknown).is_empty());
    assert!(no_matching_jobs(
        "│ [red]No matching jobs      │\n│ found.[/red]               │"
    ));
    assert!(!no_matching_jobs(
        &capture("oumi-slurm/status-inflight").out
    ));
    assert!(!no_matching_clusters(&unknown));
    assert!(no_matching_clusters(
        "   Cloud: slurm\n━━━\nNo matching clusters found.\n"
    ));
}

#[test]
fn the_logs_of_oumi_are_the_jobs_lines_alone() {
    assert_eq!(
        oumi_log_lines(&capture("oumi-slurm/logs-completed").out),
        "setup-line\nhi bar from /home/me/oumi_launcher/20261124_184947227999 job 1\noops\n\
         step 1\nstep 2\nstep 3\nstep 4\nstep 5\n"
    );
    let running = oumi_log_lines(&capture("oumi-sky/logs-running-cols4096-timeout").out);
    assert!(
        running.starts_with("├── Waiting") && running.ends_with("step 93\n"),
        "{running}"
    );
    assert_eq!(
        oumi_log_lines(&capture("oumi-slurm/logs-unknown-job").out),
        ""
    );
}

// ---- reasons

#[test]
fn the_reason_of_every_captured_failure_is_found() {
    for (name, reason) in [
        ("oumi-sky/cancel-unknown", "RuntimeError: Job 77 not found."),
        (
            "oumi-slurm/cancel-done-job",
            "RuntimeError: Job 1 not found.",
        ),
        (
            "oumi-slurm/cancel-unknown-job",
            "RuntimeError: Job 999 not found.",
        ),
        (
            "oumi-slurm/logs-unknown-job",
            "FileNotFoundError: Log file not found after 6 attempts: $HOME/oumi_slurm_logs/999.out. The job may not have \
             started.",
        ),
        (
            "oumi-slurm/up-bad-config",
            "Config file not found or path is not a file: jobs/nope.yaml",
        ),
        (
            "oumi-slurm/up-missing-arg",
            "Missing option '--config' / '-c'.",
        ),
        (
            "oumi-slurm/up-no-cluster",
            "ValueError: A cluster name must be provided for Slurm. Cluster names are of the form 'user@hostname'.",
        ),
        (
            "oumi-slurm/up-no-logdir",
            "FileNotFoundError: Log file not found after 6 attempts: $HOME/oumi_slurm_logs/10.out. The job may not have \
             started.",
        ),
        (
            "oumi-slurm/up-unreachable",
            "ClusterUnreachableError: Failed to establish an SSH connection to the Slurm controller for nobody@localhost.",
        ),
        (
            "oumi/cancel-local-other-process",
            "ValueError: Cluster mylocal not found.",
        ),
        (
            "oumi/status-other-process-inflight",
            "RuntimeError: SkyPilot API server process exited unexpectedly. View logs at: ~/.sky/api_server/server.log",
        ),
        ("sky/cancel-nocluster", "Cluster 'nosuch' does not exist."),
        (
            "sky/logs-nocluster",
            "ClusterDoesNotExist: Cluster 'nosuch' does not exist.",
        ),
        (
            "sky/launch-badinfra",
            "ResourcesUnavailableError: Task 'sky-cmd' requires aws which is not enabled. To enable access, change the task \
             cloud requirement or run: sky check aws",
        ),
        (
            "sky/logs-failsetup",
            "Job 1's setup failed with return code 4 (pid=2524). See error logs above for more details.",
        ),
    ] {
        let capture = capture(name);
        assert_ne!(capture.exit, 0, "{name}");
        assert_eq!(
            failure_reason(&capture.output()).as_deref(),
            Some(reason),
            "{name}"
        );
    }
}

#[test]
fn what_went_well_has_no_reason_for_a_failure() {
    for name in names() {
        let capture = capture(&name);
        // These exit 0 and tell of a failure all the same; that is theirs to say.
        let lies = [
            "queue-init",
            "queue-notup",
            "queue-nocluster",
            "stop-unsupported",
            "up-fail",
        ];
        if capture.exit == 0 && !lies.iter().any(|lie| name.contains(lie)) {
            assert_eq!(failure_reason(&capture.output()), None, "{name}");
        }
    }
}

#[test]
fn a_traceback_wrapped_at_thirty_columns_gives_its_reason() {
    let output = "Traceback (most recent call \nlast):\n  File \n\"/opt/venv/lib/python3.11/sit\ne-packages/oumi/cli/main.py\", \n\
                  line 376, in run\n    return app()\noumi.core.launcher.exceptions.\nClusterUnreachableError: \n\
                  Failed to establish an SSH \nconnection to the Slurm \ncontroller for \nnobody@localhost.\n\n\n\
                  If you believe this is a bug, \nplease file an issue:\nhttps://github.com/oumi-ai/oum\ni/issues\n";
    assert_eq!(
        failure_reason(output).unwrap(),
        "ClusterUnreachableError: Failed to establish an SSH connection to the Slurm controller for nobody@localhost."
    );
    let chopped = output.replace("exceptions.\nClusterUn", "exceptions.C\nlusterUn");
    assert_eq!(failure_reason(&chopped), failure_reason(output));
}

#[test]
fn a_reason_over_several_lines_is_one_sentence_without_the_noise_of_ssh() {
    let output = "Traceback (most recent call last):\n  File \"x.py\", line 1, in y\nRuntimeError: Failed to submit job. \
                  stderr: Pseudo-terminal will not be allocated because stdin is not a terminal.\r\n\
                  sbatch: error: invalid partition specified: nope\n\nsomething later\n";
    assert_eq!(
        failure_reason(output).unwrap(),
        "RuntimeError: Failed to submit job. stderr: sbatch: error: invalid partition specified: nope"
    );
    for (output, reason) in [
        (
            "Traceback (most recent call last):\n  x\nKeyboardInterrupt\n",
            "KeyboardInterrupt",
        ),
        (
            "ModuleNotFoundError: No module named 'sky'\n",
            "ModuleNotFoundError: No module named 'sky'",
        ),
        (
            "⨯ Failed to provision resources.\nmore\n",
            "Failed to provision resources.",
        ),
    ] {
        assert_eq!(failure_reason(output).as_deref(), Some(reason));
    }
    for output in [
        "",
        "\n\n",
        "all is well\n",
        "Traceback (most recent call last):\n  File",
        "a: b\nNote: c\n",
    ] {
        assert_eq!(failure_reason(output), None, "{output:?}");
    }
}

#[test]
fn reasons_and_last_lines_are_bounded() {
    let long = format!("RuntimeError: {}", "wörd ".repeat(1_000_000));
    let reason = failure_reason(&long);
    // It begins before the end of the output that is looked at.
    assert_eq!(reason, None);
    let reason = failure_reason(&format!("RuntimeError: {}", "wörd ".repeat(1_000))).unwrap();
    assert_eq!(reason.chars().count(), MAX_SENTENCE);
    assert!(reason.starts_with("RuntimeError: wörd ") && reason.ends_with('…'));
    assert_eq!(
        last_line(&"x".repeat(3_000_000)).unwrap().chars().count(),
        MAX_SENTENCE
    );
}

#[test]
fn the_last_line_is_what_the_launcher_said_last() {
    let up = capture("oumi-sky/up-detach-new").out;
    for (until, line) in [
        ("", None),
        ("[2026-11-24", None),
        (
            "Running on",
            Some("Slurm does not support stopping clusters. Will not set autostop."),
        ),
        ("\u{1b}[2m└──", Some("Launching on Slurm labslurm (debug).")),
        ("Job 1 queued", Some("Job submitted, ID: 1")),
    ] {
        let cut = up.find(until).unwrap();
        assert_eq!(last_line(&up[..cut]).as_deref(), line, "until {until:?}");
    }
    assert_eq!(
        last_line(&up).as_deref(),
        Some("Running job 1 in detached mode.")
    );
    assert_eq!(
        last_line(&capture("sky/down").out).as_deref(),
        Some("Terminating cluster skyc3...done.")
    );
}

// ---- names

#[test]
fn cluster_names_are_those_that_skypilot_and_oumi_take() {
    for name in [
        "a",
        "a1",
        "skyc1",
        "my-cluster_2.x",
        "A.b",
        &"a".repeat(500),
    ] {
        assert!(is_valid_cluster_name(name), "{name}");
    }
    for name in [
        "", "1a", "-a", "a-", "a.", "a_", "a b", "a*", "a\n", "ä", "aä", "a@b", "a/b", "sky[12]",
    ] {
        assert!(!is_valid_cluster_name(name), "{name:?}");
    }
    for name in ["root@localhost", "me.x@a-b.c_d", "1@2", "_u@h"] {
        assert!(is_valid_slurm_cluster_name(name), "{name}");
    }
    for name in [
        "",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a",
        "-oProxyCommand=x@h",
        "a@-b",
        "a b@c",
        "a@b\n",
        "a@b;c",
        "$a@b",
    ] {
        assert!(!is_valid_slurm_cluster_name(name), "{name:?}");
    }
}

// ---- whatever the input is

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
    let _ = (no_matching_jobs(text), no_matching_clusters(text));
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
