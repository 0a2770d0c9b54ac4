//! The pages as HTML, made from answers of `operations/`.
//!
//! Promises that every text from submitters, the API or receivers is escaped (by maud) and has no character that could change
//! how the text around it reads (by [`printable`]). Pure. Must not know requests, sessions or where numbers come from.

pub mod actions;
pub mod pins;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::charts::{Ages, Chart, Line, ages, bars};
use super::find::Query;
use super::session::Visitor;
use crate::http::history::{self, Series, Span, Values};
use crate::http::tokens::Scope;
use crate::protocol::schedule::{Schedule, State};
use crate::protocol::stats::{Level, Sink, Stats};
use crate::readable::{distance, short, thousands, upcoming};
use crate::text::printable;

/// The lines that a chart has besides a limit: as many as differ in their dashes.
const MOST_LINES: usize = 7;

/// The fewest steps that a chart shows.
const FEWEST_STEPS: usize = 30;

/// The addresses of the style and the script, which change with their contents.
pub struct Assets {
    pub style: String,
    pub script: String,
}

/// What a page has around its contents.
pub struct Frame<'a> {
    pub assets: &'a Assets,
    pub visitor: Option<&'a Visitor>,
    /// Whether there are tokens at all, so that logging in makes sense.
    pub has_tokens: bool,
    pub is_live: bool,
}

impl Frame<'_> {
    /// A whole page.
    pub fn page(&self, title: &str, contents: Markup) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) }
                    link rel="stylesheet" href=(self.assets.style);
                    link rel="icon" href="data:,";
                    @if self.is_live { script defer src=(self.assets.script) {} }
                }
                body {
                    div.frame {
                        header {
                            h1 { a href="/" { "pinwatch" } }
                            span.about { (env!("CARGO_PKG_VERSION")) }
                            nav aria-label="Account" { (self.account()) }
                        }
                        main {
                            @if self.is_live { p #lost role="status" hidden {} }
                            (contents)
                        }
                    }
                }
            }
        };
        page.into_string()
    }

    fn account(&self) -> Markup {
        html! {
            @if let Some(visitor) = self.visitor {
                a href="/pins" { "Find" }
                @if visitor.client.scope == Scope::Admin { a href="/actions" { "Actions" } }
                span { (visitor.client.name.as_str()) " (" (visitor.client.scope.as_str()) ")" }
                form method="post" action="/logout" {
                    (form_token(visitor))
                    button.quiet { "Log out" }
                }
            } @else if self.has_tokens {
                a href="/login" { "Log in" }
            }
        }
    }
}

fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="form" value=(visitor.form_token); }
}

/// The login page. `why` says what was wrong before.
pub fn login(why: Option<&str>) -> Markup {
    html! {
        div.narrow {
            h2 { "Log in" }
            @if let Some(why) = why { p.message role="alert" { (why) } }
            form.card.padded method="post" action="/login" {
                // Password managers ask for a name too.
                input type="text" name="username" autocomplete="username" value="pinwatch" hidden;
                p { label { "Token with the scope read or admin"
                    input type="password" name="token" autocomplete="current-password" required autofocus;
                } }
                button { "Log in" }
            }
            p.note { "A token is a line of http.tokens_file. To make one: pinwatch token new --name NAME --scope read" }
        }
    }
}

/// A page with nothing but a message.
pub fn message(title: &str, text: &str) -> Markup {
    html! { div.narrow { h2 { (title) } p.message { (printable(text)) } p { a href="/" { "Back to the status" } } } }
}

/// The status page. `numbers` and `charts` are the parts that are replaced while it is open.
pub fn status(numbers: &str, charts: &str, visitor: Option<&Visitor>, has_tokens: bool) -> Markup {
    html! {
        div #numbers { (maud::PreEscaped(numbers)) }
        @if visitor.is_some() {
            (pins::search(&Query::default()))
        } @else if has_tokens {
            p.note { a href="/login" { "Log in" } " to find PINs, and to act on them." }
        }
        div #charts { (maud::PreEscaped(charts)) }
        noscript { p.note { "Without JavaScript the page does not renew itself: reload it." } }
    }
}

