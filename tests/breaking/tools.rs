//! What the tests of this program share: a look at a process and at a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fake_cloud::FakeCloud;
use crate::support::Home;
use crate::support::client::Server;

/// A server that knows the programs of the fake clouds.
pub fn start_on(home: &Home, cloud: &FakeCloud, more: &[(&str, &str)]) -> Server {
    let (oumi, sky) = (cloud.oumi(), cloud.sky());
    let mut envs = vec![
        ("OUMI_MCP_OUMI", oumi.to_str().unwrap()),
        ("OUMI_MCP_SKY", sky.to_str().unwrap()),
    ];
    envs.extend(more);
    Server::start_with(home, &envs)
}

/// How many files a process has open; nothing where there is no /proc.
pub fn handles(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}
