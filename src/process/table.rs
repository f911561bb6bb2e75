//! The processes of this machine: those of a job, and the signals that end them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::job_dir::Termination;
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
    /// The job folder that its environment names; empty without one, and for processes of other users. No more of the
    /// environment is kept: lists of many processes are held at once.
    mark: OsString,
    /// Its arguments are those of the supervisor of that folder.
    supervises: bool,
}

impl ProcessTable {
    /// Lists all processes. Fails where they cannot be read: an incomplete list must never pass for "no process is left".
    pub(crate) fn read() -> io::Result<Self> {
        let kind = ProcessRefreshKind::nothing().without_tasks();
        let kind = kind
            .with_environ(UpdateKind::Always)
            .with_cmd(UpdateKind::Always);
        let mut system = System::new().map_err(io::Error::other)?;
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        // Out of file handles, processes are missing in it.
        File::open("/")?;
        let own = sysinfo::Pid::from_u32(std::process::id());
        if system.process(own).is_none() {
            let error = "the processes of this machine cannot be listed";
            return Err(io::Error::other(error));
        }
        let is_dead = |status| matches!(status, ProcessStatus::Zombie | ProcessStatus::Dead);
        let processes = system.processes().values();
        let living = processes.filter(|process| !is_dead(process.status()));
        Ok(Self(living.map(Process::new).collect()))
    }

    /// Finds the processes of a job: those with its mark in their environment, its supervisor among them, and their descendants
    /// in all sessions. Without a supervisor, one that cleared its environment and lost its parent is not found.
    pub(crate) fn job(&self, job_dir: &Path) -> JobProcesses {
        let marked = || self.0.iter().filter(|process| process.mark == job_dir);
        // A child that it has just forked has its arguments, until it runs the program of a step.
        let candidates = || marked().filter(|process| process.supervises);
        let is_forked = |process: &&Process| candidates().any(|it| it.pid == process.parent);
        let supervisor = candidates().find(|process| !is_forked(process));
        let supervisor = supervisor.map(|process| process.pid);
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in &self.0 {
            let siblings = children.entry(process.parent).or_default();
            siblings.push(process.pid);
        }
        let mut open: Vec<u32> = marked().map(|process| process.pid).collect();
        let mut members = HashSet::new();
        while let Some(pid) = open.pop() {
            if members.insert(pid) {
                open.extend(children.get(&pid).into_iter().flatten());
            }
        }
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
            let dir = Path::new(&process.mark);
            let name = dir.file_name().and_then(OsStr::to_str);
            let name = name.filter(|_| dir.parent() == Some(jobs) && !process.supervises);
            names.extend(name.map(ToOwned::to_owned));
        }
        names
    }
}

impl Process {
    fn new(process: &sysinfo::Process) -> Self {
        let name = env_vars::JOB_DIR.as_bytes();
        let mark = |entry: &OsString| {
            let value = entry.as_bytes().strip_prefix(name)?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value).to_owned())
        };
        let mark = process.environ().iter().find_map(mark).unwrap_or_default();
        Self {
            pid: process.pid().as_u32(),
            parent: process.parent().map_or(0, |parent| parent.as_u32()),
            supervises: process.cmd().ends_with(&["supervise".into(), mark.clone()]),
            mark,
        }
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
            if termination == Termination::Forced {
                send(member, Signal::KILL);
            } else if self.terminated.insert(member) {
                send(member, Signal::TERM);
            }
        }
    }
}

/// Sends a signal to a process, which may be gone. A stopped process handles it only once it continues.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
        let _ = kill_process(pid, Signal::CONT);
    }
}
