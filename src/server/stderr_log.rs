//! Stderr for a log that never waits for its reader: many clients leave the pipe full or close it.

use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe takes at once when it says that it takes something: the least that POSIX allows for `PIPE_BUF`.
const AT_ONCE: usize = 512;

const NO_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Writes what stderr takes now. The rest is lost, and so is what a closed stderr refuses.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        for part in bytes.chunks(AT_ONCE) {
            let would_wait =
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&NO_WAIT)) == Ok(0);
            if would_wait || stderr.write_all(part).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
