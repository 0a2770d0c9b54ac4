//! The terminal: entered, drawn on, and left as it was.
//!
//! Promises that the terminal is restored when a [`Screen`] is dropped and when the program panics, and that dropping [`Keys`] ends
//! the thread that reads them, within [`KEY_POLL`]. Must not know what is drawn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use super::draw;
use super::state::State;

/// How often the thread that reads keys looks whether it should end.
const KEY_POLL: Duration = Duration::from_millis(100);

/// Keys that wait to be applied.
const WAITING_KEYS: usize = 64;

pub struct Screen(DefaultTerminal);

impl Screen {
    /// Switches to the terminal's other screen, without echo, and sets a panic hook that restores the terminal first.
    pub fn enter() -> io::Result<Self> {
        let screen = ratatui::try_init();
        if screen.is_err() {
            // It may have got half-way.
            let _ = ratatui::try_restore();
        }
        screen.map(Self)
    }

    pub fn draw(&mut self, state: &State, now: Timestamp) -> io::Result<()> {
        self.0.draw(|frame| draw::draw(frame, state, now)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Reads keys and changes of size, on a thread of its own: waiting for a terminal blocks.
pub struct Keys {
    events: mpsc::Receiver<Event>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    pub fn start() -> Self {
        let (sender, events) = mpsc::channel(WAITING_KEYS);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let event = match event::poll(KEY_POLL) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                // An error means that the terminal is gone; a closed channel, that nobody wants keys.
                let Ok(event) = event else { return };
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        Self { events, stop, thread: Some(thread) }
    }

    /// The next event; `None` if the terminal is gone.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.events.close();
        // It only panics by a bug, which was printed then.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
