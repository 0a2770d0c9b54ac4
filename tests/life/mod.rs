//! From a PIN ID on the socket to a line in the result log, by the real binary: how each PIN ends, and what is
//! said of it.

mod bad_days;
mod deliveries;
mod endings;
mod record;
mod statuses;
mod wrong_key;
