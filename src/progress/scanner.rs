//! The search for metrics in a log as it grows: finds the lines, bars and dictionaries that may hold some.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::{memchr, memchr2, memchr3, memrchr3};
use regex::bytes::Regex;

use super::grammar::dictionary_start;
use super::links::Links;
use super::tqdm::Bar;
use super::training::Training;
use crate::text::patterns::Patterns;
use crate::text::{SKYPILOT_PID, end_of, lossy, strip_escapes};

/// Of a longer segment, the end is read.
const MAX_SEGMENT: usize = 64 * 1024;

/// The longest dictionary that is put together from several lines.
const MAX_DICTIONARY: usize = 8 * 1024;

/// Reads a raw log. Folded text would not do: the states of a bar that are drawn over are needed too.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    /// The unfinished end of the input.
    rest: Vec<u8>,
    /// A dictionary that goes on on the next line.
    dictionary: Option<String>,
    pub(crate) training: Training,
    pub(crate) links: Links,
}

impl Scanner {
    /// Reads on. The pieces may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let end = memrchr3(b'\n', b'\r', 8, &self.rest).map_or(0, |last| last + 1);
        let mut whole = std::mem::take(&mut self.rest);
        self.rest = whole.split_off(end);
        self.read_segments(&whole);
        if self.rest.len() > MAX_SEGMENT {
            let excess = self.rest.len() - MAX_SEGMENT / 2;
            self.rest.drain(..excess);
        }
    }

    /// Marks a gap: the next piece does not continue the last one.
    pub(super) fn skip(&mut self) {
        self.rest.clear();
        self.dictionary = None;
        self.training.block = None;
    }

    /// Returns the training so far. The newest state of a bar has no end until the next one is drawn: it counts here if it
    /// looks whole, and is read again when it has its end.
    pub(crate) fn ahead(&self) -> Cow<'_, Training> {
        let is_whole = matches!(self.rest.trim_ascii_end().last(), Some(b']' | b'}'));
        if !is_whole {
            return Cow::Borrowed(&self.training);
        }
        let mut ahead = self.clone();
        ahead.read_segments(&self.rest);
        Cow::Owned(ahead.training)
    }

    /// Reads the segments between line ends, carriage returns and backspaces that may hold metrics.
    fn read_segments(&mut self, bytes: &[u8]) {
        self.links.read(bytes);
        let text = lossy(bytes);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let is_hit = matches!(bytes[at..], [b'{', b'\'' | b'"', ..]);
            if !is_hit && self.dictionary.is_none() && self.training.block.is_none() {
                let hit = |hits: &Regex| hits.shortest_match_at(bytes, at);
                let Some(hit) = HITS.as_ref().and_then(hit) else {
                    return;
                };
                let before = &bytes[at..hit - 1];
                at += memrchr3(b'\n', b'\r', 8, before).map_or(0, |end| end + 1);
            }
            let length = memchr3(b'\n', b'\r', 8, &bytes[at..]);
            let end = length.map_or(bytes.len(), |length| at + length);
            self.read_segment(end_of(&text[at..end], MAX_SEGMENT));
            at = end + 1;
        }
    }

    fn read_segment(&mut self, segment: &str) {
        let has_escapes = memchr(0x1b, segment.as_bytes()).is_some();
        let text = match has_escapes {
            true => strip_escapes(segment),
            false => Cow::Borrowed(segment),
        };
        // Each prefix has one of these, which most dictionaries and bars do not have before them.
        let figures = memchr2(b'{', b'%', text.as_bytes()).unwrap_or(text.len());
        let may_have_prefix = memchr2(b':', b')', &text.as_bytes()[..figures]).is_some();
        let prefix = may_have_prefix.then(|| PREFIXES.find(&text)).flatten();
        let text = text[prefix.map_or(0, |all| all.end)..].trim_ascii_end();
        if text.is_empty() {
            self.training.bar_cleared |= segment.ends_with("  ");
            return;
        }
        self.dictionary.take_if(|_| text.starts_with("{'"));
        let brace = memchr(b'{', text.as_bytes());
        let (before, after) = text.split_at(brace.unwrap_or(text.len()));
        if let Some(bar) = Bar::parse(before) {
            // Bars are drawn between the lines of a dictionary.
            let is_nested = has_escapes && segment.contains("\x1b[A");
            self.training.read_bar(&bar, is_nested);
            if !after.is_empty() {
                self.read_text(after);
            }
        } else if let Some(started) = self.dictionary.take() {
            self.read_text(&format!("{started} {text}"));
        } else {
            self.read_text(text);
        }
    }

    /// Reads a text that is no bar: a line, or dictionaries with what stands before them.
    fn read_text(&mut self, mut text: &str) {
        while let Some(end) = memchr(b'}', text.as_bytes())
            && let next = text[end + 1..].trim_ascii_start()
            && next.starts_with('{')
        {
            self.training.read_line(&text[..=end]);
            text = next;
        }
        let is_open = |start: usize| memchr(b'}', &text.as_bytes()[start..]).is_none();
        let may_be_open = !text.ends_with('}') && text.len() < MAX_DICTIONARY;
        if may_be_open && dictionary_start(text).is_some_and(is_open) {
            self.dictionary = Some(text.to_owned());
        } else if !text.is_empty() {
            self.training.read_line(text);
        }
    }
}

/// The hosts, ranks and times that SkyPilot, `torchrun`, `mpirun`, `srun`, `pdsh`, syslog and others put before a line:
/// `(train, pid=12) `, `[rank0]: `, `[1,0]<stdout>:`, `0: `, `node-1: `, `2026-01-02T10:00:00.5Z `, with `stderr F ` in the log of a
/// container, `Jan  2 10:00:00 node-1 oumi[12]: `.
static PREFIXES: LazyLock<Patterns> = LazyLock::new(|| {
    let bracketed = r"\[(?:rank|default)?[\d,:]+\](?:<stdout>)?(?:<stderr>)?:";
    let rank = r" *(?:rank ?)?\d+: ";
    let time = r" *\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:+Z-]*\]? (?:std(?:out|err) [FP] )?";
    let syslog = format!(r"(?:[A-Z][a-z][a-z] [ \d]\d [\d:]{{8}} |{time})[\w.-]+ [\w.-]+\[\d+\]: ");
    Patterns::new(&format!(
        r"^(?:{SKYPILOT_PID} )?(?:{bracketed}|{rank}|{syslog}|{time}|[\w.-]*\d[\w.-]*: )*"
    ))
});

/// Marks what may be metrics, and a bar that was wiped, many times faster than reading it.
static HITS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"%\||it \[|\{['"]|[lL]oss|LOSS|[rR]eward|[eE]poch|(?:[sS]tep|[bB]atch|[iI]ter(?:ation)?)[ :=\[]+[0-9]+ ?/| metrics \*\*\*|throughput|SamplesPerSec|skipped=|per.iteration|Running |Starting training|otal (?:training |optimization )?steps|max_steps|(?mR:^)  +\r"#,
    )
    .ok()
});
