//! The flags that select PINs, outcomes or dead letters.

use clap::Args;

use crate::protocol::When;
use crate::protocol::filter::{Filter, Phase};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// PINs in this state: in_flight, finished, or an ending (final, deadline, not_found, rejected, cancelled)
    #[arg(long, value_name = "STATE", value_parser = phase)]
    state: Option<Phase>,
    /// PINs with this reference; with a * at its end, PINs whose reference begins with what is before it
    #[arg(long, value_name = "REFERENCE")]
    reference: Option<String>,
    /// PINs with this last status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// PINs of at least this age, such as 10m, or from before this time, such as 2026-11-28T14:00:00Z; counts from the
    /// submission, or for outcomes from the end
    #[arg(long, value_name = "AGE|TIME")]
    older_than: Option<When>,
    /// PINs below this age, or from this time on
    #[arg(long, value_name = "AGE|TIME")]
    newer_than: Option<When>,
}

/// For commands that can list outcomes of any sink.
#[derive(Debug, Clone, Default, Args)]
pub struct OutcomeFilterArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Outcomes that this sink does not have now: still to be delivered, or dead letters
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    sink: Option<String>,
}

impl FilterArgs {
    pub fn filter(&self) -> Filter {
        let filter = Filter {
            state: self.state,
            status: self.status.clone(),
            older_than: self.older_than,
            newer_than: self.newer_than,
            ..Filter::default()
        };
        match &self.reference {
            Some(reference) => filter.with_reference(reference),
            None => filter,
        }
    }
}

impl OutcomeFilterArgs {
    pub fn filter(&self) -> Filter {
        Filter { sink: self.sink.clone(), ..self.filter.filter() }
    }
}

fn phase(text: &str) -> Result<Phase, String> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| {
        let names = Phase::ALL.map(Phase::as_str).join(", ");
        format!("a state is one of {names}")
    })
}
