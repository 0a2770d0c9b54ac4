//! The picture of docs/schedule.md: when calls become final, and at which ages backoff and learned schedules poll them.
//!
//! SVG with styles for light and dark. Pure but for the file that it writes, `target/schedule.svg`.

use std::fmt::Write;
use std::path::Path;

use pinwatch::schedule::learn::plan::poll_ages;
use pinwatch::schedule::learn::{Aim, Channel, bins};

use super::lives::Drawn;
use super::optimum::{ages, mean};
use super::run::{DEADLINE, Settings, run};

/// The ages that the picture shows, in seconds.
const SHOWN: (f64, f64) = (0.8, 3_600.0);

/// Where the axis begins and ends, in pixels.
const AXIS: (f64, f64) = (150.0, 740.0);

/// Where the curve stands, and how high it may be.
const GROUND: f64 = 195.0;
const HIGHEST: f64 = 115.0;

/// The first row of polls, and the next ones below it.
const ROW: f64 = 245.0;
const ROWS: f64 = 46.0;

/// The ground is part of the picture: whoever shows it need not know about dark or light.
const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 440" role="img" aria-labelledby="title desc">
<title id="title">When calls become final, and when they are polled</title>
<desc id="desc">DESC</desc>
<style>
text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 } .small { font-size: 12px; fill: #57606a }
.ground { fill: #ffffff } .curve { fill: #54aeff; fill-opacity: .35; stroke: #0969da; stroke-width: 1.5 }
.line { stroke: #d0d7de } .backoff { fill: #8c959f } .learned { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .ground { fill: #0d1117 }
.curve { fill: #1f6feb; stroke: #58a6ff } .line { stroke: #3d444d } .backoff { fill: #9198a1 } .learned { fill: #3fb950 }
}
</style>
<rect class="ground" width="780" height="440" rx="6"/>
"##;

fn x(age: f64) -> f64 {
    AXIS.0 + (age / SHOWN.0).ln() / (SHOWN.1 / SHOWN.0).ln() * (AXIS.1 - AXIS.0)
}

/// Draws these calls.
pub fn draw(pins: &[Drawn], settings: &Settings) {
    let backoff_ages: Vec<f64> =
        poll_ages(DEADLINE, |age| settings.backoff().interval_at(age)).map(|age| age.as_secs_f64()).collect();
    let mut rows = vec![("backoff", "backoff", mean(&run(pins, settings).fates), backoff_ages)];
    for (name, aim) in [("\u{201c}sooner\u{201d}", Aim::Sooner), ("\u{201c}fewer\u{201d}", Aim::Fewer)] {
        let run = run(pins, &settings.adapt(aim));
        let learner = run.learner.expect("it learns");
        let plan = learner.plan().expect("a plan is in force");
        let last = &run.fates[pins.len() / 4..];
        rows.push((name, "learned", mean(last), ages(plan, Channel::Call).expect("of calls")));
    }
    let told: Vec<String> = rows
        .iter()
        .map(|(name, _, cost, ages)| {
            let first: Vec<String> = ages.iter().take(4).map(|age| format!("{age:.0} s")).collect();
            format!("{name} polls at {} and so on, {:.1} times on average.", first.join(", "), cost.polls)
        })
        .collect();
    let desc = format!(
        "A curve over the age of a call, from one second to one hour: hardly any call becomes final before 10 seconds, most \
         do between 20 seconds and a minute and a half. Below it, the ages of the polls. {}",
        told.join(" ")
    );
    let mut svg = HEAD.replace("DESC", &desc);
    let _ = writeln!(
        svg,
        r#"<text class="title" x="24" y="34">When calls become final, and when they are polled</text>"#
    );
    let _ = writeln!(
        svg,
        r#"<text class="small" x="24" y="56">Curve: how likely a call that is not final yet becomes final in the next second. Dots: polls. Simulated.</text>"#
    );
    svg += &curve_of(pins);
    for (n, (name, class, cost, ages)) in rows.iter().enumerate() {
        let y = ROW + ROWS * n as f64;
        let _ = writeln!(svg, r#"<line class="line" x1="{}" x2="{}" y1="{y}" y2="{y}"/>"#, AXIS.0, AXIS.1);
        let _ = writeln!(svg, r#"<text x="24" y="{}">{name}</text>"#, y - 2.0);
        let _ = writeln!(
            svg,
            r#"<text class="small" x="24" y="{}">{:.1} polls, {:.1} s late</text>"#,
            y + 14.0,
            cost.polls,
            cost.delay
        );
        for age in ages.iter().filter(|age| (SHOWN.0..=SHOWN.1).contains(*age)) {
            let _ = writeln!(svg, r#"<circle class="{class}" cx="{:.1}" cy="{y}" r="4"/>"#, x(*age));
        }
    }
    let bottom = ROW + ROWS * 2.0 + 34.0;
    for (age, words) in [
        (1.0, "1 s"),
        (3.0, "3 s"),
        (10.0, "10 s"),
        (30.0, "30 s"),
        (60.0, "1 min"),
        (300.0, "5 min"),
        (1200.0, "20 min"),
        (3600.0, "1 h"),
    ] {
        let x = x(age);
        let _ =
            writeln!(svg, r#"<line class="line" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}"/>"#, GROUND, bottom);
        let _ = writeln!(
            svg,
            r#"<text class="small" text-anchor="middle" x="{x:.1}" y="{}">{words}</text>"#,
            bottom + 18.0
        );
    }
    let _ = writeln!(
        svg,
        r#"<text class="small" text-anchor="middle" x="{}" y="{}">age of the PIN, since it was submitted (each step to the right is a multiple)</text>"#,
        (AXIS.0 + AXIS.1) / 2.0,
        bottom + 40.0
    );
    svg += "</svg>\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schedule.svg");
    match std::fs::write(&path, svg) {
        Ok(()) => println!("# the picture: {}", path.display()),
        Err(error) => eprintln!("{} can't be written: {error}", path.display()),
    }
}

/// The hazard of these lives over the logarithm of age: a step for each bin.
fn curve_of(pins: &[Drawn]) -> String {
    let shown = |bin| bins::bounds(bin).1 > SHOWN.0 && bins::bounds(bin).0 < SHOWN.1;
    let rate = |bin| {
        let (begins, ends) = bins::bounds(bin);
        let lives = || pins.iter().map(|pin| pin.final_at);
        let exposure: f64 = lives().map(|life| (life.min(ends) - begins).max(0.0)).sum();
        lives().filter(|life| (begins..ends).contains(life)).count() as f64 / exposure.max(1.0)
    };
    let rates: Vec<(usize, f64)> =
        (0..bins::BINS).filter(|bin| shown(*bin)).map(|bin| (bin, rate(bin))).collect();
    let highest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let mut path = format!("M{:.1} {GROUND}", AXIS.0);
    for (bin, rate) in rates {
        let (begins, ends) = bins::bounds(bin);
        let y = GROUND - HIGHEST * rate / highest;
        let _ = write!(path, "L{:.1} {y:.1}L{:.1} {y:.1}", x(begins.max(SHOWN.0)), x(ends.min(SHOWN.1)));
    }
    let _ = write!(path, "L{:.1} {GROUND}Z", AXIS.1);
    format!("<path class=\"curve\" d=\"{path}\"/>\n")
}
