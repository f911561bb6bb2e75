mod job_dir;
mod supervisor;
mod table;

use std::path::Path;
use std::process::Command;

/// Writes a program, by a process of its own: one that another thread starts meanwhile would hold the file open for a moment, and
/// nobody could run it ("text file busy").
pub(crate) fn executable(path: &Path, script: &str) {
    let write = "printf %s \"$1\" >\"$0\" && chmod 700 \"$0\"";
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", write]).arg(path).arg(script);
    assert!(shell.status().unwrap().success());
}
