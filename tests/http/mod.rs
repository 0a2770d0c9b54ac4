//! HTTP of the real binary: `/metrics`, `/healthz`, `/readyz`, TLS and hosts; and that the documents name what there is.

mod bounds;
mod documents;
mod health;
mod hosts;
mod numbers;
pub mod served;
mod tls;
pub mod v1;
