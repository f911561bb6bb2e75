mod job_dir;
mod supervisor;
