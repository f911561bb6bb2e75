//! Text as a terminal would leave it: no escape sequences, and of a line that was written over only its last state.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// `text` without escape sequences and other terminal controls. Where a line was written over after a carriage return, its
/// last state is kept, as with progress bars.
pub fn strip_terminal(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut screen = Screen::with_room_for(text);
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest
            .find(|c| c == '\n' || is_control(c))
            .unwrap_or(rest.len());
        screen.write(&rest[..plain]);
        rest = &rest[plain..];
        rest = &rest[screen.obey(rest)..];
    }
    Cow::Owned(screen.text)
}

/// Newline and tab are text here.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

struct Screen {
    text: String,
    line_start: usize,
    /// The cursor is at the start of the line, and what comes next is written over it.
    returned: bool,
}

impl Screen {
    fn with_room_for(text: &str) -> Self {
        Self {
            text: String::with_capacity(text.len()),
            line_start: 0,
            returned: false,
        }
    }

    fn write(&mut self, plain: &str) {
        if self.returned && !plain.is_empty() {
            self.erase_line();
        }
        self.text.push_str(plain);
    }

    fn erase_line(&mut self) {
        self.text.truncate(self.line_start);
        self.returned = false;
    }

    /// Does what the newline or control at the start of `rest` says, and returns how long it is.
    fn obey(&mut self, rest: &str) -> usize {
        let Some(control) = rest.chars().next() else {
            return 0;
        };
        match control {
            '\n' => {
                self.text.push('\n');
                self.line_start = self.text.len();
                self.returned = false;
            }
            '\r' => self.returned = true,
            '\u{8}' if !self.returned && self.text.len() > self.line_start => {
                self.text.pop();
            }
            '\u{1b}' | '\u{80}'..='\u{9f}' => {
                let length = sequence_length(rest, control);
                if self.erases_line(&rest[..length]) {
                    self.erase_line();
                }
                return length;
            }
            _ => {}
        }
        control.len_utf8()
    }

    /// Whether `sequence` erases the line, or all of it behind a cursor that stands at its start.
    fn erases_line(&self, sequence: &str) -> bool {
        sequence.ends_with("[2K") || (self.returned && sequence.ends_with('K'))
    }
}

/// How long the escape sequence at the start of `text` is. One that is broken off ends where it is no longer one.
fn sequence_length(text: &str, control: char) -> usize {
    let bytes = text.as_bytes();
    match (control, bytes.get(1)) {
        ('\u{1b}', Some(b'[')) | ('\u{9b}', _) => {
            let parameters = skip(bytes, 2, b' '..=b'?');
            past(bytes, parameters, b'@'..=b'~')
        }
        ('\u{1b}', Some(b']' | b'P' | b'X' | b'^' | b'_'))
        | ('\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}', _) => string_end(text, 2),
        ('\u{1b}', _) => {
            let intermediates = skip(bytes, 1, b' '..=b'/');
            past(bytes, intermediates, b'0'..=b'~')
        }
        _ => control.len_utf8(),
    }
}

/// Past all the bytes of `range` that stand at `from`.
fn skip(bytes: &[u8], from: usize, range: RangeInclusive<u8>) -> usize {
    let more = bytes.iter().skip(from);
    from + more.take_while(|byte| range.contains(byte)).count()
}

/// Past the one byte at `at`, when it is of `range`.
fn past(bytes: &[u8], at: usize, range: RangeInclusive<u8>) -> usize {
    at + usize::from(bytes.get(at).is_some_and(|byte| range.contains(byte)))
}

/// Past the end of a title, a link or another string to the terminal. One without an end takes no more than its line.
fn string_end(text: &str, from: usize) -> usize {
    let string = text.get(from..).unwrap_or_default();
    let Some(end) = string.find(['\u{7}', '\u{1b}', '\u{9c}', '\n']) else {
        return text.len();
    };
    let terminators = ["\u{7}", "\u{1b}\\", "\u{9c}"];
    let terminator = terminators
        .iter()
        .find(|terminator| string[end..].starts_with(**terminator));
    from + end + terminator.map_or(0, |terminator| terminator.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_controls_is_not_copied() {
        assert!(matches!(
            strip_terminal("plain\ttext ✓\n"),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn colours_titles_links_and_other_sequences_go() {
        for (written, seen) in [
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
            ("\u{9b}31mx\u{9d}title\u{9c}y\u{85}z", "xyz"),
            ("a\u{7}b\0c\u{b}d\u{7f}", "abcd"),
            ("ab\u{8}c", "ac"),
        ] {
            assert_eq!(strip_terminal(written), seen, "{written:?}");
        }
    }

    #[test]
    fn a_line_that_was_written_over_keeps_its_last_state() {
        for (written, seen) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("0%|  |\r50%|█ |\r100%|██|\n", "100%|██|\n"),
            ("\r0%\r100%\r\u{1b}[2Kdone\n", "done\n"),
            ("spinning\r\u{1b}[Kdone", "done"),
            ("kept\u{1b}[K\n", "kept\n"),
            ("first\nsecond\r", "first\nsecond"),
            ("a\r\r\n\u{8}\r\n", "a\n\n"),
        ] {
            assert_eq!(strip_terminal(written), seen, "{written:?}");
        }
    }

    #[test]
    fn sequences_that_are_broken_off_hide_no_other_line() {
        for (written, seen) in [
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("a\u{1b}[31", "a"),
            ("a\u{1b}[31\nb", "a\nb"),
            ("a\u{1b}[é", "aé"),
            ("a\u{1b}é", "aé"),
            ("a\u{1b}]0;title\nb", "a\nb"),
            ("a\u{1b}]0;title\u{1b}[1mb", "ab"),
            ("a\u{1b}]é", "a"),
            ("\u{9b}", ""),
        ] {
            assert_eq!(strip_terminal(written), seen, "{written:?}");
        }
    }
}
