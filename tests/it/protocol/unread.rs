//! Clients that write and do not read.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::PARSE_ERROR;
use crate::raw::{DEADLINE, Raw, initialize, request};

/// Writes `count` requests from a thread, and says how many are written. The input stays open until the sender is dropped.
fn write_requests(
    raw: &mut Raw,
    count: usize,
    line: fn(usize) -> String,
) -> (Arc<AtomicUsize>, Sender<()>) {
    let written = Arc::new(AtomicUsize::new(0));
    let (open, is_closed) = channel();
    let (mut stdin, counter) = (raw.take_stdin().unwrap(), Arc::clone(&written));
    std::thread::spawn(move || {
        for id in 0..count {
            if writeln!(stdin, "{}", line(id)).is_err() {
                return;
            }
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let _ = is_closed.recv();
    });
    (written, open)
}

/// Waits until no more can be written: the server reads no longer.
fn stalled(written: &AtomicUsize) -> usize {
    let (mut last, mut since) = (0, Instant::now());
    crate::support::poll_for(DEADLINE, || {
        let now = written.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if Instant::now() > since + Duration::from_secs(1) {
            Ok(last)
        } else {
            Err("it reads on and on".to_owned())
        }
    })
}

#[test]
fn a_client_that_does_not_read_is_not_read_and_gets_all_answers_later() {
    const COUNT: usize = 3000;
    let mut raw = Raw::start_unread();
    raw.say(initialize("hello", "2025-11-25"));
    let (written, open) =
        write_requests(&mut raw, COUNT, |id| request(id, "tools/list", json!({})));
    let taken = stalled(&written);
    assert!(taken < COUNT, "it took all {taken}");
    raw.stays_under(64);

    raw.start_reading();
    let mut missing: BTreeSet<usize> = (0..COUNT).collect();
    raw.answer("hello");
    while !missing.is_empty() {
        let answer = raw.next();
        // A few that found too many before them are refused.
        let refused = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            answer["result"]["tools"].is_array() || refused.contains("calls are under way"),
            "{answer}"
        );
        let id = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
        assert!(missing.remove(&id), "{id} is answered twice");
    }
    raw.stays_under(64);
    drop(open);
    raw.ends_well();
}

#[test]
fn a_client_that_does_not_read_what_is_refused_gets_that_later_too() {
    const COUNT: usize = 20_000;
    let mut raw = Raw::start_unread();
    let (written, open) = write_requests(&mut raw, COUNT, |_| "hello".to_owned());
    assert!(stalled(&written) < COUNT);
    raw.start_reading();
    for _ in 0..COUNT {
        assert_eq!(raw.next()["error"]["code"], PARSE_ERROR);
    }
    raw.stays_under(64);
    drop(open);
    raw.ends_well();
}

#[test]
fn a_signal_ends_it_also_while_a_client_does_not_read() {
    let mut raw = Raw::start_unread();
    raw.say(initialize("hello", "2025-11-25"));
    let (written, _open) =
        write_requests(&mut raw, 5000, |id| request(id, "tools/list", json!({})));
    stalled(&written);
    raw.signal(Signal::TERM);
    raw.ends_well();
}

#[test]
fn a_log_that_nobody_reads_or_takes_stops_nothing() {
    let kept = Raw::start_in(Arc::new(tempfile::tempdir().unwrap()), Stdio::piped());
    let mut closed = Raw::start_in(Arc::new(tempfile::tempdir().unwrap()), Stdio::piped());
    closed.close_stderr();
    for mut raw in [kept, closed] {
        raw.start_reading();
        raw.initialize("2025-11-25");
        for _ in 0..3000 {
            raw.say("hello");
        }
        for _ in 0..3000 {
            assert_eq!(raw.next()["error"]["code"], PARSE_ERROR);
        }
        raw.lives();
        raw.close_stdin();
        raw.ends_well();
    }
}
