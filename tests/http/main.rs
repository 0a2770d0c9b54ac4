//! `/metrics`, `/healthz` and `/readyz` of the real binary, and that the documents name what there is.

#[path = "../harness/mod.rs"]
mod harness;

mod bounds;
mod documents;
mod health;
mod numbers;
mod served;
