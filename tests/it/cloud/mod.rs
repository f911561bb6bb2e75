//! Cloud jobs as a client sees them: the built server over real pipes, and an `oumi` and a `sky` on PATH that answer as the
//! real ones did.
//!
//! One program for all of it, since linking takes longer than running.

mod world;

mod asked;
mod autostop;
mod changes;
mod clusters;
mod consent;
mod crash;
mod identity;
mod launching;
mod limits;
mod logs;
mod observed;
mod plans;
mod secrets;
mod slow;
mod states;
mod under_way;
