//! A client whose daemon says anything: the command ends, and what it shows on a terminal can't move the cursor, break a
//! line or turn the direction of writing.
//!
//! The first byte of the input picks the command, the rest is what the daemon answers to each of its requests.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::is_harmful;

pub const COMMANDS: [&[&str]; 17] = [
    &["show", "P1"],
    &["list"],
    &["stats"],
    &["nodes"],
    &["sinks", "list"],
    &["tail", "-n", "5"],
    &["dead-letters", "list"],
    &["dead-letters", "show", "P1"],
    &["cancel", "P1"],
    &["submit", "P1", "P2"],
    &["wait", "P1", "--timeout", "50ms"],
    &["replay", "--sink", "sink", "--from", "1", "--to", "2"],
    &["ping"],
    &["list", "--json"],
    &["stats", "--json"],
    &["tail", "--json"],
    &["schedule"],
];

pub struct Daemon {
    folder: TempDir,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Daemon {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let answer = Arc::<Mutex<Vec<u8>>>::default();
        let answers = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = answers.lock().unwrap().clone();
                // A client that hangs up first has what it wants.
                let _ = serve(&stream.unwrap(), &answer);
            }
        });
        Self { folder, answer }
    }

    /// `run` runs pinwatch with these arguments on a terminal, and gives what that shows.
    pub fn check(&self, input: &[u8], run: impl FnOnce(&[&str]) -> Vec<u8>) {
        let (first, answer) = input.split_first().unwrap_or((&0, &[]));
        answer.clone_into(&mut self.answer.lock().unwrap());
        let socket = self.socket();
        let command = COMMANDS[usize::from(*first) % COMMANDS.len()];
        let arguments = [command, &["--socket", socket.to_str().unwrap()]].concat();
        let shown = run(&arguments);
        let shown = String::from_utf8(shown).expect("what is shown is UTF-8").replace("\r\n", "\n");
        for line in shown.lines() {
            assert!(!line.contains(is_harmful), "{command:?} shows {line:?}");
        }
    }

    fn socket(&self) -> PathBuf {
        Path::new(self.folder.path()).join("socket")
    }
}

fn serve(mut stream: &UnixStream, answer: &[u8]) -> std::io::Result<()> {
    let (mut requests, mut line) = (BufReader::new(stream), String::new());
    // A client begins with a ping, by which it knows that there is a place for it.
    requests.read_line(&mut line)?;
    stream.write_all(b"{\"ok\":true,\"version\":\"9.9.9\"}\n")?;
    requests.read_line(&mut line)?;
    stream.write_all(answer)?;
    stream.shutdown(std::net::Shutdown::Both)
}
