//! The life of a simulated PIN: what the API reports about it at each age.
//!
//! Pure: a life is a function of the seed, the PIN ID and the settings, so two processes answer alike. Guarantees
//! that deliveries are only ever added, that a final delivery never changes, and that a PIN whose deliveries are all
//! final gets no further ones: a resend begins at the moment when the delivery before it fails, or while that one
//! still waits. Must not know clocks, HTTP or JSON.

use std::time::Duration;

use fastrand::Rng;

use crate::outcome::{CallStatus, SmsStatus, Status};

/// The longest time in a life: the vendor's delivery reports take up to 48 hours.
pub const LONGEST: Duration = Duration::from_secs(48 * 3600);

/// The most deliveries of one PIN.
pub const MAX_DELIVERIES: usize = 3;

/// A status that the vendor does not document, as a newer API may introduce.
pub const UNDOCUMENTED: &str = "MESSAGE_READ";

/// The share of deliveries followed by a resend, among those that fail or wait for some medians.
const RESENT: f64 = 0.5;

/// The share of deliveries whose `finalStatus` is a JSON string instead of a boolean.
const AS_TEXT: f64 = 0.05;

/// The share of calls whose answer has no `finalStatus`.
const ABSENT: f64 = 0.2;

// The parameters of all lives. A share is a probability from 0 to 1. (A doc comment would become that of the command.)
#[derive(Debug, Clone, clap::Args)]
pub struct LifeSettings {
    /// The same seed produces the same lives and faults.
    #[arg(long, default_value_t = 0, help_heading = "Lives")]
    pub seed: u64,

    /// Half of the deliveries are final after this time.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = humantime::parse_duration, help_heading = "Lives")]
    pub median: Duration,

    /// The sigma of the log-normal distribution of those times. With 0 all are equal; with 1.2 one in a hundred takes
    /// 16 medians.
    #[arg(skip = Self::default().sigma)]
    pub sigma: f64,

    /// The share of first deliveries that are calls; for resends it is three times as high.
    #[arg(skip = Self::default().call_share)]
    pub call_share: f64,

    /// The share of PINs whose answer is an empty array during the first moments.
    #[arg(skip = Self::default().empty_share)]
    pub empty_share: f64,

    /// The share of deliveries that end with [`UNDOCUMENTED`].
    #[arg(skip = Self::default().unknown_share)]
    pub unknown_share: f64,
}

impl Default for LifeSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            median: Duration::from_secs(4),
            sigma: 1.2,
            call_share: 0.1,
            empty_share: 0.05,
            unknown_share: 0.0,
        }
    }
}

/// A status that is small enough to be `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Sms(SmsStatus),
    Call(CallStatus),
    /// [`UNDOCUMENTED`]
    Undocumented,
}

impl Known {
    /// Returns the same status as `outcome` names it.
    pub fn status(self) -> Status {
        match self {
            Self::Sms(sms) => Status::Sms(sms),
            Self::Call(call) => Status::Call(call),
            Self::Undocumented => Status::Unknown(UNDOCUMENTED.into()),
        }
    }

    /// Returns the documented status of that name, or [`Known::Undocumented`] for [`UNDOCUMENTED`].
    pub fn from_wire(text: &str) -> Option<Self> {
        match Status::from_wire(text) {
            Status::Sms(sms) => Some(Self::Sms(sms)),
            Status::Call(call) => Some(Self::Call(call)),
            Status::Unknown(_) | Status::Other { .. } => (text == UNDOCUMENTED).then_some(Self::Undocumented),
        }
    }

    /// Returns whether the simulated API marks it final, according to the vendor's table.
    pub fn is_final(self) -> bool {
        self == Self::Undocumented || self.status().is_final_by_table()
    }
}

/// How an answer writes `finalStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalForm {
    /// `true`
    Bool,
    /// `"true"`
    Text,
    /// Omitted.
    Absent,
}

