//! The webhook sink, with a real store in a temporary folder, against a receiver on a raw socket that does
//! what the test says; and the whole daemon. No test measures time: they wait for a condition.
//! Its behaviour over days is tested beside the code, in simulated time.

mod bench;
mod daemon;
mod endpoint;
mod gateway;
mod nginx;
mod outbox;
mod receiver;
mod signatures;
