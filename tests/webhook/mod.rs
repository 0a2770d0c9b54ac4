//! The webhook sink, with a real store in a folder that goes away, against a receiver on a raw socket that does
//! what it is told; and the whole daemon. No test looks at how long anything took: they wait for what must come.
//! How it behaves over a day is proved beside the code, where a day takes milliseconds.

mod bench;
mod daemon;
mod endpoint;
mod gateway;
mod nginx;
mod outbox;
mod receiver;
mod signatures;
