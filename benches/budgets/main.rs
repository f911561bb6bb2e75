//! What the server costs, beside the least that it could cost: `cargo bench --bench budgets`, some minutes. The floor is
//! `benches/floor`, an rmcp server with one empty tool. A word picks a part: `cargo bench --bench budgets start`. The part
//! `build`, a cold build of both, runs only when it is named. Rows over SkyPilot: `tests/real/speed.py`.
//!
//! Both sides of a ratio are measured in turns and their medians are compared: others may be at work on the machine.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod client;
mod place;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use client::{Client, PROGRAM, floor_path};
use place::{Place, Signal};

/// How often each side of a ratio is measured.
const TURNS: usize = 30;

fn main() {
    let parts: [(&str, fn()); 7] = [
        ("start", start),
        ("memory", memory),
        ("poll", poll),
        ("logs", logs),
        ("crowd", crowd),
        ("size", size),
        ("build", build),
    ];
    // Cargo passes `--bench`.
    let named = std::env::args().skip(1).find(|word| word != "--bench");
    cargo_build("floor", &[]);
    println!("| what | figure | against | ratio | to reach | met |\n|---|---|---|---|---|---|");
    for (name, part) in parts {
        if named
            .as_deref()
            .map_or(name != "build", |named| named == name)
        {
            part();
        }
    }
}

/// What a figure may be: so many times what it stands against, so much more than that, or so much.
enum Budget {
    Times(f64),
    Plus(f64),
    AtMost(f64),
}
use Budget::{AtMost, Plus, Times};

fn row(what: &str, unit: &str, figure: f64, against: Option<f64>, budget: Budget) {
    let floor = against.unwrap_or_default();
    let (ratio, limit, most) = match budget {
        Times(n) => (
            format!("{:.2} ×", figure / floor),
            format!("{n} ×"),
            floor * n,
        ),
        Plus(n) => (
            format!("+ {:.1}", figure - floor),
            format!("+ {n} {unit}"),
            floor + n,
        ),
        AtMost(n) => (String::new(), format!("{n} {unit}"), n),
    };
    let against = against.map_or(String::new(), |floor| format!("{floor:.2} {unit}"));
    let is_met = if figure <= most { "yes" } else { "no" };
    println!("| {what} | {figure:.2} {unit} | {against} | {ratio} | ≤ {limit} | {is_met} |");
}

/// Measures both sides in turns, in milliseconds, and compares their medians.
fn compare(what: &str, budget: Budget, ours: impl FnMut() -> f64, floor: impl FnMut() -> f64) {
    let (ours, floor) = in_turns(TURNS, ours, floor);
    row(
        what,
        "ms",
        percentile(&ours, 50),
        Some(percentile(&floor, 50)),
        budget,
    );
}

fn in_turns(
    times: usize,
    mut ours: impl FnMut() -> f64,
    mut floor: impl FnMut() -> f64,
) -> (Vec<f64>, Vec<f64>) {
    (0..times).map(|_| (ours(), floor())).unzip()
}

fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() * percent / 100]
}

fn milliseconds(what: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    what();
    begin.elapsed().as_secs_f64() * 1e3
}

