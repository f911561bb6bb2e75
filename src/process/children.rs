//! The children of a supervisor that have ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::WaitOptions;

#[derive(Default)]
pub(super) struct Reaped {
    /// The status of `main`, if it was among the children that had ended.
    pub(super) main_status: Option<ExitStatus>,
    pub(super) is_childless: bool,
}

/// Reaps every child that has ended.
pub(super) fn reap(main: u32) -> io::Result<Reaped> {
    let mut reaped = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if u32::try_from(pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == main) {
                    reaped.main_status = Some(ExitStatus::from_raw(status.as_raw()));
                }
            }
            Ok(None) => return Ok(reaped),
            Err(rustix::io::Errno::CHILD) => {
                reaped.is_childless = true;
                return Ok(reaped);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
