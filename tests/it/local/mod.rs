//! Jobs on this machine as a client sees them: the built server, real pipes, real processes.
//!
//! One program for all of it, since linking takes longer than running.

mod arguments;
mod before_the_start;
mod budgets;
mod cancel;
mod cli;
mod jobs;
mod leftovers;
mod logs;
mod logs_read_on;
mod plot;
mod polling;
mod registry_file;
mod restarts;
mod secrets;
mod shared_folder;
mod tools;
mod training;
