//! `pinwatch demo`: shows pinwatch at work for some seconds. It needs nothing and leaves nothing behind.
//!
//! Runs the real daemon as a separate process, with a configuration file, a store and a socket in a temporary folder; only the
//! API is simulated, in this process. Promises to end within [`LIMIT`], and that daemon and folder are gone at the end, also
//! after Ctrl-C (but not after `kill -9`).

mod daemon;
mod summary;

use std::collections::HashSet;
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::daemon::Daemon;
use self::summary::Summary;
use super::cli::DemoArgs;
use super::client::{self, Client, ClientError};
use super::error::CommandError;
use super::exit::Exit;
use super::human::{self, OutcomeRows};
use super::output::{Output, note};
use super::progress::Progress;
use super::stop_signal::stop_signal;
use super::table::{Column, table};
use crate::pin::{InvalidPinId, PinId};
use crate::protocol::tail::{Answer, Line};
use crate::protocol::{self, MAX_PAGE, Record, list, submit, tail};
use crate::simulate::{LifeSettings, Settings, Simulator};

/// Well above the deadline of the demonstration's PINs.
const LIMIT: Duration = Duration::from_secs(28);

/// The interval at which the PINs in flight are drawn.
const FRAME: Duration = Duration::from_millis(200);

/// The most PINs in flight that are drawn; the others are only counted.
const DRAWN: usize = 8;
const DRAWN_COLUMNS: [Column; 4] = [
    Column::new("PIN", 1),
    Column::new("POLLS", 4),
    Column::new("LAST STATUS", 2).down_to(16),
    Column::new("NEXT POLL", 3),
];

pub fn run(args: &DemoArgs) -> Result<Exit, CommandError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(async {
        let mut simulator = None;
        let mut daemon = None;
        let shown = tokio::select! {
            shown = timeout(LIMIT, show(args, &mut simulator, &mut daemon)) => {
                shown.unwrap_or_else(|_| Err(failed(format_args!("it was not finished after {} s", LIMIT.as_secs()))))
            }
            stopped = stop_signal() => Err(match stopped {
                Ok(()) => failed("it was interrupted"),
                Err(error) => failed(format_args!("can't wait for signals: {error}")),
            }),
        };
        // The daemon stops before the API, so that polls in progress can end.
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
        if let Some(simulator) = simulator {
            simulator.stop().await;
        }
        shown.map(|()| Exit::Done)
    })
}

fn failed(problem: impl std::fmt::Display) -> CommandError {
    CommandError::Demo(problem.to_string())
}

/// Runs the demonstration. Stores simulator and daemon where the caller can stop them, however this ends.
async fn show(
    args: &DemoArgs,
    simulator: &mut Option<Simulator>,
    daemon: &mut Option<Daemon>,
) -> Result<(), CommandError> {
    let api = simulator.insert(simulate(args).await?);
    let daemon = daemon.insert(Daemon::start(&api.base_url(), args.preset).map_err(failed)?);
    note(format_args!(
        "A simulated API listens at {}, and the daemon, process {}, at {}.",
        api.base_url(),
        daemon.id(),
        daemon.socket().display()
    ));
    let mut client = daemon.connect().await.map_err(failed)?;
    let start = client.newest_position().await?;
    let mut waiting = submit(&mut client, args).await?;
    note(format_args!(
        "{} submitted. Each is polled at growing intervals until it is final:",
        human::count(waiting.len() as u64, "PIN")
    ));
    note("");

    let mut output = Output::for_people();
    let mut rows = OutcomeRows::new(32, output.room());
    let mut summary = Summary::default();
    let progress = Progress::of_lines();
    let mut lister = Client::connect(&daemon.socket()).await?;
    client.send(&tail::Request::follow(start)).await?;
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !waiting.is_empty() {
        tokio::select! {
            tailed = client.tailed() => {
                let record = match tailed {
                    Ok((Line::Record(record), _)) => record,
                    Ok((Line::Notice(Answer::Position { .. } | Answer::Removed { .. }), _)) => continue,
                    Ok((Line::Notice(Answer::End { .. }), _)) => return Err(ClientError::Closed.into()),
                    // The daemon's log says more than "connection closed".
                    Err(error) => return Err(daemon.last_words().map_or_else(|| error.into(), failed)),
                };
                if waiting.remove(&record.pin_id) {
                    let row = rows.row(&record);
                    progress.above(|| output.text(&row).and_then(|()| output.flush()))?;
                    summary.add(&record);
                }
            }
            _ = frames.tick(), if progress.is_shown() => {
                let page = lister.ask(&list::Request { limit: Some(MAX_PAGE), ..Default::default() }).await?;
                let drawn = drawn(page, output.room())?;
                progress.message(|| drawn);
            }
        }
    }
    progress.end();
    output.text(&summary.render(output.room()))?;
    output.flush()?;
    daemon.await_sink(summary.all()).await.map_err(failed)?;
    note("");
    note("The daemon's file sink has all of these outcomes too. Its temporary folder is now removed.");
    note("Try next: \"pinwatch simulate\" and \"pinwatch run --help\".");
    Ok(())
}

