//! The processes of this machine: those of a job, and the signals that end them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::job_dir::Termination;
use crate::settings::env_vars;

/// The living processes of this machine at one instant. Zombies are left out.
pub(crate) struct ProcessTable(Vec<Process>);

struct Process {
    pid: u32,
    parent: u32,
    /// `NAME=value` entries with a NUL after each; empty for processes of other users.
    environment: Vec<u8>,
}

impl ProcessTable {
    /// Lists all processes without their environments. Fails where one cannot be read: an incomplete list must never pass for
    /// "no process is left".
    pub(crate) fn snapshot() -> io::Result<Self> {
        Self::read(false)
    }

    /// Lists all processes with their environments, which costs more and is needed for [`Self::job_members`].
    pub(crate) fn snapshot_with_environments() -> io::Result<Self> {
        Self::read(true)
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
        self.with_descendants(&[root])
            .into_iter()
            .filter(|pid| *pid != root)
            .collect()
    }

    /// Returns the processes with the mark of the job in their environment, and their descendants. That finds the processes of
    /// a dead supervisor, but for those that cleared their environment and lost their parent.
    pub(crate) fn job_members(&self, job_dir: &Path) -> HashSet<u32> {
        let marker = env_marker(job_dir);
        let marked = self.0.iter().filter(|process| process.has_env(&marker));
        self.with_descendants(&marked.map(|process| process.pid).collect::<Vec<_>>())
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
    fn has_env(&self, entry: &OsString) -> bool {
        let mut entries = self.environment.split(|byte| *byte == 0);
        entries.any(|known| known == entry.as_bytes())
    }
}

/// Tells if `pid` lives and carries the mark of the job. Another process that was given the pid later does not.
pub(crate) fn belongs_to_job(pid: u32, job_dir: &Path) -> io::Result<bool> {
    let process = system::one(pid, true)?;
    Ok(process.is_some_and(|process| process.has_env(&env_marker(job_dir))))
}

fn env_marker(job_dir: &Path) -> OsString {
    let mut marker = OsString::from(env_vars::JOB_DIR.name);
    marker.push("=");
    marker.push(job_dir);
    marker
}

/// Reads /proc itself: a library would take a process that cannot be read for want of file handles for one that is gone.
#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io};

    use super::Process;

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
            environment,
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

    use super::Process;

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
            entries
                .flat_map(|entry| [entry.as_bytes(), &[0]].concat())
                .collect()
        };
        Ok(living
            .map(|process| Process {
                pid: process.pid().as_u32(),
                parent: process.parent().map_or(0, |parent| parent.as_u32()),
                environment: environment(process),
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
