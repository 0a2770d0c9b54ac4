//! Draws the state: lines of a given width and height. Pure.
//!
//! Promises that no line is wider than the terminal, that every text from outside passes [`printable`], and that whatever a
//! colour says, a word says too. If there is little room, sinks and PINs are shortened, then the lines at the bottom are left
//! out.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::keys::HELP;
use super::state::{Point, State, ended};
use crate::commands::human;
use crate::commands::table::{self, Column, wrapped};
use crate::protocol::show::Pin;
use crate::protocol::stats::{Level, Sink, Stats};
use crate::readable::thousands;
use crate::text::printable;

/// An answer that is older than this is late.
const LATE_SECONDS: i64 = 3;

/// With fewer rows than this, only the most important numbers are shown.
const SHORT: usize = 23;

/// The columns before and behind a sparkline.
const BEFORE: usize = 11;
const BEHIND: usize = 30;

/// Heights of a sparkline's columns, from zero.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const SINKS: [Column; 9] = [
    Column::new("SINK", 1).down_to(8),
    Column::new("STATE", 2),
    Column::new("DELIVERED", 9),
    Column::new("BEHIND", 3),
    Column::new("OLDEST", 7),
    Column::new("RETRYING", 8),
    Column::new("NEXT", 5),
    Column::new("DEAD LETTERS", 6),
    Column::new("WHY", 4).down_to(24),
];

const PINS: [Column; 6] = [
    Column::new("PIN", 1).down_to(32),
    Column::new("SUBMITTED", 3),
    Column::new("POLLS", 5),
    Column::new("LAST STATUS", 2).down_to(12),
    Column::new("NEXT POLL", 4),
    Column::new("REFERENCE", 6).down_to(8),
];

/// The role of a text, which decides how it looks.
#[derive(Debug, Clone, Copy)]
enum Role {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
}

/// Draws the whole terminal.
pub fn draw(frame: &mut Frame, state: &State, now: Timestamp) {
    let area = frame.area();
    let (columns, rows) = (usize::from(area.width), usize::from(area.height));
    let Some(room) = rows.checked_sub(1) else { return };
    let lines = if state.shows_help { help(state, columns) } else { body(state, now, columns, room) };
    let mut at = area;
    at.height = 1;
    for line in lines.into_iter().take(room) {
        frame.render_widget(line, at);
        at.y += 1;
    }
    at.y = area.bottom() - 1;
    frame.render_widget(footer(state, columns), at);
}

/// Everything but the line with the keys.
pub fn body(state: &State, now: Timestamp, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let mut lines = vec![header(state, now, columns)];
    lines.extend(verdict(state, now, columns, if rows < 30 { 1 } else { 4 }));
    if let Some(known) = &state.known {
        let is_short = rows < SHORT;
        if !is_short {
            lines.push(Line::default());
        }
        lines.extend(numbers(&known.stats, columns, is_short));
        lines.extend(sparklines(state, columns, is_short));
        let left = rows.saturating_sub(lines.len());
        lines.extend(sinks(state, now, columns, left / 2));
    }
    let left = rows.saturating_sub(lines.len());
    lines.extend(pins(state, now, columns, left));
    lines.truncate(rows);
    lines
}

/// The program, the daemon and the time, and what is unusual about the view.
fn header(state: &State, now: Timestamp, columns: usize) -> Line<'static> {
    let version = state.known.as_ref().map_or("", |known| known.stats.version.as_str());
    let time = now.strftime("%H:%M:%S UTC");
    let mut text = format!("pinwatch {}  {time}", printable(version));
    if state.is_paused {
        text += "  PAUSED";
    }
    if !state.filter.is_empty() {
        text += &format!("  filter: {}", printable(&state.filter));
    }
    let text = format!("{text}  {}", printable(&state.socket));
    style(state, Role::Heading, fit(&text, columns))
}

