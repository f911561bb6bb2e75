//! The log on stderr. It never waits for its reader: many clients leave the pipe full or close it.

use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::level_filters::LevelFilter;

use crate::redact::Redactor;
use crate::settings::env_vars;

/// The bytes that a writable pipe takes at once: the least that POSIX allows for `PIPE_BUF`.
const PIPE_BUF: usize = 512;

/// Sends log lines and panics to stderr, from the level that the environment names.
pub fn log_to_stderr() {
    let level = env_vars::log_level().unwrap_or(LevelFilter::WARN);
    // Clients show it raw, so without colours.
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Hides what looks like a secret, and writes what stderr takes now. The rest is lost, and so is what a closed stderr refuses.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = Redactor::default().redact(&String::from_utf8_lossy(bytes));
        let mut stderr = io::stderr().lock();
        for part in text.as_bytes().chunks(PIPE_BUF) {
            let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
            let would_wait = poll(&mut fds, Some(&Timespec::default())) == Ok(0);
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
