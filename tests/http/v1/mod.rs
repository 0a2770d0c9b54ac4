//! `/v1` of the real binary: every route, every scope, broken streams and slow clients.

pub mod client;
mod examples;
mod filters;
mod outcomes;
mod routes;
mod schemathesis;
mod submits;
mod tls;
mod tokens;