/// A delivery as the API reports it at some age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    pub status: Known,
    pub form: FinalForm,
}

/// A delivery from its beginning to its end. Times are ages of the PIN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Course {
    begins: Duration,
    /// `None` means never.
    settles: Option<Duration>,
    open: Known,
    end: Known,
    form: FinalForm,
}

/// A PIN's life.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    courses: [Option<Course>; MAX_DELIVERIES],
}

impl Life {
    /// Returns the life of this PIN ID.
    pub fn of(settings: &LifeSettings, pin: &str) -> Self {
        let mut rng = Rng::with_seed(stable_hash(settings.seed, pin.as_bytes()));
        let mut courses = [None; MAX_DELIVERIES];
        let mut begins = Duration::ZERO;
        if rng.f64() < settings.empty_share {
            begins = scaled(settings.median, rng.f64());
        }
        for (resends, slot) in courses.iter_mut().enumerate() {
            let course = Course::draw(settings, begins, resends, &mut rng);
            *slot = Some(course);
            let patience = begins + scaled(settings.median, 4.0 + 4.0 * rng.f64());
            let wanted = rng.f64() < RESENT;
            begins = match course.settles {
                // A user who got the PIN, or may have got it, does not request another.
                Some(settles) if settles <= patience && course.end.status().delivered() != Some(false) => {
                    break;
                }
                Some(settles) => settles.min(patience),
                None => patience,
            };
            if !wanted {
                break;
            }
        }
        Self { courses }
    }

    /// Returns a life of one delivery that has the status `open` for the time `waits` (`None`: forever), then the
    /// status `end`.
    pub fn single(open: Known, waits: Option<Duration>, end: Known) -> Self {
        let course = Course { begins: Duration::ZERO, settles: waits, open, end, form: FinalForm::Bool };
        Self { courses: [Some(course), None, None] }
    }

    /// Returns the life of a PIN for which the API never reports a delivery.
    pub fn empty() -> Self {
        Self { courses: [None; MAX_DELIVERIES] }
    }

    /// Returns the deliveries that the API reports at this age, in the order in which they were sent.
    pub fn at(&self, age: Duration) -> impl Iterator<Item = Reported> {
        self.courses.iter().flatten().filter(move |course| course.begins <= age).map(move |course| {
            let settled = course.settles.is_some_and(|settles| settles <= age);
            Reported { status: if settled { course.end } else { course.open }, form: course.form }
        })
    }

    /// Returns the age from which on every delivery is final and nothing changes; `None` if that never happens.
    pub fn settles(&self) -> Option<Duration> {
        let mut last = None;
        for course in self.courses.iter().flatten() {
            last = last.max(Some(course.settles?));
        }
        last
    }
}

impl Course {
    fn draw(settings: &LifeSettings, begins: Duration, resends: usize, rng: &mut Rng) -> Self {
        let call_share = settings.call_share * if resends == 0 { 1.0 } else { 3.0 };
        let call = rng.f64() < call_share;
        let end = if call { pick(CALL_ENDS, rng) } else { pick(SMS_ENDS, rng) };
        let takes = log_normal(settings, rng);
        let unknown = rng.f64() < settings.unknown_share;
        let form = rng.f64();

        let waiting =
            if call { Known::Call(CallStatus::Processing) } else { Known::Sms(SmsStatus::WaitingDelivery) };
        let form = if call && form < ABSENT {
            FinalForm::Absent
        } else if 1.0 - form <= AS_TEXT {
            FinalForm::Text
        } else {
            FinalForm::Bool
        };
        if unknown {
            // A reader has no table entry for this status, so `finalStatus` is always present.
            let form = if form == FinalForm::Absent { FinalForm::Bool } else { form };
            let settles = Some(begins + takes);
            return Self { begins, settles, open: waiting, end: Known::Undocumented, form };
        }
        let status = end.status;
        if status.is_final() {
            let settles = Some(begins + scaled(takes, end.pace));
            Self { begins, settles, open: waiting, end: status, form }
        } else {
            Self { begins, settles: None, open: status, end: status, form }
        }
    }
}

