//! Hides secrets in what a job or a launcher printed: the values that the job was given, known by fingerprint alone, and what
//! has the shape of a token.
//!
//! Values are found by their visible bytes: blanks, quotes, backslashes, control characters, colours and line ends count neither
//! in a value nor in a text. So a value is hidden whether a text is raw or was cleaned, wrapped, quoted by Python or JSON, or
//! split into words by a shell; also as a URL or base64 has it. [`Redactor::mask`] keeps the length of a text, so that a log is
//! masked before anything is cut, folded or counted.

mod forms;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use crate::text::HIDDEN;
use crate::text::{MASK, lossy};
pub(crate) use forms::IN_URLS;
use forms::forms;

/// The other bytes of a masked secret, which are not shown: ASCII's "delete".
const MASK_REST: u8 = 0x7f;

/// Shorter values are words and numbers that stand everywhere: hiding them would hide the text and no secret.
const MIN_SECRET_BYTES: usize = 8;
/// The fewest visible bytes of a value.
const MIN_VISIBLE: usize = 4;
/// The bytes that are searched at once. It bounds the memory of a search.
const SLICE: usize = 256 * 1024;
/// More than the longest form of a variable has, in bytes.
const MAX_LENGTH: usize = 1024 * 1024;

/// The parts of names that tell of a secret.
const SECRET_NAMES: &str =
    "TOKEN SECRET PASSWORD PASSWD _PASS API_KEY ACCESS_KEY PRIVATE_KEY CREDENTIAL";

/// Tells by the name of a variable if it holds a secret. That of a tokenizer is none, and mostly that of the model.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace("TOKENIZER", "");
    name.ends_with("_PAT") || SECRET_NAMES.split(' ').any(|part| name.contains(part))
}

/// Returns the secret part of a variable's value: of a URL what stands before its `@`, unless the name says that all of it is.
pub(crate) fn secret_part<'a>(name: &str, value: &'a str) -> &'a str {
    match value.split_once("://") {
        Some((scheme, rest)) if !is_secret_name(name) && !scheme.contains(char::is_whitespace) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            authority.rsplit_once('@').map_or("", |(secret, _)| secret)
        }
        _ => value,
    }
}

/// Knows the secret values of a job by their fingerprints, without the values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Redactor {
    salt: String,
    /// By the number and the hash of the first visible bytes: the number of visible bytes and their digest. Twenty bits of
    /// hash and 64 of digest of each form give away next to nothing of a token.
    fingerprints: BTreeMap<usize, BTreeMap<u32, BTreeSet<(usize, u64)>>>,
    /// Bytes of the longest value.
    longest: usize,
    /// The error, where the fingerprints could not be read: any text may hold a secret then.
    #[serde(skip)]
    unreadable: Option<String>,
}

