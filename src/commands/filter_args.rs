//! The flags that select PINs, outcomes or dead letters.

use std::borrow::Cow;

use clap::Args;

use super::error::CommandError;
use crate::protocol::filter::{About, Filter, Phase};
use crate::protocol::{Refusal, When};

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
    /// # Errors
    /// A filter has no meaning for this command.
    pub fn filter(&self, about: About) -> Result<Filter, CommandError> {
        checked(self.read(), about)
    }

    fn read(&self) -> Filter {
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
    /// # Errors
    /// As [`FilterArgs::filter`].
    pub fn filter(&self, about: About) -> Result<Filter, CommandError> {
        checked(Filter { sink: self.sink.clone(), ..self.filter.read() }, about)
    }
}

/// Refuses what the daemon would refuse, in the words of the command line.
fn checked(filter: Filter, about: About) -> Result<Filter, CommandError> {
    let refused = |refusal: Refusal| {
        let message = refusal.message.replace("\"state\"", "--state").replace("\"sink\"", "--sink");
        CommandError::Usage(message)
    };
    filter.check(about).map_err(refused)?;
    Ok(filter)
}

fn phase(text: &str) -> Result<Phase, String> {
    Cow::from(text).try_into()
}
