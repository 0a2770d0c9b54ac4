//! What `top` knows and how the user wants it shown. Pure: changed by updates and keys.

use std::collections::VecDeque;
use std::path::Path;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::protocol::show::Pin;
use crate::protocol::stats::{Sink, Stats};

/// The most PINs that are requested.
pub const PINS: u32 = 100;

/// The points that are kept for the sparklines: one a second, more than a wide terminal has columns.
const POINTS: usize = 512;

/// What the daemon said.
pub enum Update {
    Stats(Box<Known>),
    /// The first PINs in flight, and whether these are all.
    Pins {
        pins: Vec<Pin>,
        is_all: bool,
        at: Timestamp,
    },
    /// There is no connection, and why.
    Lost(String),
}

/// The statistics at one moment.
pub struct Known {
    pub stats: Stats,
    pub sinks: Vec<(String, Sink)>,
    pub at: Instant,
}

/// One point of the sparklines. Rates are per second, and `None` after a gap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub in_flight: f64,
    pub polls: Option<f64>,
    pub ended: Option<f64>,
}

/// The order of the PINs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Age,
    Polls,
    NextPoll,
}

impl Sort {
    pub fn next(self) -> Self {
        match self {
            Self::Age => Self::Polls,
            Self::Polls => Self::NextPoll,
            Self::NextPoll => Self::Age,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "oldest first",
            Self::Polls => "most polls first",
            Self::NextPoll => "next poll first",
        }
    }
}

/// The PINs as they were at one moment.
pub struct Pins {
    pub pins: Vec<Pin>,
    pub is_all: bool,
    pub at: Timestamp,
}

pub struct State {
    pub socket: String,
    pub has_color: bool,
    pub known: Option<Known>,
    pub points: VecDeque<Point>,
    pub pins: Option<Pins>,
    /// When the daemon last answered.
    pub answered_at: Option<Timestamp>,
    /// Since when there is no connection, and why.
    pub lost: Option<(Timestamp, String)>,
    pub sort: Sort,
    pub filter: String,
    /// Whether keys are letters of the filter.
    pub is_typing: bool,
    pub is_paused: bool,
    pub shows_help: bool,
}

impl State {
    pub fn new(socket: &Path, has_color: bool) -> Self {
        Self {
            socket: socket.display().to_string(),
            has_color,
            known: None,
            points: VecDeque::new(),
            pins: None,
            answered_at: None,
            lost: None,
            sort: Sort::Age,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            shows_help: false,
        }
    }

    /// Applies an update now. While paused, numbers stay as they are.
    pub fn take(&mut self, update: Update) {
        self.take_at(update, Timestamp::now());
    }

    /// As [`State::take`], at this time.
    pub fn take_at(&mut self, update: Update, now: Timestamp) {
        if let Update::Lost(why) = update {
            self.lost.get_or_insert((now, why));
            return;
        }
        let was_lost = self.lost.take().is_some();
        self.answered_at = Some(now);
        match update {
            Update::Stats(known) if !self.is_paused => self.measure(*known, was_lost),
            Update::Pins { pins, is_all, at } => self.pins = Some(Pins { pins, is_all, at }),
            Update::Stats(_) | Update::Lost(_) => {}
        }
    }

    pub fn newest(&self) -> Option<&Point> {
        self.points.back()
    }

    /// The sinks that match the filter, those in trouble first, then those that are furthest behind.
    pub fn sinks(&self) -> Vec<&(String, Sink)> {
        let all = self.known.iter().flat_map(|known| &known.sinks);
        let mut sinks: Vec<_> = all.filter(|(name, _)| self.lets_through([name.as_str()])).collect();
        sinks.sort_by_key(|(_, sink)| std::cmp::Reverse((sink.closed, sink.trouble.is_some(), sink.behind)));
        sinks
    }

    /// The PINs that match the filter, in the order that the user wants.
    pub fn pins(&self) -> Vec<&Pin> {
        let all = self.pins.iter().flat_map(|pins| &pins.pins);
        let mut pins: Vec<_> = all.filter(|pin| self.lets_through(texts(pin))).collect();
        match self.sort {
            Sort::Age => pins.sort_by(|a, b| a.submitted_at.cmp(&b.submitted_at)),
            Sort::Polls => pins.sort_by_key(|pin| std::cmp::Reverse(pin.polls.flatten())),
            // One without a time is being polled now, or by another node.
            Sort::NextPoll => pins.sort_by(|a, b| a.next_poll_at.cmp(&b.next_poll_at)),
        }
        pins
    }

    fn lets_through<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.into_iter().any(|text| text.to_lowercase().contains(&wanted))
    }

    /// Compares the numbers with those before. A restarted daemon counts from zero, so its numbers are not compared.
    fn measure(&mut self, known: Known, was_lost: bool) {
        let before = self.known.take().filter(|_| !was_lost);
        let rate = |count: fn(&Stats) -> u64| {
            let before = before.as_ref()?;
            let seconds = known.at.duration_since(before.at).as_secs_f64();
            let grown = count(&known.stats).checked_sub(count(&before.stats))?;
            (seconds > 0.0).then(|| grown as f64 / seconds)
        };
        let point = Point {
            in_flight: known.stats.in_flight as f64,
            polls: rate(|stats| stats.polls.total),
            ended: rate(ended),
        };
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
        self.known = Some(known);
    }
}

/// The PINs that ended since the daemon's start.
pub fn ended(stats: &Stats) -> u64 {
    stats.outcomes.values().sum()
}

fn texts(pin: &Pin) -> impl Iterator<Item = &str> {
    let status = pin.last_status.iter().flatten().map(String::as_str);
    std::iter::once(pin.pin_id.as_str()).chain(pin.reference.as_deref()).chain(status)
}
