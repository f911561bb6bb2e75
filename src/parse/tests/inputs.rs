//! Inputs that no capture has: other versions, other widths, and hostile text.

use serde_json::{Value, json};

use super::captures;
use crate::parse::JobState::{Cancelled, Failed, Pending, Running, Succeeded, Unknown};
use crate::parse::reasons::MAX_LINE;
use crate::parse::*;

/// Calls every reader.
pub(super) fn read_all(text: &str) {
    drop((
        split_json::<Value>(text),
        sky::queue(text),
        sky::clusters(text),
    ));
    drop(oumi::launch_output(text, ""));
    drop((prices::report(text), prices::chosen_price(text)));
    drop((
        oumi::status_rows(text),
        oumi::log_lines(text),
        sky::log_lines(text),
    ));
    let _ = (
        sky::refused_teardown("c", text),
        sky::accepted_cancel(text),
        sky::exit_code(text),
    );
    for line in [failure_reason(text), last_line(text)]
        .into_iter()
        .flatten()
    {
        assert!(!line.is_empty() && !line.contains('\n') && line.len() <= MAX_LINE);
    }
    let _ = (
        state_of(text),
        is_valid_cluster_name(text),
        is_valid_slurm_cluster_name(text),
    );
}

#[test]
fn repeated_pieces_cause_no_panic() {
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
        "Found an existing cluster: ",
        "Failed to get the job queue for cluster '",
        "'.",
        "Error: x\n",
        "(a, pid=1) x\n",
        "é(pid=",
        "│ │ 1 │ RUNNING │ │\n",
        "╭ Cluster: ",
        "║",
        "Traceback (most recent call last):\n",
        "a.BError\n",
        "a.b.",
        "]][",
        "Reason: ",
        "🅱",
        "…+",
        "Tailing logs of ",
        "...done.",
        "skipped.",
        "failed with return code list: [",
    ] {
        for times in [1, 2, 400] {
            read_all(&piece.repeat(times));
            read_all(&format!("╭ Error ╮\n{}\n\u{1b}", piece.repeat(times)));
        }
    }
}

#[test]
fn json_is_found_between_text() {
    let document = "{\n  \"a\": [\n    1\n  ]\n}";
    for (before, after) in [
        ("", "\n\n"),
        ("[1] a line {with} brackets\n[\n{\n[]\n{}\n", "\n"),
        ("[2026-11-24 19:51:30,373][oumi][rank0] text\n", ""),
        ("\u{1b}[33mtext\u{1b}[0m\n\u{1b}[0m", "\u{1b}[0m\n"),
        ("⠙ waiting\r", "\r\n"),
        ("⠙ waiting\u{1b}[2K", ""),
        ("", "\nA new version is out.\n[notice] {see} [it]\n"),
        ("[]\n", "\nTraceback (most recent call last):\n  x[1]\n"),
    ] {
        let stdout = format!("{before}{document}{after}");
        let (_, found) = split_json::<Value>(&stdout).unwrap_or_else(|e| panic!("{stdout:?}: {e}"));
        assert_eq!(found, json!({"a": [1]}), "{stdout:?}");
    }
    for (stdout, error) in [
        ("", "answered without a whole JSON document"),
        (
            "ValueError: [1]\n",
            "document; its last line: ValueError: [1]",
        ),
        ("text\n[\n  1,\n", "without a whole JSON document"),
        ("[1,\nTraceback", "its last line: Traceback"),
        ("text\n{\"a\": 1}\n", "its last line: {\"a\": 1}"),
    ] {
        let read = split_json::<Vec<u32>>(stdout).unwrap_err().to_string();
        assert!(read.contains(error), "{stdout:?}: {read}");
    }
}

