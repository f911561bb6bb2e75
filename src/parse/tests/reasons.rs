//! The reason of a failure, and the last line said.

use crate::parse::{MAX_SENTENCE, failure_reason, last_line};

use super::captures::{capture, names};

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
