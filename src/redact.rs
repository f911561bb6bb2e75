//! Hides secrets in what a job or a launcher printed: the values that the job was given, known by fingerprint alone, and what
//! has the shape of a token.
//!
//! A text keeps its number of lines, so that whoever reads a log can hide first and cut afterwards: of a secret that was cut
//! in two nobody knows what it was. Logs are cut at lines too, so of a value of several lines each is hidden for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";

/// Shorter values are words and numbers that stand everywhere: hiding them would hide the text and no secret.
const MIN_SECRET_BYTES: usize = 8;

/// The tokens of the services that training jobs use, by their documented prefixes, and private keys.
static SHAPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:(?-u:\b)hf_[A-Za-z0-9]{16,}",
        r"|(?-u:\b)sk-[A-Za-z0-9_-]{16,}",
        r"|(?-u:\b)gh[pousr]_[A-Za-z0-9]{20,}|(?-u:\b)github_pat_[A-Za-z0-9_]{20,}|(?-u:\b)glpat-[A-Za-z0-9_-]{16,}",
        r"|(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)",
        r"|(?-u:\b)AIza[A-Za-z0-9_-]{30,}|(?-u:\b)ya29\.[A-Za-z0-9_-]{20,}",
        r"|(?-u:\b)xox[abprs]-[A-Za-z0-9-]{10,}",
        r"|(?-u:\b)npm_[A-Za-z0-9]{30,}|(?-u:\b)pypi-[A-Za-z0-9_-]{30,}",
        r"|(?-u:\b)wandb_v1_[A-Za-z0-9_]{20,}",
        r"|(?-u:\b)eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}",
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z))",
    ))
    .ok()
});

/// `HF_TOKEN=…`, `"AWS_SECRET_ACCESS_KEY": "…"` and the like: the name of a variable that holds a secret, and its value.
static ASSIGNED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"((?-u:\b)(?:[A-Z0-9]+_)*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS)["']?\s*[=:]\s*)("[^"\n]{4,}"|'[^'\n]{4,}'|[^\s"',;)}\]]{4,})"#,
    )
    .ok()
});

/// Without one of these there is no [`ASSIGNED`]: a list of words is looked for many times as fast.
static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS").ok()
});

/// And without one of these no [`CARRIED`].
static CARRIERS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("earer |://").ok());

/// `Bearer …` and `https://user:password@host`.
static CARRIED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"((?-u:\b)[Bb]earer |(?-u:\b)[a-z][a-z0-9+.-]*://[^\s/:@]*:)([^\s@/]{4,}@|[A-Za-z0-9._~+/=-]{16,})",
    )
    .ok()
});

/// Whether a variable of this name holds a secret, as far as its name tells.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "API_KEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
    ]
    .iter()
    .any(|part| name.contains(part))
}

/// The secret values a job was given, without the values: enough to know one when it is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Redactor {
    salt: String,
    known: BTreeSet<Fingerprint>,
    /// Why they could not be read: any text may hold a secret.
    #[serde(skip)]
    unreadable: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Fingerprint {
    bytes: usize,
    rolling: u64,
    digest: String,
}

impl Redactor {
    /// The fingerprints of `values` and of each line of them, salted anew.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let salt = uuid::Uuid::new_v4().simple().to_string();
        let known = values
            .into_iter()
            .flat_map(|value| {
                let lines = value.lines().map(str::trim);
                [value, value.trim()].into_iter().chain(lines)
            })
            .filter(|value| value.len() >= MIN_SECRET_BYTES)
            .map(|value| Fingerprint {
                bytes: value.len(),
                rolling: Rolling::new(&salt, value.len()).of(value.as_bytes()),
                digest: digest(&salt, value.as_bytes()),
            })
            .collect();
        Self {
            salt,
            known,
            unreadable: None,
        }
    }

    /// Those of a job that could not be read, for this reason: of its texts nothing is shown.
    pub fn unreadable(reason: &std::io::Error) -> Self {
        Self {
            unreadable: Some(reason.to_string()),
            ..Self::default()
        }
    }

    /// Whether nothing can be shown, since nobody can tell what is secret in it.
    pub fn hides_all(&self) -> bool {
        self.unreadable.is_some()
    }

    /// `text` with these values, the secrets of this process's own environment, and what looks like a token hidden.
    pub fn redact(&self, text: &str) -> String {
        if let Some(reason) = &self.unreadable {
            return format!(
                "(not shown: which values of the job are secret cannot be read: {reason})"
            );
        }
        let mut hidden = self.hide_known(text);
        for value in of_this_process() {
            if hidden.contains(&value) {
                hidden = hidden.replace(&value, &mask(&value));
            }
        }
        hide_key_lines(&hide_shapes(&hidden))
    }

    fn hide_known(&self, text: &str) -> String {
        let mut by_length: BTreeMap<usize, Vec<&Fingerprint>> = BTreeMap::new();
        for fingerprint in &self.known {
            by_length
                .entry(fingerprint.bytes)
                .or_default()
                .push(fingerprint);
        }
        let mut text = text.to_owned();
        // The longest first: a short one may be part of it.
        for (length, known) in by_length.into_iter().rev() {
            let rolling = Rolling::new(&self.salt, length);
            let mut hidden = String::new();
            let mut kept = 0;
            for (at, hash) in rolling.windows(text.as_bytes()) {
                let end = at + length;
                if at < kept || !known.iter().any(|fingerprint| fingerprint.rolling == hash) {
                    continue;
                }
                let seen = digest(&self.salt, &text.as_bytes()[at..end]);
                if known.iter().any(|fingerprint| fingerprint.digest == seen)
                    && text.is_char_boundary(at)
                    && text.is_char_boundary(end)
                {
                    hidden.push_str(&text[kept..at]);
                    hidden.push_str(&mask(&text[at..end]));
                    kept = end;
                }
            }
            hidden.push_str(&text[kept..]);
            text = hidden;
        }
        text
    }
}

