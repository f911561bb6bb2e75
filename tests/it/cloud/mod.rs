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

/// The stories whose subject is what SkyPilot says, over its API server.
#[allow(clippy::duplicate_mod, reason = "they are the same stories")]
mod over_http {
    mod world {
        use std::ops::Deref;

        pub use super::super::world::*;
        use crate::support::client::Server;

        /// As the stories over the program know it.
        pub struct World(super::super::world::World);

        impl World {
            pub fn new() -> Self {
                Self(super::super::world::World::with_api())
            }

            pub fn with_server() -> (Self, Server) {
                let world = Self::new();
                let server = world.server();
                (world, server)
            }
        }

        impl Deref for World {
            type Target = super::super::world::World;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    }

    mod api;
    #[path = "../changes.rs"]
    mod changes;
    #[path = "../identity.rs"]
    mod identity;
    #[path = "../logs.rs"]
    mod logs;
    #[path = "../states.rs"]
    mod states;
}
