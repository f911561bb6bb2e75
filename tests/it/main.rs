//! The built server as a client sees it: real pipes, real processes, and an `oumi` and a `sky` that answer as the real ones did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../support/captures.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod captures;
#[path = "../support/chance.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod chance;
#[path = "../support/fake_cloud.rs"]
#[allow(dead_code, reason = "other tests need other parts of it")]
mod fake_cloud;
#[path = "../support/raw.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

mod cloud;
mod fakes;
mod local;
mod protocol;
mod resources;
