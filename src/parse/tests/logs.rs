//! The lines of a job in `sky logs` and `oumi launch logs`, and what they tell of its end.

use crate::logs::fold::fold;
use crate::parse::oumi::oumi_log_lines;
use crate::parse::sky::{SkyLogsExit, exit_code, sky_log_lines};

use super::captures::capture;

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
