//! The processes of this machine: those of a job, and the signals that end them.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::settings::env_vars;

/// The living processes of this machine at one instant. Zombies are left out.
pub(crate) struct ProcessTable(Vec<Process>);

/// The living processes of one job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JobProcesses {
    /// Known by its mark and its arguments.
    pub(crate) supervisor: Option<u32>,
    /// All others.
    pub(crate) members: HashSet<u32>,
}

impl JobProcesses {
    pub(crate) fn is_empty(&self) -> bool {
        self.supervisor.is_none() && self.members.is_empty()
    }
}

struct Process {
    pid: u32,
    parent: u32,
    session: u32,
    /// The job folder that its environment names; empty without one, and for processes of other users. No more of the
    /// environment is kept: lists of many processes are held at once.
    mark: OsString,
    /// Its arguments are those of the supervisor of that folder.
    supervises: bool,
}

impl ProcessTable {
    /// Lists all processes. Fails where one cannot be read: an incomplete list must never pass for "no process is left".
    pub(crate) fn read() -> io::Result<Self> {
        Self::of(all(true)?)
    }

    fn of(processes: Vec<Process>) -> io::Result<Self> {
        let own = std::process::id();
        if processes.iter().any(|process| process.pid == own) {
            return Ok(Self(processes));
        }
        let error = "the processes of this machine cannot be listed";
        Err(io::Error::other(error))
    }

    /// Lists the children of `root` and theirs, in all sessions. Reads no environments: that of a process that hangs may never come.
    pub(super) fn descendants_of(root: u32) -> io::Result<HashSet<u32>> {
        let mut found = Self::of(all(false)?)?.with_descendants(HashSet::from([root]));
        found.remove(&root);
        Ok(found)
    }

    /// Finds the processes of a job: those with its mark in their environment, its supervisor among them, and their descendants
    /// in all sessions. Without a supervisor, one that cleared its environment and lost its parent is not found.
    pub(crate) fn job(&self, job_dir: &Path) -> JobProcesses {
        let marked = || self.0.iter().filter(|process| process.mark == job_dir);
        // A child that it has just forked has its arguments, until it runs the program of a step.
        let mut candidates = marked().filter(|process| process.supervises);
        let is_candidate = |pid| marked().any(|process| process.supervises && process.pid == pid);
        let supervisor = candidates.find(|process| !is_candidate(process.parent));
        let supervisor = supervisor.map(|process| process.pid);
        let mut members = self.with_descendants(marked().map(|process| process.pid).collect());
        // A job that hides its marks may make its supervisor look like a part of it.
        let own = std::process::id();
        members.retain(|pid| *pid != own && Some(*pid) != supervisor);
        JobProcesses {
            supervisor,
            members,
        }
    }

    /// Kills the steps of a launch, which have no mark: they are in the session of their supervisor, also where that was killed.
    /// What they leave, such as SkyPilot's API server, has one of its own. Returns `false` without a step.
    pub(crate) fn kill_steps(&self, job_dir: &Path, supervisor: u32) -> bool {
        let leader = self.0.iter().find(|process| process.pid == supervisor);
        // Or another process has its pid.
        let is_own = leader.is_none_or(|process| process.mark == job_dir);
        let is_step = |it: &Process| it.session == supervisor && it.pid != supervisor;
        let steps = self.0.iter().filter(|process| is_own && is_step(process));
        steps.map(|step| send(step.pid, Signal::KILL)).count() > 0
    }

    /// Adds the descendants of processes. Most children have a higher number than their parents, and so does what is listed later.
    fn with_descendants(&self, mut found: HashSet<u32>) -> HashSet<u32> {
        let mut count = 0;
        while count < found.len() {
            count = found.len();
            for process in &self.0 {
                if found.contains(&process.parent) {
                    found.insert(process.pid);
                }
            }
        }
        found
    }

    /// Returns the names of the folders below `jobs` whose mark processes carry. A supervisor alone may be that of a cloud launch.
    pub(crate) fn jobs(&self, jobs: &Path) -> BTreeSet<String> {
        let job = |process: &Process| {
            let dir = Path::new(&process.mark);
            let is_job = !process.supervises && dir.parent() == Some(jobs);
            Some(dir.file_name().filter(|_| is_job)?.to_str()?.to_owned())
        };
        self.0.iter().filter_map(job).collect()
    }
}

/// Returns the value of an entry of an environment, if it is that of the mark.
fn mark(entry: &[u8]) -> Option<OsString> {
    let name = env_vars::JOB_DIR.as_bytes();
    let value = entry.strip_prefix(name)?.strip_prefix(b"=")?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// The process ended while it was read (ESRCH too), or is another user's.
#[cfg(target_os = "linux")]
fn is_passed_over(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied) || error.raw_os_error() == Some(3)
}

/// Reads a file of a process; nothing of one that is passed over.
#[cfg(target_os = "linux")]
fn read(pid: u32, file: &str) -> io::Result<Vec<u8>> {
    use io::Read as _;
    // With room for most files at once: `fs::read` begins with 32 bytes.
    let mut bytes = Vec::with_capacity(8192);
    let file = std::fs::File::open(format!("/proc/{pid}/{file}"));
    match file.and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes)) {
        Err(error) if is_passed_over(&error) => Ok(Vec::new()),
        read => read.map(|_| bytes),
    }
}

/// Reads the environment of a process whose first thread has ended, from its others.
#[cfg(target_os = "linux")]
fn environment_of_threads(pid: u32) -> io::Result<Vec<u8>> {
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if is_passed_over(&error) => return Ok(Vec::new()),
        threads => threads?,
    };
    let files = threads.flatten().map(|thread| thread.file_name());
    let mut environments = files.map(|id| read(pid, &format!("task/{}/environ", id.display())));
    let found = environments.find(|it| it.as_ref().map_or(true, |bytes| !bytes.is_empty()));
    found.unwrap_or_else(|| Ok(Vec::new()))
}

