//! The command line of `pinwatch simulate`.
//!
//! Its defaults are those of [`Settings`]; knows nothing of the server but them.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use humantime::parse_duration;

use super::faults::{FaultRate, Faults, InvalidFault};
use super::life::LifeSettings;
use super::script;
use super::server::Settings;

/// A stand-in for the API: answers for any PIN ID, and breaks its answers when asked to.
///
/// Each PIN lives its life from the first time that it is asked for: waiting, mostly delivered after some
/// seconds, sometimes failed, resent or never final. The same seed makes the same lives and faults. The first line on
/// standard output is the base URL; SIGINT or SIGTERM ends it and prints what it has answered.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = after_help())]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,

    /// The API key that is taken, as "Authorization: App KEY".
    #[arg(long, default_value = "demo-key")]
    pub key: String,

    /// User name and password that are taken too, as "Authorization: Basic …".
    #[arg(long, value_name = "USER:PASSWORD")]
    pub basic: Option<String>,

    /// The path of a request.
    #[arg(long, default_value = "/2fa/1/pin/{pinId}/status")]
    pub path: String,

    /// PINs whose age is remembered (some 30 bytes each); one past that is as old as the simulator.
    #[arg(long, value_name = "COUNT", default_value_t = 4_000_000)]
    pub max_pins: usize,

    /// Same seed, same lives and faults.
    #[arg(long, default_value_t = 0, help_heading = "Lives")]
    pub seed: u64,

    /// Half of the deliveries are final after this time.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = parse_duration, help_heading = "Lives")]
    pub median: Duration,

    /// How far apart delivery times are (log-normal): 0 all the same, 1.2 one in a hundred takes 16 medians.
    #[arg(long, default_value_t = 1.2, value_parser = sigma, help_heading = "Lives")]
    pub sigma: f64,

    /// Share of calls among first deliveries, 0 to 1; resends are calls three times as often.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, help_heading = "Lives")]
    pub call_share: f64,

    /// Share of failed or lingering deliveries that are followed by a resend.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share, help_heading = "Lives")]
    pub resend_share: f64,

    /// Share of PINs whose answer is an empty array at first.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share, help_heading = "Lives")]
    pub empty_share: f64,

    /// Share of deliveries whose finalStatus is a string, "true", not a boolean.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share, help_heading = "Lives")]
    pub text_share: f64,

    /// Share of calls without finalStatus.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share, help_heading = "Lives")]
    pub absent_share: f64,

    /// Share of deliveries that end with a status that isn't documented.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Lives")]
    pub unknown_share: f64,

    /// 404 for a PIN until this long after it was first asked for.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Lives")]
    pub known_after: Duration,

    /// Break this share of the answers: KIND is an HTTP status from 400 to 599, malformed, html, empty, cut,
    /// huge, slow, stall or close; RATE is 0 to 1. May be repeated.
    #[arg(long, value_name = "KIND=RATE", help_heading = "Faults")]
    pub fault: Vec<FaultRate>,

    /// Requests in a second for all clients together; above it, 429.
    #[arg(long, value_name = "COUNT", help_heading = "Faults")]
    pub rate_limit: Option<NonZeroU32>,

    /// Wait this long before every answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Faults")]
    pub latency: Duration,

    /// Wait up to this much longer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Faults")]
    pub jitter: Duration,

    /// The time between two bytes of a slow answer.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration, help_heading = "Faults")]
    pub slow_every: Duration,
}

impl SimulateArgs {
    /// The same, for [`Simulator::start`](super::Simulator::start).
    ///
    /// # Errors
    /// If the rates of all faults are more than 1 together.
    pub fn settings(self) -> Result<Settings, InvalidFault> {
        Ok(Settings {
            life: LifeSettings {
                seed: self.seed,
                median: self.median,
                sigma: self.sigma,
                call_share: self.call_share,
                resend_share: self.resend_share,
                empty_share: self.empty_share,
                text_share: self.text_share,
                absent_share: self.absent_share,
                unknown_share: self.unknown_share,
            },
            faults: Faults::new(self.fault)?,
            key: self.key,
            basic: self.basic,
            path: self.path,
            known_after: self.known_after,
            rate_limit: self.rate_limit,
            latency: self.latency,
            jitter: self.jitter,
            slow_every: self.slow_every,
            max_pins: self.max_pins,
        })
    }
}

fn after_help() -> String {
    format!(
        "PIN IDs that say themselves what happens:\n{}\n\n\
         Examples:\n  \
           pinwatch simulate\n  \
           pinwatch simulate --median 500ms --seed 7\n  \
           pinwatch simulate --fault 503=0.05 --fault close=0.01 --latency 20ms\n  \
           pinwatch simulate --rate-limit 100 --known-after 2s\n  \
           curl -H 'Authorization: App demo-key' \\\n    \
             http://127.0.0.1:8085/2fa/1/pin/sim-5s-1/status",
        script::help()
    )
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 to 1".into())
}

fn sigma(text: &str) -> Result<f64, String> {
    let sigma = text.parse().ok().filter(|sigma| (0.0..=10.0).contains(sigma));
    sigma.ok_or_else(|| "sigma is a number from 0 to 10".into())
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parse(args: &[&str]) -> Result<SimulateArgs, clap::Error> {
        let command = SimulateArgs::augment_args(Command::new("simulate").no_binary_name(true));
        SimulateArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn without_arguments_the_settings_are_their_defaults() {
        let settings = parse(&[]).unwrap().settings().unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_told() {
        for args in [["--call-share", "1.5"], ["--sigma", "NaN"], ["--fault", "503"], ["--rate-limit", "0"]] {
            assert!(parse(&args).unwrap_err().to_string().contains(args[0]), "{args:?}");
        }
        let sum = parse(&["--fault", "503=0.6", "--fault", "cut=0.6"]).unwrap();
        assert_eq!(sum.settings().unwrap_err(), InvalidFault::Sum);
    }

    #[test]
    fn help_tells_of_scripted_pins_and_shows_examples() {
        let help = SimulateArgs::augment_args(Command::new("simulate")).render_long_help().to_string();
        assert!(help.contains("sim-404-") && help.contains("pinwatch simulate --fault"), "{help}");
    }
}
