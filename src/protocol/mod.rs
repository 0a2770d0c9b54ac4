//! The operations of the local socket: requests and answers as types.
//!
//! Each operation has one file with its request, its answer and their limits. The daemon (`intake/`) reads requests
//! and writes answers; the command line (`commands/`) writes requests and reads answers; both use these types.
//! `docs/protocol.md` describes the operations for people, and a test fails if an operation or an error code is
//! missing there. A new operation needs a file here, a line in `request.rs`, a handler in `operations/`, a command, and
//! a row on that page.
//!
//! Guarantees that every field of a request that was read has its type, and that every PIN ID and duration is valid;
//! handlers check how fields fit together. Refuses unknown fields. Readers of answers ignore unknown members, so an older
//! client understands a newer daemon. Each member added to an answer is an `Option`, so a newer client understands an
//! older daemon. Pure: must not know sockets, the store or the schedule.

pub mod cancel;
pub mod cancel_matching;
pub mod count;
pub mod dead_letters;
pub mod drop;
mod error;
mod fields;
pub mod filter;
pub mod forget_sink;
mod line;
pub mod list;
pub mod nodes;
pub mod ping;
mod record;
pub mod replay;
mod request;
pub mod schedule;
pub mod show;
pub mod stats;
pub mod submit;
pub mod tail;
pub mod wait;
mod when;

pub use error::{Code, Refusal};
pub use fields::{MAX_PAGE, Selection, State, page_limit, parse_duration};
pub use line::{MAX_ANSWER, MAX_LINE, Raw, answer, page, read_answer, refused, request};
pub use record::Record;
pub use request::{OPERATIONS, Operation, Request, parse, parse_fields, parse_object, parse_pin_id};
pub use when::{InvalidWhen, When};

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/protocol.md");

    #[test]
    fn protocol_md_documents_every_operation_error_code_and_size_limit() {
        for operation in OPERATIONS {
            assert!(
                PAGE.contains(&format!("| `{operation}` |")),
                "no row for {operation} in docs/protocol.md"
            );
        }
        for code in Code::ALL {
            assert!(PAGE.contains(&format!("| `{code}` |")), "no row for {code} in docs/protocol.md");
        }
        for limit in [MAX_LINE, MAX_ANSWER] {
            assert!(PAGE.contains(&format!("{} KiB", limit / 1024)), "{limit} is not in docs/protocol.md");
        }
    }
}