/// A line of a file of `/proc`, such as `VmRSS:  1234 kB`; 0 where there is none.
fn kilobytes(file: &Path, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find_map(|(key, value)| (key == name).then_some(value));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

fn start() {
    let home = TempDir::new().unwrap();
    let ours = || Client::ours(home.path());
    let floor = || Client::floor(None);
    let what = "start to `initialize` answered";
    compare(what, Times(1.4), || ours().start_ms, || floor().start_ms);
    let (ours, floor) = (ours(), floor());
    sleep(Duration::from_secs(1));
    let floor = Some(floor.memory("VmRSS"));
    row(
        "resident, idle",
        "MB",
        ours.memory("VmRSS"),
        floor,
        Times(1.8),
    );
}

fn memory() {
    let mut place = Place::new();
    place.launch(150, "sleep 600");
    let poll = |id| json!({ "job_id": id, "wait_seconds": 5 });
    let polls = place.jobs.iter().cycle().take(1000).map(poll).collect();
    place.client.send_calls("poll_status", polls);
    place.client.contents(1000);
    let what = "most resident: 150 jobs at once, 1,000 polls in flight";
    row(what, "MB", place.client.memory("VmHWM"), None, AtMost(24.0));
    sleep(Duration::from_secs(15));
    let left = place.client.memory("VmRSS");
    row("resident 15 s after them", "MB", left, None, AtMost(24.0));
}

fn poll() {
    let mut place = Place::new();
    place.launch(1, "echo a line; sleep 600");
    // As most polls find a job: what was written a moment ago is read again.
    sleep(Duration::from_secs(3));
    let (job, mut floor) = (json!({ "job_id": place.jobs[0] }), Client::floor(None));
    let ours = || place.client.time("poll_status", &job);
    let (ours, floor) = in_turns(3000, ours, || floor.time("answer", &json!({})));
    for (percent, most) in [(50, 2.0), (99, 3.0)] {
        let what = format!("`poll_status` of a local job, p{percent}");
        let floor = percentile(&floor, percent);
        row(
            &what,
            "ms",
            percentile(&ours, percent),
            Some(floor),
            Times(most),
        );
    }
}

fn logs() {
    let mut place = Place::new();
    place.launch(1, "sleep 600");
    let path = place
        .path("data/jobs")
        .join(&place.jobs[0])
        .join("output.log");
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    let mut lines = String::new();
    for step in 0.. {
        let loss = 2.0 + 1.0 / f64::from(step + 1);
        let metrics = format!("{{'loss': '{loss:.3}', 'grad_norm': '2.038', 'step': {step}}}");
        lines += &format!(
            "{metrics}\n{}\n",
            "what a training prints between them ".repeat(5)
        );
        if lines.len() > 50_000_000 {
            break;
        }
    }
    let job = json!({ "job_id": place.jobs[0] });
    place.client.call("poll_status", job.clone());
    let written = lines.len();
    let ours = || {
        log.write_all(lines.as_bytes()).unwrap();
        place.client.time("poll_status", &job)
    };
    let read = || {
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::End(-(written as i64))).unwrap();
        let mut block = vec![0; 1 << 20];
        milliseconds(|| while file.read(&mut block).unwrap() > 0 {})
    };
    compare(
        "`poll_status`, 50 MB more in the log",
        Times(2.0),
        ours,
        read,
    );
    // Its first 10 GB take no room on the disk.
    log.set_len(10 << 30).unwrap();
    log.write_all(lines.as_bytes()).unwrap();
    let job = json!({ "job_id": place.jobs[0], "lines": 200 });
    let mut tail = Command::new("tail");
    tail.args(["-n", "200"]).arg(&path);
    let ours = || place.client.time("get_job_logs", &job);
    let tail = || milliseconds(|| drop(tail.output().unwrap()));
    compare("`get_job_logs`, 200 lines of 10 GB", Times(1.2), ours, tail);
}

