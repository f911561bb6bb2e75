//! Terminal escape sequences: where one ends, and which of them move the cursor.

use memchr::memchr_iter;

/// A sequence that does not end within this many bytes is given up, so that it cannot swallow the log.
const LONGEST_STRING: usize = 4096;

/// Where in an escape sequence the input stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// In none.
    #[default]
    None,
    /// After the escape character.
    Start,
    /// After `ESC` and an intermediate byte, as in `ESC ( B`.
    Short,
    /// After `ESC [`, with the first number; `open` while its digits may go on.
    Control { number: u32, open: bool },
    /// In a string such as a window title, `ended` by an escape character that a backslash follows.
    String { length: usize, ended: bool },
}

impl Escape {
    /// Takes what belongs to the sequence, and gives back the rest; with the final byte and the first number of a control
    /// sequence, when one has ended.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], Option<(u8, u32)>) {
        let mut control = None;
        for (at, &byte) in bytes.iter().enumerate() {
            let next = match (*self, byte) {
                (Escape::None, _) => return (bytes.get(at..).unwrap_or_default(), control),
                // A control character ends any of them, and means what it means.
                (Escape::String { ended: true, .. }, b'\\') | (Escape::String { .. }, 0x07) => {
                    Escape::None
                }
                (Escape::String { length, .. }, 0x1b) => Escape::String {
                    length,
                    ended: true,
                },
                (_, 0x1b) => Escape::Start,
                (_, 0..0x20 | 0x7f) => {
                    *self = Escape::None;
                    return (bytes.get(at..).unwrap_or_default(), None);
                }
                (Escape::String { ended: true, .. }, _) => {
                    // An escape character that ends nothing begins a sequence of its own.
                    *self = Escape::Start;
                    return (bytes.get(at..).unwrap_or_default(), None);
                }
                (Escape::String { length, .. }, _) if length < LONGEST_STRING => Escape::String {
                    length: length + 1,
                    ended: false,
                },
                (Escape::Start, b'[') => Escape::Control {
                    number: 0,
                    open: true,
                },
                (Escape::Start, b']' | b'P' | b'X' | b'^' | b'_') => Escape::String {
                    length: 0,
                    ended: false,
                },
                (Escape::Start | Escape::Short, 0x20..=0x2f) => Escape::Short,
                (Escape::Start | Escape::Short, 0x30..=0x7e) => Escape::None,
                (Escape::Control { number, open: true }, b'0'..=b'9') => Escape::Control {
                    number: number
                        .saturating_mul(10)
                        .saturating_add(u32::from(byte - b'0')),
                    open: true,
                },
                (Escape::Control { number, .. }, 0x20..=0x3f) => Escape::Control {
                    number,
                    open: false,
                },
                (Escape::Control { number, .. }, 0x40..=0x7e) => {
                    control = Some((byte, number));
                    Escape::None
                }
                // No such sequence: what stands here is text.
                _ => {
                    *self = Escape::None;
                    return (bytes.get(at..).unwrap_or_default(), None);
                }
            };
            *self = next;
        }
        (&[], control)
    }
}

/// What follows the colour that `bytes` begins with, if it does: nearly all escape sequences are colours.
pub(super) fn after_colour(bytes: &[u8]) -> Option<&[u8]> {
    let parameters = bytes.strip_prefix(b"[")?;
    let length = parameters
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';'))?;
    parameters.get(length..)?.strip_prefix(b"m")
}

/// Whether `bytes` has a sequence that moves the cursor up, or ends in one that may become one.
pub(super) fn may_move_up(bytes: &[u8]) -> bool {
    memchr_iter(0x1b, bytes).any(|at| {
        let mut sequence = bytes.get(at + 1..).unwrap_or_default().iter();
        match sequence.next() {
            None => true,
            Some(b'[') => sequence
                .find(|byte| !matches!(byte, 0x20..=0x3f))
                .is_none_or(|last| matches!(last, b'A' | b'F')),
            Some(_) => false,
        }
    })
}