impl Redactor {
    /// Knows `values` in all their [`forms`], and each line of them, with a new salt.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut new = Self {
            salt: uuid::Uuid::new_v4().simple().to_string(),
            ..Self::default()
        };
        let is_long = |text: &str| text.trim().len() >= MIN_SECRET_BYTES;
        for value in values.into_iter().filter(|value| is_long(value)) {
            for form in forms(value).iter().filter(|form| is_long(form)) {
                new.longest = new.longest.max(form.len());
                pieces(form).iter().for_each(|piece| new.add(piece));
            }
        }
        new
    }

    fn add(&mut self, visible: &[u8]) {
        let start = &visible[..visible.len().min(MIN_SECRET_BYTES)];
        let hash = start_hash(digest(&self.salt, &[]), start);
        let fingerprint = (visible.len(), digest(&self.salt, visible));
        let same_length = self.fingerprints.entry(start.len()).or_default();
        same_length.entry(hash).or_default().insert(fingerprint);
    }

    /// Hides every text: the fingerprints could not be read.
    pub(crate) fn unreadable(error: &impl ToString) -> Self {
        Self {
            unreadable: Some(error.to_string()),
            ..Self::default()
        }
    }

    pub(crate) fn hides_all(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Tells if there is a value that must not be shown.
    pub(crate) fn knows_values(&self) -> bool {
        !(self.fingerprints.is_empty() && ENVIRONMENT.fingerprints.is_empty())
    }

    /// The bytes around a part of a text that decide what is secret in it.
    pub(crate) fn margin(&self) -> usize {
        2 * self.longest.max(ENVIRONMENT.longest).min(MAX_LENGTH) + 64
    }

    /// Hides the known values, those of this process's own environment, and what looks like a token. Only lines of a value get longer.
    pub fn redact(&self, text: &str) -> String {
        if let Some(error) = &self.unreadable {
            return format!(
                "(not shown: which values of the job are secret cannot be read from secrets.json in its folder: {error})"
            );
        }
        let mut bytes = text.as_bytes().to_vec();
        self.mask(&mut bytes, false);
        shapes::hide(unmask(&lossy(&bytes)))
    }

    pub(crate) fn masked(&self, mut text: Vec<u8>) -> Vec<u8> {
        self.mask(&mut text, true);
        text
    }

    /// Overwrites the known values, and those of this process's own environment, with [`MASK`] and bytes that are not shown;
    /// line ends stay. With `is_growing` the text may end in the first part of a value, which is overwritten too, as is one
    /// that ends in `…`.
    pub(crate) fn mask(&self, text: &mut [u8], is_growing: bool) {
        let redactors = [self, &*ENVIRONMENT].into_iter();
        for redactor in redactors.filter(|redactor| !redactor.fingerprints.is_empty()) {
            for from in (0..text.len()).step_by(SLICE) {
                let to = text.len().min(from + SLICE + redactor.margin());
                let may_be_cut = is_growing && to == text.len();
                redactor.mask_slice(&mut text[from..to], may_be_cut);
            }
        }
    }

    /// Masks the values that begin in the first [`SLICE`] of a text.
    fn mask_slice(&self, text: &mut [u8], is_growing: bool) {
        let (key, (visible, places)) = (digest(&self.salt, &[]), visible(text));
        let mut found: Vec<Range<usize>> = Vec::new();
        // Within these bounds whatever the file of the fingerprints holds.
        for (length, starts) in self.fingerprints.range(1..=MIN_SECRET_BYTES) {
            // Most hashes are sorted out without a search.
            let mut is_known = vec![false; 1 << 16];
            for (hash, _) in starts.range(..1 << 20) {
                is_known[*hash as usize >> 4] = true;
            }
            for (at, start) in visible.windows(*length).enumerate() {
                let hash = start_hash(key, start);
                if is_known[hash as usize >> 4]
                    && let Some(known) = starts.get(&hash)
                {
                    let cut = || first_part(&text[places[at]..], is_growing);
                    let length = self.length_of_value(known, &visible[at..], cut);
                    found.extend(length.map(|length| places[at]..places[at + length - 1] + 1));
                }
            }
        }
        found.sort_by_key(|range| range.start);
        let mut masked = 0;
        for range in &found {
            // Of two that overlap both are hidden. The text may end within a later one: the next slice has that whole.
            let from = range.start.max(masked);
            if range.end > from && range.start < SLICE.max(masked) {
                overwrite(&mut text[from..range.end], from == range.start);
                masked = range.end;
            }
        }
    }

    /// Finds how many visible bytes at the start of `text` are a value, or its part before the text breaks off, which `cut` counts.
    fn length_of_value(
        &self,
        known: &BTreeSet<(usize, u64)>,
        text: &[u8],
        cut: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        // The longest: a short one may be part of it.
        for (length, known) in known.range((1, 0)..).rev() {
            let value = text.get(..*length);
            if value.is_some_and(|value| digest(&self.salt, value) == *known) {
                return Some(*length);
            }
        }
        let (longest, _) = known.last()?;
        cut().filter(|cut| cut < longest && (1..=text.len()).contains(cut))
    }
}

/// The secrets in this process's own environment, which a job inherits.
static ENVIRONMENT: LazyLock<Redactor> = LazyLock::new(|| {
    let values: Vec<String> = env_secrets().collect();
    Redactor::new(values.iter().map(String::as_str))
});

