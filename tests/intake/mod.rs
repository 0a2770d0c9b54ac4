//! The local socket of the real binary, with valid and invalid lines, one client and many.

mod crowd;
mod filters;
mod input;
mod limits;
mod memory;
mod ops;
mod references;
mod shares;
mod tail;
mod wait;

use crate::support::{Daemon, Place, Simulated};

/// A daemon whose PINs are never due, for tests without polls.
fn idle() -> Daemon {
    // Nothing listens there, and nothing is polled.
    Place::new("http://127.0.0.1:9").never_due().start()
}

/// A daemon that polls the simulator.
fn polling() -> (Simulated, Daemon) {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    (api, daemon)
}
