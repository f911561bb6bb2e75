//! The processes of this machine: those of a job, and the signals that end them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::job_dir::Termination;
use crate::settings::env_vars;

/// The living processes of this machine at one instant. Zombies are left out.
pub(crate) struct ProcessTable(Vec<Process>);

/// The living processes of one job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JobProcesses {
    /// Proven by its mark and its arguments, not by a pid in a file, which may be another process's by now.
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
    /// The job folder that its environment names; empty without one, and for processes of other users. No more of the
    /// environment is kept: lists of many processes are held at once.
    mark: Vec<u8>,
}

impl ProcessTable {
    /// Lists all processes without their environments. Fails where one cannot be read: an incomplete list must never pass for
    /// "no process is left".
    pub(crate) fn snapshot() -> io::Result<Self> {
        Self::read(false)
    }

    /// Lists all processes with their environments, which costs more and is needed for [`Self::job`].
    pub(crate) fn with_environments() -> io::Result<Self> {
        Self::read(true)
    }

    /// Lists one process, where it lives.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        system::one(pid, true).map(|process| Self(process.into_iter().collect()))
    }

    fn read(environments: bool) -> io::Result<Self> {
        let processes = system::all(environments)?;
        let own = std::process::id();
        if !processes.iter().any(|process| process.pid == own) {
            return Err(io::Error::other(
                "the processes of this machine cannot be listed",
            ));
        }
        Ok(Self(processes))
    }

    /// Returns the children of `root` and theirs, in all sessions, without `root` itself.
    pub(crate) fn descendants(&self, root: u32) -> HashSet<u32> {
        let mut found = self.with_descendants(&[root]);
        found.remove(&root);
        found
    }

    /// Finds the processes of a job: those with its mark in their environment, and their descendants. Without a supervisor, one
    /// that cleared its environment and lost its parent is not found.
    pub(crate) fn job(&self, job_dir: &Path) -> JobProcesses {
        let marked = self
            .0
            .iter()
            .filter(|process| process.mark == job_dir.as_os_str().as_bytes());
        let marked: Vec<&Process> = marked.collect();
        let candidates: Vec<&&Process> = marked
            .iter()
            .filter(|process| process.supervises(job_dir))
            .collect();
        // A child that it has just forked has its arguments, until it runs the program of a step.
        let is_forked =
            |process: &Process| candidates.iter().any(|parent| parent.pid == process.parent);
        let supervisor = candidates.iter().find(|process| !is_forked(process));
        let supervisor = supervisor.map(|process| process.pid);
        let roots: Vec<u32> = marked.iter().map(|process| process.pid).collect();
        let mut members = self.with_descendants(&roots);
        members.retain(|pid| Some(*pid) != supervisor);
        JobProcesses {
            supervisor,
            members,
        }
    }

    /// Returns the names of the job folders below `jobs` whose mark living processes carry, their supervisors aside: that of a
    /// cloud launch runs no job of this machine.
    pub(crate) fn jobs(&self, jobs: &Path) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for process in &self.0 {
            let dir = Path::new(OsStr::from_bytes(&process.mark));
            let name = dir.file_name().and_then(OsStr::to_str);
            let name = name.filter(|_| dir.parent() == Some(jobs) && !process.supervises(dir));
            names.extend(name.map(ToOwned::to_owned));
        }
        names
    }

    fn with_descendants(&self, roots: &[u32]) -> HashSet<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in &self.0 {
            children
                .entry(process.parent)
                .or_default()
                .push(process.pid);
        }
        let mut found = HashSet::new();
        let mut open = roots.to_vec();
        while let Some(pid) = open.pop() {
            if found.insert(pid) {
                open.extend(children.get(&pid).into_iter().flatten());
            }
        }
        found
    }
}

impl Process {
    /// Tells by the arguments if this is the supervisor of a job.
    fn supervises(&self, job_dir: &Path) -> bool {
        let expected = [b"supervise", job_dir.as_os_str().as_bytes(), b""].join(&0);
        system::arguments(self.pid).is_some_and(|arguments| arguments.ends_with(&expected))
    }
}

/// Finds the job folder in `NAME=value` entries of an environment.
fn mark<'a>(mut entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let name = env_vars::JOB_DIR.as_bytes();
    let value = |entry: &'a [u8]| entry.strip_prefix(name)?.strip_prefix(b"=");
    entries.find_map(value).unwrap_or_default().to_vec()
}