/// The secrets in this process's own environment, which a job inherits, as far as their names tell.
pub fn of_this_process() -> impl Iterator<Item = String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| {
            is_secret_name(name) && value.len() >= MIN_SECRET_BYTES && !value.starts_with('/')
        })
        .map(|(_, value)| value)
}

/// What stands in the place of `secret`: as many lines, and none that is longer.
fn mask(secret: &str) -> String {
    let lines: Vec<&str> = secret
        .split('\n')
        .map(|line| HIDDEN.get(..line.len()).unwrap_or(HIDDEN))
        .collect();
    lines.join("\n")
}

fn hide_shapes(text: &str) -> String {
    let mut hidden = text.to_owned();
    if let Some(shapes) = &*SHAPES {
        hidden = shapes
            .replace_all(&hidden, |found: &Captures<'_>| mask(&found[0]))
            .into_owned();
    }
    for (named, word) in [(&*ASSIGNED, &*NAMES), (&*CARRIED, &*CARRIERS)] {
        let (Some(named), Some(word)) = (named, word) else {
            continue;
        };
        if !word.is_match(&hidden) {
            continue;
        }
        let mask = |found: &Captures<'_>| {
            let end = if found[2].ends_with('@') { "@" } else { "" };
            format!("{}{HIDDEN}{end}", &found[1])
        };
        hidden = named.replace_all(&hidden, mask).into_owned();
    }
    hidden
}

