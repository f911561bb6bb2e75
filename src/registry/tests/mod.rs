//! The registry of identities: shared with the Python server and with other processes, and hard to lose.

mod home;

mod changes;
mod damage;
mod expiry;
mod form;
mod sharing;
