//! The local socket of the real binary: what it is told in good and in bad lines, by one client and by many.

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

/// A daemon whose PINs are never due: for what has nothing to do with polls.
fn idle() -> Daemon {
    // Nobody listens there, and nobody asks.
    Place::new("http://127.0.0.1:9").never_due().start()
}

/// A daemon that polls the simulator.
fn polling() -> (Simulated, Daemon) {
    let api = Simulated::start();
    let daemon = Place::new(&api.base_url()).start();
    (api, daemon)
}