/// In the flags of a thread of the kernel.
#[cfg(target_os = "linux")]
const PF_KTHREAD: u32 = 0x0020_0000;

/// Reads /proc itself: sysinfo leaves out what cannot be read for want of file handles, and takes megabytes for each list.
#[cfg(target_os = "linux")]
fn all(environments: bool) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = read(pid, "stat")?;
        // `pid (name) state parent …`; the name may hold anything, a `)` too.
        let stat = String::from_utf8_lossy(&stat);
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        let (session, flags) = (fields.nth(1), fields.nth(2));
        // One whose first thread has ended lives on in its others, and has the state of a zombie.
        let mut threads = || fields.nth(10).and_then(|count| count.parse().ok());
        let is_dead = matches!(state, Some("Z" | "X" | "x")) && threads().unwrap_or(0) < 2;
        let parent = parent.and_then(|parent| parent.parse().ok());
        let Some(parent) = parent.filter(|_| !is_dead) else {
            continue;
        };
        // Of most machines the most are threads of the kernel, which have none.
        let flags = flags.and_then(|flags| flags.parse::<u32>().ok());
        let is_user = flags.unwrap_or(0) & PF_KTHREAD == 0;
        let environment = match (environments && is_user, state) {
            (true, Some("Z")) => environment_of_threads(pid)?,
            (true, _) => read(pid, "environ")?,
            (false, _) => Vec::new(),
        };
        let mut entries = io::BufRead::split(&environment[..], 0).flatten();
        let mark = entries.find_map(|entry| mark(&entry)).unwrap_or_default();
        let supervisor = [b"supervise", mark.as_bytes(), b""].join(&0);
        found.push(Process {
            pid,
            parent,
            session: session.and_then(|it| it.parse().ok()).unwrap_or(0),
            supervises: !mark.is_empty() && read(pid, "cmdline")?.ends_with(&supervisor),
            mark,
        });
    }
    Ok(found)
}

#[cfg(not(target_os = "linux"))]
fn all(environments: bool) -> io::Result<Vec<Process>> {
    use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};
    let mut kind = ProcessRefreshKind::nothing().without_tasks();
    if environments {
        kind = kind
            .with_environ(UpdateKind::Always)
            .with_cmd(UpdateKind::Always);
    }
    let mut system = System::new().map_err(io::Error::other)?;
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let is_dead = |status| matches!(status, ProcessStatus::Zombie | ProcessStatus::Dead);
    let processes = system.processes().values();
    let living = processes.filter(|process| !is_dead(process.status()));
    let processes = living.map(|process| {
        let mut entries = process.environ().iter().map(|entry| entry.as_bytes());
        let mark = entries.find_map(mark).unwrap_or_default();
        Process {
            pid: process.pid().as_u32(),
            parent: process.parent().map_or(0, |parent| parent.as_u32()),
            session: process.session_id().map_or(0, |leader| leader.as_u32()),
            supervises: process.cmd().ends_with(&["supervise".into(), mark.clone()]),
            mark,
        }
    });
    Ok(processes.collect())
}

/// The signal that a cancel wants sent to every process of a job: SIGTERM or SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Termination {
    Graceful,
    Forced,
}

/// Ends the processes of a job, over several snapshots: SIGTERM once to each, or SIGKILL as long as one is there. What a process
/// starts on SIGTERM, such as the copy of a checkpoint, gets it only once those that had it are gone, and a worker once its parent is.
#[derive(Debug, Default)]
pub(crate) struct Terminator {
    /// The processes of the first snapshot.
    first: Option<HashSet<u32>>,
    terminated: HashSet<u32>,
}

impl Terminator {
    /// Signals `members`. One that is gone or another user's is passed over: it counts as long as a snapshot shows it.
    pub(crate) fn signal(&mut self, members: &HashSet<u32>, termination: Termination) {
        let first = self.first.get_or_insert_with(|| members.clone());
        let is_saving = !self.terminated.is_disjoint(members);
        for &member in members {
            if termination == Termination::Forced {
                send(member, Signal::KILL);
            } else if !self.terminated.contains(&member)
                && (first.contains(&member) || !is_saving)
                && !is_worker(member, members)
            {
                self.terminated.insert(member);
                send(member, Signal::TERM);
            }
        }
    }
}

/// Tells if a process is a worker of Python's multiprocessing, such as those of a DataLoader, whose death is an error in its parent.
pub(super) fn is_worker(pid: u32, members: &HashSet<u32>) -> bool {
    let read = |pid: u32, file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default();
    let status = String::from_utf8_lossy(&read(pid, "status")).into_owned();
    let parent = |line: &str| line.strip_prefix("PPid:\t")?.parse().ok();
    let Some(parent) = status.lines().find_map(parent) else {
        return false;
    };
    let command = read(pid, "cmdline");
    // A fork has the command line of its parent.
    let is_its = command == read(parent, "cmdline")
        || memchr::memmem::find(&command, b"multiprocessing").is_some();
    name.as_bytes().starts_with(b"python") && members.contains(&parent) && is_its
}

/// Sends a signal to a process, which may be gone. A stopped process handles it only once it continues.
pub(super) fn send(number: u32, signal: Signal) {
    if let Some(process) = pid(number) {
        let _ = kill_process(process, signal);
        let _ = kill_process(process, Signal::CONT);
    }
}

pub(super) fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}