/// The verdict, the numbers and the sinks.
pub fn numbers(stats: &Stats, sinks: &[(String, Sink)], now: Timestamp) -> Markup {
    html! {
        (verdict(stats))
        (tiles(stats, now))
        h2 { "Sinks" }
        (sink_table(sinks, now))
        @if let Some(cluster) = &stats.cluster {
            h2 { "Nodes" }
            div.card.scroll tabindex="0" role="region" aria-label="Nodes" {
                table {
                    thead { tr { th scope="col" { "Node" } th scope="col" { "In flight" } th scope="col" { "Due" } th scope="col" { "Slots" } } }
                    tbody {
                        @for node in cluster.nodes.iter().filter_map(|node| node.read().ok()) {
                            tr {
                                th.break scope="row" { (printable(&node.name)) }
                                td { (thousands(node.in_flight as u64)) }
                                td { (thousands(node.due as u64)) }
                                td { (node.slots) " of 256" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn verdict(stats: &Stats) -> Markup {
    let (class, mark, said) = match stats.verdict.level {
        Level::Good => ("good", "✓", "Good"),
        Level::Warning | Level::Other => ("warning", "!", "Needs attention"),
        Level::Bad => ("bad", "✕", "Bad"),
    };
    html! {
        section.verdict.(class) aria-label="Verdict" {
            span.mark role="img" aria-label=(said) { span { (mark) } }
            div {
                p { (printable(&stats.verdict.summary)) }
                @if !stats.verdict.further.is_empty() {
                    ul { @for further in &stats.verdict.further { li { (printable(further)) } } }
                }
            }
        }
    }
}

fn tiles(stats: &Stats, now: Timestamp) -> Markup {
    let ended: u64 = stats.outcomes.values().sum();
    let rate = stats.rate.map_or("no limit".to_owned(), |rate| format!("{rate:.1} polls/s"));
    let brake = stats.brake.as_ref().map(|brake| {
        let until = brake.until.as_deref().map(|until| format!(", next probe {}", away(until, now)));
        (brake.reason.to_string(), until.unwrap_or_default())
    });
    html! {
        dl.tiles {
            (tile("In flight", &thousands(stats.in_flight as u64), "PINs that wait for their outcome"))
            (tile("Due now", &thousands(stats.due as u64), &format!("{} being polled", thousands(stats.polling as u64))))
            (tile("Ended", &thousands(ended), "since the start"))
            (tile("Noticed after", &stats.final_notice_delay.map_or("–".to_owned(), |delay| format!("{delay:.1} s")), "from final to noticed, on average"))
            (tile("Polls", &thousands(stats.polls.total), &stats.polls_per_pin.map_or("since the start".to_owned(), |polls| format!("{polls:.1} for each PIN that ended"))))
            (tile("Rate limit", &rate, "in force now"))
            @match brake {
                Some((reason, until)) => (tile("Polling", "paused", &format!("{reason}{until}"))),
                None => (tile("Polling", "running", "no brake")),
            }
        }
    }
}

fn tile(name: &str, value: &str, note: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) small { (note) } } } }
}

fn sink_table(sinks: &[(String, Sink)], now: Timestamp) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-label="Sinks" {
            table.stack {
                thead { tr {
                    th scope="col" { "Sink" } th scope="col" { "State" } th scope="col" { "Delivered up to" } th scope="col" { "Behind" }
                    th scope="col" { "Oldest undelivered" } th scope="col" { "Retrying" } th scope="col" { "Next attempt" } th scope="col" { "Dead letters" } th scope="col" { "Last error" }
                } }
                tbody {
                    @for (name, sink) in sinks {
                        @let (class, state) = sink_state(sink);
                        tr {
                            th.break scope="row" { (printable(name)) }
                            td data-label="State" { span {
                                span.state.(class) { (state) }
                                @if let Some(since) = &sink.open_since { span.when { "opened " (away(since, now)) } }
                            } }
                            td data-label="Delivered up to" { (thousands(sink.cursor.max(0).unsigned_abs())) }
                            td data-label="Behind" { (thousands(sink.behind.unsigned_abs())) }
                            td data-label="Oldest undelivered" { (sink.oldest_undelivered.as_deref().map_or("–".to_owned(), |time| away(time, now))) }
                            td data-label="Retrying" { (thousands(sink.retrying.unsigned_abs())) }
                            td data-label="Next attempt" { (sink.next_attempt.as_deref().map_or("–".to_owned(), |time| next(time, now))) }
                            td data-label="Dead letters" { (thousands(sink.dead_letters.unsigned_abs())) }
                            td.break data-label="Last error" { span {
                                @if let Some(trouble) = &sink.trouble { (printable(&trouble.what)) " (began " (away(&trouble.since, now)) ")" }
                                @else { "–" }
                            } }
                        }
                    }
                }
            }
        }
    }
}

fn sink_state(sink: &Sink) -> (&'static str, &'static str) {
    match sink {
        Sink { configured: false, .. } => ("none", "not configured"),
        Sink { closed: true, .. } => ("bad", "closed"),
        Sink { open_since: Some(_), .. } => ("warning", "circuit open"),
        Sink { trouble: Some(_), .. } => ("warning", "in trouble"),
        Sink { behind: 1.., .. } => ("good", "delivering"),
        _ => ("good", "up to date"),
    }
}

/// The charts of a span.
pub fn charts(series: &Series, span: Span, stats: &Stats, schedule: Option<&Schedule>) -> Markup {
    // A daemon that was just started would have all its lines at the right edge.
    let unknown = series.in_flight.iter().take_while(|value| value.is_none()).count();
    let hidden = unknown.min(series.in_flight.len().saturating_sub(FEWEST_STEPS));
    let from = series.step * (series.in_flight.len() - hidden) as u32;
    let from = &format!("{} ago", short(from));
    let per_minute = 60.0 / series.step.as_secs_f64();
    let line = |name: &str, values: &Values, factor: f64| Line {
        name: name.to_owned(),
        values: values
            .iter()
            .skip(hidden)
            .map(|value| value.map_or(f32::NAN, |value| (value * factor) as f32))
            .collect(),
    };
    // A line that is zero all the time says nothing, unless it is the first.
    let lines = |all: &[history::Line], factor: f64| -> Vec<Line> {
        let occurs = |line: &history::Line| line.values.iter().flatten().any(|value| *value > 0.0);
        let shown = all.iter().enumerate().filter(|(index, line)| *index == 0 || occurs(line));
        shown.map(|(_, of)| line(&of.name, &of.values, factor)).take(MOST_LINES).collect()
    };
    let chart = |id, title, unit, lines| Chart { id, title, unit, lines, from }.draw();
    let mut polls = lines(&series.polls, 1.0);
    polls.push(line("rate limit", &series.rate, 1.0));
    let times = vec![line("median", &series.final_median, 1.0), line("95 of 100", &series.final_p95, 1.0)];
    let backlog =
        series.backlog.iter().map(|of| line(&printable(&of.name), &of.values, 1.0)).take(MOST_LINES);
    let polls_at = |band| stats.polls_by_age.get(band).copied().unwrap_or(0);
    let by_age: Vec<_> = stats
        .in_flight_by_age
        .iter()
        .map(|(band, pins)| (band.to_string(), [*pins, polls_at(band)]))
        .collect();
    html! {
        h2 { "History"
            span.spans {
                a href="/" aria-current=[(span == Span::Hour).then_some("true")] { "1 hour" }
                a href="/?span=day" aria-current=[(span == Span::Day).then_some("true")] { "24 hours" }
            }
        }
        div.grid {
            (chart("in-flight", "In flight", "PINs", vec![line("in flight", &series.in_flight, 1.0)]))
            (chart("polls", "Polls", "per second, by meaning", polls))
            (chart("statuses", "Outcomes", "per minute, by status", lines(&series.statuses, per_minute)))
            (chart("time-to-final", "Time to final", "seconds from the submission", times))
            (chart("noticed", "Noticed after", "seconds from final to noticed", vec![line("on average", &series.notice_delay, 1.0)]))
            (chart("backlog", "Backlog", "outcomes a sink still has to get", backlog.collect()))
        }
        h2 { "Where polls go" }
        div.grid.two {
            (bars("by-age", "PINs and polls, by the PIN's age", ["PINs in flight", "Polls since the start"], &by_age))
            @if let Some(schedule) = schedule { (learned(schedule)) }
        }
    }
}

/// At which ages PINs are polled: backoff, and beside it what was learned.
fn learned(schedule: &Schedule) -> Markup {
    let state = match schedule.state {
        State::Off => "Exponential backoff; nothing is learned (schedule.adapt)",
        State::Learning => "Exponential backoff, until enough PINs have ended",
        State::Planning => "Exponential backoff; a learned schedule is being made",
        State::InForce => "The learned schedule is in force",
        State::NoneBetter => "Exponential backoff; no learned schedule is better",
        State::FellBack => "Exponential backoff; the learned schedule did worse",
        State::Other => "Ages of the polls",
    };
    let mut rows: Vec<Ages> = Vec::new();
    for class in &schedule.classes {
        if rows.is_empty() {
            let ages = class.backoff.ages.clone();
            rows.push(Ages { name: "backoff".into(), ages, is_learned: false });
        }
        if let Some(learned) = &class.learned {
            let name = format!("learned, {}", class.class);
            rows.push(Ages { name, ages: learned.ages.clone(), is_learned: true });
        }
    }
    ages("ages", state, &rows, schedule.deadline)
}

/// Formats the distance of a future event from now; an overdue one comes now.
fn next(time: &str, now: Timestamp) -> String {
    printable(&upcoming(time, now)).into_owned()
}

/// The distance of a time from now.
fn away(time: &str, now: Timestamp) -> String {
    printable(&distance(time, now)).into_owned()
}
