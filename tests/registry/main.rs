//! The registry of identities: shared with the Python server and with other processes, and hard to lose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod home;

mod changes;
mod damage;
mod expiry;
mod form;
mod sharing;
