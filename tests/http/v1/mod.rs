//! `/v1` of the real binary: every route, every scope, streams that break and clients that dawdle.

pub mod client;
mod examples;
mod filters;
mod outcomes;
mod routes;
mod schemathesis;
mod submits;
mod tls;
mod tokens;