/// Hides the lines of a private key that stand without its first line, as where a log is cut.
fn hide_key_lines(text: &str) -> String {
    let ends_key = |line: &str| line.contains("-----END ") && line.contains("PRIVATE KEY-----");
    let mut next = text.split('\n').skip(1);
    let lines = text.split('\n').map(|line| {
        let is_last = next.next().is_some_and(ends_key);
        if is_key_line(line.trim(), is_last) {
            HIDDEN
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `line` is as tools write those of a key: of 64 or 70 characters in base64, the last one shorter.
fn is_key_line(line: &str, is_last: bool) -> bool {
    let bytes = line.as_bytes();
    let any = |is: fn(&u8) -> bool| bytes.iter().any(is);
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    // A digest in hexadecimal digits has 64 of them, too, but no capitals beside small letters.
    let is_full =
        || any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase) && any(u8::is_ascii_digit);
    let fits = match bytes.len() {
        64 | 70 => is_last || is_full(),
        length => is_last && (3..70).contains(&length),
    };
    fits && bytes.iter().all(is_base64)
}

fn digest(salt: &str, bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(salt.as_bytes());
    hasher.update(bytes);
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A hash that moves along a text one byte at a time (Rabin and Karp), with a base made of the salt.
struct Rolling {
    base: u64,
    length: usize,
    /// What the byte that leaves the window was multiplied by.
    leaving: u64,
}

impl Rolling {
    fn new(salt: &str, length: usize) -> Self {
        let seed = Sha256::digest(salt.as_bytes());
        let base = seed
            .iter()
            .take(8)
            .fold(0, |base: u64, byte| (base << 8) | u64::from(*byte))
            | 1;
        let leaving = (1..length).fold(1, |power: u64, _| power.wrapping_mul(base));
        Self {
            base,
            length,
            leaving,
        }
    }

    fn of(&self, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0, |hash, byte| self.push(hash, *byte))
    }

    fn push(&self, hash: u64, byte: u8) -> u64 {
        hash.wrapping_mul(self.base)
            .wrapping_add(u64::from(byte) + 1)
    }

    /// The hash of every window, with where it begins.
    fn windows<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, u64)> + 'a {
        let mut hash = bytes.get(..self.length).map(|first| self.of(first));
        (0..).map_while(move |at| {
            let here = hash?;
            hash = bytes.get(at + self.length).map(|next| {
                let left = here.wrapping_sub((u64::from(bytes[at]) + 1).wrapping_mul(self.leaving));
                self.push(left, *next)
            });
            Some((at, here))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_was_given_is_hidden_wherever_it_stands_and_is_not_in_what_is_kept() {
        let secrets = Redactor::of([
            "s3cr3t-value-123",
            "another one, longer than that",
            "schlüssel-鍵-🔑",
        ]);
        let text = "a s3cr3t-value-123 b\ns3cr3t-value-123s3cr3t-value-123 another one, longer than that schlüssel-鍵-🔑!";
        assert_eq!(secrets.redact(text), "a *** b\n****** *** ***!");
        let kept = serde_json::to_string(&secrets).unwrap();
        assert!(
            !kept.contains("s3cr3t") && !kept.contains("another"),
            "{kept}"
        );
        let read: Redactor = serde_json::from_str(&kept).unwrap();
        assert_eq!(read.redact(text), secrets.redact(text));
    }

    #[test]
    fn text_without_a_secret_stays_as_it_is() {
        let secrets = Redactor::of(["s3cr3t-value-123", "1", "true"]);
        for text in [
            "",
            "s3cr3t-value-12",
            "step 1 of 3: loss 1.0, true",
            "{'num_tokens': '56', 'mean_token_accuracy': '0.05769'}",
            "tokenizer: PreTrainedTokenizerFast(pad_token='<pad>', max_tokens=128)",
            "https://huggingface.co/docs:latest and git@github.com:org/repo",
            "sk-learn is no key",
        ] {
            assert_eq!(secrets.redact(text), text);
        }
    }

    #[test]
    fn what_has_the_shape_of_a_token_is_hidden() {
        let nothing = Redactor::default();
        // Put together here, so that no scanner takes this file for a leak.
        let token = |prefix: &str, length: usize| {
            format!("{prefix}{}", "aB3dE6gH9".repeat(9)[..length].to_owned())
        };
        for secret in [
            token("hf_", 34),
            token("sk-", 40),
            token("ghp_", 36),
            token("AIza", 35),
            format!("AKIA{}", "ABCDEFGH12345678"),
            format!("{}.{}.{}", token("eyJ", 20), token("e", 20), token("s", 20)),
        ] {
            let hidden = nothing.redact(&format!("got {secret} here"));
            assert_eq!(hidden, "got *** here");
        }
        assert_eq!(
            nothing.redact("HF_TOKEN=abcd1234 next"),
            "HF_TOKEN=*** next"
        );
        assert_eq!(
            nothing.redact("\"WANDB_API_KEY\": \"0123abcd\","),
            "\"WANDB_API_KEY\": ***,"
        );
        assert_eq!(
            nothing.redact("Authorization: Bearer abcdefghijklmnop123"),
            "Authorization: Bearer ***"
        );
        assert_eq!(
            nothing.redact("https://me:passw0rd@host/x"),
            "https://me:***@host/x"
        );
        let key = format!(
            "-----BEGIN {0}-----\nabc\n-----END {0}-----",
            "RSA PRIVATE KEY"
        );
        assert_eq!(nothing.redact(&format!("k {key} e")), "k ***\n***\n*** e");
    }

    #[test]
    fn a_value_of_several_lines_is_hidden_line_by_line_and_the_lines_stay_as_many() {
        let value = "first secret line\r\n  second secret line\nab\nthe last one";
        let secrets = Redactor::of([value]);
        assert_eq!(
            secrets.redact(&format!("a {value} b\nc")),
            "a ***\n***\n**\n*** b\nc"
        );
        // Cut at a line, as the end of a log is; and one line alone, as it is found by a pattern.
        assert_eq!(
            secrets.redact("secret line\nab\nthe last one"),
            "secret line\nab\n***"
        );
        assert_eq!(secrets.redact("  second secret line"), "  ***");
    }

    #[test]
    fn the_lines_of_a_private_key_are_hidden_without_its_first_line_too() {
        let nothing = Redactor::default();
        let full = "aB3+/xYz".repeat(8);
        let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
        for (text, hidden) in [
            (format!("{full}\n{full}"), "***\n***".to_owned()),
            (
                format!("{full}\nQ3x4=\n{end}\nnext"),
                format!("***\n***\n{end}\nnext"),
            ),
            (format!("x\n{begin}\n{full}"), "x\n***\n***".to_owned()),
        ] {
            assert_eq!(nothing.redact(&text), hidden, "{text}");
        }
        // A digest is none.
        let digest = "0123456789abcdef".repeat(4);
        assert_eq!(nothing.redact(&digest), digest);
    }
}
