//! The segments of a raw log: what stands between line ends and carriage returns.

use chrono::NaiveDateTime;
use memchr::{memmem, memrchr};

use crate::progress::tqdm::BarState;

/// The segment that was seen last.
pub(super) struct Last<'a> {
    pub segment: &'a [u8],
    /// Where it ends.
    pub end: usize,
    /// The bar it is the state of.
    pub state: Option<BarState<'a>>,
    /// It was not looked at.
    pub skipped: bool,
}

/// `segment` without the coloured prefix that SkyPilot puts before each line of a job, `ESC[36m(train, pid=2548)ESC[0m `. It
/// is on every line, so it is worth not to fold each.
pub(super) fn without_coloured_prefix(segment: &[u8]) -> &[u8] {
    const BEGIN: &[u8] = b"\x1b[36m(";
    const END: &[u8] = b")\x1b[0m ";
    let rest = segment.strip_prefix(BEGIN).and_then(|inner| {
        let close = memchr::memchr(b')', inner)?;
        let (prefix, rest) = inner.split_at(close);
        memmem::find(prefix, b"pid=")?;
        rest.strip_prefix(END)
    });
    rest.unwrap_or(segment)
}

/// What SkyPilot and torchrun put before each line of a job.
pub(super) fn without_prefix(text: &str) -> &str {
    let mut text = text;
    if text.starts_with('(')
        && let Some((prefix, rest)) = text.split_once(')')
        && prefix.contains("pid=")
    {
        text = rest.strip_prefix(' ').unwrap_or(rest);
    }
    for prefix in ["[rank", "[default"] {
        if let Some(rest) = text.strip_prefix(prefix)
            && let Some((rank, rest)) = rest.split_once("]:")
            && rank.bytes().all(|byte| byte.is_ascii_digit())
        {
            text = rest;
        }
    }
    text
}

/// The time stamp that a line of Oumi's logger, of `logging` and of many others begins with.
fn stamp(line: &[u8]) -> Option<NaiveDateTime> {
    let text = line.strip_prefix(b"[").unwrap_or(line).get(..19)?;
    if !text.starts_with(b"20") {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.replace('T', " ");
    NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S").ok()
}

/// The first time stamp in `bytes`, in its first lines.
pub(super) fn first_stamp(bytes: &[u8]) -> Option<NaiveDateTime> {
    const LOOKED_AT: usize = 2000;
    bytes
        .split(|byte| *byte == b'\n')
        .take(LOOKED_AT)
        .find_map(stamp)
}

/// The last time stamp in `bytes`, in its last lines.
pub(super) fn last_stamp(bytes: &[u8]) -> Option<NaiveDateTime> {
    const LOOKED_AT: usize = 200;
    let mut end = bytes.len();
    for _ in 0..LOOKED_AT {
        let before = bytes.get(..end)?;
        let start = memrchr(b'\n', before).map_or(0, |at| at + 1);
        if let Some(stamp) = before.get(start..).and_then(stamp) {
            return Some(stamp);
        }
        end = start.checked_sub(1)?;
    }
    None
}
