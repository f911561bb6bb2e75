//! The settings of the server: environment variables, policy, data folder, and the Oumi configs it reads.

pub mod config;
pub mod data_dir;
pub mod env_vars;
pub mod policy;
