//! The tables of `oumi launch status`.

use crate::launcher::JobState::{Cancelled, Failed};
use crate::parse::oumi::oumi_statuses;
use crate::parse::state_of;

use super::captures::{capture, names};

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
    assert!(oumi_statuses(&unknown).is_empty());
}
