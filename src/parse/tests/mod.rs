//! Reads all captures of the real `oumi` and `sky`, and a table of inputs that no capture has.

#[path = "../../../tests/support/captures.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod captures;
mod inputs;

use std::fmt::Write;

use super::*;
use captures::{capture, names};

/// Renders everything that is read of one capture.
fn page(name: &str) -> String {
    let capture = capture(name);
    let output = capture.output();
    let mut page = format!("{name}: {} → {}\n", capture.command, capture.exit);
    let mut line = |key: &str, value: String| {
        if !["None", "[]", "\"\"", "false"].contains(&value.as_str()) {
            writeln!(page, "  {key}: {value}").unwrap();
        }
    };
    line("failure reason", format!("{:?}", failure_reason(&output)));
    line("last line", format!("{:?}", last_line(&output)));
    match capture.command.split(' ').find_map(|word| {
        let verbs = [
            "up", "queue", "status", "logs", "cancel", "stop", "down", "gpus",
        ];
        verbs.into_iter().find(|verb| *verb == word)
    }) {
        Some("up") => {
            let cluster = ["skyc1", "skyc2", "reproc", "root@localhost"];
            for cluster in cluster {
                let read = oumi::launch_output(&output, cluster);
                if read != oumi::LaunchOutput::default() {
                    line("job", format!("on {cluster}: {read:?}"));
                }
            }
        }
        Some("queue") => line("queue", format!("{:?}", sky::queue(&capture.out))),
        Some("status") if capture.command.contains("sky status") => {
            line("clusters", format!("{:?}", sky::clusters(&capture.out)));
        }
        Some("status") => {
            for (cluster, job) in oumi::status_rows(&capture.out) {
                let state = state_of(&job.status).expect("every captured word is known");
                let row = format!("{cluster} {} {} {state:?}", job.job_id, job.status);
                line("row", row);
            }
        }
        Some("logs") if name.starts_with("sky/") => {
            line("log", format!("{:?}", sky::log_lines(&capture.out)));
            line("exit code", format!("{:?}", sky::exit_code(&capture.out)));
        }
        Some("logs") => line("log", format!("{:?}", oumi::log_lines(&capture.out))),
        Some("cancel") => line("accepted", sky::accepted_cancel(&output).to_string()),
        Some("stop" | "down") if name.starts_with("sky/") => {
            let refused = sky::refused_teardown("c", &output);
            line("refused", format!("{refused:?}"));
        }
        Some("gpus") => {
            let read = prices::machines(&capture.out, "a100");
            line("A100", format!("{read:?}"));
        }
        _ => {}
    }
    page
}

#[test]
fn captures_read_as_in_the_snapshots() {
    for group in ["oumi", "oumi-sky", "oumi-slurm", "sky"] {
        let names = names();
        let in_group = names
            .iter()
            .filter(|name| name.split('/').next() == Some(group));
        let pages: Vec<String> = in_group.map(|name| page(name)).collect();
        insta::assert_snapshot!(group, pages.join("\n"));
    }
}

#[test]
fn interrupted_launches_are_known_to_be_submitted() {
    for (name, end, cluster) in [
        ("oumi-sky/up-detach-new", "Job 1 queued", "skyc2"),
        ("oumi-sky/up-blocking", "Job 6 queued", "skyc1"),
    ] {
        let whole = capture(name).out;
        let found = oumi::launch_output(&whole[..whole.find(end).unwrap()], cluster);
        assert_eq!((found.oumi_job_id, found.is_submitted), (None, true));
        let before = &whole[..whole.find("Job submitted").unwrap()];
        let found = oumi::launch_output(before, cluster);
        assert!(!found.is_submitted);
        assert!(found.run.unwrap().starts_with("sky-2026-11-24-19-1"));
    }
}

