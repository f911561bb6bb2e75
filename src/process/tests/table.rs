//! The list of processes.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::process::table::ProcessTable;
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
