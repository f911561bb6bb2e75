//! Hides secrets in what a job or a launcher printed: the values that the job was given, known by fingerprint alone, and what
//! has the shape of a token.
//!
//! A text keeps its number of lines, so that a reader of logs can redact first and cut afterwards: half a secret matches
//! nothing. Logs are cut at lines too, so each line of a value is hidden for itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Stands in the place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// Shorter values are words and numbers that stand everywhere: hiding them would hide the text and no secret.
const MIN_SECRET_BYTES: usize = 8;

/// The shapes of secrets. The groups `before` and `after` stay as they are. Each begins with a literal: that is what makes
/// the search fast.
static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let shapes = [
        // Tokens of the services that training jobs use, by their documented prefixes, and private keys.
        concat!(
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
        ),
        // `HF_TOKEN=…`, `"AWS_SECRET_ACCESS_KEY": "…"` and the like.
        concat!(
            r#"(?<before>(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS)["']?\s*[=:]\s*)"#,
            r#"(?:"[^"\n]{4,}"|'[^'\n]{4,}'|[^\s"',;)}\]]{4,})"#,
        ),
        r"(?<before>[Bb]earer )[A-Za-z0-9._~+/=-]{16,}",
        // `https://user:password@host`, `https://token@host`. Port, path and query of a URL are no secrets.
        r"(?<before>://[^\s/:@?#]*:)[^\s@/?#]{4,}(?<after>@)",
        r"(?<before>://)[^\s/:@?#]{16,}(?<after>@)",
    ];
    shapes
        .iter()
        .filter_map(|shape| Regex::new(shape).ok())
        .collect()
});

/// Tells by the name of a variable if it holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let parts = [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "API_KEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
    ];
    parts.iter().any(|part| name.contains(part))
}

/// Returns the part of a variable's value that is secret: of a URL only what stands before its `@`, unless the name says that all
/// of it is.
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
    known: BTreeSet<Fingerprint>,
    /// The error, where the fingerprints could not be read: any text may hold a secret then.
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
    /// Knows `values` and each line of them, with a new salt.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
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
                rolling: RollingHash::new(&salt, value.len()).hash(value.as_bytes()),
                digest: digest(&salt, value.as_bytes()),
            })
            .collect();
        Self {
            salt,
            known,
            unreadable: None,
        }
    }

    /// Hides every text: the fingerprints could not be read.
    pub(crate) fn unreadable(error: &std::io::Error) -> Self {
        Self {
            unreadable: Some(error.to_string()),
            ..Self::default()
        }
    }

    /// Tells if every text is hidden.
    pub(crate) fn hides_all(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Hides the known values, the secrets of this process's own environment, and what looks like a token.
    pub fn redact(&self, text: &str) -> String {
        if let Some(error) = &self.unreadable {
            return format!(
                "(not shown: which values of the job are secret cannot be read from secrets.json in its folder: {error})"
            );
        }
        let mut hidden = self.hide_known(text);
        for value in env_secrets() {
            if hidden.contains(&value) {
                hidden = hidden.replace(&value, &mask(&value));
            }
        }
        for shape in &*SHAPES {
            let replace = |found: &Captures<'_>| {
                let group = |name| found.name(name).map_or("", |part| part.as_str());
                let (before, after) = (group("before"), group("after"));
                let secret = &found[0][before.len()..found[0].len() - after.len()];
                format!("{before}{}{after}", mask(secret))
            };
            if let Cow::Owned(redacted) = shape.replace_all(&hidden, replace) {
                hidden = redacted;
            }
        }
        hide_key_lines(&hidden)
    }

    fn hide_known(&self, text: &str) -> String {
        let mut by_length: BTreeMap<usize, Vec<&Fingerprint>> = BTreeMap::new();
        for fingerprint in &self.known {
            let same_length = by_length.entry(fingerprint.bytes).or_default();
            same_length.push(fingerprint);
        }
        let mut text = text.to_owned();
        // The longest first: a short one may be part of it.
        for (length, known) in by_length.into_iter().rev() {
            let rolling = RollingHash::new(&self.salt, length);
            let mut hidden = String::new();
            let mut copied = 0;
            for (at, hash) in rolling.windows(text.as_bytes()) {
                let end = at + length;
                if at < copied || !known.iter().any(|fingerprint| fingerprint.rolling == hash) {
                    continue;
                }
                let window = digest(&self.salt, &text.as_bytes()[at..end]);
                if known.iter().any(|fingerprint| fingerprint.digest == window)
                    && text.is_char_boundary(at)
                    && text.is_char_boundary(end)
                {
                    hidden.push_str(&text[copied..at]);
                    hidden.push_str(&mask(&text[at..end]));
                    copied = end;
                }
            }
            hidden.push_str(&text[copied..]);
            text = hidden;
        }
        text
    }
}