/// The state of the connection if it is bad, else the daemon's verdict with at most `further` other problems.
fn verdict(state: &State, now: Timestamp, columns: usize, further: usize) -> Vec<Line<'static>> {
    let seconds = |since: Timestamp| now.duration_since(since).as_secs().max(0);
    let (role, word, text) = match (&state.lost, &state.known) {
        (Some((since, why)), known) => {
            let below = if known.is_some() { "; the numbers below are from before" } else { "" };
            let text = format!("No connection for {} s: {why}. Trying again{below}", seconds(*since));
            (Role::Bad, "GONE", text)
        }
        (None, None) => (Role::Plain, "WAIT", "Asking the daemon".to_owned()),
        (None, Some(known)) => {
            let age = state.answered_at.map_or(0, seconds);
            let summary = known.stats.verdict.summary.clone();
            match known.stats.verdict.level {
                _ if age > LATE_SECONDS && !state.is_paused => {
                    (Role::Bad, "LATE", format!("The daemon has not answered for {age} s"))
                }
                Level::Good => (Role::Good, "GOOD", summary),
                Level::Warning | Level::Other => (Role::Warning, "WARNING", summary),
                Level::Bad => (Role::Bad, "BAD", summary),
            }
        }
    };
    let mut lines: Vec<_> = wrapped(&format!("{word}: {}", printable(&text)), columns.max(1))
        .into_iter()
        .map(|line| style(state, role, line))
        .collect();
    let others =
        state.known.as_ref().filter(|_| state.lost.is_none()).map(|known| &known.stats.verdict.further);
    let others = others.map_or(&[][..], |others| others);
    lines.extend(
        others
            .iter()
            .take(further)
            .map(|other| style(state, Role::Warning, fit(&format!("also: {}", printable(other)), columns))),
    );
    if others.len() > further {
        let more = human::count((others.len() - further) as u64, "more problem");
        lines.push(style(state, Role::Warning, fit(&format!("and {more}: see pinwatch stats"), columns)));
    }
    lines
}

/// The present numbers, and those since the start unless there is little room.
fn numbers(stats: &Stats, columns: usize, is_short: bool) -> Vec<Line<'static>> {
    let limit =
        stats.rate.map_or_else(|| "no rate limit".to_owned(), |rate| format!("limit {rate:.1} polls/s"));
    let mut lines = items(
        &[
            format!("In flight {}", thousands(stats.in_flight as u64)),
            format!("due {}", thousands(stats.due as u64)),
            format!("being polled {}", thousands(stats.polling as u64)),
            limit,
        ],
        columns,
    );
    if is_short {
        return lines;
    }
    let endings = stats.outcomes.iter().filter(|(_, count)| **count > 0);
    let endings: Vec<_> = endings.map(|(ending, count)| format!("{ending} {}", thousands(*count))).collect();
    let endings = if endings.is_empty() { String::new() } else { format!(" ({})", endings.join(", ")) };
    let polls_per_pin = stats.polls_per_pin.map(|polls| format!("polls per PIN {polls:.1}"));
    let noticed = stats.final_notice_delay.map(|delay| format!("noticed after {delay:.1} s"));
    let start = [
        Some(format!("Since the start: ended {}{endings}", thousands(ended(stats)))),
        Some(format!("polls {}", thousands(stats.polls.total))),
        polls_per_pin,
        noticed,
    ];
    lines.extend(items(&start.into_iter().flatten().collect::<Vec<_>>(), columns));
    lines
}

/// Items beside each other, with a new line before one that has no room.
fn items(items: &[String], columns: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if line.width() + 3 + item.width() <= columns => *line += &format!(" · {item}"),
            _ => lines.push(item.clone()),
        }
    }
    lines.iter().map(|line| Line::from(fit(line, columns))).collect()
}

