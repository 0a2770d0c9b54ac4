//! A limit on log storms: one place in the code says only so much in a time.
//!
//! Promises that the first messages of a storm are logged, that it is said when others are left out, and how
//! many were. Debug messages are not limited: who asks for them wants them all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Messages of one place in one [`WINDOW`].
const MOST: u32 = 50;

const WINDOW: Duration = Duration::from_secs(30);

/// Counts messages by the place in the code that they come from.
#[derive(Default)]
pub struct Limit {
    places: Mutex<HashMap<Identifier, Window>>,
}

struct Window {
    began: Instant,
    said: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Say,
    /// Say it, and that so many were left out before.
    SayAfter(u32),
    /// The last one for a while.
    SayLast,
    LeaveOut,
}

impl Limit {
    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let window = places.entry(place).or_insert(Window { began: now, said: 0 });
        if now.duration_since(window.began) >= WINDOW {
            let left_out = window.said.saturating_sub(MOST);
            *window = Window { began: now, said: 1 };
            return if left_out > 0 { Verdict::SayAfter(left_out) } else { Verdict::Say };
        }
        window.said = window.said.saturating_add(1);
        match window.said {
            said if said < MOST => Verdict::Say,
            MOST => Verdict::SayLast,
            _ => Verdict::LeaveOut,
        }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Our own two messages are at most as many as the windows.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let verdict = self.judge(metadata.callsite(), Instant::now());
        let place = format_args!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
        match verdict {
            Verdict::Say => {}
            Verdict::SayAfter(left_out) => {
                warn!(left_out, %place, "messages like the next one were left out")
            }
            Verdict::SayLast => {
                warn!(%place, seconds = WINDOW.as_secs(), "many messages like the next one: more are left out for a while");
            }
            Verdict::LeaveOut => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;

    use super::*;

    fn place() -> Identifier {
        struct Place;
        impl Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("only its identity is used")
            }
        }
        static PLACE: Place = Place;
        tracing::callsite::Identifier(&PLACE)
    }

    #[test]
    fn a_storm_is_cut_and_what_was_left_out_is_counted() {
        let limit = Limit::default();
        let now = Instant::now();
        for _ in 1..MOST {
            assert_eq!(limit.judge(place(), now), Verdict::Say);
        }
        assert_eq!(limit.judge(place(), now), Verdict::SayLast);
        for _ in 0..7 {
            assert_eq!(limit.judge(place(), now), Verdict::LeaveOut);
        }
        assert_eq!(limit.judge(place(), now + WINDOW), Verdict::SayAfter(7));
        assert_eq!(limit.judge(place(), now + WINDOW), Verdict::Say);
        assert_eq!(limit.judge(place(), now + 2 * WINDOW), Verdict::Say);
    }
}