/// Starts an API with short lives: half of the PINs become final within a second, and some never.
async fn simulate(args: &DemoArgs) -> Result<Simulator, CommandError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let life = LifeSettings {
        seed: args.seed,
        median: Duration::from_millis(900),
        sigma: 0.8,
        call_share: 0.2,
        ..LifeSettings::default()
    };
    let settings = Settings { preset: args.preset, life, key: daemon::KEY.to_owned(), ..Settings::default() };
    Simulator::start(settings, listener).map_err(failed)
}

/// Submits the PINs at the socket; their IDs look like the API's.
async fn submit(client: &mut Client, args: &DemoArgs) -> Result<HashSet<PinId>, CommandError> {
    let mut rng = Rng::with_seed(args.seed);
    let requests = (1..=args.pins).map(move |number| {
        let pin = format!("{:032X}", rng.u128(..)).parse()?;
        let reference = Some(format!("demo-{number}"));
        Ok(((), protocol::request(&submit::Request { reference, ..submit::Request::of(pin) })))
    });
    let requests = requests.collect::<Result<Vec<_>, InvalidPinId>>().map_err(failed)?;
    let mut waiting = HashSet::new();
    client
        .pipeline(stream::iter(requests), |(), line, _| {
            waiting.insert(client::parse::<submit::Request>(line)?.pin_id);
            Ok::<_, CommandError>(())
        })
        .await?;
    Ok(waiting)
}

/// Formats the PINs that are in flight now.
fn drawn(page: list::Answer, room: Option<usize>) -> Result<String, CommandError> {
    let now = Timestamp::now();
    let all = page.pins.len();
    let rows = page.pins.iter().take(DRAWN).map(|pin| {
        let pin = client::read(pin)?;
        Ok([
            pin.pin_id.to_string(),
            pin.polls.flatten().unwrap_or(0).to_string(),
            pin.last_status.flatten().unwrap_or_else(|| "-".to_owned()),
            pin.next_poll_at.flatten().and_then(|at| tenths(&at, now)).unwrap_or_else(|| "now".to_owned()),
        ])
    });
    let rows = rows.collect::<Result<Vec<_>, ClientError>>()?;
    let mut text = format!("\n{} in flight\n", human::count(all as u64, "PIN"));
    text += &table(DRAWN_COLUMNS, &rows, room).0;
    if all > DRAWN {
        text += &format!("and {} more", all - DRAWN);
    }
    Ok(text.trim_end().to_owned())
}

/// Formats how far a time is ahead, in tenths of a second; `None` if it is past.
fn tenths(time: &str, now: Timestamp) -> Option<String> {
    let ahead = time.parse::<Timestamp>().ok()?.duration_since(now).as_secs_f64();
    (ahead > 0.0).then(|| format!("in {ahead:.1} s"))
}

/// Returns how long a PIN took from its submission to its outcome.
fn took(record: &Record) -> Option<Duration> {
    let time = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
    let took = time(&record.finished_at)?.duration_since(time(&record.submitted_at)?);
    Duration::try_from(took).ok()
}
