//! Secrets in all the forms in which they are printed.

use super::shapes::SHAPES;
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
    // A job may have written anything into its folder.
    for (length, hash, visible) in [(0, 1, 9), (9, 1, 9), (8, 1 << 20, 9), (8, u32::MAX, 0)] {
        let fingerprints = format!(r#"{{"{length}": {{"{hash}": [[{visible}, 1]]}}}}"#);
        let text = format!(
            r#"{{"salt": "", "fingerprints": {fingerprints}, "longest": {}}}"#,
            usize::MAX
        );
        let written: Redactor = serde_json::from_str(&text).unwrap();
        let long = "abc ".repeat(SLICE);
        assert_eq!(written.redact(&long), long);
    }
}

#[test]
fn other_text_stays() {
    assert!(is_secret_name("hf_token") && !is_secret_name("TOKENIZER_NAME"));
    assert!(SHAPES.any.is_some(), "each shape is looked for");
    let secrets = Redactor::new(["s3cr3t-value-123", "1", "true"]);
    for text in [
        "",
        "s3cr3t-value-12",
        "step 1 of 3: loss 1.0, true",
        "{'num_tokens': '56', 'mean_token_accuracy': '0.05769'}",
        "tokenizer: PreTrainedTokenizerFast(pad_token='<pad>', max_tokens=128)",
        "https://huggingface.co/docs:latest and git@github.com:org/repo",
        "http://localhost:29500?mail=me@host and http://10.0.0.1:8080/a@b",
        "sk-learn is no key, nor is jina_embeddings_v2_base_code",
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
    let shapes = include_str!("shapes.txt").lines();
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
        token("jina_", 60),
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
fn value_where_two_slices_meet_is_hidden_whole() {
    let (short, long) = ("s3cr3t-value", "s3cr3t-value-and-more");
    let secrets = Redactor::new([short, long]);
    let before = SLICE + secrets.margin() - short.len();
    let text = "x".repeat(before) + long + &"x".repeat(long.len());
    assert!(!secrets.redact(&text).contains("-and-more"));
    // Also where it begins within another one that is hidden before.
    let secrets = Redactor::new([long, "and-more-of-it"]);
    let text = "x".repeat(SLICE - 10) + long + "-of-it" + &"x".repeat(long.len());
    assert!(!secrets.redact(&text).contains("of-it"));
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