#[test]
fn fields_of_other_versions_cost_no_row() {
    let stdout = r#"{"c": [
      {"job_id": "7", "status": "RUNNING", "submitted_at": "soon", "start_at": 0, "new": {"deep": [1]}},
      {"job_id": 6, "status": null, "job_name": "a\u001b[31mb\nc", "end_at": 5}]}"#;
    let jobs = sky::queue(stdout).unwrap()["c"].clone().unwrap();
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
        ("UNKNOWN", "ab c")
    );
    assert_eq!(jobs[1].end_at, Some(5.0));
    for (field, price) in [
        (r#""hourly_price": "$ 4.00""#, Some(4.0)),
        (r#""hourly_price": -1"#, None),
        (r#""hourly_price": "NaN""#, None),
    ] {
        let stdout = format!(
            r#"[{{"name": "c", {field}, "autostop": 60, "to_down": true, "accelerators": {{"A100": 8}}}}]"#
        );
        let clusters = sky::clusters(&stdout).unwrap();
        assert_eq!(
            (clusters.len(), clusters[0].hourly_price),
            (1, price),
            "{field}"
        );
        assert_eq!(
            (clusters[0].autostop_minutes, clusters[0].to_down),
            (Some(60), true)
        );
        assert_eq!(clusters[0].accelerators.as_deref(), Some(r#"{"A100":8}"#));
    }
}

#[test]
fn only_the_cluster_itself_is_gone() {
    for (says, is_gone) in [
        ("Cluster 'dev' does not exist.", true),
        ("Cluster \"dev\" does not exist.", true),
        ("dev", true),
        ("Cluster 'dev-2' does not exist.", false),
        ("Cluster 'my.dev' does not exist.", false),
        ("Cluster 'DEV' does not exist.", false),
    ] {
        let stdout = format!(
            "Failed to get the job queue for cluster 'dev'.\n  sky.exceptions.ClusterDoesNotExist: {says}\n{{}}\n"
        );
        let failure = sky::queue(&stdout).unwrap()["dev"].clone().unwrap_err();
        assert_eq!(failure.is_not_found(), is_gone, "{says}");
    }
}

#[test]
fn ids_that_need_mending_cost_the_answer() {
    for id in [
        "1.0", "1e0", "true", "null", "-1", "\" 1\"", "\"1\\n\"", "\"\"", "[1]", "Infinity",
    ] {
        let row = format!(r#"{{"job_id": {id}, "name": {id}, "status": "SUCCEEDED"}}"#);
        let queue = sky::queue(&format!(r#"{{"c": [{row}], "d": []}}"#)).unwrap();
        assert!(queue["c"].is_err() && queue["d"].is_ok(), "{id}");
        sky::clusters(&format!("[{row}]")).unwrap_err();
    }
}

#[test]
fn unknown_queue_failures_keep_the_reason() {
    let stdout = "Fetching job queue for: a, b\nFailed to get the job queue for cluster 'b'.\n  \
                  sky.exceptions.CommandError: Command failed with return code 255.\nssh: connect to host\n{\n  \"a\": []\n}\n";
    let queue = sky::queue(stdout).unwrap();
    assert_eq!(queue["a"], Ok(Vec::new()));
    let reason = "CommandError: Command failed with return code 255. ssh: connect to host";
    assert_eq!(queue["b"], Err(JobError::failed(reason)));
}

#[test]
fn failed_teardown_gives_its_reason() {
    // From the source of SkyPilot; no real failure is captured.
    let failed = "\nTerminating cluster c...failed. \nReason: sky.exceptions.CommandError: it broke.\n\
                  Terminating 1 cluster                  0% -:--:--\nCluster(s) failed. See details above.\n";
    assert_eq!(sky::refused_teardown("c", failed), None);
    let reason = failure_reason(failed);
    assert_eq!(reason.as_deref(), Some("CommandError: it broke."));
}

#[test]
fn tables_without_box_characters_are_read() {
    let ascii = "+----------- Cluster: x -----------+\n\
                 | +---------------+                |\n\
                 | | Job | Status  |                |\n\
                 | |-----+---------|                |\n\
                 | | 1   | RUNNING |                |\n\
                 | +---------------+                |\n\
                 +----------------------------------+\n";
    let rows = oumi::status_rows(ascii);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&*rows[0].0, &*rows[0].1.job_id, &*rows[0].1.status),
        ("x", "1", "RUNNING")
    );
}

#[test]
fn prefixes_of_several_nodes_are_kept() {
    for (log, read) in [
        (
            "(head, rank=0, pid=1) a\n(worker1, rank=1, pid=2, ip=10.0.0.2) b\n(no prefix) c\n",
            None,
        ),
        ("(setup pid=1) a\nplain\n(x, pid=2) b", Some("a\nplain\nb")),
        ("(x, pid=1) 1%\r(x, pid=1) 2%\n", Some("1%\r2%\n")),
        (
            "\u{1b}[36m(x, pid=1)\u{1b}[0m \u{1b}[1mbold\n",
            Some("\u{1b}[1mbold\n"),
        ),
        (
            "(x, pid=y) a\n(a (b, pid=1) c\n(x, pid=1)a\n(pid=1) a\n(x, pid=1",
            None,
        ),
    ] {
        assert_eq!(sky::log_lines(log), read.unwrap_or(log));
    }
}

#[test]
fn exit_code_is_of_the_first_failed_node() {
    for (log, code) in [
        (
            "ERROR: Job 2 failed with return code list: [0, 137, 1]",
            Some(137),
        ),
        ("failed with return code list: [", None),
        ("failed with return code list: [x, 0]", None),
    ] {
        assert_eq!(sky::exit_code(log), code, "{log}");
    }
}

#[test]
fn reasons_are_one_bounded_line() {
    let ssh = "Traceback (most recent call last):\n  File \"x.py\", line 1, in y\nRuntimeError: Failed to submit job. \
               stderr: Pseudo-terminal will not be allocated because stdin is not a terminal.\r\n\
               sbatch: error: invalid partition specified: nope\n\nsomething later\n";
    for (output, reason) in [
        (
            ssh,
            Some(
                "RuntimeError: Failed to submit job. stderr: sbatch: error: invalid partition specified: nope",
            ),
        ),
        (
            "Traceback (most recent call last):\n  x\nKeyboardInterrupt\n",
            Some("KeyboardInterrupt"),
        ),
        (
            "ModuleNotFoundError: No module named 'sky'\n",
            Some("ModuleNotFoundError: No module named 'sky'"),
        ),
        (
            "⨯ Failed to provision resources.\nmore\n",
            Some("Failed to provision resources."),
        ),
        ("\n\nall is well\n", None),
        ("Traceback (most recent call last):\n  File", None),
        ("a: b\nNote: c\n", None),
    ] {
        assert_eq!(failure_reason(output).as_deref(), reason, "{output:?}");
    }
    let long = failure_reason(&format!("RuntimeError: {}", "wörd ".repeat(1_000))).unwrap();
    assert!(long.len() <= MAX_LINE && long.ends_with('…'), "{long}");
    assert!(last_line(&"x".repeat(3_000_000)).unwrap().len() <= MAX_LINE);
}

#[test]
fn states_of_words() {
    for (word, meaning) in [
        ("JobStatus.RUNNING", Some((Running, false))),
        ("CANCELLED by 0", Some((Cancelled, true))),
        ("CANCELLED+", Some((Cancelled, true))),
        ("OUT_OF_ME+", Some((Failed, true))),
        ("SETTING_UP", Some((Pending, false))),
        ("succeeded", Some((Succeeded, true))),
        ("F", Some((Unknown, true))),
    ] {
        assert_eq!(state_of(word), meaning, "{word}");
    }
    for word in [
        "",
        " ",
        "+",
        ".",
        "JobStatus.",
        "COMPLET+",
        "UP",
        "NONE",
        "RUNNINGS",
        "FAIL",
        "é",
    ] {
        assert_eq!(state_of(word), None, "{word:?}");
    }
}

#[test]
fn cluster_names() {
    for name in ["a", "skyc1", "my-cluster_2.x", "A.b", &"a".repeat(500)] {
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

#[test]
fn costs_of_clusters_of_one_name() {
    let report = r#"[{"name": "a", "cluster_hash": "1", "total_cost": 12.5}, {"name": "a", "cluster_hash": "2", "total_cost": 0.0},
        {"name": "b", "total_cost": 1.0}, {"cluster_hash": "3", "total_cost": null}, {"cluster_hash": "4", "total_cost": NaN}, 7]"#;
    let costs = prices::report(report);
    let costs: Vec<_> = (costs.iter())
        .map(|(hash, cost)| (hash.as_str(), cost.dollars))
        .collect();
    assert_eq!(costs, [("1", 12.5), ("2", 0.0)]);
    assert!(prices::report("{}").is_empty() && prices::report("gone").is_empty());
}

#[test]
fn chosen_price_is_that_of_the_last_launch() {
    let row = |infra: &str, instance: &str, price: &str, chosen: &str| {
        format!(" {infra:<18} {instance:<26} 96      1152      A100:8   {price}      {chosen}   \n")
    };
    let table = |rows: &[String]| {
        format!(
            "Considered resources (2 nodes):\n---\n INFRA              INSTANCE                   vCPUs   Mem(GB)   GPUS     COST ($)   CHOSEN   \n---\n{}---\n",
            rows.concat()
        )
    };
    let first = table(&[row(
        "GCP (us-central1)",
        "a2-highgpu-8g",
        "29.39",
        "\x1b[32m   ✔\x1b[0m",
    )]);
    let second = table(&[
        row(
            "AWS (us-east-1)",
            "p4d.24xlarge[Spot]",
            "40.11",
            "\x1b[32m   ✔\x1b[0m",
        ),
        row("Lambda (x)", "gpu_8x_a100", "20.64", ""),
    ]);
    let faked = table(&[row("AWS (us-east-1)", "fake", "0.01", "✔")]);
    let output = format!("{first}{second}\x1b[32m✓ Cluster launched: c.\x1b[0m\n{faked}");
    assert_eq!(prices::chosen_price(&output), Some(40.11));
    // Slurm has no prices.
    let up = captures::capture("oumi-sky/up-detach-new");
    assert_eq!(prices::chosen_price(&up.output()), None);
}
