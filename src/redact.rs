//! Hides secrets in what a job or a launcher printed: the values that the job was given, known by fingerprint alone, and what
//! has the shape of a token.
//!
//! Values are found by their visible bytes: blanks, quotes, backslashes, control characters, colours and line ends count neither
//! in a value nor in a text. So a value is hidden whether a text is raw or was cleaned, wrapped, quoted by Python or JSON, or
//! split into words by a shell; also as a URL or base64 has it. [`Redactor::mask`] keeps the length of a text, so that a log is
//! masked before anything is cut, folded or counted.

mod forms;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;
use regex::{Captures, Regex, RegexSet};
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

/// The parts of names that tell of a secret.
const SECRET_NAMES: &str =
    "TOKEN SECRET PASSWORD PASSWD _PASS API_KEY ACCESS_KEY PRIVATE_KEY CREDENTIAL";

/// Values that stand where a secret may, and are none.
const NO_SECRETS: &str = "unbound parameter required missing None null True False true false <s> </s> <pad> <unk> <bos> <eos> <image> [PAD] [PAD [UNK] [UNK [CLS] [CLS [SEP] [SEP [MASK] [MASK";
/// The beginnings of such: special tokens, and code as in a traceback.
const NO_SECRET_STARTS: &str = "<| os.environ self. args. model_args. Optional[";

/// The shapes of secrets, and the set of all but those of whole lines: most texts hold none, and are looked through once.
static SHAPES: LazyLock<(Vec<Regex>, Option<RegexSet>)> = LazyLock::new(|| {
    let paragraphs = include_str!("redact/shapes.txt").split("\n\n");
    let shapes = paragraphs.map(|paragraph| {
        let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("|")
    });
    let shapes: Vec<String> = shapes.filter(|shape| !shape.is_empty()).collect();
    let within_lines = RegexSet::new(shapes.iter().filter(|shape| !is_of_lines(shape)));
    let shapes = shapes.iter().filter_map(|shape| Regex::new(shape).ok());
    (shapes.collect(), within_lines.ok())
});

/// Tells if a shape is that of whole lines, which count their letters: among others each count would be a state of its own.
fn is_of_lines(shape: &str) -> bool {
    shape.starts_with("(?m)")
}