/// Output of a user's script that imitates the launcher's.
const FORGERIES: [&str; 22] = [
    "Job 9 queued on cluster skyc2.\n",
    "Job 9 queued on cluster skyc2.\r\n",
    "Job 9 queued on cluster skyc2.\nRunning job 8 in detached mode.\n",
    "x\rJob 9 queued on cluster skyc2.\n",
    "\rJob 9 queued on cluster skyc2.\n",
    "\u{1b}[2KJob 9 queued on cluster skyc2.\n",
    "\u{1b}[0mJob 9 queued on cluster skyc2.\u{1b}[0m\n",
    "\u{1b}[1A\u{1b}[1GJob 9 queued on cluster skyc2.\n",
    "\u{8}\u{8}Job 9 queued on cluster skyc2.\n",
    "(setup pid=7) Job 9 queued on cluster skyc2.\n",
    "Job 9 queued on cluster prod.\nRunning job 9 in detached mode.\n",
    "Job 9 queued on cluster SKYC2.\nRunning job 9 in detached mode.\n",
    "JOB 9 QUEUED ON CLUSTER SKYC2.\n",
    "job 9 queued on cluster skyc2.\nrunning job 9 in detached mode.\n",
    "Job 9 queued on cluster skyc2\nRunning job 9 in detached mode\n",
    "Job 9 queued on cluster skyc2. \n",
    "Job 9\nqueued on cluster skyc2.\nRunning job 9 in detached mode.\n",
    "Job  queued on cluster skyc2.\nRunning job  in detached mode.\n",
    "Job 9 9 queued on cluster skyc2.\nRunning job 9 9 in detached mode.\n",
    "Job 9 queued on cluster skyc2.skyc2.\nRunning job 9 in detached mode.\n",
    "Job submitted, ID: 9\n\u{1b}[32m\u{2713} Job submitted, ID: 9\u{1b}[0m\n",
    "Found an existing cluster: prod.\n",
];

#[test]
fn forged_lines_make_no_id() {
    let whole = capture("oumi-sky/up-detach-new").out;
    let (before, own) = whole.split_at(whole.find("Job submitted").unwrap());
    for forgery in FORGERIES {
        for output in [
            format!("{forgery}{whole}"),
            format!("{before}{forgery}{own}"),
            format!("{whole}\n{forgery}"),
        ] {
            let found = oumi::launch_output(&output, "skyc2");
            let id = found.oumi_job_id.as_deref();
            assert!(
                id == Some("1") || id.is_none() && forgery.contains("job 8"),
                "{forgery:?}: {found:?}"
            );
            assert!(!found.is_onto_existing);
        }
        // The launcher's own line is hidden behind what a script printed before it.
        let hidden = whole.replace("Job 1 queued", "xJob 1 queued");
        let found = oumi::launch_output(&format!("{forgery}{hidden}"), "skyc2");
        assert_eq!(found.oumi_job_id, None, "{forgery:?}");
    }
    // One of the two is right, and the other a forgery.
    let whole_forgery = "Job 9 queued on cluster skyc2.\nRunning job 9 in detached mode.\n";
    for output in [
        format!("{whole_forgery}{whole}"),
        format!("{whole}\n{whole_forgery}"),
    ] {
        assert_eq!(oumi::launch_output(&output, "skyc2").oumi_job_id, None);
    }
    let other_run = "✓ Synced workdir.  View logs: sky api logs -l sky-9/workdir_sync.log\n";
    let found = oumi::launch_output(&format!("{other_run}{whole}"), "skyc2");
    assert_eq!((found.oumi_job_id.as_deref(), found.run), (Some("1"), None));
}

#[test]
fn last_line_follows_a_launch() {
    let up = capture("oumi-sky/up-detach-new").out;
    for (until, line) in [
        ("[2026-11-24", None),
        ("\u{1b}[2m└──", Some("Launching on Slurm labslurm (debug).")),
        ("Job 1 queued", Some("Job submitted, ID: 1")),
    ] {
        let so_far = &up[..up.find(until).unwrap()];
        assert_eq!(last_line(so_far).as_deref(), line, "until {until:?}");
    }
}

#[test]
fn half_of_a_document_is_an_error() {
    let whole = capture("sky/queue-json-mixed").out;
    let end = whole.rfind('}').unwrap();
    for cut in 0..=end {
        let error = sky::queue(&whole[..cut]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("without a whole JSON"), "{cut}: {error}");
    }
    assert!(sky::queue(&whole[..=end]).is_ok());
}

#[test]
fn damaged_captures_cause_no_panic() {
    for name in names() {
        let whole = capture(&name).output();
        let bytes = whole.as_bytes();
        for step in [2, 5] {
            let mut damaged = bytes[bytes.len() / 9 * step..].to_vec();
            for at in (0..damaged.len()).step_by(7 + step) {
                damaged[at] = damaged[at].wrapping_mul(31).wrapping_add(27);
            }
            inputs::read_all(&String::from_utf8_lossy(&damaged));
        }
    }
}

#[test]
fn sky_says_what_it_may_use_and_which_server_it_has() {
    let clouds = sky::enabled_clouds(&capture("sky/repro-check").out);
    assert_eq!(clouds.unwrap(), ["Slurm".to_owned()].into());
    let info = sky::api_info(&capture("sky/api-info-json").out).unwrap();
    assert_eq!(info["server"]["status"], "healthy");
    assert_eq!(info["client"]["version"], "0.12.3.post1");
    let none = sky::api_info("No SkyPilot API server is connected\n");
    assert_eq!(none, None);
}