/// Reads /proc itself: a library would take a process that cannot be read for want of file handles for one that is gone.
#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io};

    use super::{Process, mark};

    /// ESRCH: the process ended while it was read.
    const NO_SUCH_PROCESS: i32 = 3;

    pub(super) fn all(environments: bool) -> io::Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
                found.extend(one(pid, environments)?);
            }
        }
        Ok(found)
    }

    /// Returns the arguments of a process, each with a NUL after it.
    pub(super) fn arguments(pid: u32) -> Option<Vec<u8>> {
        read(pid, "cmdline").ok().flatten()
    }

    /// Reads one process; `None` for one that is gone or a zombie.
    pub(super) fn one(pid: u32, environment: bool) -> io::Result<Option<Process>> {
        let Some(stat) = read(pid, "stat")? else {
            return Ok(None);
        };
        // `pid (name) state parent …`; the name may hold anything, a `)` too.
        let stat = String::from_utf8_lossy(&stat);
        let after_name = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let mut fields = after_name.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        let Some(parent) = parent.and_then(|parent| parent.parse().ok()) else {
            return Ok(None);
        };
        if matches!(state, Some("Z" | "X" | "x")) {
            return Ok(None);
        }
        let environment = if environment {
            read(pid, "environ")?.unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok(Some(Process {
            pid,
            parent,
            mark: mark(environment.split(|byte| *byte == 0)),
        }))
    }

    /// Reads a file of a process; `None` for a process that is gone or another user's.
    fn read(pid: u32, file: &str) -> io::Result<Option<Vec<u8>>> {
        use io::ErrorKind::{NotFound, PermissionDenied};
        match fs::read(format!("/proc/{pid}/{file}")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => Ok(None),
            Err(error) if error.raw_os_error() == Some(NO_SUCH_PROCESS) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::os::unix::ffi::OsStrExt;

    use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

    use super::{Process, mark};

    /// Returns the arguments of a process, each with a NUL after it.
    pub(super) fn arguments(pid: u32) -> Option<Vec<u8>> {
        let pid = sysinfo::Pid::from_u32(pid);
        let kind = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
        let mut system = System::new().ok()?;
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
        let arguments = system.process(pid)?.cmd().iter();
        Some(
            arguments
                .flat_map(|argument| [argument.as_bytes(), &[0]].concat())
                .collect(),
        )
    }

    pub(super) fn all(environments: bool) -> io::Result<Vec<Process>> {
        read(ProcessesToUpdate::All, environments)
    }

    /// Reads one process; `None` for one that is gone or a zombie.
    pub(super) fn one(pid: u32, environment: bool) -> io::Result<Option<Process>> {
        let pid = [sysinfo::Pid::from_u32(pid)];
        Ok(read(ProcessesToUpdate::Some(&pid), environment)?.pop())
    }

    fn read(which: ProcessesToUpdate<'_>, environments: bool) -> io::Result<Vec<Process>> {
        let mut kind = ProcessRefreshKind::nothing().without_tasks();
        if environments {
            kind = kind.with_environ(UpdateKind::Always);
        }
        let mut system = System::new().map_err(io::Error::other)?;
        system.refresh_processes_specifics(which, true, kind);
        let is_dead = |status| matches!(status, ProcessStatus::Zombie | ProcessStatus::Dead);
        let processes = system.processes().values();
        let living = processes.filter(|process| !is_dead(process.status()));
        let environment = |process: &sysinfo::Process| {
            let entries = process.environ().iter();
            mark(entries.map(|entry| entry.as_bytes()))
        };
        Ok(living
            .map(|process| Process {
                pid: process.pid().as_u32(),
                parent: process.parent().map_or(0, |parent| parent.as_u32()),
                mark: environment(process),
            })
            .collect())
    }
}

/// Ends the processes of a job, over several snapshots: SIGTERM once to each, or SIGKILL as long as one is there.
#[derive(Debug, Default)]
pub(crate) struct Terminator {
    terminated: HashSet<u32>,
}

impl Terminator {
    /// Signals `members`. One that is gone or another user's is passed over: it counts as long as a snapshot shows it.
    pub(crate) fn signal(&mut self, members: &HashSet<u32>, termination: Termination) {
        for &member in members {
            let Some(pid) = i32::try_from(member).ok().and_then(Pid::from_raw) else {
                continue;
            };
            if termination == Termination::Forced {
                let _ = kill_process(pid, Signal::KILL);
            } else if self.terminated.insert(member) {
                let _ = kill_process(pid, Signal::TERM);
                // A stopped process handles SIGTERM only once it continues.
                let _ = kill_process(pid, Signal::CONT);
            }
        }
    }
}
