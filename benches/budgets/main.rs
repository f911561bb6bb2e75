//! What the server costs, beside the least that it could cost: `cargo bench --bench budgets`, some minutes. The floor is
//! `benches/floor`, an rmcp server with one empty tool. A word picks a part: `cargo bench --bench budgets start`. The parts
//! `reading` and `build` (a cold build of both) run only when they are named. Rows over SkyPilot: `tests/real/speed.sh`.
//!
//! Both sides of a ratio are measured in turns and their medians are compared: others may be at work on the machine.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod client;
mod reading;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use client::Client;

const PARTS: [(&str, fn()); 6] = [
    ("start", start),
    ("memory", memory),
    ("poll", poll),
    ("logs", logs),
    ("crowd", crowd),
    ("size", size),
];
const ONLY_NAMED: [(&str, fn()); 2] = [("build", build), ("reading", reading::speeds)];

fn main() {
    // Cargo passes `--bench`.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    cargo_build("floor", &[]);
    println!("| what | figure | against | ratio | to reach | met |\n|---|---|---|---|---|---|");
    let parts = PARTS.iter().filter(|_| named.is_empty());
    let all = PARTS
        .iter()
        .chain(&ONLY_NAMED)
        .filter(|(name, _)| named.iter().any(|word| word == name));
    parts.chain(all).for_each(|(_, part)| part());
}

/// What a figure may be: so many times what it stands against, so much more than that, or so much.
enum Budget {
    Times(f64),
    Plus(f64),
    AtMost(f64),
}
use Budget::{AtMost, Plus, Times};

fn row(what: &str, figure: f64, against: Option<f64>, unit: &str, budget: Budget) {
    let floor = against.unwrap_or_default();
    let (ratio, limit, is_met) = match budget {
        Times(most) => (
            format!("{:.2} ×", figure / floor),
            format!("{most} ×"),
            figure <= floor * most,
        ),
        Plus(most) => (
            format!("+ {:.1} {unit}", figure - floor),
            format!("+ {most} {unit}"),
            figure <= floor + most,
        ),
        AtMost(most) => (String::new(), format!("{most} {unit}"), figure <= most),
    };
    let against = against.map_or(String::new(), |floor| format!("{floor:.2} {unit}"));
    let is_met = if is_met { "yes" } else { "NO" };
    println!("| {what} | {figure:.2} {unit} | {against} | {ratio} | ≤ {limit} | {is_met} |");
}

/// Measures both in turns and returns the figures of each in order.
fn in_turns(
    times: usize,
    mut ours: impl FnMut() -> f64,
    mut floor: impl FnMut() -> f64,
) -> (Vec<f64>, Vec<f64>) {
    sorted((0..times).map(|_| (ours(), floor())).collect())
}

