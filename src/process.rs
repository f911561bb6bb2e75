//! ProcessTable: jobs that outlive the server, and programs that are run for an answer. Knows nothing of Oumi.

pub mod find;
pub mod job_dir;
pub mod runner;
pub mod supervisor;
pub mod table;
