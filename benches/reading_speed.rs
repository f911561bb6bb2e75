//! How fast logs are folded, searched and scanned for figures, on one core: `cargo bench --bench reading_speed`,
//! with a word for only those samples whose name has it.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use oumi_mcp_server::logs::Log;
use oumi_mcp_server::logs::fold::fold;
use oumi_mcp_server::logs::read::ReadOptions;
use oumi_mcp_server::logs::search::{Query, search};
use oumi_mcp_server::progress::Scanner;
use oumi_mcp_server::redact::Redactor;

const MEGABYTES: usize = 128;

fn main() {
    // Cargo passes `--bench`.
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let only = words.next().unwrap_or_default();
    for (name, line) in samples() {
        if !name.contains(&only) {
            continue;
        }
        let log = repeat(&line);
        let secrets = Redactor::new(["s3cr3t-value-123", "another-s3cr3t-value"]);
        let fold = measure(&log, || {
            log.chunks(8 << 20)
                .map(|block| fold(block).len())
                .sum::<usize>()
        });
        let search = measure(&log, || {
            let deadline = Instant::now() + Duration::from_secs(600);
            let query = Query::new("(?i)cuda.*out of memory", deadline).unwrap();
            let mut log = Log::from_text(&log, true, &secrets);
            search(&mut log, &query, ReadOptions::default())
                .unwrap()
                .matches
        });
        let hide = measure(&log[..log.len() / 8], || {
            let text = String::from_utf8_lossy(&log[..log.len() / 8]);
            secrets.redact(&text).len()
        });
        let scan = measure(&log, || {
            let mut scanner = Scanner::default();
            log.chunks(1 << 20).for_each(|block| scanner.push(block));
            scanner.history().points().len()
        });
        println!(
            "{name:<28} fold {fold:>6.0} MB/s   search {search:>6.0} MB/s   progress {scan:>6.0} MB/s   hide {hide:>6.0} MB/s"
        );
    }
}

/// The best of three: the others measured something else.
fn measure<T>(log: &[u8], mut what: impl FnMut() -> T) -> f64 {
    (0..3)
        .map(|_| {
            let start = processor_time();
            std::hint::black_box(what());
            log.len() as f64 / 1e6 / (processor_time() - start).as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// The time this thread has had a processor, where the system tells: others may be at work beside us.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .map_or_else(|| START.elapsed(), Duration::from_nanos)
}

type Sample = Box<dyn Fn(&mut String, usize)>;

fn samples() -> Vec<(&'static str, Sample)> {
    let bar = |n: usize| {
        let full = "█".repeat(n % 11);
        let empty = " ".repeat(10 - n % 11);
        format!(
            "{:3}%|{full}{empty}| {n}/90000 [1:02:03<2:03:04,  4.51it/s]",
            n / 900
        )
    };
    vec![
        (
            "ordinary text",
            Box::new(|log, n| {
                writeln!(log, "[2026-11-24 19:50:38,{:03}][oumi][rank0][pid:31704][MainThread][INFO]][train.py:{n}] Saving the state of the run.", n % 1000).unwrap();
            }),
        ),
        (
            "metrics",
            Box::new(|log, n| {
                writeln!(log, "{{'loss': '5.943', 'grad_norm': '2.038', 'learning_rate': '0.0008333', 'entropy': '5.985', 'num_tokens': '{n}', 'epoch': '0.125', 'step': {n}}}").unwrap();
            }),
        ),
        (
            "a run: bars and metrics",
            Box::new(move |log, n| {
                write!(log, "\r{}", bar(n % 90000)).unwrap();
                if n % 10 == 0 {
                    writeln!(log, "\r{:80}\r{{'loss': '5.943', 'grad_norm': '2.038', 'learning_rate': '0.0008333', 'epoch': '0.125', 'step': {n}}}", "").unwrap();
                }
            }),
        ),
        (
            "short lines",
            Box::new(|log, n| writeln!(log, "step {n}").unwrap()),
        ),
        (
            "coloured text",
            Box::new(|log, n| {
                writeln!(log, "\x1b[36m(train, pid=2548)\x1b[0m \x1b[32mINFO\x1b[0m step {n} took a while, as did the one before it").unwrap();
            }),
        ),
        (
            "one line said again",
            Box::new(|log, _| {
                writeln!(
                    log,
                    "WARNING: the tokenizer has no padding token, using the end token"
                )
                .unwrap();
            }),
        ),
        (
            "a bar, carriage returns",
            Box::new(move |log, n| write!(log, "\r{}", bar(n % 90000)).unwrap()),
        ),
        (
            "a bar with its loss",
            Box::new(|log, n| {
                let step = n % 90000;
                let full = "█".repeat(n % 11);
                let empty = " ".repeat(10 - n % 11);
                write!(log, "\r{:3}%|{full}{empty}| {step}/90000 [1:02:03<2:03:04,  4.51it/s, loss={}.{:03}]", step / 900, 2 + n * 7 % 3, n * 389 % 1000).unwrap();
            }),
        ),
        (
            "metrics over SkyPilot",
            Box::new(|log, n| {
                writeln!(log, "\x1b[36m(train, pid=2548)\x1b[0m {{'loss': '5.943', 'grad_norm': '2.038', 'learning_rate': '0.0008333', 'epoch': '0.125', 'step': {n}}}").unwrap();
            }),
        ),
        (
            "nested bars",
            Box::new(move |log, n| {
                write!(log, "\n\r{}\x1b[A\r{}", bar(n % 97), bar(n % 90000)).unwrap()
            }),
        ),
        (
            "a bar, a line each",
            Box::new(move |log, n| writeln!(log, "{}", bar(n % 90000)).unwrap()),
        ),
        (
            "one endless line",
            Box::new(|log, n| write!(log, "{n} and so on, ").unwrap()),
        ),
    ]
}

fn repeat(line: &Sample) -> Vec<u8> {
    let mut log = String::new();
    let mut n = 0;
    while log.len() < MEGABYTES * 1_000_000 {
        line(&mut log, n);
        n += 1;
    }
    log.into_bytes()
}