fn sorted(pairs: Vec<(f64, f64)>) -> (Vec<f64>, Vec<f64>) {
    let (mut ours, mut floor): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    ours.sort_by(f64::total_cmp);
    floor.sort_by(f64::total_cmp);
    (ours, floor)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn median_row(what: &str, (ours, floor): (Vec<f64>, Vec<f64>), unit: &str, budget: Budget) {
    row(
        what,
        percentile(&ours, 50),
        Some(percentile(&floor, 50)),
        unit,
        budget,
    );
}

fn milliseconds(what: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    what();
    begin.elapsed().as_secs_f64() * 1e3
}

/// A line of a file of `/proc`, such as `VmRSS:  1234 kB`; 0 where there is none.
fn kilobytes(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default()
}

/// A project with a data folder, and the ids of the jobs that must be ended.
struct Place {
    dir: TempDir,
    client: Client,
    jobs: Vec<String>,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let client = Client::ours(dir.path());
        Self {
            dir,
            client,
            jobs: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends the calls that start jobs with this script.
    fn submit(&mut self, count: usize, script: &str) {
        let config = self.path("job.yaml");
        fs::write(&config, json!({ "run": script }).to_string()).unwrap();
        let arguments = json!({
            "config_path": config, "command": "train", "client_cwd": self.dir.path(),
            "dry_run": false, "confirm": true, "user_confirmation": "EXECUTE",
        });
        self.client.send_calls("run_job", vec![arguments; count]);
    }

    /// Reads the answers to [`Self::submit`].
    fn submitted(&mut self, count: usize) {
        let answers = self.client.contents(count);
        self.jobs.extend(
            answers
                .iter()
                .map(|answer| answer["job_id"].as_str().unwrap().to_owned()),
        );
    }

    fn launch(&mut self, count: usize, script: &str) {
        self.submit(count, script);
        self.submitted(count);
    }

    fn log(&self) -> PathBuf {
        self.path("data/jobs")
            .join(&self.jobs[0])
            .join("output.log")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let jobs = self
            .jobs
            .iter()
            .map(|id| json!({ "job_id": id, "force": true }));
        self.client.send_calls("cancel_job", jobs.collect());
        self.client.contents(self.jobs.len());
    }
}

/// A pipe that jobs write to when they begin.
struct Signal(PathBuf, File);

impl Signal {
    fn new(folder: &Path) -> Self {
        let path = folder.join("begun");
        Command::new("mkfifo").arg(&path).status().unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        Self(path, file)
    }

    /// A script that says that it has begun and stays.
    fn script(&self) -> String {
        format!("printf x > {}; exec sleep 600", self.0.display())
    }

    fn wait_for(&mut self, count: usize) {
        self.1.read_exact(&mut vec![0; count]).unwrap();
    }
}

fn start() {
    let home = TempDir::new().unwrap();
    let times = in_turns(
        40,
        || Client::ours(home.path()).start_ms,
        || Client::floor(None).start_ms,
    );
    median_row("start to `initialize` answered", times, "ms", Times(1.4));
    let resident = |client: Client| {
        sleep(Duration::from_millis(200));
        client.memory("VmRSS")
    };
    let idle = in_turns(
        5,
        || resident(Client::ours(home.path())),
        || resident(Client::floor(None)),
    );
    median_row("resident, idle", idle, "MB", Times(1.8));
}

fn memory() {
    let mut place = Place::new();
    place.launch(150, "sleep 600");
    let polls: Vec<Value> = place
        .jobs
        .iter()
        .cycle()
        .take(1000)
        .map(|id| json!({ "job_id": id, "wait_seconds": 5 }))
        .collect();
    place.client.send_calls("poll_status", polls);
    place.client.contents(1000);
    row(
        "most resident: 150 jobs at once, 1,000 polls in flight",
        place.client.memory("VmHWM"),
        None,
        "MB",
        AtMost(24.0),
    );
    sleep(Duration::from_secs(15));
    row(
        "resident 15 s later",
        place.client.memory("VmRSS"),
        None,
        "MB",
        AtMost(24.0),
    );
}

fn poll() {
    let mut place = Place::new();
    place.launch(1, "echo a line; sleep 600");
    let (job, mut floor) = (json!({ "job_id": place.jobs[0] }), Client::floor(None));
    place.client.call("poll_status", job.clone());
    let (ours, floor) = in_turns(
        3000,
        || place.client.time("poll_status", job.clone()),
        || floor.time("answer", json!({})),
    );
    for (percent, most) in [(50, 2.0), (99, 3.0)] {
        let what = format!("`poll_status` of a local job, p{percent}");
        row(
            &what,
            percentile(&ours, percent),
            Some(percentile(&floor, percent)),
            "ms",
            Times(most),
        );
    }
}

fn logs() {
    let mut place = Place::new();
    place.launch(1, "sleep 600");
    let (path, job) = (place.log(), place.jobs[0].clone());
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    let mut lines = String::new();
    for step in 0..150_000 {
        lines += &format!(
            "{{'loss': '5.943', 'grad_norm': '2.038', 'learning_rate': '0.0008333', 'entropy': '5.985', 'num_tokens': '9876543', 'epoch': '0.125', 'step': {step}}} of this run, which says what it did in a line as long as most lines of logs are, and goes on after it. {:>120}\n",
            "the end"
        );
    }
    let lines = &lines.as_bytes()[..50_000_000];
    place.client.call("poll_status", json!({ "job_id": job }));
    let polled = in_turns(
        8,
        || {
            log.write_all(lines).unwrap();
            place.client.time("poll_status", json!({ "job_id": job }))
        },
        || {
            let mut file = File::open(&path).unwrap();
            file.seek(SeekFrom::End(-50_000_000)).unwrap();
            let mut block = vec![0; 1 << 20];
            milliseconds(|| while file.read(&mut block).unwrap() > 0 {})
        },
    );
    median_row(
        "`poll_status`, 50 MB more in the log",
        polled,
        "ms",
        Times(2.0),
    );
    // Its first 10 GB take no room on the disk.
    log.set_len(10 << 30).unwrap();
    log.write_all(lines).unwrap();
    let tail = in_turns(
        20,
        || {
            place
                .client
                .time("get_job_logs", json!({ "job_id": job, "lines": 200 }))
        },
        || {
            milliseconds(|| {
                drop(
                    Command::new("tail")
                        .args(["-n", "200"])
                        .arg(&path)
                        .output()
                        .unwrap(),
                )
            })
        },
    );
    median_row("`get_job_logs`, 200 lines of 10 GB", tail, "ms", Times(1.2));
}

fn crowd() {
    let mut place = Place::new();
    let mut signal = Signal::new(place.dir.path());
    let script = signal.script();
    let mut plain = Vec::new();
    let mut plainly = |count: usize, signal: &mut Signal| {
        let mut command = Command::new("setsid");
        let command = command
            .args(["bash", "-c", &script])
            .stdin(Stdio::null())
            .process_group(0);
        milliseconds(|| {
            plain.extend((0..count).map(|_| command.spawn().unwrap()));
            signal.wait_for(count);
        })
    };
    let submit = |place: &mut Place, signal: &mut Signal, count: usize| {
        milliseconds(|| {
            place.submit(count, &script);
            signal.wait_for(count);
        })
    };
    let (ours, floor) = (
        submit(&mut place, &mut signal, 200),
        plainly(200, &mut signal),
    );
    place.submitted(200);
    row(
        "200 local jobs at once",
        ours,
        Some(floor),
        "ms",
        Times(2.0),
    );
    row(
        "private memory of the largest supervisor",
        supervisors(place.dir.path()),
        None,
        "MB",
        AtMost(2.0),
    );

    let (mut first_output, mut submission) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let registry = fs::read(place.path("data/oumi-jobs.json")).unwrap();
        let mut ours = 0.0;
        let answered = milliseconds(|| {
            ours = submit(&mut place, &mut signal, 1);
            place.submitted(1);
        });
        first_output.push((ours, plainly(1, &mut signal)));
        submission.push((
            answered,
            milliseconds(|| write_synced(&place.path("data"), &registry)),
        ));
    }
    median_row(
        "submit a local job to its first output",
        sorted(first_output),
        "ms",
        Plus(15.0),
    );
    median_row(
        "one submission at 200 records",
        sorted(submission),
        "ms",
        Times(2.0),
    );
    for process in &mut plain {
        process.kill().unwrap();
        process.wait().unwrap();
    }

    let all = json!({ "limit": 200 });
    let answer = place.path("answer.json");
    fs::write(
        &answer,
        place.client.call("list_jobs", all.clone()).to_string(),
    )
    .unwrap();
    let mut floor = Client::floor(Some(&answer));
    let lists = in_turns(
        40,
        || place.client.time("list_jobs", all.clone()),
        || floor.time("answer", json!({})),
    );
    median_row("`list_jobs`, 200 local jobs", lists, "ms", Times(3.0));
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

fn supervisors(home: &Path) -> f64 {
    let home = home.as_os_str().as_encoded_bytes();
    let mut most = 0.0_f64;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        if words.next() == Some(b"supervise")
            && words.next().is_some_and(|folder| folder.starts_with(home))
        {
            let file = process.path().join("smaps_rollup").display().to_string();
            let private = ["Private_Clean", "Private_Dirty"].map(|name| kilobytes(&file, name));
            most = most.max(private.iter().sum::<f64>() / 1e3);
        }
    }
    most
}

fn size() {
    let megabytes = |client: &str| fs::metadata(client).unwrap().len() as f64 / 1e6;
    let floor = client::floor_path().display().to_string();
    row(
        "release binary",
        megabytes(client::PROGRAM),
        Some(megabytes(&floor)),
        "MB",
        AtMost(7.0),
    );
}

fn build() {
    let cold = |package: &str| {
        let target = TempDir::new().unwrap();
        milliseconds(|| {
            cargo_build(
                package,
                &["--target-dir", &target.path().display().to_string()],
            )
        }) / 1e3
    };
    row(
        "cold release build",
        cold(env!("CARGO_PKG_NAME")),
        Some(cold("floor")),
        "s",
        Times(1.5),
    );
}

fn cargo_build(package: &str, more: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    let built = command
        .args(["build", "--release", "--quiet", "--package", package])
        .args(more)
        .status()
        .unwrap();
    assert!(built.success());
}