/// Tells by the name of a variable if it holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.ends_with("_PAT") || SECRET_NAMES.split(' ').any(|part| name.contains(part))
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
        2 * self.longest.max(ENVIRONMENT.longest) + 64
    }

    /// Hides the known values, the secrets of this process's own environment, and what looks like a token. No line gets
    /// longer, but one that is part of a value.
    pub fn redact(&self, text: &str) -> String {
        if let Some(error) = &self.unreadable {
            return format!(
                "(not shown: which values of the job are secret cannot be read from secrets.json in its folder: {error})"
            );
        }
        let mut bytes = text.as_bytes().to_vec();
        self.mask(&mut bytes, false);
        let mut hidden = unmask(&lossy(&bytes));
        let (shapes, within_lines) = &*SHAPES;
        let has_none = |set: &RegexSet| !set.is_match(&hidden);
        let has_none = within_lines.as_ref().is_some_and(has_none);
        let sought = |shape: &&Regex| !has_none || is_of_lines(shape.as_str());
        for shape in shapes.iter().filter(sought) {
            // Most texts have none, and a replacement begins with room for its groups.
            if !shape.is_match(&hidden) {
                continue;
            }
            let replace = |found: &Captures<'_>| {
                let group = |name| found.name(name).map_or("", |part| part.as_str());
                let line = found.name("line");
                let is_no_key = line.is_some_and(|line| !is_key_line(line.as_str()));
                let key = found.name("key").map(|key| key.as_str());
                // A name in code has no digit.
                let is_name = key.is_some_and(|key| !key.contains(char::is_numeric));
                let value = group("value").trim_matches(['"', '\'']);
                let mut starts = NO_SECRET_STARTS.split(' ');
                let is_other = starts.any(|start| value.starts_with(start));
                if is_no_key || is_name || is_other || NO_SECRETS.split(' ').any(|no| value == no) {
                    return found[0].to_owned();
                }
                let (before, after) = (group("before"), group("after"));
                let secret = &found[0][before.len()..found[0].len() - after.len()];
                let line_ends = format!("\n{HIDDEN}").repeat(secret.matches('\n').count());
                format!("{before}{HIDDEN}{line_ends}{after}")
            };
            if let Cow::Owned(redacted) = shape.replace_all(&hidden, replace) {
                hidden = redacted;
            }
        }
        hidden
    }

    pub(crate) fn masked(&self, text: impl Into<Vec<u8>>) -> Vec<u8> {
        let mut text = text.into();
        self.mask(&mut text, true);
        text
    }

    /// Overwrites the known values, and those of this process's own environment, with [`MASK`] and bytes that are not shown;
    /// line ends stay. With `is_growing` the text may end in the first part of a value, which is overwritten too, as is one
    /// that ends in `…`.
    pub(crate) fn mask(&self, text: &mut [u8], is_growing: bool) {
        for redactor in [self, &*ENVIRONMENT] {
            let (overlap, mut from) = (redactor.margin(), 0);
            while !redactor.fingerprints.is_empty() && from < text.len() {
                let to = text.len().min(from + SLICE + overlap);
                let is_last = to == text.len();
                redactor.mask_slice(&mut text[from..to], is_growing && is_last);
                from = if is_last { to } else { from + SLICE };
            }
        }
    }

    fn mask_slice(&self, text: &mut [u8], is_growing: bool) {
        let (key, (visible, places)) = (digest(&self.salt, &[]), visible(text));
        let mut found: Vec<Range<usize>> = Vec::new();
        for (length, starts) in &self.fingerprints {
            // Most hashes are sorted out without a search.
            let mut is_known = vec![false; 1 << 16];
            starts
                .keys()
                .for_each(|hash| is_known[*hash as usize >> 4] = true);
            for (at, start) in visible.windows(*length).enumerate() {
                let hash = start_hash(key, start);
                if is_known[hash as usize >> 4]
                    && let Some(known) = starts.get(&hash)
                {
                    let cut = || first_part(&text[places[at]..], is_growing);
                    let end = self.end_of_value(known, &visible[at..], cut);
                    found.extend(end.map(|end| places[at]..places[at + end - 1] + 1));
                }
            }
        }
        found.sort_by_key(|range| range.start);
        let mut masked = 0;
        for range in &found {
            // Of two that overlap both are hidden.
            let from = range.start.max(masked);
            if range.end > from {
                overwrite(&mut text[from..range.end], from == range.start);
                masked = range.end;
            }
        }
    }

    /// Finds how many visible bytes of a value `text` begins with. `cut` counts those before the place where the text breaks
    /// off.
    fn end_of_value(
        &self,
        known: &BTreeSet<(usize, u64)>,
        text: &[u8],
        cut: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        let is_value = |(length, known): &&(usize, u64)| {
            let value = text.get(..*length);
            value.is_some_and(|value| digest(&self.salt, value) == *known)
        };
        // The longest: a short one may be part of it.
        let value = known.iter().rev().find(is_value).map(|(length, _)| *length);
        let (longest, _) = known.last()?;
        value.or_else(|| cut().filter(|cut| cut < longest && (1..=text.len()).contains(cut)))
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
    digest
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
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

/// Counts the visible bytes before the place where a text breaks off: before `…`, or at its end while it grows. `None` where
/// its line ends before.
fn first_part(text: &[u8], is_growing: bool) -> Option<usize> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let cut = memmem::find(line, "…".as_bytes());
    let end = cut.or((is_growing && line.len() == text.len()).then_some(line.len()));
    end.map(|end| visible(&line[..end]).0.len())
}

