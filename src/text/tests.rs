use std::fs;

use super::*;

#[test]
fn plain_text_is_not_copied() {
    assert!(matches!(strip_escapes("plain\ttext ✓\n"), Cow::Borrowed(_)));
    assert!(matches!(
        clean_controls("plain\ttext ✓\n"),
        Cow::Borrowed(_)
    ));
}

#[test]
fn escapes_are_removed() {
    for (raw, text) in [
        (
            "\u{1b}[0m\u{1b}[32m✓ started. \u{1b}[0m\u{1b}[0m",
            "✓ started. ",
        ),
        ("\u{1b}[38;5;208mx\u{1b}[?25h", "x"),
        ("\u{1b}]0;a title\u{7}x", "x"),
        (
            "\u{1b}]8;;https://a.b/c\u{1b}\\link\u{1b}]8;;\u{1b}\\",
            "link",
        ),
        ("\u{1b}(Bx\u{1b}7y\u{1b}=z", "xyz"),
        ("x\u{85}z", "xz"),
        ("a\u{7}bc\u{b}d\u{7f}", "abcd"),
        ("ab\u{8}c", "ac"),
    ] {
        assert_eq!(strip_escapes(raw), text, "{raw:?}");
    }
}

#[test]
fn overwritten_lines_keep_their_last_state() {
    for (raw, text) in [
        ("a\r\nb\r\n", "a\nb\n"),
        ("0%|  |\r50%|█ |\r100%|██|\n", "100%|██|\n"),
        ("\r0%\r100%\r\u{1b}[2Kdone\n", "done\n"),
        ("spinning\r\u{1b}[Kdone", "done"),
        ("kept\u{1b}[K\n", "kept\n"),
        ("first\nsecond\r", "first\nsecond"),
        ("a\r\r\n\u{8}\r\n", "a\n\n"),
    ] {
        assert_eq!(strip_escapes(raw), text, "{raw:?}");
    }
}

#[test]
fn open_escapes_end_with_their_line() {
    for (raw, text) in [
        ("a\u{1b}", "a"),
        ("a\u{1b}[", "a"),
        ("a\u{1b}[31\nb", "a\nb"),
        ("a\u{1b}]0;title\nb", "a\nb"),
        ("a\u{1b}]0;title\u{1b}[1mb", "ab"),
        ("a\u{1b}P1\nb", "a\nb"),
    ] {
        assert_eq!(strip_escapes(raw), text, "{raw:?}");
    }
}

#[test]
fn controls_are_marked() {
    assert_eq!(
        clean_controls("a\r\nb\u{1b}[2J\tc\u{9b}"),
        "a\nb\u{fffd}[2J\tc\u{fffd}"
    );
    assert_eq!(one_line("a\n\tb\u{202e}\r"), "a  b\u{fffd}\u{fffd}");
}

#[test]
fn shortened_text_fits() {
    assert_eq!(shorten("short", 5), "short");
    assert_eq!(shorten("longer", 5), "lo…");
    assert_eq!(shorten("äöüß", 7), "äö…");
    assert_eq!(shorten("ä", 1), "…");
}

#[test]
fn file_tails_start_at_a_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "first\nsecond\nthird").unwrap();
    for (max, text) in [
        (100, "first\nsecond\nthird"),
        (9, "third"),
        (5, "third"),
        (3, "ird"),
        (0, ""),
    ] {
        assert_eq!(
            read_tail(file.path(), max).unwrap(),
            text.as_bytes(),
            "{max}"
        );
    }
}

#[test]
fn skypilot_prefixes_are_split_off() {
    for prefix in [
        "(train, pid=2548) ",
        "\u{1b}[36m(train, pid=2548)\u{1b}[0m ",
        "(setup pid=12) ",
        "(head, rank=0, pid=12) ",
        "(worker1, rank=1, pid=12, ip=10.0.0.2) ",
    ] {
        let line = format!("{prefix}step 1");
        assert_eq!(split_skypilot_prefix(&line), (prefix, "step 1"));
    }
    for line in [
        "(train, pid=12)step 1",
        "(train, pid=x) step 1",
        "(a (b, pid=1) step 1",
        "(pid=1) step 1",
        "step (train, pid=1) ",
        "(train, pid=1",
        "",
    ] {
        assert_eq!(split_skypilot_prefix(line), ("", line));
    }
}

#[test]
fn many_names_are_counted() {
    let names = vec!["a"; 22];
    assert_eq!(join_names(names[..2].iter().copied()), "a, a");
    let joined = join_names(names.into_iter());
    assert!(joined.ends_with(", a and 2 more") && joined.len() < 80);
}