/// A possible end of a delivery.
struct End {
    status: Known,
    /// Parts of a thousand.
    weight: u32,
    /// Multiplies the drawn delivery time: a refusal comes at once, an expiry takes long.
    pace: f64,
}

const fn sms(status: SmsStatus, weight: u32, pace: f64) -> End {
    End { status: Known::Sms(status), weight, pace }
}

const fn call(status: CallStatus, weight: u32, pace: f64) -> End {
    End { status: Known::Call(status), weight, pace }
}

/// The weights are not measured. Most deliveries arrive, and every status occurs among some thousand PINs.
const SMS_ENDS: &[End] = &[
    sms(SmsStatus::Delivered, 880, 1.0),
    sms(SmsStatus::NotDelivered, 40, 2.0),
    sms(SmsStatus::Expired, 15, 10.0),
    sms(SmsStatus::DeliveryUnknown, 15, 10.0),
    sms(SmsStatus::Accepted, 10, 0.1),
    sms(SmsStatus::Rejected, 6, 0.1),
    sms(SmsStatus::InvalidDestinationAddress, 6, 0.1),
    sms(SmsStatus::NotSent, 6, 1.0),
    sms(SmsStatus::NetworkNotAllowed, 4, 0.1),
    sms(SmsStatus::NetworkNotAvailable, 4, 0.5),
    sms(SmsStatus::NotEnoughCredits, 4, 0.0),
    sms(SmsStatus::WaitingDelivery, 4, 1.0),
    sms(SmsStatus::InvalidSourceAddress, 3, 0.0),
    sms(SmsStatus::SystemError, 3, 0.5),
];

/// As for [`SMS_ENDS`].
const CALL_ENDS: &[End] = &[
    call(CallStatus::Processed, 600, 3.0),
    call(CallStatus::AnsweredMachine, 120, 5.0),
    call(CallStatus::NoAnswer, 120, 8.0),
    call(CallStatus::UserBusy, 80, 2.0),
    call(CallStatus::Error, 20, 0.5),
    call(CallStatus::NetworkNotAvailable, 15, 0.5),
    call(CallStatus::RouteNotAvailable, 10, 0.1),
    call(CallStatus::NotEnoughCredits, 10, 0.0),
    call(CallStatus::BadRequest, 10, 0.0),
    call(CallStatus::Undefined, 10, 1.0),
    call(CallStatus::Processing, 5, 1.0),
];

fn pick(ends: &'static [End], rng: &mut Rng) -> &'static End {
    let mut left = rng.u32(..ends.iter().map(|end| end.weight).sum::<u32>());
    for end in ends {
        match left.checked_sub(end.weight) {
            Some(rest) => left = rest,
            None => return end,
        }
    }
    &ends[0]
}

/// Draws a log-normal time by the Box-Muller method.
fn log_normal(settings: &LifeSettings, rng: &mut Rng) -> Duration {
    // `1.0 - f64()` is never 0, whose logarithm would be infinite.
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    scaled(settings.median, (settings.sigma * normal).exp())
}

/// Returns `time` times `factor`, at most [`LONGEST`], in whole microseconds. The rounding removes the last bits of a
/// logarithm, which differ between machines.
pub fn scaled(time: Duration, factor: f64) -> Duration {
    let scaled = Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(LONGEST).min(LONGEST);
    scaled - Duration::from_nanos(u64::from(scaled.subsec_nanos() % 1000))
}

/// A hash that is the same in every process and version: FNV-1a, then the finalizer of splitmix64, so that IDs that
/// differ in one character have unrelated lives.
pub fn stable_hash(seed: u64, bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64 ^ mixed(seed), |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mixed(fnv)
}

fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
