//! `pinwatch top`: the daemon at a glance, in a terminal, live.
//!
//! Promises that the daemon is asked for `stats` once a second and for nothing else, except for one `list` at the start and each
//! time somebody asks for it; and that the terminal is as it was before, however the command ends: by a key, a signal, an error
//! or a panic. A daemon that goes away is shown as gone, and is watched again once it is back. [`state`] is what is known,
//! [`draw`] makes lines of it, [`keys`] change it, [`screen`] is the terminal, [`feed`] asks the daemon.

mod draw;
#[cfg(test)]
mod draw_tests;
mod feed;
mod keys;
mod screen;
mod state;

use std::io::{IsTerminal, stdin, stdout};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::crossterm::event::Event;
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::keys::Action;
use self::screen::{Keys, Screen};
use self::state::State;
use super::client::Client;
use super::error::CommandError;
use super::exit::Exit;
use super::output::{Output, wants_colours};
use super::stop_signal::stop_signal;
use crate::protocol::{Raw, stats};

/// How often the daemon is asked for its statistics.
const REFRESH: Duration = Duration::from_secs(1);

/// The size of a frame that goes to no terminal.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// Updates that wait to be shown.
const UPDATES: usize = 8;

pub async fn run(socket: &Path, once: bool, output: Output) -> Result<Exit, CommandError> {
    if once {
        return one_frame(socket, output).await;
    }
    if output.is_json() {
        return Err(CommandError::Usage("--json goes with --once: top --once --json".to_owned()));
    }
    if !(stdin().is_terminal() && stdout().is_terminal()) {
        let why = "top needs a terminal for its input and output; --once prints one frame without";
        return Err(CommandError::Usage(why.to_owned()));
    }
    let client = Client::connect(socket).await?;
    let mut stop = pin!(stop_signal());
    let mut state = State::new(socket, wants_colours(&stdout()));
    let (updates, mut news) = mpsc::channel(UPDATES);
    let (fetch, fetches) = mpsc::channel(1);
    let mut feed = pin!(feed::feed(socket, client, updates, fetches));
    // Below, a full channel means that the list is asked for already.
    let _ = fetch.try_send(());
    let mut screen = Screen::enter().map_err(CommandError::Output)?;
    let mut keys = Keys::start();
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        screen.draw(&state, Timestamp::now()).map_err(CommandError::Output)?;
        tokio::select! {
            Some(update) = news.recv() => state.take(update),
            event = keys.next() => match event {
                // The terminal is gone.
                None => break,
                Some(Event::Key(key)) => match keys::act(&mut state, key) {
                    Action::Draw => {}
                    Action::Fetch => _ = fetch.try_send(()),
                    Action::Quit => break,
                },
                // A new size only needs a new frame.
                Some(_) => {}
            },
            // The ages on the screen grow.
            _ = ticks.tick() => {}
            stopped = &mut stop => {
                stopped.map_err(CommandError::Runtime)?;
                break;
            }
            () = &mut feed => break,
        }
    }
    Ok(Exit::Done)
}

/// Prints what is known after two questions, a second apart: rates need both.
async fn one_frame(socket: &Path, mut output: Output) -> Result<Exit, CommandError> {
    let mut client = Client::connect(socket).await?;
    let mut state = State::new(socket, false);
    state.take(feed::stats(&mut client).await?.1);
    state.take(feed::pins(&mut client).await?);
    sleep(REFRESH).await;
    let (raw, update) = feed::stats(&mut client).await?;
    state.take(update);
    if output.is_json() {
        let numbers = Numbers {
            stats: &raw,
            polls_per_second: state.newest().and_then(|point| point.polls),
            ended_per_second: state.newest().and_then(|point| point.ended),
        };
        let line = serde_json::to_string(&numbers).unwrap_or_default();
        output.json(line.as_bytes())?;
    } else {
        let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((COLUMNS, ROWS), |size| (size.ws_col.into(), size.ws_row.into()));
        // One row is the shell's.
        for line in draw::body(&state, Timestamp::now(), columns, rows - 1) {
            output.text(&format!("{}\n", line.to_string().trim_end()))?;
        }
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// What `--once --json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Numbers<'a> {
    stats: &'a Raw<stats::Stats>,
    /// Over the last second.
    polls_per_second: Option<f64>,
    ended_per_second: Option<f64>,
}
