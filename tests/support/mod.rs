//! What the tests share: a home of their own, processes of this machine, and a client over real pipes.

#![allow(dead_code)]

pub mod client;
#[allow(dead_code, reason = "other tests need other parts of it")]
pub mod mcp_client;
pub mod schema;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use oumi_mcp_server::env_vars;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

/// Longer than anything here takes on a busy machine: to pass it means that it never comes.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Longer than a server takes to end, and shorter than its longest call.
pub const SOON: Duration = Duration::from_secs(8);

/// A home folder of a test's own, with a project in it and programs for PATH. When it is dropped, whatever runs for its
/// data folder is killed.
pub struct Home {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The folder for temporary files is a link on macOS.
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("project")).unwrap();
        fs::create_dir(root.join("bin")).unwrap();
        Self { root, _dir: dir }
    }

    /// `HOME`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `OUMI_MCP_HOME`; the server makes it.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What a client passes as `client_cwd`.
    pub fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.project().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file that a job wrote into the project.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.project().join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a job config whose `run` is this script, for a name.
    pub fn job(&self, run: &str) -> &'static str {
        let text = serde_json::to_string_pretty(&json!({ "run": run })).unwrap();
        // JSON is YAML.
        self.write("job.yaml", &text);
        "job.yaml"
    }

    /// Puts a program on the server's PATH.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        executable(&self.root.join("bin").join(name), script)
    }

    pub fn job_dir(&self, job_id: &str) -> PathBuf {
        self.data().join("jobs").join(job_id)
    }

    pub fn log(&self, job_id: &str) -> PathBuf {
        self.job_dir(job_id).join("output.log")
    }

    pub fn supervisor(&self, job_id: &str) -> u32 {
        let text = fs::read_to_string(self.job_dir(job_id).join("supervisor.pid")).unwrap();
        text.parse().unwrap()
    }

    pub fn registry(&self) -> PathBuf {
        self.data().join("oumi-jobs.json")
    }

    /// Writes the registry, also before there is a server, with these records as the Python server would.
    pub fn write_registry(&self, records: &[Value]) {
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.registry(), serde_json::to_vec_pretty(records).unwrap()).unwrap();
    }

    pub fn records(&self) -> Vec<Value> {
        serde_json::from_slice(&fs::read(self.registry()).unwrap()).unwrap()
    }

    /// The pids that a job wrote into `<project>/pids`, one a file, once there are so many.
    pub fn pids(&self, count: usize) -> Vec<u32> {
        let folder = self.project().join("pids");
        let look = || -> Vec<u32> {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| {
                    fs::read_to_string(entry.path())
                        .ok()?
                        .strip_suffix('\n')?
                        .parse()
                        .ok()
                })
                .collect()
        };
        wait_until(&format!("{count} processes of the job"), || {
            look().len() == count
        });
        look()
    }

    /// Everything that runs with this data folder in its environment (servers, supervisors, jobs), and what they started.
    pub fn running(&self) -> HashSet<u32> {
        let mark = format!("{}={}", env_vars::HOME, self.data().display());
        let system = processes(ProcessesToUpdate::All);
        let ours = system.processes().values().filter(|process| {
            process.environ().iter().any(|entry| *entry == *mark) && lives(process.status())
        });
        let mut running: HashSet<u32> = ours.map(|process| process.pid().as_u32()).collect();
        loop {
            let children = system.processes().values().filter(|process| {
                let parent = process.parent().map(sysinfo::Pid::as_u32);
                parent.is_some_and(|parent| running.contains(&parent)) && lives(process.status())
            });
            let before = running.len();
            let children: Vec<u32> = children.map(|process| process.pid().as_u32()).collect();
            running.extend(children);
            if running.len() == before {
                return running;
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let running = self.running();
            if running.is_empty() || Instant::now() > deadline {
                return;
            }
            for process in running.into_iter().filter_map(pid) {
                let _ = kill_process(process, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Writes a program.
pub fn executable(path: &Path, script: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = path.with_extension("text");
    fs::write(&text, script).unwrap();
    copy_program(&text, path);
    path.to_owned()
}

/// Copies a program by a process of its own: were it written here, a process that another thread starts meanwhile would
/// hold it open for writing for a moment, and nobody could run it ("text file busy").
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Polls until the condition holds; fails past [`DEADLINE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    poll_for(DEADLINE, || {
        if holds() {
            Ok(())
        } else {
            Err(what.to_owned())
        }
    });
}

/// Polls for a value; past `patience` it fails with the last reason why there is none.
#[track_caller]
pub fn poll_for<T>(patience: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(reason) => assert!(
                Instant::now() < deadline,
                "not within {patience:?}: {reason}"
            ),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Tries it up to three times: of the second that a server has for it, a busy machine may take all once.
#[track_caller]
pub fn in_one_of_three(what: &str, tried: impl FnMut(usize) -> bool) {
    assert!((0..3).any(tried), "not in one of three: {what}");
}

/// A process that is dead and not yet reaped does not live.
pub fn alive(process: u32) -> bool {
    let id = sysinfo::Pid::from_u32(process);
    let system = processes(ProcessesToUpdate::Some(&[id]));
    system
        .process(id)
        .is_some_and(|process| lives(process.status()))
}

/// The processes that have the variable of a job in their environment.
pub fn job_members(job_dir: &Path) -> HashSet<u32> {
    let mark = format!("{}={}", env_vars::JOB_DIR, job_dir.display());
    let system = processes(ProcessesToUpdate::All);
    let members = system.processes().values().filter(|process| {
        process.environ().iter().any(|entry| *entry == *mark) && lives(process.status())
    });
    members.map(|process| process.pid().as_u32()).collect()
}

/// The children of a process, those that are dead and not yet reaped among them.
pub fn children(parent: u32) -> Vec<u32> {
    let parent = sysinfo::Pid::from_u32(parent);
    let system = processes(ProcessesToUpdate::All);
    let processes = system.processes().values();
    let children = processes.filter(|process| process.parent() == Some(parent));
    children.map(|process| process.pid().as_u32()).collect()
}

fn processes(which: ProcessesToUpdate<'_>) -> System {
    let kind = ProcessRefreshKind::nothing()
        .without_tasks()
        .with_environ(UpdateKind::Always);
    let mut system = System::new().unwrap();
    system.refresh_processes_specifics(which, true, kind);
    system
}

fn lives(status: ProcessStatus) -> bool {
    !matches!(status, ProcessStatus::Zombie | ProcessStatus::Dead)
}

pub fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}

/// Kills a process and waits until it is gone.
pub fn kill_9(process: u32) {
    kill_process(pid(process).unwrap(), Signal::KILL).unwrap();
    wait_until("the killed process is gone", || !alive(process));
}

/// A number of /proc/<pid>/status in kB, such as `VmRSS`; nothing where there is no /proc.
pub fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Everything in a folder, folders included; nothing is followed out of it.
pub fn everything_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files in a folder that hold one of `needles`, whatever their encoding.
pub fn files_holding(folder: &Path, needles: &[&str]) -> Vec<PathBuf> {
    let mut files = everything_in(folder);
    files.retain(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        needles.iter().any(|needle| holds(&bytes, needle))
    });
    files
}

pub fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// Says why a test does nothing here: past the harness, which keeps what a passing test prints to itself.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
