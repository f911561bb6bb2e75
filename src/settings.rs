//! The settings of the server: environment variables, policy, data folder, and the Oumi configs it reads.

pub(crate) mod config;
pub(crate) mod data_dir;
pub mod env_vars;
pub(crate) mod policy;
pub(crate) mod unchanged;
