//! The command line of `pinwatch simulate`, and the settings of a simulator that it gives.
//!
//! Must not know how the server uses a setting.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use humantime::parse_duration;

use super::faults::FaultRate;
use super::life::LifeSettings;
use super::preset::Preset;
use super::script;

/// A stand-in for the API: answers for any PIN ID, and sends faulty answers when asked to.
///
/// Each PIN's life begins when it is first requested: it waits, is mostly delivered after some seconds, and sometimes
/// fails, is resent or never becomes final. The same seed produces the same lives and faults. The first line on
/// standard output is the base URL; SIGINT or SIGTERM ends the simulator, which then prints what it has answered.
#[derive(Debug, Clone, Args)]
#[command(after_help = after_help())]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free port.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub settings: Settings,
}

// No doc comment: clap would take it for that of the command.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The API to stand in for.
    #[arg(long, value_name = "NAME", default_value = "infobip-2fa-pin", value_enum)]
    pub preset: Preset,

    /// The accepted API key, sent as "Authorization: App KEY".
    #[arg(long, default_value = "demo-key")]
    pub key: String,

    /// User name and password that are accepted too, sent as "Authorization: Basic …" [default for APIs without a key:
    /// demo, with the key as its password].
    #[arg(long, value_name = "USER:PASSWORD")]
    pub basic: Option<String>,

    /// The path of a request [default: the API's].
    #[arg(long)]
    pub path: Option<String>,

    /// PINs whose age is remembered (some 30 bytes each); any further PIN is as old as the simulator.
    #[arg(long, value_name = "COUNT", default_value_t = 4_000_000)]
    pub max_pins: usize,

    #[command(flatten)]
    pub life: LifeSettings,

    /// Answer 404 for a PIN until this long after its first request.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Lives")]
    pub known_after: Duration,

    /// Break this share of the answers: KIND is an HTTP status from 400 to 599, malformed, html, empty, cut,
    /// huge, slow, stall or close; RATE is 0 to 1. May be repeated.
    #[arg(long = "fault", value_name = "KIND=RATE", help_heading = "Faults")]
    pub faults: Vec<FaultRate>,

    /// Requests per second of all clients together; the excess gets 429.
    #[arg(long, value_name = "COUNT", help_heading = "Faults")]
    pub rate_limit: Option<NonZeroU32>,

    /// Wait this long before every answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Faults")]
    pub latency: Duration,

    /// Wait up to this much longer, drawn for each answer.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, help_heading = "Faults")]
    pub jitter: Duration,

    /// The time between two bytes of a slow answer.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration, help_heading = "Faults")]
    pub slow_every: Duration,
}

impl Settings {
    /// The path of a request.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.preset.path())
    }

    /// The user name and the password of Basic authentication.
    pub fn user(&self) -> (&str, &str) {
        self.basic.as_deref().and_then(|pair| pair.split_once(':')).unwrap_or(("demo", &self.key))
    }
}

impl Default for Settings {
    /// Those of a command line without arguments.
    fn default() -> Self {
        let command = Self::augment_args(Command::new("simulate").no_binary_name(true));
        let matches = command.get_matches_from([""; 0]);
        // Never an error: each argument has a default or is optional.
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn after_help() -> String {
    format!(
        "PIN IDs that name what happens to them:\n{}\n\n\
         Examples:\n  \
           pinwatch simulate\n  \
           pinwatch simulate --median 500ms --seed 7\n  \
           pinwatch simulate --fault 503=0.05 --fault close=0.01 --latency 20ms\n  \
           pinwatch simulate --preset vonage-verify\n  \
           curl -H 'Authorization: App demo-key' \\\n    \
             http://127.0.0.1:8085/2fa/1/pin/sim-5s-1/status",
        script::help()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<SimulateArgs, clap::Error> {
        let command = SimulateArgs::augment_args(Command::new("simulate").no_binary_name(true));
        SimulateArgs::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn the_default_settings_apply_without_arguments() {
        let life = parse(&[]).unwrap().settings.life;
        assert_eq!(format!("{life:?}"), format!("{:?}", LifeSettings::default()));
    }

    #[test]
    fn an_invalid_argument_is_refused_with_the_name_of_its_flag() {
        for args in [["--median", "4"], ["--fault", "503"], ["--rate-limit", "0"]] {
            assert!(parse(&args).unwrap_err().to_string().contains(args[0]), "{args:?}");
        }
    }

    #[test]
    fn help_lists_scripted_pins_and_shows_examples() {
        let help = SimulateArgs::augment_args(Command::new("simulate")).render_long_help().to_string();
        assert!(help.contains("sim-404-") && help.contains("pinwatch simulate --fault"), "{help}");
        assert!(help.starts_with("A stand-in for the API"), "{help}");
    }
}
