//! Actions on many PINs as HTML: the preview, and the progress of those that run.

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::jobs::{Action, Progress, State};
use super::super::session::Visitor;
use super::{away, form_token};
use crate::readable::thousands;
use crate::text::printable;

/// Says what an action would do, and asks for confirmation. `count` is exact unless `is_more`.
pub fn confirm(
    action: &Action,
    count: u64,
    is_more: bool,
    counted_at: Timestamp,
    fields: &Markup,
    visitor: &Visitor,
) -> Markup {
    let at_least = if is_more { "at least " } else { "" };
    html! {
        h2 { (action.title()) }
        div.card.padded.confirm {
            p.affects { "This affects " strong { (at_least) (thousands(count)) " " (action.things(count)) } "." }
            p.break { (printable(&action.to_string())) "." }
            p.note { (action.warning()) }
            form method="post" action="/actions" {
                (form_token(visitor))
                (fields)
                input type="hidden" name="do" value=(action.verb());
                input type="hidden" name="counted_at" value=(counted_at);
                p.buttons {
                    button.danger { (action.title()) }
                    a href="/actions" { "Do nothing" }
                }
            }
        }
    }
}

/// The page of all actions: for the dead letters of each sink, and what runs or has run.
pub fn overview(dead: &[(String, u64)], jobs: &[Progress], visitor: &Visitor, now: Timestamp) -> Markup {
    let running = jobs.iter().any(|job| job.state == State::Running);
    html! {
        h2 { "Actions" }
        p.note { "To cancel PINs, " a href="/pins" { "find them" } " first: by reference, status or age." }
        @if !dead.is_empty() {
            h2 { "Dead letters" }
            div.card { ul.rows {
                @for (sink, count) in dead {
                    li {
                        span.break { strong { (printable(sink)) } ": " (thousands(*count)) " outcomes that it gave up" }
                        form method="get" action="/actions/dead-letters" {
                            input type="hidden" name="sink" value=(sink);
                            button.quiet name="do" value="replay" { "Deliver all again …" } " "
                            button.danger name="do" value="drop" { "Drop all …" }
                        }
                    }
                }
            } }
        }
        div #jobs data-running[running] {
            h2 { "Running and recent" }
            @if jobs.is_empty() { p.note { "Nothing runs, and nothing ran since the start." } }
            @else {
                div.card { ul.rows { @for job in jobs { li { (progress(job, visitor, now)) } } } }
                @if running { noscript { p.note { "Reload the page to see how far they are." } } }
            }
        }
    }
}

fn progress(job: &Progress, visitor: &Visitor, now: Timestamp) -> Markup {
    let (class, state) = match &job.state {
        State::Running => ("warning", "running"),
        State::Done => ("good", "done"),
        State::Stopped => ("none", "stopped"),
        State::Failed(_) => ("bad", "failed"),
    };
    html! {
        div.break {
            span.state.(class) { (state) } " " (printable(&job.action.to_string())) ": "
            strong { (thousands(job.done)) } " of " (thousands(job.expected)) " " (job.action.things(job.expected))
            @if let State::Failed(why) = &job.state { ". " (printable(why)) }
            span.when { "begun " (away(&job.began.to_string(), now)) " by " (job.by.as_str()) }
        }
        @if job.state == State::Running {
            form method="post" action="/actions/stop" {
                (form_token(visitor))
                input type="hidden" name="job" value=(job.number);
                button.quiet { "Stop" }
            }
        }
    }
}
