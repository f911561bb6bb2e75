//! Logs of any size, for an assistant that reads little of them.
//!
//! [`fold`] makes readable text of raw bytes, [`read`] gives the end of a log or what is new in it since a [`cursor`], and
//! [`search`] the lines that match. What is read out of the text is in [`crate::progress`] and [`crate::failure`].

pub mod cursor;
pub mod fold;
pub mod read;
pub mod search;

mod backwards;

#[cfg(test)]
pub(crate) mod tests;
