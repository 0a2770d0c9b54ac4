//! Charts as inline SVG: lines over time, bars, and the ages of polls on a logarithmic axis.
//!
//! Promises a picture for any numbers, with a title and a description in words, and with lines that differ in their dashes too,
//! not only in colour. Pure. Must not know where numbers come from.

use std::fmt::Write;

use maud::{Markup, html};

use crate::readable::thousands;

/// The size of a chart's drawing in its own units, which are pixels at most sizes.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 120.0;

/// What is left free on top for the highest label, and below for the axis.
const TOP: f64 = 8.0;
const BOTTOM: f64 = 18.0;

/// One line of a chart.
pub struct Line {
    pub name: String,
    /// One value for each step, oldest first; NaN where there is none.
    pub values: Vec<f32>,
}

/// A chart of lines over time.
pub struct Chart<'a> {
    /// A short name for the document, unique on the page.
    pub id: &'a str,
    pub title: &'a str,
    pub unit: &'a str,
    pub lines: Vec<Line>,
    /// The left end of the axis: "an hour ago".
    pub from: &'a str,
}

impl Chart<'_> {
    /// Draws the chart with its legend, its description and a table of its numbers.
    pub fn draw(&self) -> Markup {
        let highest =
            self.lines.iter().flat_map(|line| &line.values).copied().filter(|value| value.is_finite());
        let top = nice_top(highest.fold(0.0, f32::max));
        let shown: Vec<_> =
            self.lines.iter().filter(|line| line.values.iter().any(|value| value.is_finite())).collect();
        let (title, description) = (format!("{}-title", self.id), format!("{}-desc", self.id));
        html! {
            figure.chart id=(self.id) {
                figcaption { (self.title) @if !self.unit.is_empty() { " " span.unit { "(" (self.unit) ")" } } }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{title} {description}")) {
                    title id=(title) { (self.title) }
                    desc id=(description) { (self.describe(&shown)) }
                    line.axis x1="0" y1=(y(0.0, top)) x2=(WIDTH) y2=(y(0.0, top)) {}
                    line.grid x1="0" y1=(y(top, top)) x2=(WIDTH) y2=(y(top, top)) {}
                    line.grid x1="0" y1=(y(top / 2.0, top)) x2=(WIDTH) y2=(y(top / 2.0, top)) {}
                    @for (index, line) in shown.iter().enumerate() {
                        path.series.{ "s" (index) } d=(path(&line.values, top)) {}
                    }
                    text x="2" y=(y(top, top) + 11.0) { (number(top)) }
                    text x="0" y=(HEIGHT - 4.0) { (self.from) }
                    text.end x=(WIDTH) y=(HEIGHT - 4.0) { "now" }
                }
                @if shown.is_empty() {
                    p.empty { "No numbers yet" }
                }
                ul.legend {
                    @for (index, line) in shown.iter().enumerate() {
                        li {
                            svg.key viewBox="0 0 28 8" aria-hidden="true" { path.series.{ "s" (index) } d="M0 4H28" {} }
                            span.name { (line.name) } " "
                            span.value { (last(&line.values).map_or("–".to_owned(), number)) }
                        }
                    }
                }
                (self.table(&shown))
            }
        }
    }

    /// The chart in words: each line now, and at its highest.
    fn describe(&self, shown: &[&Line]) -> String {
        let mut text = String::new();
        for line in shown {
            let highest = line.values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max);
            let now = last(&line.values).map_or("unknown".to_owned(), number);
            let _ = write!(text, "{}: now {now}, at most {}. ", line.name, number(highest));
        }
        if text.is_empty() { "No numbers yet.".to_owned() } else { text.trim_end().to_owned() }
    }

    /// The same numbers as text, at some moments.
    fn table(&self, shown: &[&Line]) -> Markup {
        const ROWS: usize = 7;
        let steps = shown.first().map_or(0, |line| line.values.len());
        html! {
            details.numbers id=(format!("{}-numbers", self.id)) {
                summary { "Numbers" }
                div.scroll tabindex="0" role="region" aria-label=(format!("Numbers: {}", self.title)) {
                    table {
                        thead { tr {
                            th scope="col" { "Part of the time" }
                            @for line in shown { th scope="col" { (line.name) } }
                        } }
                        tbody {
                            @for row in 0..ROWS {
                                @let at = (steps.saturating_sub(1)) * row / (ROWS - 1);
                                tr {
                                    th scope="row" {
                                        @if row == 0 { (self.from) } @else if row == ROWS - 1 { "now" } @else { (row) "/" (ROWS - 1) }
                                    }
                                    @for line in shown {
                                        td { (line.values.get(at).copied().filter(|value| value.is_finite()).map_or("–".to_owned(), number)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Rows of bars beside each other: a name, and for each column a number with a bar as long as its share of the column's
/// largest.
pub fn bars<const N: usize>(
    id: &str,
    title: &str,
    columns: [&str; N],
    rows: &[(String, [u64; N])],
) -> Markup {
    let largest = |column: usize| rows.iter().map(|(_, counts)| counts[column]).max().unwrap_or(0).max(1);
    let largest: [u64; N] = std::array::from_fn(largest);
    html! {
        figure.chart id=(id) {
            figcaption { (title) }
            table.bars {
                thead { tr { td {} @for column in columns { th colspan="2" scope="col" { (column) } } } }
                tbody {
                    @for (name, counts) in rows {
                        tr {
                            th scope="row" { (name) }
                            @for (count, largest) in counts.iter().zip(largest) {
                                td.bar { svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                                    rect.bar width=(format!("{:.1}", 100.0 * *count as f64 / largest as f64)) height="10" {}
                                } }
                                td.number { (thousands(*count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A row of polls on an axis of ages.
pub struct Ages {
    pub name: String,
    /// In seconds.
    pub ages: Vec<f64>,
    pub is_learned: bool,
}

/// At which ages PINs are polled, from one second to `deadline` seconds, on a logarithmic axis.
pub fn ages(id: &str, title: &str, rows: &[Ages], deadline: f64) -> Markup {
    const ROW: f64 = 26.0;
    let (from, to) = (0.5_f64, deadline.max(2.0));
    let x = |age: f64| ((age / from).ln() / (to / from).ln()).clamp(0.0, 1.0) * WIDTH;
    let height = ROW * rows.len() as f64 + 18.0;
    let marks = [
        (1.0, "1 s"),
        (10.0, "10 s"),
        (60.0, "1 min"),
        (600.0, "10 min"),
        (3600.0, "1 h"),
        (86_400.0, "1 d"),
    ];
    html! {
        figure.chart id=(id) {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(title) {
                desc {
                    @for row in rows {
                        (row.name) ": " (row.ages.len()) " polls, the first at "
                        @for age in row.ages.iter().take(5) { (format!("{age:.0} s ")) }
                        ". "
                    }
                }
                @for (age, label) in marks.iter().filter(|(age, _)| *age < to) {
                    line.grid x1=(round(x(*age))) x2=(round(x(*age))) y1="0" y2=(height - 14.0) {}
                    text x=(round(x(*age) + 2.0)) y=(height - 3.0) { (label) }
                }
                @for (index, row) in rows.iter().enumerate() {
                    @let top = ROW * index as f64;
                    text x="0" y=(top + 10.0) { (row.name) }
                    path.ticks.learned[row.is_learned] d=(ticks(&row.ages, x, top + 13.0)) {}
                }
            }
        }
    }
}

fn ticks(ages: &[f64], x: impl Fn(f64) -> f64, top: f64) -> String {
    ages.iter().fold(String::new(), |mut path, age| {
        let _ = write!(path, "M{} {top}v9", round(x(*age)));
        path
    })
}

fn y(value: f32, top: f32) -> f64 {
    let share = f64::from(value / top).clamp(0.0, 1.0);
    round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP))
}

/// A line through the values; it breaks off where there are none.
fn path(values: &[f32], top: f32) -> String {
    let mut path = String::new();
    let mut is_broken = true;
    for (index, value) in values.iter().enumerate() {
        if !value.is_finite() {
            is_broken = true;
            continue;
        }
        let x = round(WIDTH * index as f64 / (values.len().max(2) - 1) as f64);
        // A single value between two gaps is still seen.
        let begin = if is_broken { format!("M{x} {}h.8", y(*value, top)) } else { String::new() };
        let _ = write!(path, "{begin}L{x} {}", y(*value, top));
        is_broken = false;
    }
    path
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn last(values: &[f32]) -> Option<f32> {
    values.last().copied().filter(|value| value.is_finite())
}

/// The end of an axis: 1, 2 or 5 times a power of ten, not below the highest value; 1 if all are zero.
fn nice_top(highest: f32) -> f32 {
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f32.powf(highest.max(0.1).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= highest).unwrap_or(highest)
}

/// A number in as few characters as it needs.
pub fn number(value: f32) -> String {
    match value {
        value if value >= 100.0 || value == value.trunc() => thousands(value.round() as u64),
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 0.95 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Line>) -> String {
        Chart { id: "c", title: "In flight", unit: "PINs", lines, from: "an hour ago" }.draw().into_string()
    }

    #[test]
    fn a_chart_describes_itself_in_words_and_has_gaps_for_unknown_values() {
        let values = vec![1.0, f32::NAN, 3.0, 2.0];
        let text = chart(vec![Line { name: "in flight".into(), values }]);
        assert!(text.contains("in flight: now 2, at most 3."), "{text}");
        assert_eq!(text.matches("h.8").count(), 2, "two pieces: {text}");
    }

    #[test]
    fn any_numbers_make_a_valid_chart() {
        for values in [vec![], vec![f32::NAN; 360], vec![f32::INFINITY, 1e30, -5.0], vec![0.0; 360]] {
            let text = chart(vec![Line { name: "<b>".into(), values }]);
            assert!(text.contains("<svg") && !text.contains("NaN") && !text.contains("inf"), "{text}");
            assert!(!text.contains("<b>"), "names are escaped");
        }
        assert!(!bars("b", "Polls", ["a", "b"], &[]).into_string().contains("NaN"));
        assert!(
            !ages(
                "a",
                "Ages",
                &[Ages { name: "x".into(), ages: vec![0.0, f64::MAX], is_learned: true }],
                0.0
            )
            .into_string()
            .contains("NaN")
        );
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_all_values() {
        for (highest, top) in
            [(0.0, 1.0), (0.03, 0.1), (1.0, 1.0), (1.1, 2.0), (230.0, 500.0), (5001.0, 10_000.0)]
        {
            assert!((nice_top(highest) - top).abs() < top / 1000.0, "{highest}: {}", nice_top(highest));
        }
    }

    #[test]
    fn numbers_are_rounded_to_be_short() {
        for (value, text) in [(0.0, "0"), (0.123, "0.12"), (2.14, "2.1"), (12.7, "13"), (1204.0, "1,204")] {
            assert_eq!(number(value), text);
        }
    }
}