/// Returns the secrets in this process's own environment, as far as their names tell.
pub(crate) fn env_secrets() -> impl Iterator<Item = String> {
    // A path where a secret is kept is none.
    let is_place = |name: &str, value: &str| {
        let places = ["FILE", "PATH", "DIR", "HOME", "CREDENTIALS"];
        value.starts_with('/') && places.iter().any(|place| name.ends_with(place))
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(move |(name, value)| is_secret_name(name) && !is_place(name, value))
        .map(|(_, value)| value)
}

/// Shows a masked text: [`HIDDEN`] for each line of a secret.
pub(crate) fn unmask(text: &str) -> String {
    text.replace(char::from(MASK), HIDDEN)
        .replace(char::from(MASK_REST), "")
}

fn overwrite(secret: &mut [u8], mut is_line_start: bool) {
    for byte in secret.iter_mut().filter(|byte| **byte != MASK) {
        if *byte == b'\n' {
            is_line_start = true;
        } else {
            *byte = if is_line_start { MASK } else { MASK_REST };
            is_line_start = false;
        }
    }
}

/// Returns the visible bytes of each line of a value, with those of the next lines where it is short, and of the last lines.
fn pieces(value: &str) -> Vec<Vec<u8>> {
    let lines = value.split(['\n', '\r']);
    let lines = lines.map(|line| visible(line.as_bytes()).0);
    let lines: Vec<Vec<u8>> = lines.filter(|line| !line.is_empty()).collect();
    let is_enough = |piece: &[u8]| piece.len() >= MIN_SECRET_BYTES;
    let mut last = (0..lines.len()).rev();
    let last = last.find(|from| is_enough(&lines[*from..].concat()));
    let last = last.unwrap_or(0);
    let mut pieces = vec![lines[last..].concat()];
    // Also of the last one alone: where each line has a prefix, the lines are not adjacent.
    for from in 0..=last {
        let mut piece = Vec::new();
        let _ = lines[from..].iter().find(|line| {
            piece.extend_from_slice(line);
            is_enough(&piece)
        });
        pieces.push(piece);
    }
    pieces.retain(|piece| piece.len() >= MIN_VISIBLE);
    pieces
}

/// The hash of the first bytes of a value, 8 at most: 20 bits.
fn start_hash(key: u64, start: &[u8]) -> u32 {
    let mut word = [0; MIN_SECRET_BYTES];
    word[..start.len()].copy_from_slice(start);
    let mixed = (u64::from_le_bytes(word) ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 44) as u32
}

fn digest(salt: &str, bytes: &[u8]) -> u64 {
    let digest = Sha256::new().chain_update(salt).chain_update(bytes);
    let digest = digest.finalize();
    let first = digest.first_chunk();
    first.map_or(0, |first| u64::from_be_bytes(*first))
}

/// Returns the bytes of a text without blanks, quotes, backslashes, control characters and colours, and their places.
fn visible(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(rest @ [byte, ..]) = text.get(at..) {
        let (skipped, may_lead) = match rest {
            [0x1b, ..] => (1, true),
            [0..=b' ' | b'"' | b'\'' | b'\\' | 0x7f, ..] | [0xc2, 0x80..=0xa0, ..] => {
                (1 + usize::from(*byte == 0xc2), false)
            }
            // The replacement character stands where a control was cleaned away.
            [0xef, 0xbf, 0xbd, ..] => (3, true),
            _ => {
                bytes.push(*byte);
                places.push(at);
                at += 1;
                continue;
            }
        };
        at += skipped;
        if may_lead && text.get(at) == Some(&b'[') {
            let parameters = |byte: &&u8| matches!(byte, b' '..=b'?');
            at += 1 + text[at + 1..].iter().take_while(parameters).count();
            at += usize::from(text.get(at).is_some_and(|last| matches!(last, b'@'..=b'~')));
        }
    }
    (bytes, places)
}

/// Counts the visible bytes before a text breaks off, at `…` or at its end while it grows. `None` where its line ends before.
fn first_part(text: &[u8], is_growing: bool) -> Option<usize> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let cut = memmem::find(line, "…".as_bytes());
    let end = cut.or((is_growing && line.len() == text.len()).then_some(line.len()));
    end.map(|end| visible(&line[..end]).0.len())
}
