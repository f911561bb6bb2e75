//! Reading logs of any size: the tail as it is, and below, in rooms of their own, what an assistant reads.
//!
//! [`fold`] makes readable text of raw bytes, [`read`] gives the end of a log or what is new in it since a [`cursor`], and
//! [`search`] the lines that match. What is read out of the text is in [`crate::progress`] and [`crate::failure`].

pub mod cursor;
pub mod fold;
pub mod read;
pub mod search;

mod backwards;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The most log that one answer carries, in bytes.
pub const MAX_LOG_BYTES: usize = 64 * 1024;

const BLOCK: u64 = 64 * 1024;

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogTail {
    /// Where the log is: a path, or `cloud:<cloud>/<cluster>`.
    pub log_file: String,
    /// The lines, without what cannot be shown.
    pub text: String,
    /// How many lines that is.
    pub lines: usize,
    /// Lines that were asked for had to be left out, or a long line was cut.
    pub truncated: bool,
    /// A sentence more, where there is one.
    pub message: Option<String>,
}

impl LogTail {
    /// The last `lines` lines of `bytes`, at most [`MAX_LOG_BYTES`] of them. `cut` says that more stood before.
    pub fn of(log_file: String, bytes: &[u8], lines: usize, cut: bool) -> Self {
        let text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
        let body = text.strip_suffix('\n').unwrap_or(&text);
        if lines == 0 || text.is_empty() {
            return Self {
                log_file,
                ..Self::default()
            };
        }
        let start = nth_line_from_end(body, lines).unwrap_or(0);
        let wanted = &body[start..];
        let kept = &wanted[budget_start(wanted)..];
        Self {
            log_file,
            lines: kept.split('\n').count(),
            truncated: kept.len() < wanted.len() || (cut && start == 0),
            text: kept.to_owned(),
            message: None,
        }
    }
}

/// Where the last `lines` lines of `text` begin; nothing when it has no more than those.
fn nth_line_from_end(text: &str, lines: usize) -> Option<usize> {
    text.bytes()
        .enumerate()
        .rev()
        .filter(|(_, byte)| *byte == b'\n')
        .nth(lines - 1)
        .map(|(at, _)| at + 1)
}

/// Where to begin so that no more than the budget is left: at a line where there is one, else at a character.
fn budget_start(text: &str) -> usize {
    let Some(excess) = text
        .len()
        .checked_sub(MAX_LOG_BYTES)
        .filter(|excess| *excess > 0)
    else {
        return 0;
    };
    let at = text.ceil_char_boundary(excess);
    text[at..]
        .find('\n')
        .map_or(at, |line_end| at + line_end + 1)
}

/// The last `lines` lines of the file at `path`. Only the end of the file is read, so its size does not matter; what is
/// appended meanwhile is left for the next time.
///
/// # Errors
/// What the file system said.
pub fn tail_file(path: &Path, lines: usize) -> io::Result<LogTail> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut start = end;
    let mut tail: Vec<u8> = Vec::new();
    let mut newlines = 0;
    // One newline more than lines: the one that ends the line before them.
    while start > 0 && newlines <= lines && tail.len() <= MAX_LOG_BYTES && lines > 0 {
        let length = BLOCK.min(start);
        start -= length;
        let mut block = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
        file.seek(SeekFrom::Start(start))?;
        (&file).take(length).read_to_end(&mut block)?;
        newlines += block.iter().filter(|byte| **byte == b'\n').count();
        block.append(&mut tail);
        tail = block;
    }
    Ok(LogTail::of(
        path.display().to_string(),
        &tail,
        lines,
        start > 0,
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tail(content: &[u8], lines: usize) -> LogTail {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        tail_file(file.path(), lines).unwrap()
    }

    #[test]
    fn the_last_lines_are_returned_and_counted() {
        let found = tail(b"one\ntwo\nthree\n", 2);
        assert_eq!(
            (found.text.as_str(), found.lines, found.truncated),
            ("two\nthree", 2, false)
        );
        assert_eq!(tail(b"one\ntwo", 1).text, "two");
        assert_eq!(tail(b"one\n\n", 1).lines, 1);
        assert_eq!(tail(b"one\ntwo\n", 9).lines, 2);
    }

    #[test]
    fn no_lines_and_an_empty_file_are_no_error() {
        assert_eq!(tail(b"one\n", 0).lines, 0);
        assert_eq!(tail(b"", 5).lines, 0);
        assert_eq!(tail(b"", 5).text, "");
    }

    #[test]
    fn a_line_longer_than_the_budget_keeps_its_end_and_says_so() {
        let mut content = vec![b'x'; 3_000_000];
        content.extend(b"END\n");
        let found = tail(&content, 1);
        assert!(found.truncated);
        assert!(found.text.ends_with("xEND"));
        assert!(found.text.len() <= MAX_LOG_BYTES);
    }

    #[test]
    fn many_lines_are_cut_at_a_line_within_the_budget() {
        let content: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
        let found = tail(content.as_bytes(), 100_000);
        assert!(found.truncated);
        assert!(found.text.len() <= MAX_LOG_BYTES);
        assert!(found.text.starts_with("line "), "{}", &found.text[..20]);
        assert!(found.text.ends_with("line 199999"));
        let exact = tail(content.as_bytes(), 1000);
        assert_eq!((exact.lines, exact.truncated), (1000, false));
        assert!(exact.text.starts_with("line 199000\n"));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_still_bounded() {
        let found = tail(&vec![0xff; 200_000], 1);
        assert!(found.text.len() <= MAX_LOG_BYTES && found.truncated);
        assert_eq!(tail(b"a\0b\n", 1).text, "a\u{fffd}b");
    }

    #[test]
    fn a_huge_sparse_log_costs_no_more_than_its_end() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10_000_000_000).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        assert_eq!(tail_file(file.path(), 1).unwrap().text, "last");
    }
}
