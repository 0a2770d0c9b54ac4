//! Scripted PINs: PIN IDs that name their own life, for tests and trials.
//!
//! `sim-WHAT-anything` has the life that WHAT names, or always gets the answer that it names; every other PIN ID has
//! an ordinary life. Pure. Must not know HTTP, except for the names of faults.

use std::time::Duration;

use super::faults::Fault;
use super::life::{Known, Life, UNDOCUMENTED};
use crate::outcome::{CallStatus, SmsStatus};

/// The beginning of every scripted PIN ID.
pub const PREFIX: &str = "sim-";

/// What a scripted PIN ID requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Script {
    Life(Life),
    /// The same answer to every request.
    Always(Fault),
    /// WHAT is not a known name.
    Unheard,
}

impl Script {
    /// Returns what this PIN ID requests; `None` if it is not a scripted one.
    pub fn of(pin: &str) -> Option<Self> {
        let rest = pin.strip_prefix(PREFIX)?;
        let what = rest.split_once('-').map_or(rest, |(what, _)| what);
        Some(Self::named(what))
    }

    fn named(what: &str) -> Self {
        let waiting = Known::Sms(SmsStatus::WaitingDelivery);
        let delivered = Known::Sms(SmsStatus::Delivered);
        let always = |status| Self::Life(Life::single(status, None, status));
        match what {
            "delivered" => always(delivered),
            "failed" => always(Known::Sms(SmsStatus::NotDelivered)),
            "waiting" => always(waiting),
            "call" => always(Known::Call(CallStatus::Processed)),
            "unknown" => always(Known::Undocumented),
            "none" => Self::Life(Life::empty()),
            _ => {
                // Faults come before durations: "500" is an HTTP status, and "500ms" a time.
                if let Ok(fault) = what.parse() {
                    Self::Always(fault)
                } else if let Some(status) = Known::from_wire(what) {
                    always(status)
                } else if let Some(waits) = duration(what) {
                    Self::Life(Life::single(waiting, Some(waits), delivered))
                } else {
                    Self::Unheard
                }
            }
        }
    }
}

/// Parses a time such as `250ms` or `5s`.
fn duration(text: &str) -> Option<Duration> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| humantime::parse_duration(text).ok())?
}

/// Returns the help text about scripted PIN IDs.
pub fn help() -> String {
    format!(
        "  sim-delivered-…  sim-failed-…  sim-call-…  final at once\n  \
           sim-5s-…  sim-250ms-…                      delivered after that time\n  \
           sim-waiting-…                              never final\n  \
           sim-none-…                                 always an empty array\n  \
           sim-unknown-…                              final: {UNDOCUMENTED}, undocumented\n  \
           sim-MESSAGE_EXPIRED-…                      this status; so each of the API's\n  \
           sim-404-…  sim-500-…  sim-429-…            this HTTP status, 400 to 599\n  \
           sim-cut-…  sim-stall-…                     this fault; so each kind of --fault"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(pin: &str, age: Duration) -> Option<Known> {
        match Script::of(pin) {
            Some(Script::Life(life)) => life.at(age).next().map(|reported| reported.status),
            other => panic!("{pin}: {other:?}"),
        }
    }

    #[test]
    fn an_ordinary_pin_id_has_no_script() {
        for pin in ["9C817C6F8AF3D48F9FE553282AFA2B67", "sim", "SIM-404-1", "x-sim-404-1", ""] {
            assert_eq!(Script::of(pin), None);
        }
    }

    #[test]
    fn every_documented_status_can_be_asked_for() {
        let all = SmsStatus::ALL.iter().copied().map(Known::Sms);
        for status in all.chain(CallStatus::ALL.iter().copied().map(Known::Call)) {
            let pin = format!("sim-{}-1", status.status());
            assert_eq!(first(&pin, Duration::ZERO), Some(status));
        }
    }

    #[test]
    fn a_pin_id_with_a_time_is_delivered_at_that_age() {
        for pin in ["sim-5s-1", "sim-5s", "sim-5000ms-a-b-c"] {
            let last = Duration::from_millis(4999);
            assert_eq!(first(pin, last), Some(Known::Sms(SmsStatus::WaitingDelivery)));
            assert_eq!(first(pin, Duration::from_secs(5)), Some(Known::Sms(SmsStatus::Delivered)));
        }
    }

    #[test]
    fn a_pin_id_with_an_http_status_or_a_fault_always_gets_it() {
        for (pin, fault) in [("sim-404-1", "404"), ("sim-503", "503"), ("sim-stall-x", "stall")] {
            assert_eq!(Script::of(pin), Some(Script::Always(fault.parse().unwrap())));
        }
    }

    #[test]
    fn a_mistyped_script_is_not_treated_as_an_ordinary_pin() {
        for pin in ["sim-deliverd-1", "sim-", "sim-200-1", "sim-99999999999999999999s-1"] {
            assert_eq!(Script::of(pin), Some(Script::Unheard), "{pin}");
        }
    }
}
