//! Tests that try to break it: kills at random instants, crowds, no room, and everything a hostile config, name, job or
//! launcher can say. The long runs are ignored here, since each takes minutes:
//! `cargo test --release --test breaking -- --ignored <name>`; a short form of each is in every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/fake_cloud.rs"]
#[allow(dead_code)]
mod fake_cloud;

#[path = "../support/chance.rs"]
mod chance;
mod crowds;
mod kills;
mod names;
mod no_room;
mod outputs;
mod secrets;
mod tools;
mod yaml;
