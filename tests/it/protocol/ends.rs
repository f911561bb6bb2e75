//! The end: of the input, by a signal, of the output.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::raw::{Raw, initialize, request};
use crate::support::in_one_of_three;

#[test]
fn at_the_end_of_the_input_what_can_be_answered_is_and_jobs_go_on() {
    in_one_of_three("all lists are answered", |_| are_answered_at_the_end());
}

fn are_answered_at_the_end() -> bool {
    let mut raw = Raw::ready();
    let job = raw.stubborn_job();
    raw.call("slow", "cancel_job", json!({ "job_id": job }));
    for id in 0..20 {
        raw.call(id, "list_jobs", json!({}));
    }
    let closed = Instant::now();
    raw.close_stdin();
    raw.ends_well();
    assert!(
        closed.elapsed() > Duration::from_millis(900),
        "it did not wait"
    );
    let mut answered: Vec<_> = raw
        .rest()
        .iter()
        .map(|answer| answer["id"].as_i64())
        .collect();
    answered.sort_unstable();
    if answered != (0..20).map(Some).collect::<Vec<_>>() {
        return false;
    }

    let mut next = raw.restart();
    next.call(1, "poll_status", json!({ "job_id": job }));
    let status = next.content(1);
    assert_eq!(status["state"], "RUNNING", "{status}");
    next.call(2, "cancel_job", json!({ "job_id": job, "force": true }));
    assert_eq!(next.content(2)["state"], "CANCELLED");
    true
}

#[test]
fn with_nothing_to_do_it_ends_at_once() {
    for version in [None, Some("2025-11-25")] {
        in_one_of_three("it ends at once", |_| {
            let mut raw = Raw::start();
            if let Some(version) = version {
                raw.initialize(version);
            }
            raw.request(1, "ping", json!({}));
            raw.answer(1);
            let closed = Instant::now();
            raw.close_stdin();
            raw.ends_well();
            let took = closed.elapsed();
            assert_eq!(raw.rest(), [] as [Value; 0]);
            assert_eq!(raw.stderr(), "");
            took < Duration::from_millis(900)
        });
    }
}

#[test]
fn the_end_of_the_input_within_a_line_makes_it_nothing() {
    let ping = request(1, "ping", json!({}));
    for half in [&ping[..10], &ping, "{", "\n\n  ", &"x".repeat(1 << 19)] {
        let mut raw = Raw::ready();
        raw.write(half);
        raw.close_stdin();
        raw.ends_well();
        assert_eq!(raw.rest(), [] as [Value; 0]);
    }
}

#[test]
fn a_signal_ends_it_like_the_end_of_the_input() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut raw = Raw::ready();
        raw.signal(signal);
        raw.ends_well();

        let mut raw = Raw::ready();
        let job = raw.stubborn_job();
        raw.call("slow", "cancel_job", json!({ "job_id": job }));
        raw.call("quick", "list_jobs", json!({}));
        raw.answer("quick");
        raw.signal(signal);
        raw.ends_well();
        assert_eq!(raw.rest(), [] as [Value; 0]);
        let mut next = raw.restart();
        next.call(1, "poll_status", json!({ "job_id": job }));
        assert_eq!(next.content(1)["state"], "RUNNING");
    }
}

#[test]
fn a_client_that_takes_no_answers_ends_it_well() {
    let mut raw = Raw::start_unread();
    raw.say(initialize(1, "2025-11-25"));
    raw.close_stdout();
    // It may have ended by now.
    let _ = raw.send_line("hello");
    raw.ends_well();
    let stderr = raw.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");

    // Also in the middle of a call.
    let mut raw = Raw::start_unread();
    raw.say(initialize(1, "2025-11-25"));
    let calls: Vec<_> = (2..50)
        .map(|id| request(id, "tools/list", json!({})))
        .collect();
    raw.say(calls.join("\n"));
    raw.close_stdout();
    raw.ends_well();
    assert!(!raw.stderr().contains("panicked"));
}
