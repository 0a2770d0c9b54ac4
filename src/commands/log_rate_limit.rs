//! Limits the log's rate: each place in the code logs a limited number of messages per interval.
//!
//! Promises that the first messages of a place are logged, and that the log reports how many others were left out. Debug messages
//! are not limited: a user who enables them wants them all. Needed because the unit must disable journald's own limit
//! (LogRateLimitIntervalSec=0), which would also drop outcomes on standard output.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The most messages of one place in the code per [`WINDOW`].
const MOST: u32 = 50;

const WINDOW: Duration = Duration::from_secs(30);

/// Counts messages by the place in the code that logs them.
#[derive(Default)]
pub struct RateLimit {
    places: Mutex<HashMap<Identifier, Window>>,
}

struct Window {
    began: Instant,
    logged: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// Log it, and first report how many messages before it were left out.
    LogAfter(u32),
    /// Log it, and report that further messages of this place are left out for a while.
    LogLast,
    LeaveOut,
}

impl RateLimit {
    fn judge(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let window = places.entry(place).or_insert(Window { began: now, logged: 0 });
        if now.duration_since(window.began) >= WINDOW {
            let left_out = window.logged.saturating_sub(MOST);
            *window = Window { began: now, logged: 1 };
            return if left_out > 0 { Verdict::LogAfter(left_out) } else { Verdict::Log };
        }
        window.logged = window.logged.saturating_add(1);
        match window.logged {
            logged if logged < MOST => Verdict::Log,
            MOST => Verdict::LogLast,
            _ => Verdict::LeaveOut,
        }
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // This module's own two messages come at most once per window.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let verdict = self.judge(metadata.callsite(), Instant::now());
        let place = format_args!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
        match verdict {
            Verdict::Log => {}
            Verdict::LogAfter(left_out) => {
                warn!(left_out, %place, "messages like the next one were left out")
            }
            Verdict::LogLast => {
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
    fn messages_past_the_limit_are_left_out_and_counted() {
        let limit = RateLimit::default();
        let now = Instant::now();
        for _ in 1..MOST {
            assert_eq!(limit.judge(place(), now), Verdict::Log);
        }
        assert_eq!(limit.judge(place(), now), Verdict::LogLast);
        for _ in 0..7 {
            assert_eq!(limit.judge(place(), now), Verdict::LeaveOut);
        }
        assert_eq!(limit.judge(place(), now + WINDOW), Verdict::LogAfter(7));
        assert_eq!(limit.judge(place(), now + WINDOW), Verdict::Log);
        assert_eq!(limit.judge(place(), now + 2 * WINDOW), Verdict::Log);
    }
}
