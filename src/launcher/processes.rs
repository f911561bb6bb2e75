//! Which processes belong to a job, and how they are signalled.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use crate::env_vars;

/// The processes of this machine at one instant; those that are dead and not yet reaped are left out.
pub struct Processes {
    parents: HashMap<u32, u32>,
    system: System,
}

impl Processes {
    /// Looks at all processes. `environment` reads theirs too, which costs more and is needed for [`Self::of_job`].
    ///
    /// # Errors
    /// When they cannot be listed: an empty list must never pass for "nothing is left".
    pub fn look(environment: bool) -> io::Result<Self> {
        let mut kind = ProcessRefreshKind::nothing().without_tasks();
        if environment {
            kind = kind.with_environ(UpdateKind::Always);
        }
        let mut system = System::new().map_err(io::Error::other)?;
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let parents: HashMap<u32, u32> = system
            .processes()
            .values()
            .filter(|process| {
                !matches!(
                    process.status(),
                    ProcessStatus::Zombie | ProcessStatus::Dead
                )
            })
            .filter_map(|process| Some((process.pid().as_u32(), process.parent()?.as_u32())))
            .collect();
        if !parents.contains_key(&std::process::id()) {
            return Err(io::Error::other(
                "the processes of this machine cannot be listed",
            ));
        }
        Ok(Self { parents, system })
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
            .system
            .processes()
            .values()
            .filter(|process| process.environ().contains(&mark))
            .map(|process| process.pid().as_u32())
            .filter(|pid| self.parents.contains_key(pid))
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
pub fn is_of_job(pid: u32, job_dir: &Path) -> bool {
    let pid = sysinfo::Pid::from_u32(pid);
    let Ok(mut system) = System::new() else {
        return false;
    };
    let kind = ProcessRefreshKind::nothing()
        .without_tasks()
        .with_environ(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
    system.process(pid).is_some_and(|process| {
        !matches!(
            process.status(),
            ProcessStatus::Zombie | ProcessStatus::Dead
        ) && process.environ().contains(&mark(job_dir))
    })
}

fn mark(job_dir: &Path) -> OsString {
    let mut mark = OsString::from(env_vars::JOB_DIR.name);
    mark.push("=");
    mark.push(job_dir);
    mark
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
