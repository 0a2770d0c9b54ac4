//! PINs as HTML: the search, what it finds, and a PIN's history.

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::find::{Part, Query};
use super::super::session::Visitor;
use super::{away, form_token, next};
use crate::http::tokens::Scope;
use crate::protocol::filter::Phase;
use crate::protocol::show::{Pin, SinkState};
use crate::protocol::{Record, State as PinState};
use crate::readable::count;
use crate::text::printable;

/// The form that finds PINs.
pub fn search(query: &Query) -> Markup {
    html! {
        h2 { "Find PINs" }
        form.find.card.padded method="get" action="/pins" role="search" {
            label.wide { "PIN ID, or reference (order-4* for all that begin with order-4)"
                input #find name="text" value=(query.text) maxlength="4000" spellcheck="false" autocomplete="off";
            }
            label { "Last status" input name="status" value=(query.status) maxlength="200" spellcheck="false" autocomplete="off"; }
            label { "Older than" input.short name="older" value=(query.older) placeholder="10m" maxlength="40" autocomplete="off"; }
            label { "State"
                select name="state" {
                    option value="" selected[query.state.is_empty()] { "any" }
                    @for phase in Phase::ALL {
                        option value=(phase.as_str()) selected[query.state == phase.as_str()] { (phase.as_str().replace('_', " ")) }
                    }
                }
            }
            button { "Find" }
        }
    }
}

/// What a search found. `parts` are its pages: PINs in flight, and finished ones.
pub fn found(query: &Query, parts: &[Part], visitor: &Visitor, now: Timestamp) -> Markup {
    html! {
        (search(query))
        @for part in parts {
            @let has_references = part.is_finished || part.pins.iter().any(|pin| pin.reference.is_some());
            h2 { (if part.is_finished { "Finished" } else { "In flight" }) }
            @if part.pins.is_empty() {
                p.note { (if part.next.is_some() { "None in the part that was searched." } else { "None." }) }
            } @else {
                div.card.scroll tabindex="0" role="region" aria-label=(if part.is_finished { "Finished PINs" } else { "PINs in flight" }) {
                    table.stack {
                        thead { tr {
                            th scope="col" { "PIN" } @if has_references { th scope="col" { "Reference" } }
                            th scope="col" { (if part.is_finished { "Outcome" } else { "Submitted" }) } th scope="col" { "Status" }
                            th scope="col" { (if part.is_finished { "Finished" } else { "Next poll" }) }
                        } }
                        tbody { @for pin in &part.pins { (row(pin, has_references, now)) } }
                    }
                }
            }
            @if let Some(next) = &part.next {
                p { a href=(query.page(part.is_finished, next)) { (if part.pins.is_empty() { "Look further" } else { "Next page" }) } }
            }
            @if !part.is_finished && !part.pins.is_empty() && visitor.client.scope == Scope::Admin {
                form method="get" action="/actions/cancel" {
                    (query.hidden())
                    p.buttons { button.danger { "Cancel all that match …" } span.note { "The next page shows how many, and asks." } }
                }
            }
        }
    }
}

fn row(pin: &Pin, has_reference: bool, now: Timestamp) -> Markup {
    let record: Option<Record> = pin.outcome.as_ref().and_then(|outcome| outcome.read().ok());
    let record = record.as_ref();
    let reference =
        pin.reference.as_deref().or_else(|| record.and_then(|record| record.reference.as_deref()));
    let ago = |time: Option<&str>| time.map_or("–".to_owned(), |time| away(time, now));
    html! {
        tr {
            th.break scope="row" { a href={ "/pins?pin=" (pin.pin_id.as_str()) } { (pin.pin_id.as_str()) } }
            @if has_reference { td.break data-label="Reference" { (reference.map_or("–".into(), printable)) } }
            @match record {
                Some(record) => {
                    td data-label="Outcome" { (record.outcome.replace('_', " ")) }
                    td.break data-label="Status" { (record.status.as_deref().map_or("–".into(), printable)) }
                    td data-label="Finished" { (ago(record.finished_at.as_deref())) }
                }
                None => {
                    td data-label="Submitted" { (ago(pin.submitted_at.as_deref())) }
                    td.break data-label="Status" { (pin.last_status.as_ref().and_then(|status| status.as_deref()).map_or("–".into(), printable)) }
                    td data-label="Next poll" { (pin.next_poll_at.as_ref().and_then(|at| at.as_deref()).map_or_else(|| "–".to_owned(), |at| next(at, now))) }
                }
            }
        }
    }
}

