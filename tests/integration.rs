//! Every test that needs no process of its own: a module for each capability.
//!
//! One program, because each one more links the whole daemon again. The others are `fault_points`, which is built with a
//! feature; `poll_cost`, which counts what its process allocates; `systemd`, which builds the package and boots machines;
//! and `zz_not_run`, which runs last.

mod cli;
mod cluster;
mod config;
mod crash;
mod disk;
mod documents;
mod fuzzed;
mod http;
mod intake;
mod life;
mod page;
mod paths;
mod poll;
mod presets;
mod process;
mod restart;
mod schedule;
mod service;
mod simulate;
mod simulation;
mod start;
mod store_contract;
mod support;
mod webhook;