/// The sparklines; only that of the polls if there is little room.
fn sparklines(state: &State, columns: usize, is_short: bool) -> Vec<Line<'static>> {
    let width = columns.saturating_sub(BEFORE + BEHIND);
    let skipped = state.points.len().saturating_sub(width);
    let line = |name: &str, of: fn(&Point) -> Option<f64>, show: fn(f64) -> String| {
        let values: Vec<_> = state.points.iter().skip(skipped).map(of).collect();
        let top = values.iter().flatten().copied().fold(0.0, f64::max);
        let bars: String = values.iter().map(|value| bar(*value, top)).collect();
        let newest = values.last().copied().flatten().map_or_else(|| "-".to_owned(), show);
        let text = format!("{name:<BEFORE$}{bars:>width$}  now {newest}, top {}", show(top));
        Line::from(fit(&text, columns))
    };
    let polls = line("polls/s", |point| point.polls, |rate| format!("{rate:.1}"));
    if is_short {
        return vec![polls];
    }
    let in_flight = line("in flight", |point| Some(point.in_flight), |count| thousands(count as u64));
    let ended = line("ended/s", |point| point.ended, |rate| format!("{rate:.1}"));
    vec![in_flight, polls, ended]
}

/// A column of a sparkline; a gap is blank, and zero is not.
fn bar(value: Option<f64>, top: f64) -> char {
    let Some(value) = value else { return ' ' };
    let share = if top > 0.0 { value / top } else { 0.0 };
    let steps = (BARS.len() - 1) as f64;
    BARS.get((share * steps).round() as usize).copied().unwrap_or('█')
}

fn sinks(state: &State, now: Timestamp, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let sinks = state.sinks();
    // A blank line and the headings.
    let room = rows.saturating_sub(2).max(1);
    let shown = shown(sinks.len(), room);
    let cells: Vec<_> = sinks.iter().take(shown).map(|(name, sink)| sink_row(name, sink, now)).collect();
    let mut lines = vec![Line::default()];
    if sinks.is_empty() {
        lines.push(Line::from(fit(none("sink", "No sink is configured", state), columns)));
        return lines;
    }
    lines.extend(rows_of(state, &table::table(SINKS, &cells, Some(columns)).0));
    lines.extend(more(sinks.len() - shown, "sink", columns));
    lines
}

fn sink_row(name: &str, sink: &Sink, now: Timestamp) -> [String; 9] {
    let state = match sink {
        Sink { configured: false, .. } => "removed",
        Sink { closed: true, .. } => "CLOSED",
        Sink { open_since: Some(_), .. } => "OPEN",
        Sink { trouble: Some(_), .. } => "TROUBLE",
        Sink { behind: 1.., .. } => "behind",
        _ => "ok",
    };
    let distance = |time: &str| human::distance(time, now);
    [
        name.to_owned(),
        state.to_owned(),
        thousands(sink.delivered),
        thousands(sink.behind.unsigned_abs()),
        sink.oldest_undelivered.as_deref().map_or_else(|| "-".to_owned(), distance),
        thousands(sink.retrying.unsigned_abs()),
        sink.next_attempt.as_deref().map_or_else(|| "-".to_owned(), |time| human::upcoming(time, now)),
        thousands(sink.dead_letters.unsigned_abs()),
        sink.trouble.as_ref().map_or_else(String::new, |trouble| {
            format!("{}: {}", human::distance(&trouble.since, now), trouble.what)
        }),
    ]
}

fn pins(state: &State, now: Timestamp, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let Some(fetched) = &state.pins else { return Vec::new() };
    let pins = state.pins();
    let age = now.duration_since(fetched.at).as_secs().max(0);
    let of =
        if fetched.is_all { String::new() } else { format!(", the first {} of more", fetched.pins.len()) };
    let title = format!("PINs in flight {age} s ago, {}{of}", state.sort.as_str());
    let mut lines = vec![Line::default(), style(state, Role::Heading, fit(&title, columns))];
    if pins.is_empty() {
        lines.push(Line::from(fit(none("PIN", "No PIN was in flight", state), columns)));
        return lines;
    }
    // A blank line, the title and the headings.
    let shown = shown(pins.len(), rows.saturating_sub(3));
    let cells: Vec<_> = pins.iter().take(shown).map(|pin| pin_row(pin, now)).collect();
    lines.extend(rows_of(state, &table::table(PINS, &cells, Some(columns)).0));
    lines.extend(more(pins.len() - shown, "PIN", columns));
    lines
}

