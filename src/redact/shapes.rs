//! Hides what has the shape of a secret, whatever its value. The shapes are data: `shapes.txt`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex, RegexSet};

use super::HIDDEN;

/// Values that stand where a secret may, and are none.
const PLACEHOLDERS: &str = "unbound parameter required missing None null True False true false <s> </s> <pad> <unk> <bos> <eos> <image> [PAD] [PAD [UNK] [UNK [CLS] [CLS [SEP] [SEP [MASK] [MASK";
/// The beginnings of such: special tokens, and code as in a traceback.
const PLACEHOLDER_STARTS: &str = "<| os.environ self. args. model_args. Optional[";

pub(super) struct Shapes {
    within_lines: Vec<Regex>,
    /// All of `within_lines`: most texts hold none of them, and are looked through once.
    pub(super) any: Option<RegexSet>,
    /// Shapes of whole lines, which count their letters: in the set each count would be a state of its own.
    whole_lines: Vec<Regex>,
}

pub(super) static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let paragraphs = include_str!("shapes.txt").split("\n\n");
    let shapes = paragraphs.map(|paragraph| {
        let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("|")
    });
    let shapes = shapes.filter(|shape| !shape.is_empty());
    let (whole, within): (Vec<_>, Vec<_>) = shapes.partition(|shape| shape.starts_with("(?m)"));
    let compile = |shapes: &[String]| shapes.iter().flat_map(|shape| Regex::new(shape)).collect();
    Shapes {
        within_lines: compile(&within),
        any: RegexSet::new(&within).ok(),
        whole_lines: compile(&whole),
    }
});

pub(super) fn hide(mut text: String) -> String {
    let any = SHAPES.any.as_ref();
    let has_any = any.is_none_or(|any| any.is_match(&text));
    let within_lines = SHAPES.within_lines.iter().filter(|_| has_any);
    for shape in within_lines.chain(&SHAPES.whole_lines) {
        // Most texts have none, and a replacement begins with room for its groups.
        if shape.is_match(&text)
            && let Cow::Owned(hidden) = shape.replace_all(&text, replacement)
        {
            text = hidden;
        }
    }
    text
}

/// Returns [`HIDDEN`] for each line of a secret that a shape has found. What its groups tell to be no secret stays.
fn replacement(found: &Captures<'_>) -> String {
    let group = |name| found.name(name).map(|part| part.as_str());
    let is_secret = match (group("value"), group("key"), group("line")) {
        (Some(value), ..) => !is_placeholder(value.trim_matches(['"', '\''])),
        // A name in code has no digit.
        (_, Some(key), _) => key.contains(char::is_numeric),
        (.., Some(line)) => is_key_line(line),
        _ => true,
    };
    if !is_secret {
        return found[0].to_owned();
    }
    let before = group("before").unwrap_or_default();
    let after = group("after").unwrap_or_default();
    let secret = &found[0][before.len()..found[0].len() - after.len()];
    let more_lines = format!("\n{HIDDEN}").repeat(secret.matches('\n').count());
    format!("{before}{HIDDEN}{more_lines}{after}")
}

fn is_placeholder(value: &str) -> bool {
    let mut starts = PLACEHOLDER_STARTS.split(' ');
    PLACEHOLDERS.split(' ').any(|one| one == value) || starts.any(|start| value.starts_with(start))
}

/// Tells a line of a key, which mixes letters and digits, from a digest in hexadecimal digits.
fn is_key_line(line: &str) -> bool {
    let any = |is: fn(&u8) -> bool| line.as_bytes().iter().any(is);
    any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase) && any(u8::is_ascii_digit)
}
