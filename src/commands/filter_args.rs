//! The flags of `list`, `tail` and `cancel` that say which PINs are meant.

use std::time::Duration;

use clap::Args;

use crate::protocol::filter::{Filter, Phase};
use crate::protocol::parse_duration;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// PINs in this state: in_flight, finished, or an ending (final, deadline, not_found, rejected, cancelled)
    #[arg(long, value_name = "STATE", value_parser = phase)]
    state: Option<Phase>,
    /// PINs with this reference; with a * at its end, PINs whose reference begins so
    #[arg(long, value_name = "REFERENCE")]
    reference: Option<String>,
    /// PINs with this last status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// PINs of at least this age, such as 10m: since the submission, or for outcomes since the end
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// PINs below this age
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    newer_than: Option<Duration>,
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

fn phase(text: &str) -> Result<Phase, String> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| {
        let names = Phase::ALL.map(Phase::as_str).join(", ");
        format!("a state is one of {names}")
    })
}
