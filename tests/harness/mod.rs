//! What the tests of durability share: the real binary with a home of its own, a stand-in for the API, and a
//! client of the socket. Every wait is bounded, and no test looks at how long anything took.
#![allow(dead_code, unused_imports, reason = "every test target has this module and uses a part of it")]

mod check;
mod client;
mod daemon;
pub mod disk;
mod home;
#[path = "../not_run/mod.rs"]
pub mod not_run;

use std::thread;
use std::time::{Duration, Instant};

use pinwatch::simulate::{Settings, Simulator};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use check::{all_delivered, assert_each_once, pins, submit, try_submit};
pub use client::Client;
pub use daemon::Daemon;
pub use home::Home;

/// Longer than anything takes on the slowest machine: who waits this long waits for ever.
pub const AMPLE: Duration = Duration::from_secs(120);

/// Waits until `done` gives something.
#[track_caller]
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + AMPLE;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited {AMPLE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The stand-in for the API, in this process: it outlives the daemon, and so do the ages of its PINs.
pub struct Api {
    runtime: Runtime,
    simulator: Simulator,
}

impl Api {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let simulator = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            Simulator::start(Settings::default(), listener).expect("the default settings make sense")
        });
        Self { runtime, simulator }
    }

    pub fn base_url(&self) -> String {
        self.simulator.base_url()
    }
}

/// Reads JSON, and says what it was if it is not.
#[track_caller]
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
