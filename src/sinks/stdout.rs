//! The sink `stdout`: writes one line per outcome. Under systemd the lines reach the journal.

use std::io::{self, ErrorKind, Write};

use tokio::task::spawn_blocking;

use super::{Ordered, Trouble};
use crate::store::{Outcome, Store};

/// Writes to this process's standard output.
#[derive(Debug, Default)]
pub struct StdoutSink;

impl Ordered for StdoutSink {
    async fn open(&mut self, _store: &Store, _cursor: i64) -> Result<Option<i64>, Trouble> {
        Ok(None)
    }

    async fn deliver(&mut self, outcomes: Vec<Outcome>) -> (usize, Result<(), Trouble>) {
        let written = spawn_blocking(move || {
            let mut out = io::stdout().lock();
            for (count, outcome) in outcomes.iter().enumerate() {
                let result = writeln!(out, "{}", outcome.record).and_then(|()| out.flush());
                if let Err(error) = result {
                    return (count, Err(trouble(&error)));
                }
            }
            (outcomes.len(), Ok(()))
        });
        written.await.unwrap_or_else(|failure| (0, Err(Trouble::Closed(failure.to_string()))))
    }
}

fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::BrokenPipe => Trouble::Closed("nobody reads standard output any more".into()),
        _ => Trouble::Later(format!("standard output can't be written: {error}")),
    }
}