/// What can be done about an outcome that a sink gave up, or already has.
fn sink_buttons(pin: &str, sink: &SinkState, visitor: &Visitor) -> Markup {
    let is_dead = sink.state == "dead_letter";
    html! {
        @if is_dead || sink.state == "delivered" {
            form method="post" action="/pins/replay" {
                (form_token(visitor))
                input type="hidden" name="pin" value=(pin);
                input type="hidden" name="sink" value=(sink.name);
                p {
                    button.quiet name="do" value="replay" { "Deliver again to " (printable(&sink.name)) } " "
                    @if is_dead { button.danger name="do" value="drop" { "Drop its dead letter" } }
                }
            }
        }
    }
}

/// A PIN's history, and what can be done.
pub fn pin(pin: &Pin, visitor: &Visitor, now: Timestamp) -> Markup {
    let id = pin.pin_id.as_str();
    let in_flight = pin.state == Some(PinState::InFlight);
    let record: Option<Record> = pin.outcome.as_ref().and_then(|outcome| outcome.read().ok());
    html! {
        (search(&Query { text: id.to_owned(), ..Query::default() }))
        h2.break { "PIN " (id) " " span.state.(if in_flight { "warning" } else { "good" }) { (if in_flight { "in flight" } else { "finished" }) } }
        div.card.padded { ol.timeline { (events(pin, record.as_ref(), now)) } }
        @if in_flight && visitor.client.scope == Scope::Admin {
            form method="post" action="/pins/cancel" {
                (form_token(visitor))
                input type="hidden" name="pin" value=(id);
                p.buttons { button.danger { "Cancel this PIN" }
                    span.note { "Ends it now with the outcome “cancelled”. This can't be undone." } }
            }
        }
        @if visitor.client.scope == Scope::Admin {
            @for sink in pin.sinks.iter().flatten() { (sink_buttons(id, sink, visitor)) }
        }
    }
}

fn events(pin: &Pin, record: Option<&Record>, now: Timestamp) -> Markup {
    let event = |class: &str, time: Option<&str>, what: Markup| {
        html! {
            li.(class) {
                (what)
                @if let Some(time) = time { time.when datetime=(time) { (time) " · " (away(time, now)) } }
            }
        }
    };
    let submitted =
        pin.submitted_at.as_deref().or_else(|| record.and_then(|record| record.submitted_at.as_deref()));
    let reference =
        pin.reference.as_deref().or_else(|| record.and_then(|record| record.reference.as_deref()));
    html! {
        (event("", submitted, html! {
            "Submitted"
            @if let Some(by) = &pin.submitted_by { " with the token " strong { (by) } }
            @if let Some(reference) = reference { ", reference " strong { (printable(reference)) } }
        }))
        @if let Some(Some(last)) = &pin.last_answer {
            (event("", Some(&last.at), html! {
                @if let Some(Some(polls)) = pin.polls { "Poll " (polls) ": " } @else { "Last answer: " }
                (printable(&last.what))
            }))
        }
        @if let Some(Some(next)) = &pin.next_poll { (event("warning", next.at.as_deref(), html! { "Next poll: " (printable(&next.why)) })) }
        @if let Some(deadline) = pin.deadline_at.as_deref().filter(|_| record.is_none()) { (event("", Some(deadline), html! { "Deadline" })) }
        @if let Some(record) = record {
            @let class = match record.delivered { Some(true) => "good", Some(false) => "bad", None => "warning" };
            (event(class, record.finished_at.as_deref(), html! {
                "Ended: " strong { (record.outcome) }
                @if let Some(status) = &record.status { ", " (printable(status)) }
                @if let Some(description) = &record.description { " (" (printable(description)) ")" }
                @if let Some(error) = &record.error { ": " (printable(error)) }
                @match record.delivered { Some(true) => ". It was delivered", Some(false) => ". It was not delivered", None => ". Whether it was delivered is not known" }
                @if let Some(polls) = record.polls { ", after " (count(polls, "poll")) }
            }))
        }
        @for sink in pin.sinks.iter().flatten() {
            @let class = match &*sink.state { "delivered" => "good", "dead_letter" => "bad", _ => "warning" };
            (event(class, sink.since.as_deref(), html! {
                "Sink " strong { (printable(&sink.name)) } ": " (sink.state.replace('_', " "))
                @if let Some(tries) = sink.tries { ", " (tries) " tries" }
                @if let Some(error) = &sink.last_error { ": " (printable(error)) }
            }))
        }
    }
}
