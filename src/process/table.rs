//! Which processes belong to a job, and how they are signalled.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::settings::env_vars;

/// The processes of this machine at one instant; those that are dead and not yet reaped are left out.
pub struct ProcessTable {
    parents: HashMap<u32, u32>,
    environments: HashMap<u32, Vec<u8>>,
}

/// One process. The environment is what the kernel gives: entries with a NUL after each; of another user's, none.
struct Process {
    pid: u32,
    parent: u32,
    environment: Vec<u8>,
}

impl ProcessTable {
    /// Looks at all processes. `environment` reads theirs too, which costs more and is needed for [`Self::of_job`].
    ///
    /// # Errors
    /// When they cannot be listed, each of them: an incomplete list must never pass for "nothing is left".
    pub fn look(environment: bool) -> io::Result<Self> {
        let processes = system::all(environment)?;
        let parents: HashMap<u32, u32> = processes
            .iter()
            .map(|process| (process.pid, process.parent))
            .collect();
        if !parents.contains_key(&std::process::id()) {
            return Err(io::Error::other(
                "the processes of this machine cannot be listed",
            ));
        }
        let environments = processes
            .into_iter()
            .filter(|process| !process.environment.is_empty())
            .map(|process| (process.pid, process.environment))
            .collect();
        Ok(Self {
            parents,
            environments,
        })
    }

    /// The children of `root` and theirs, whatever session they are in; `root` itself not.
    pub fn descendants(&self, root: u32) -> HashSet<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (&pid, &parent) in &self.parents {
            children.entry(parent).or_default().push(pid);
        }
        let mut found = HashSet::new();
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            for &child in children.get(&pid).into_iter().flatten() {
                if found.insert(child) {
                    open.push(child);
                }
            }
        }
        found
    }

    /// The processes that carry the mark of the job in `job_dir` in their environment, and their descendants. It finds
    /// what a dead supervisor left behind; a process that cleared its environment and lost its parent is not found.
    pub fn of_job(&self, job_dir: &Path) -> HashSet<u32> {
        let mark = mark(job_dir);
        let marked: Vec<u32> = self
            .environments
            .iter()
            .filter(|(_, environment)| holds(environment, &mark))
            .map(|(&pid, _)| pid)
            .collect();
        let mut found: HashSet<u32> = marked
            .iter()
            .flat_map(|&pid| self.descendants(pid))
            .collect();
        found.extend(marked);
        found
    }
}

/// Whether `pid` lives and carries the mark of the job in `job_dir`: a pid that was given to another process does not.
///
/// # Errors
/// When that cannot be found out.
pub fn is_of_job(pid: u32, job_dir: &Path) -> io::Result<bool> {
    let process = system::one(pid, true)?;
    Ok(process.is_some_and(|process| holds(&process.environment, &mark(job_dir))))
}

fn mark(job_dir: &Path) -> OsString {
    let mut mark = OsString::from(env_vars::JOB_DIR.name);
    mark.push("=");
    mark.push(job_dir);
    mark
}

fn holds(environment: &[u8], entry: &OsString) -> bool {
    environment
        .split(|byte| *byte == 0)
        .any(|known| known == entry.as_bytes())
}

/// Read from /proc by hand: what cannot be read for want of handles is an error here, and not a process that is not there.
#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io};

    use super::Process;

    /// No such process: it ended while it was looked at.
    const GONE: i32 = 3;

    pub fn all(environment: bool) -> io::Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
                found.extend(one(pid, environment)?);
            }
        }
        Ok(found)
    }

    /// Nothing when it is not there, or dead and not yet reaped.
    pub fn one(pid: u32, environment: bool) -> io::Result<Option<Process>> {
        let Some(stat) = read(pid, "stat")? else {
            return Ok(None);
        };
        // `pid (name) state parent …`; the name may hold anything, a `)` too.
        let stat = String::from_utf8_lossy(&stat);
        let mut fields = stat
            .rsplit_once(')')
            .map_or("", |(_, after)| after)
            .split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        let Some(parent) = parent.and_then(|parent| parent.parse().ok()) else {
            return Ok(None);
        };
        if matches!(state, Some("Z" | "X" | "x")) {
            return Ok(None);
        }
        let environment = match environment {
            true => read(pid, "environ")?.unwrap_or_default(),
            false => Vec::new(),
        };
        Ok(Some(Process {
            pid,
            parent,
            environment,
        }))
    }

    /// Nothing when the process is gone, or not ours to look into.
    fn read(pid: u32, file: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(format!("/proc/{pid}/{file}")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) || error.raw_os_error() == Some(GONE) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Asked of the system, which takes no handles.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::os::unix::ffi::OsStrExt;

    use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

    use super::Process;

    pub fn all(environment: bool) -> io::Result<Vec<Process>> {
        look(ProcessesToUpdate::All, environment)
    }

    /// Nothing when it is not there, or dead and not yet reaped.
    pub fn one(pid: u32, environment: bool) -> io::Result<Option<Process>> {
        let pid = [sysinfo::Pid::from_u32(pid)];
        Ok(look(ProcessesToUpdate::Some(&pid), environment)?.pop())
    }

    fn look(which: ProcessesToUpdate<'_>, environment: bool) -> io::Result<Vec<Process>> {
        let mut kind = ProcessRefreshKind::nothing().without_tasks();
        if environment {
            kind = kind.with_environ(UpdateKind::Always);
        }
        let mut system = System::new().map_err(io::Error::other)?;
        system.refresh_processes_specifics(which, true, kind);
        let dead = |status| matches!(status, ProcessStatus::Zombie | ProcessStatus::Dead);
        let living = system
            .processes()
            .values()
            .filter(|process| !dead(process.status()));
        Ok(living
            .map(|process| Process {
                pid: process.pid().as_u32(),
                parent: process.parent().map_or(0, |parent| parent.as_u32()),
                environment: process
                    .environ()
                    .iter()
                    .flat_map(|entry| entry.as_bytes().iter().chain(&[0]))
                    .copied()
                    .collect(),
            })
            .collect())
    }
}

/// Ends the processes of a job, one look at a time: SIGTERM once to each, or SIGKILL as often as one is seen.
#[derive(Debug, Default)]
pub struct Ending {
    asked: HashSet<u32>,
}

impl Ending {
    /// Signals those of `members` that were not yet asked to end, or all of them with `force`. A process that is gone or
    /// belongs to another user is passed over: it is counted as long as it is seen.
    pub fn signal(&mut self, members: &HashSet<u32>, force: bool) {
        for &member in members {
            let Some(pid) = i32::try_from(member).ok().and_then(Pid::from_raw) else {
                continue;
            };
            if force {
                let _ = kill_process(pid, Signal::KILL);
            } else if self.asked.insert(member) {
                let _ = kill_process(pid, Signal::TERM);
                // A stopped process takes the first signal only once it goes on.
                let _ = kill_process(pid, Signal::CONT);
            }
        }
    }
}