/// Returns the secrets in this process's own environment, which a job inherits, as far as their names tell.
pub(crate) fn env_secrets() -> impl Iterator<Item = String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| {
            is_secret_name(name) && value.len() >= MIN_SECRET_BYTES && !value.starts_with('/')
        })
        .map(|(_, value)| value)
}

/// Returns as many lines as `secret` has, none of them longer.
fn mask(secret: &str) -> String {
    let lines = secret.split('\n');
    let lines = lines.map(|line| HIDDEN.get(..line.len()).unwrap_or(HIDDEN));
    lines.collect::<Vec<_>>().join("\n")
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

/// Tells if tools write the lines of a key like `line`: 64 or 70 characters of base64, the last one shorter.
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
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update(bytes)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash that moves along a text one byte at a time (Rabin and Karp), with a base made of the salt.
struct RollingHash {
    base: u64,
    length: usize,
    /// The factor of the byte that leaves the window.
    leaving: u64,
}

impl RollingHash {
    fn new(salt: &str, length: usize) -> Self {
        let seed = Sha256::digest(salt.as_bytes());
        let seed = seed.iter().take(8);
        let base = seed.fold(0, |base: u64, byte| (base << 8) | u64::from(*byte)) | 1;
        let leaving = (1..length).fold(1, |power: u64, _| power.wrapping_mul(base));
        Self {
            base,
            length,
            leaving,
        }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0, |hash, byte| self.push(hash, *byte))
    }

    fn push(&self, hash: u64, byte: u8) -> u64 {
        let shifted = hash.wrapping_mul(self.base);
        shifted.wrapping_add(u64::from(byte) + 1)
    }

    /// Returns where each window begins, and its hash.
    fn windows<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, u64)> + 'a {
        let mut hash = bytes.get(..self.length).map(|first| self.hash(first));
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
    fn known_value_is_hidden_and_not_stored() {
        let secrets = Redactor::new([
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
    fn other_text_stays() {
        let secrets = Redactor::new(["s3cr3t-value-123", "1", "true"]);
        for text in [
            "",
            "s3cr3t-value-12",
            "step 1 of 3: loss 1.0, true",
            "{'num_tokens': '56', 'mean_token_accuracy': '0.05769'}",
            "tokenizer: PreTrainedTokenizerFast(pad_token='<pad>', max_tokens=128)",
            "https://huggingface.co/docs:latest and git@github.com:org/repo",
            "http://localhost:29500?mail=me@host and http://10.0.0.1:8080/a@b",
            "sk-learn is no key",
            "dashboard at http://127.0.0.1:8265/jobs/raysubmit_12345678",
        ] {
            assert_eq!(secrets.redact(text), text);
        }
    }

    #[test]
    fn token_shapes_are_hidden() {
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
    fn lines_of_a_value_are_hidden_one_by_one() {
        let value = "first secret line\r\n  second secret line\nab\nthe last one";
        let secrets = Redactor::new([value]);
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
    fn key_lines_without_the_first_are_hidden() {
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
