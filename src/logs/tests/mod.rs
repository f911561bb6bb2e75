//! Reading logs: the end, new text, matches.

mod folding;
pub mod log;
mod new_text;
mod searching;
mod secrets;
mod tails;

use super::read::{DEFAULT_MAX_BYTES, ReadOptions};

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_MAX_BYTES,
            raw: false,
            ended: false,
        }
    }
}
