//! `/metrics`, `/healthz` and `/readyz` of the real binary, and that the documents name what there is.

mod bounds;
mod documents;
mod health;
mod numbers;
mod served;
mod v1;