fn pin_row(pin: &Pin, now: Timestamp) -> [String; 6] {
    let distance =
        |time: Option<&String>| time.map_or_else(|| "-".to_owned(), |time| human::distance(time, now));
    [
        pin.pin_id.to_string(),
        distance(pin.submitted_at.as_ref()),
        pin.polls.flatten().map_or_else(|| "-".to_owned(), |polls| polls.to_string()),
        pin.last_status.iter().flatten().next().cloned().unwrap_or_else(|| "-".to_owned()),
        pin.next_poll_at
            .iter()
            .flatten()
            .next()
            .map_or_else(|| "-".to_owned(), |at| human::upcoming(at, now)),
        pin.reference.clone().unwrap_or_default(),
    ]
}

/// Returns how many rows to show: all if they fit, else one fewer than fit, to leave a line for the count of the rest.
fn shown(count: usize, room: usize) -> usize {
    if count <= room { count } else { room.saturating_sub(1) }
}

fn more(count: usize, noun: &str, columns: usize) -> Option<Line<'static>> {
    (count > 0).then(|| {
        Line::from(fit(&format!("and {}", human::count(count as u64, &format!("more {noun}"))), columns))
    })
}

fn none<'a>(noun: &str, all: &'a str, state: &State) -> &'a str {
    match (state.filter.is_empty(), noun) {
        (true, _) => all,
        (false, "PIN") => "No PIN matches the filter",
        (false, _) => "No sink matches the filter",
    }
}

/// The lines of a table, whose first has the headings.
fn rows_of(state: &State, table: &str) -> Vec<Line<'static>> {
    let role = |n| if n == 0 { Role::Heading } else { Role::Plain };
    table.lines().enumerate().map(|(n, line)| style(state, role(n), line.to_owned())).collect()
}

fn help(state: &State, columns: usize) -> Vec<Line<'static>> {
    let mut lines = vec![style(state, Role::Heading, fit("Keys", columns)), Line::default()];
    for (key, what) in HELP {
        let text = wrapped(what, columns.saturating_sub(6).max(1));
        lines.extend(text.iter().enumerate().map(|(n, text)| {
            Line::from(fit(&format!("{:<5} {text}", if n == 0 { key } else { "" }), columns))
        }));
    }
    lines
}

fn footer(state: &State, columns: usize) -> Line<'static> {
    let text = match state {
        State { is_typing: true, filter, .. } => {
            format!("filter: {}_  (Enter keeps it, Esc removes it)", printable(filter))
        }
        State { shows_help: true, .. } => "? or Esc: back   q: quit".to_owned(),
        State { is_paused: true, .. } => "q quit  p go on  s sort  / filter  r get PINs  ? help".to_owned(),
        _ => "q quit  p pause  s sort  / filter  r get PINs  ? help".to_owned(),
    };
    style(state, Role::Heading, fit(&text, columns))
}

/// Cuts a text to this many columns.
fn fit(text: &str, columns: usize) -> String {
    table::cut(text, columns)
}

fn style(state: &State, role: Role, text: String) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let color = |color| if state.has_color { bold.fg(color) } else { bold };
    let style = match role {
        Role::Plain => Style::new(),
        Role::Heading => bold,
        Role::Good => color(Color::Green),
        Role::Warning => color(Color::Yellow),
        Role::Bad => color(Color::Red),
    };
    Line::from(Span::styled(text, style))
}
