//! The list of processes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::process::table::{ProcessTable, is_worker};
use crate::settings::env_vars;

/// Python, whose first thread ends once a second one runs.
const WITHOUT_FIRST_THREAD: &str = "
import ctypes, sys, threading
def second():
    while open('/proc/self/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': pass
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=second).start()
ctypes.CDLL(None).pthread_exit(None)
";

#[cfg(target_os = "linux")]
#[test]
fn process_without_its_first_thread_lives() {
    let home = tempfile::tempdir().unwrap();
    let mut python = Command::new("python3");
    let python = python.args(["-c", WITHOUT_FIRST_THREAD]);
    let python = python.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.env(env_vars::JOB_DIR, home.path()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let listed = ProcessTable::descendants_of(std::process::id()).unwrap();
    let of_job = ProcessTable::read().unwrap().job(home.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(listed.contains(&child.id()));
    assert!(of_job.members.contains(&child.id()));
}

/// SIGTERM ends a worker of a DataLoader, and with it the training that is about to save.
#[cfg(target_os = "linux")]
#[test]
fn workers_are_left_to_their_living_parent() {
    let start = "import os, subprocess, sys; wait = 'import sys; sys.stdin.read()'; \
                 other = subprocess.Popen([sys.executable, '-c', wait]); fork = os.fork(); \
                 fork and print(f'{fork}\\n{other.pid}', flush=True); exec(wait)";
    let mut python = Command::new("python3");
    let python = python.args(["-c", start]).stdin(Stdio::piped());
    let mut parent = python.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let mut pids = lines.map(|line| line.unwrap().parse().unwrap());
    let (worker, other) = (pids.next().unwrap(), pids.next().unwrap());
    let all = HashSet::from([parent.id(), worker, other]);
    assert!(is_worker(worker, &all));
    // A rank of torchrun is no worker.
    assert!(!is_worker(other, &all) && !is_worker(parent.id(), &all));
    assert!(!is_worker(worker, &HashSet::from([worker])));
    parent.kill().unwrap();
    parent.wait().unwrap();
}
