//! Enters the terminal, draws on it, and leaves it as it was.
//!
//! Promises that the terminal is restored when a [`Screen`] is dropped and when the program panics, and that dropping [`Keys`]
//! ends the thread that reads them, within [`KEY_POLL`]. Must not know what is drawn.

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

/// How often the thread that reads keys checks whether it should end.
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

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Read;
    use std::path::Path;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

    use super::*;

    const PANIC: &str = "nobody expects this";

    /// What the test below starts in a process of its own, on a terminal of its own.
    #[test]
    #[ignore = "panics, on a terminal that another test makes for it"]
    fn panics_while_it_draws() {
        let mut screen = Screen::enter().expect("a terminal");
        let _keys = Keys::start();
        screen.draw(&State::new(Path::new("/s"), true), Timestamp::UNIX_EPOCH).expect("a terminal");
        panic!("{PANIC}");
    }

    #[test]
    fn a_panic_restores_the_terminal_and_its_message_stays_on_it() {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--nocapture",
            "--exact",
            "commands::top::screen::tests::panics_while_it_draws",
        ]);
        command.env("TERM", "xterm").env_remove("RUST_BACKTRACE");
        let end = || theirs.try_clone().unwrap();
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut ours = File::from(ours);
        let shown = thread::spawn(move || {
            let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
            // It ends with an error when nobody has the other end open any more.
            while let Ok(count @ 1..) = ours.read(&mut bytes) {
                shown.extend_from_slice(&bytes[..count]);
            }
            String::from_utf8_lossy(&shown).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let modes = tcgetattr(&theirs).unwrap().local_modes;
        drop((command, theirs));
        let shown = shown.join().unwrap();
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{shown:?}");
        let last = |sequence: &str| shown.rfind(sequence);
        let (entered, left) = (last("\u{1b}[?1049h"), last("\u{1b}[?1049l"));
        assert!(entered.is_some() && left > entered, "the first screen is back: {shown:?}");
        assert!(last(PANIC) > entered && shown.find(PANIC) > shown.find("\u{1b}[?1049l"), "{shown:?}");
        assert!(last("\u{1b}[?25h") > last("\u{1b}[?25l"), "the cursor is back: {shown:?}");
    }
}
