//! From a PIN ID on the socket to a line in the result file, with the real binary: how each PIN ends, and its
//! record.

mod bad_days;
mod deliveries;
mod endings;
mod record;
mod statuses;
mod wrong_key;