/// Tells a line of a key, which mixes letters and digits, from a digest in hexadecimal digits.
fn is_key_line(line: &str) -> bool {
    let any = |is: fn(&u8) -> bool| line.as_bytes().iter().any(is);
    any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase) && any(u8::is_ascii_digit)
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
        // As Python, JSON and a shell quote it.
        let secrets_in_quotes = Redactor::new(["it's $a \"s3cret\""]);
        for text in [
            r#"{'k': 'it\'s $a "s3cret"'}"#,
            r#"{"k": "it's $a \"s3cret\""}"#,
            r#"+ echo 'it'\''s $a "s3cret"'"#,
            r#"declare -x K="it's \$a \"s3cret\"""#,
            r#"it\'s\ \$a\ \"s3cret\""#,
        ] {
            let hidden = secrets_in_quotes.redact(text);
            assert!(!hidden.contains("s3cret"), "{hidden}");
        }
        // As JSON of ASCII, JSON of Go, URLs and base64 have it.
        let encoded = Redactor::new(["p+ä/<s3cret word>?"]);
        for text in [
            r#"{"k": "p+\u00e4/<s3cret word>?"}"#,
            r#"{"k":"p+ä/\u003cs3cret word\u003e?"}"#,
            "http://h/x?k=p%2B%C3%A4%2F%3Cs3cret%20word%3E%3F&l=1",
            "http://h/p%2B%C3%A4/%3Cs3cret%20word%3E%3F",
            "k=p%2B%C3%A4%2F%3Cs3cret+word%3E%3F",
            "cCvDpC88czNjcmV0IHdvcmQ+Pw==",
            "cCvDpC88czNjcmV0IHdvcmQ-Pw==",
            "bWU6cCvDpC88czNjcmV0IHdvcmQ+Pw==",
            "eDpwK8OkLzxzM2NyZXQgd29yZD4/Cg==",
        ] {
            let hidden = encoded.redact(text);
            let is_hidden = hidden.contains(HIDDEN) && hidden.len() < 40;
            assert!(is_hidden, "{hidden}");
        }
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
        assert!(SHAPES.1.is_some(), "each shape is looked for");
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
            "{\"name\": \"cache\", \"key\": \"d41d8cd98f00b204e9800998ecf8427e\"}, fw_bw_overlap=True",
            "dashboard at http://127.0.0.1:8265/jobs/raysubmit_12345678",
            "BOS_TOKEN = \"<|begin_of_text|>\", EOS_TOKEN: <|eot_id|>, PAD_TOKEN=[PAD]",
            "{'HF_TOKEN': None, \"WANDB_API_KEY\": null} api_key=os.environ.get(\"KEY\"), password=None",
            "wandb_api_key:\ngradient_accumulation_steps_of_the_run: 4",
            "me@10.0.0.2's password: \nPermission denied (publickey,password).",
            "connect(password=os.environ[\"PG\"]), Redis(password=None,username=None)",
            "run.sh: line 3: HF_TOKEN: unbound variable, WANDB_API_KEY: parameter not set",
            "curl -fsS https://a.b/-u x:1234; docker run -u 1000:10000 mysql -port 3306; NUM_PASSES=1000; ssh login sbatch -p gpu_long",
            "MANPATH=/usr/share/man, LD_LIBRARY_PATH: /usr/lib64, FILE_PATTERN=data-*.json, a cookie: chocolate",
            "pad_token: an_ordinary_word_of_some_length, token=config.hub_token_of_the_run",
        ] {
            assert_eq!(secrets.redact(text), text);
        }
    }

    /// That of Unicode has no fast search where a text has other letters, such as the blocks of a progress bar.
    #[test]
    fn word_boundaries_of_shapes_are_those_of_ascii() {
        let shapes = include_str!("redact/shapes.txt").lines();
        let mut shapes = shapes.filter(|line| !line.starts_with('#'));
        assert!(shapes.all(|line| !line.replace(r"(?-u:\b)", "").contains(r"\b")));
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
            token("hf_oauth_", 34),
            token("api_org_", 34),
            token("rpa_", 46),
            token("as-", 22),
            format!("{}.{}", token("secret_my-key_", 32), token("", 32)),
            token("fw_", 22),
            token("sk-", 40),
            token("sk_live_", 24),
            format!("{}.{}", token("SG.", 22), token("", 43)),
            token("ghp_", 36),
            token("AIza", 35),
            format!("AKIA{}", "ABCDEFGH12345678"),
            format!("{}.{}.{}", token("eyJ", 20), token("e", 20), token("s", 20)),
        ] {
            let hidden = nothing.redact(&format!("got {secret} here"));
            assert_eq!(hidden, "got *** here");
        }
        let quoted = format!("b'ok\\n{}'", token("hf_", 34));
        assert_eq!(nothing.redact(&quoted), "b'ok\\n***'");
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
        for secret in [
            "admin",
            "1234",
            "<G7x!pp2qq",
            "'[s3cret-long-pass'",
            "Nonesuch",
        ] {
            let hidden = nothing.redact(&format!("DB_PASSWORD={secret}"));
            assert_eq!(hidden, "DB_PASSWORD=***");
        }
        for secret in [
            "\"correct horse battery staple\"",
            "\"Tr0ub4d,or&3xyz\"",
            "'hunter22 and more'",
        ] {
            let hidden = nothing.redact(&format!("{{\"password\": {secret}}}"));
            assert_eq!(hidden, "{\"password\": ***}");
        }
        for code in [
            "def f(password: Optional[str] = None)",
            "connect(user, password=self.settings.password)",
            "use_auth_token=model_args.use_auth_token",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN=true",
            "UNK_TOKEN=[UNK]",
            "EOS_TOKEN=<eos>",
        ] {
            assert_eq!(nothing.redact(code), code);
        }
        let (words, long) = ("abcdEFGH".repeat(4), token("", 40));
        let hidden = nothing.redact(&format!("access_token='{words}'"));
        assert_eq!(hidden, "access_token='***'");
        for before in [
            "aws_secret_access_key = ",
            "wandb_api_key: ",
            "{\"apiKey\": \"",
            "{\"SecretAccessKey\": \"",
            "https://a.b/lab?token=",
            "push_to_hub_token='",
            "KAGGLE_KEY=",
            "wandb.login(key='",
            "  client_secret: ",
            "DB_PASS=",
            "export GITHUB_PAT=",
            "os.environ['OPENAI_API_KEY'] = ",
            "> Cookie: session=",
            "{'Set-Cookie': 'sid=",
            "AUTHORIZATION: basic ",
            "+ curl -fsS -u me:",
            "mysqldump -h db -u me -p",
            "docker login -u me -p ",
            "az login --password ",
            "aws configure set aws_secret_access_key ",
            "Authorization: token ",
            "{\"Password\": ",
            "password=",
            "hf auth login --token ",
            "  password ",
            "https://a.blob.core.windows.net/c?sv=1&sig=",
            "https://api.telegram.org/bot123456:",
            "{\"username\":\"me\",\"key\":\"",
        ] {
            let hidden = nothing.redact(&format!("{before}{long}"));
            assert_eq!(hidden, format!("{before}***"));
        }
        let signed = "https://a.b/c?X-Amz-Security-Token=";
        let hidden = nothing.redact(&format!("{signed}IQoJ%2F{long}"));
        assert_eq!(hidden, format!("{signed}***"));
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
            "a ***\r\n  ***\n***\n*** b\nc"
        );
        // Cut at a line, as the end of a log is; and one line alone, as it is found by a pattern.
        assert_eq!(
            secrets.redact("secret line\nab\nthe last one"),
            "secret line\n***\n***"
        );
        assert_eq!(secrets.redact("  second secret line"), "  ***");
        // With a prefix on each line, and a last line that is too short to be known.
        let secrets = Redactor::new(["{\n\"part\": \"xyzSECRET\"\n}"]);
        let log = "p: {\np: \"part\": \"xyzSECRET\"\np: }";
        assert!(!secrets.redact(log).contains("xyzSECRET"));
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
