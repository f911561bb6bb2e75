//! The machine that a job runs on, as far as its processes can be seen: locks and pids mean nothing on another.

use std::io;
use std::io::ErrorKind::{NotFound, PermissionDenied};

use serde::{Deserialize, Serialize};

/// A machine from its start on. It is written into the lock of each job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) host: String,
    /// Differs after each start of the machine.
    boot: String,
    /// Differs in each start of a container that sees its own processes only. Empty where there is no such thing.
    pid_namespace: String,
}

/// A job's machine, as this one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Processes of the job would be seen here.
    Here,
    /// This machine, or one of the same name, before it was started last.
    EarlierStart,
    /// A container of this name on this machine: this one before it was started last, or one that runs beside it.
    OtherContainer,
    Elsewhere,
}

impl Machine {
    pub(crate) fn current() -> io::Result<Self> {
        let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let boot = match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            // macOS has no such file. Any other error, such as of too many open files, tells of no other start.
            Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => {
                sysinfo::System::boot_time().unwrap_or_default().to_string()
            }
            boot => boot?,
        };
        Ok(Self {
            host: sysinfo::System::host_name().unwrap_or_default(),
            boot,
            pid_namespace: link.display().to_string(),
        })
    }

    pub(crate) fn place(&self) -> io::Result<Place> {
        Ok(match Self::current()? {
            here if *self == here => Place::Here,
            here if self.host != here.host => Place::Elsewhere,
            here if self.boot == here.boot => Place::OtherContainer,
            _ => Place::EarlierStart,
        })
    }
}
