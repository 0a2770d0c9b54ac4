//! Writes the table as text, as JSON and as Markdown: figures, each with its limit and whether the limit was reached.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The limit of a figure.
#[derive(Clone, Copy)]
pub enum Asked {
    AtLeast(f64),
    AtMost(f64),
    /// No limit: the figure explains another one.
    Nothing,
}

/// Prints figures as they are measured, and keeps them for the JSON.
pub struct Report {
    figures: Vec<Value>,
    markdown: String,
    group: &'static str,
    missed: usize,
}

impl Report {
    /// Prints the head of the table.
    pub fn begin() -> Self {
        println!("# {}", machine());
        println!(
            "{:<62} {:>14}  {:<21} {:>10}",
            "figure (median of its runs)", "measured", "lowest .. highest", "asked"
        );
        let markdown =
            "| figure | measured | lowest .. highest | asked | |\n|---|---|---|---|---|\n".to_owned();
        Self { figures: Vec::new(), markdown, group: "", missed: 0 }
    }

    /// Starts a group; the following figures belong to it.
    pub fn group(&mut self, name: &'static str) {
        println!("## {name}");
        self.group = name;
    }

    /// Adds one figure, measured once or several times.
    pub fn figure(&mut self, what: &str, mut measured: Vec<f64>, unit: &str, asked: Asked) {
        measured.sort_by(f64::total_cmp);
        let median = measured[measured.len() / 2];
        let (limit, reached) = match asked {
            Asked::AtLeast(limit) => (Some((">=", limit)), Some(median >= limit)),
            Asked::AtMost(limit) => (Some(("<=", limit)), Some(median <= limit)),
            Asked::Nothing => (None, None),
        };
        let (lowest, highest) = (measured[0], measured[measured.len() - 1]);
        let range = if measured.len() > 1 {
            format!("{} .. {}", short(lowest), short(highest))
        } else {
            String::new()
        };
        let asked = limit.map_or(String::new(), |(sign, limit)| format!("{sign} {}", short(limit)));
        let mark = match reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        self.missed += usize::from(reached == Some(false));
        println!("{what:<62} {:>14}  {range:<21} {asked:>10} {mark}", format!("{} {unit}", short(median)));
        let unit_of_all = format!("{} {unit}", short(median));
        self.markdown += &format!(
            "| {what} | {} | {range} | {asked} | {} |\n",
            unit_of_all.trim_end(),
            mark.to_lowercase()
        );
        self.figures.push(json!({
            "group": self.group, "figure": what.trim(), "unit": unit, "median": median, "measured": measured,
            "asked": asked, "reached": reached,
        }));
    }

    /// Writes the files and prints how many limits were missed.
    pub fn end(self, path: &Path, runs: usize, took: Duration) {
        let all =
            json!({"machine": machine(), "runs": runs, "seconds": took.as_secs(), "figures": self.figures});
        let text = format!("{all:#}\n");
        let written = std::fs::write(path, text)
            .and_then(|()| std::fs::write(path.with_extension("md"), &self.markdown));
        match written {
            Ok(()) => println!("# {} limits missed; {} s; {}", self.missed, took.as_secs(), path.display()),
            Err(error) => eprintln!("{} can't be written: {error}", path.display()),
        }
    }
}

/// Formats a number with about three significant digits.
fn short(figure: f64) -> String {
    let digits = match figure.abs() {
        0.0 => 0,
        size if size < 0.001 => 6,
        size if size < 0.1 => 4,
        size if size < 1.0 => 3,
        size if size < 100.0 => 2,
        _ => 0,
    };
    format!("{figure:.digits$}")
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{cores} cores, {}; load {load} before", model.trim_matches(['\t', ' ', ':']))
}