fn crowd() {
    let mut place = Place::new();
    let signal = Signal::new(place.dir.path());
    let script = signal.script();
    let mut plain = Vec::new();
    let mut setsid = Command::new("setsid");
    setsid.args(["bash", "-c", &script]);
    let mut plainly = |count: usize| {
        milliseconds(|| {
            plain.extend((0..count).map(|_| setsid.spawn().unwrap()));
            signal.wait_for(count);
        })
    };
    let mut submit = |count: usize| {
        let first_output = milliseconds(|| {
            place.submit(count, &script);
            signal.wait_for(count);
        });
        place.submitted(count);
        first_output
    };
    let (ours, floor) = (submit(200), Some(plainly(200)));
    row("200 local jobs at once", "ms", ours, floor, Times(2.0));
    let what = "submit a local job to its first output";
    compare(what, Plus(15.0), || submit(1), || plainly(1));
    let (folder, what) = (place.path("data"), "one submission at 200 records");
    let registry = fs::read(folder.join("oumi-jobs.json")).unwrap();
    let write = || milliseconds(|| write_synced(&folder, &registry));
    let jobs = folder.join("jobs");
    let (mut writes, mut needed) = (Vec::new(), Vec::new());
    let submissions: Vec<f64> = (0..TURNS)
        .map(|_| {
            writes.push(write());
            // What its answer says: the job is recorded, its output comes, and who runs beside it.
            needed.push(writes.last().unwrap() + plainly(1) + look_at(&jobs));
            let submission = milliseconds(|| place.launch(1, &script));
            signal.wait_for(1);
            submission
        })
        .collect();
    let needed_too = format!("{what}, beside a write, `setsid bash -c` and a look at each job");
    for (what, floor) in [(what, &writes), (needed_too.as_str(), &needed)] {
        let (ours, floor) = (percentile(&submissions, 50), percentile(floor, 50));
        row(what, "ms", ours, Some(floor), Times(2.0));
    }
    for mut process in plain {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let most = supervisor_memory(place.dir.path());
    row(
        "private memory of a supervisor",
        "MB",
        most,
        None,
        AtMost(2.0),
    );
    let answer = place.path("answer.json");
    let all = json!({ "limit": 200 });
    let list = place.client.call("list_jobs", all.clone()).to_string();
    fs::write(&answer, list).unwrap();
    let mut floor = Client::floor(Some(&answer));
    // What was made a moment ago is read again at each list.
    sleep(Duration::from_secs(3));
    let mut answers = Vec::new();
    let mut floor = || floor.time("answer", &json!({}));
    let ours = || place.client.time("list_jobs", &all);
    let (lists, looks) = in_turns(TURNS, ours, || {
        answers.push(floor());
        answers.last().unwrap() + look_at(&jobs)
    });
    let what = "`list_jobs`, 200 local jobs";
    let needed_too = format!("{what}, beside the answer and a look at each job");
    for (what, floor) in [(what, &answers), (needed_too.as_str(), &looks)] {
        let (ours, floor) = (percentile(&lists, 50), percentile(floor, 50));
        row(what, "ms", ours, Some(floor), Times(3.0));
    }
}

/// Looks at each job as its state wants it: has it ended, does it live, has it written? Returns the milliseconds.
fn look_at(jobs: &Path) -> f64 {
    milliseconds(|| {
        for job in fs::read_dir(jobs).unwrap() {
            let job = job.unwrap().path();
            let _ = job.join("exit.json").metadata();
            let _ = File::open(job.join("lock")).unwrap().try_lock_shared();
            job.join("output.log").metadata().unwrap();
        }
    })
}

/// Replaces a file as the registry is replaced: written, synced, renamed, and its folder synced.
fn write_synced(folder: &Path, bytes: &[u8]) {
    let (temporary, path) = (folder.join("bench.tmp"), folder.join("bench"));
    let mut file = File::create(&temporary).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(temporary, path).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
}

/// The private memory of the largest supervisor of the jobs in `home`, in MB.
fn supervisor_memory(home: &Path) -> f64 {
    let mark = format!("supervise\0{}", home.display());
    let private = |process: PathBuf| {
        let line = fs::read_to_string(process.join("cmdline")).ok()?;
        let names = ["Private_Clean", "Private_Dirty"].iter();
        let rollup = process.join("smaps_rollup");
        line.contains(&mark)
            .then(|| names.map(|name| kilobytes(&rollup, name)).sum())
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let sizes = processes.filter_map(|process| private(process.path()));
    sizes.fold(0.0, f64::max) / 1e3
}

fn size() {
    let megabytes = |path: &Path| fs::metadata(path).unwrap().len() as f64 / 1e6;
    let floor = Some(megabytes(&floor_path()));
    let ours = megabytes(Path::new(PROGRAM));
    row("release binary", "MB", ours, floor, AtMost(7.0));
}

fn build() {
    let cold = |package: &str| {
        let target = TempDir::new().unwrap();
        let folder = target.path().display().to_string();
        milliseconds(|| cargo_build(package, &["--target-dir", &folder])) / 1e3
    };
    let (ours, floor) = (cold(env!("CARGO_PKG_NAME")), Some(cold("floor")));
    row("cold release build", "s", ours, floor, Times(1.5));
}

fn cargo_build(package: &str, more: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--quiet", "--package", package]);
    assert!(command.args(more).status().unwrap().success());
}
