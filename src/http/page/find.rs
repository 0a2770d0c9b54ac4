//! The search: its fields, the filter that they make, and the pages of PINs that it finds.

use maud::{Markup, html};

use super::form::Form;
use crate::operations::{self, Failure, in_time};
use crate::pin::PinId;
use crate::protocol::filter::{Filter, Phase};
use crate::protocol::show::Pin;
use crate::protocol::{Code, Refusal, When, list};
use crate::services::Services;

/// How many PINs a page has.
const PAGE: u32 = 50;

/// The fields as they were written.
#[derive(Debug, Default)]
pub struct Query {
    /// A PIN ID, or a reference.
    pub text: String,
    pub status: String,
    pub older: String,
    pub state: String,
    /// Where the page begins.
    pub after: Option<String>,
}

/// A page of PINs.
pub struct Part {
    pub is_finished: bool,
    pub pins: Vec<Pin>,
    pub next: Option<String>,
}

impl Query {
    pub fn of(form: &Form) -> Self {
        let field = |name| form.get(name).unwrap_or_default().trim().to_owned();
        Self {
            text: field("text"),
            status: field("status"),
            older: field("older"),
            state: field("state"),
            after: form.get("after").map(str::to_owned),
        }
    }

    fn fields(&self) -> [(&'static str, &str); 4] {
        [("text", &self.text), ("status", &self.status), ("older", &self.older), ("state", &self.state)]
    }

    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, value)| value.is_empty())
    }

    /// The PIN that the text names, if it can be a PIN ID and no other field is filled in.
    pub fn pin(&self) -> Option<PinId> {
        let alone = self.fields().iter().all(|(name, value)| *name == "text" || value.is_empty());
        self.text.parse().ok().filter(|_| alone && self.after.is_none())
    }

    /// # Errors
    /// The age or the state is invalid.
    pub fn filter(&self) -> Result<Filter, Refusal> {
        let mut filter = Filter::default();
        if !self.text.is_empty() {
            filter = filter.with_reference(&self.text);
        }
        if !self.status.is_empty() {
            filter.status = Some(self.status.clone());
        }
        if !self.older.is_empty() {
            let older = self.older.parse::<When>();
            filter.older_than = Some(older.map_err(|error| Code::InvalidRequest.because(error.to_string()))?);
        }
        if !self.state.is_empty() {
            let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == self.state);
            let phase = phase.ok_or_else(|| Code::InvalidRequest.because("there is no such state"))?;
            filter.state = Some(phase);
        }
        Ok(filter)
    }

    /// The address of a page.
    pub fn page(&self, is_finished: bool, after: &str) -> String {
        let state = match (self.state.as_str(), is_finished) {
            ("", true) => "finished",
            ("", false) => "in_flight",
            (state, _) => state,
        };
        let fields = self.fields().into_iter().filter(|(name, value)| *name != "state" && !value.is_empty());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(fields).append_pair("state", state).append_pair("after", after);
        format!("/pins?{}", query.finish())
    }

    /// The fields for a form that repeats the search.
    pub fn hidden(&self) -> Markup {
        html! {
            @for (name, value) in self.fields().into_iter().filter(|(_, value)| !value.is_empty()) {
                input type="hidden" name=(name) value=(value);
            }
        }
    }

    /// Looks for PINs in flight and for finished ones, unless the search asks for a state.
    ///
    /// # Errors
    /// The search makes no sense, or the store does not answer.
    pub async fn look(&self, services: &Services) -> Result<Vec<Part>, Failure> {
        let filter = self.filter()?;
        let states: &[Phase] = match filter.state {
            None => &[Phase::InFlight, Phase::Finished],
            Some(ref state) => std::slice::from_ref(state),
        };
        let mut parts = Vec::new();
        for state in states {
            let filter = Filter { state: Some(*state), ..filter.clone() };
            let request = list::Request { limit: Some(PAGE), after: self.after.clone(), filter };
            let list::Answer { pins, next } = in_time(operations::list(services, request)).await?;
            let pins = pins.into_iter().filter_map(|pin| pin.read().ok()).collect();
            parts.push(Part { is_finished: *state != Phase::InFlight, pins, next });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_translated_into_a_filter() {
        let query = |text| Query::of(&Form::parse(text));
        let filter = query("text=order-4*&status=SENT&older=10m&state=in_flight").filter().unwrap();
        assert_eq!(filter.to_string(), "state in_flight, reference order-4*, status SENT, older than 10m");
        assert!(query("").filter().unwrap().is_empty());
        for wrong in ["older=soon", "state=lost"] {
            assert!(query(wrong).filter().is_err(), "{wrong}");
        }
        assert_eq!(query("text=+P1+").pin().unwrap().as_str(), "P1");
        assert!(query("text=P1&status=SENT").pin().is_none() && query("text=order-4*").pin().is_none());
    }

    #[test]
    fn the_link_to_the_next_page_keeps_any_search() {
        let query = Query { text: "a&b=c %#*".into(), older: "1m".into(), ..Query::default() };
        let address = query.page(true, "p+1");
        let again = Query::of(&Form::parse(address.strip_prefix("/pins?").unwrap()));
        assert_eq!((again.text, again.older, again.state.as_str()), (query.text, query.older, "finished"));
        assert_eq!(again.after.as_deref(), Some("p+1"));
    }
}
