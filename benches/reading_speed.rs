//! How fast logs are folded, searched, scanned for figures and cleaned of secrets, on one core of Linux:
//! `cargo bench --bench reading_speed`. With `BYTES` in the environment the logs are of that size, as for a profiler.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use oumi_mcp_server::logs::Log;
use oumi_mcp_server::logs::fold::fold;
use oumi_mcp_server::logs::read::{DEFAULT_MAX_BYTES, ReadOptions};
use oumi_mcp_server::logs::search::{Query, search};
use oumi_mcp_server::progress::Scanner;
use oumi_mcp_server::redact::Redactor;
use regex::Regex;

/// The bytes of each log.
fn size() -> usize {
    let size = std::env::var("BYTES")
        .ok()
        .and_then(|size| size.parse().ok());
    size.unwrap_or(64_000_000)
}

fn main() {
    let bar = |n: usize| {
        format!(
            "\r{:3}%|{:10}| {n}/90000 [1:02<2:03, 4.51it/s]",
            n / 900,
            "#"
        )
    };
    let metrics =
        |n| format!("{{'loss': '5.943', 'grad_norm': '2.038', 'epoch': '0.1', 'step': {n}}}\n");
    let coloured =
        "\x1b[36m(train, pid=2548)\x1b[0m \x1b[32mINFO\x1b[0m a step of the run took a while\n";
    measure("text", |n| {
        format!("[2026-11-24 19:50:38][INFO][train.py:{n}] Saving the state of the run.\n")
    });
    measure("metrics", metrics);
    measure("bars, metrics", |n| {
        bar(n) + if n % 10 == 0 { "\n" } else { "" } + &metrics(n)[..n % 10 / 9 * 40]
    });
    measure("coloured, repeated", |_| coloured.to_owned());
}

fn measure(name: &str, line: impl Fn(usize) -> String) {
    let mut log = String::new();
    let mut n = 0;
    while log.len() < size() {
        log += &line(n);
        n += 1;
    }
    let (bytes, secrets) = (log.as_bytes(), Redactor::new(["s3cr3t-value-123"]));
    let fold = speed(bytes.len(), || drop(black_box(fold(bytes))));
    let search = speed(bytes.len(), || {
        let deadline = Instant::now() + Duration::from_secs(600);
        let query = Query {
            pattern: Regex::new("(?i)cuda.*out of memory").unwrap(),
            context: 0,
            max_matches: 100,
            deadline,
        };
        let mut log = Log::from_text(bytes, true, &secrets);
        let options = ReadOptions {
            max_bytes: DEFAULT_MAX_BYTES,
            raw: false,
            ended: false,
        };
        black_box(search(&mut log, &query, options).unwrap());
    });
    let scan = speed(bytes.len(), || {
        let mut scanner = Scanner::default();
        bytes.chunks(1 << 20).for_each(|block| scanner.push(block));
        black_box(&scanner);
    });
    let hide = speed(bytes.len() / 8, || {
        drop(black_box(secrets.redact(&log[..log.len() / 8])))
    });
    println!(
        "{name:<20} fold {fold:>5.0}   search {search:>5.0}   scan {scan:>5.0}   hide {hide:>5.0} MB/s"
    );
}

/// The best of three, in MB a second of processor time: others may be at work on the machine.
fn speed(bytes: usize, work: impl Fn()) -> f64 {
    let seconds = || {
        let begin = processor_seconds();
        work();
        processor_seconds() - begin
    };
    let best = (0..3).map(|_| seconds()).fold(f64::INFINITY, f64::min);
    bytes as f64 / 1e6 / best
}

/// The time for which a processor has run this thread.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = times.split(' ').next().unwrap();
    nanoseconds.parse::<f64>().unwrap() / 1e9
}
