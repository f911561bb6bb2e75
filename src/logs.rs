//! Reading of job logs of any size, for an assistant that reads little of them.
//!
//! Every answer goes the same way: a bounded part of the log ([`Log`]) → readable lines that know where they begin
//! ([`mod@fold`]) → secrets hidden → the end, what is new since a cursor, or what matches ([`read`], [`search`]) →
//! the byte budget. Metrics and causes of failure are read out of the text in [`crate::progress`] and [`crate::failure`].

pub mod fold;
pub mod read;
pub mod search;

mod source;

pub use source::Log;

#[cfg(test)]
pub(crate) mod tests;
