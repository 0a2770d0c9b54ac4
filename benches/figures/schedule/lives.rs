//! The lives of simulated PINs: when each becomes final, drawn as in the study that the method of `schedule.adapt` comes
//! from.
//!
//! An SMS or a call becomes final after a log-normal time; a few are slow, with a median of an hour. Each life is one of
//! the simulator's ([`Life::single`]). Its times are drawn here and not by the simulator: with resends and many endings,
//! the simulator's distribution has no simple optimum to compare with. Pure, and seeded.

use std::time::Duration;

use fastrand::Rng;
use pinwatch::outcome::{CallStatus, SmsStatus};
use pinwatch::schedule::learn::Channel;
use pinwatch::simulate::{Known, Life};

/// No PIN becomes final later, in seconds of age: a little before its deadline of 48 hours.
const LATEST: f64 = 172_000.0;

/// The share of PINs that never become final, in the population that has some.
const UNENDING: f64 = 0.02;

/// What PINs are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Population {
    /// SMS: half become final within 4 s, 5 % are slow.
    Sms,
    /// SMS over all kinds of networks: half become final within 6 s, 10 % are slow.
    Mixed,
    /// Calls: half become final within 35 s, 5 % are slow.
    Calls,
    /// As many SMS as calls.
    Both,
    /// SMS that take twice as long from the middle on.
    Slower,
    /// SMS that take twice as long until the middle.
    Faster,
    /// SMS, of which 2 % never become final.
    Unending,
}

impl Population {
    pub const ALL: [Self; 7] =
        [Self::Sms, Self::Mixed, Self::Calls, Self::Both, Self::Slower, Self::Faster, Self::Unending];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sms => "SMS, fast",
            Self::Mixed => "SMS, mixed",
            Self::Calls => "calls",
            Self::Both => "SMS and calls",
            Self::Slower => "twice as slow midway",
            Self::Faster => "twice as fast midway",
            Self::Unending => "SMS, 2 % never final",
        }
    }

    /// Whether its second half is not like its first.
    pub fn drifts(self) -> bool {
        matches!(self, Self::Slower | Self::Faster)
    }

    /// So many PINs, in the order in which they are submitted.
    pub fn draw(self, count: usize, seed: u64) -> Vec<Drawn> {
        let mut rng = Rng::with_seed(seed);
        (0..count).map(|n| self.one(2 * n >= count, &mut rng)).collect()
    }

    /// So many PINs as they are after the middle.
    pub fn draw_late(self, count: usize, seed: u64) -> Vec<Drawn> {
        let mut rng = Rng::with_seed(seed);
        (0..count).map(|_| self.one(true, &mut rng)).collect()
    }

    fn one(self, is_late: bool, rng: &mut Rng) -> Drawn {
        match self {
            Self::Sms => Drawn::sms(4.0, 1.0, 0.05, rng),
            Self::Mixed => Drawn::sms(6.0, 1.5, 0.10, rng),
            Self::Calls => Drawn::call(rng),
            Self::Both if rng.bool() => Drawn::call(rng),
            Self::Both => Drawn::sms(4.0, 1.0, 0.05, rng),
            Self::Slower | Self::Faster => {
                let median = if is_late == (self == Self::Slower) { 8.0 } else { 4.0 };
                Drawn::sms(median, 1.0, 0.05, rng)
            }
            Self::Unending if rng.f64() < UNENDING => {
                Drawn { channel: Channel::Sms, final_at: f64::INFINITY }
            }
            Self::Unending => Drawn::sms(4.0, 1.0, 0.05, rng),
        }
    }
}

/// One PIN.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    pub channel: Channel,
    /// The age, in seconds, at which it becomes final; infinite if it never does.
    pub final_at: f64,
}

impl Drawn {
    fn sms(median: f64, sigma: f64, slow: f64, rng: &mut Rng) -> Self {
        Self { channel: Channel::Sms, final_at: time(median, sigma, slow, rng) }
    }

    fn call(rng: &mut Rng) -> Self {
        Self { channel: Channel::Call, final_at: time(35.0, 0.5, 0.05, rng) }
    }

    /// The statuses that the API reports for it.
    pub fn life(self) -> Life {
        let waits = Duration::try_from_secs_f64(self.final_at).ok();
        let (open, end) = match self.channel {
            Channel::Call => (Known::Call(CallStatus::Processing), Known::Call(CallStatus::Processed)),
            Channel::Sms | Channel::Unknown => {
                (Known::Sms(SmsStatus::WaitingDelivery), Known::Sms(SmsStatus::Delivered))
            }
        };
        Life::single(open, waits, end)
    }
}

/// A log-normal time in seconds; this share of all times is slow.
fn time(median: f64, sigma: f64, slow: f64, rng: &mut Rng) -> f64 {
    let (median, sigma) = if rng.f64() < slow { (3600.0, 1.5) } else { (median, sigma) };
    // By Box and Muller; `1.0 - f64()` is never 0, whose logarithm would be infinite.
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    (median * (sigma * normal).exp()).min(LATEST)
}
