//! A fake daemon: a real Unix socket in a temporary folder, and a script that says what it answers.
//!
//! A failing script fails the test that joins it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Fake {
    dir: TempDir,
    script: Option<JoinHandle<()>>,
}

impl Fake {
    /// Starts a fake daemon that runs `script` with its socket.
    pub fn new(script: impl FnOnce(Socket) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = Socket::at(dir.path().join("pinwatch.sock"));
        let script = Some(std::thread::spawn(move || script(socket)));
        Self { dir, script }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("pinwatch.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits for the script's end.
    pub fn join(mut self) {
        self.script.take().unwrap().join().unwrap();
    }
}

/// The listening end.
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn at(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    /// Accepts a client and answers its first ping, by which it knows that it is served.
    pub fn accept(&self) -> Connection {
        let mut client = self.accept_unanswered();
        client.expect(json!({"op": "ping"})).say(json!({"ok": true, "version": "9.9.9"}));
        client
    }

    /// Refuses this many clients because no connection is free.
    pub fn turn_away(&self, count: usize) {
        for _ in 0..count {
            self.accept_unanswered().say(error("at_capacity"));
        }
    }

    /// Accepts a client without an answer to its ping.
    pub fn accept_unanswered(&self) -> Connection {
        let (stream, _) = self.listener.accept().unwrap();
        Connection { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Closes the socket and listens again, as a restarted daemon does.
    pub fn restart(self) -> Self {
        drop(self.listener);
        std::fs::remove_file(&self.path).unwrap();
        Self::at(self.path)
    }
}

/// One client.
pub struct Connection {
    reader: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Connection {
    /// The next request; `None` once the client has disconnected.
    pub fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// Checks that the next request is this one.
    pub fn expect(&mut self, request: Value) -> &mut Self {
        assert_eq!(self.hear(), Some(request));
        self
    }

    pub fn say(&mut self, answer: Value) -> &mut Self {
        self.say_raw(&format!("{answer}\n"))
    }

    pub fn say_raw(&mut self, bytes: &str) -> &mut Self {
        self.stream.write_all(bytes.as_bytes()).unwrap();
        self
    }

    /// Answers the request for the newest position, which waiting clients send first.
    pub fn tell_position(&mut self, position: &str) -> &mut Self {
        self.expect(json!({"op": "tail", "last": 0, "follow": false})).say(end(position))
    }

    /// Waits until the client hangs up.
    pub fn until_gone(&mut self) {
        while self.hear().is_some() {}
    }
}

pub fn end(position: &str) -> Value {
    json!({"ok": true, "end": true, "next": 0, "position": position})
}

pub fn position(position: &str) -> Value {
    json!({"ok": true, "position": position})
}

pub fn follow(position: &str) -> Value {
    json!({"op": "tail", "from": position, "follow": true, "positions": true})
}

pub fn error(code: &str) -> Value {
    json!({"ok": false, "error": {"code": code, "message": "says the fake"}})
}

/// An outcome record.
pub fn record(seq: i64, pin: &str, delivered: Option<bool>) -> Value {
    let status = if delivered == Some(true) { "MESSAGE_DELIVERED" } else { "MESSAGE_EXPIRED" };
    json!({"seq": seq, "id": "0193", "pinId": pin, "outcome": "final", "status": status, "description": null,
           "delivered": delivered, "deliveries": [], "submittedAt": "2026-01-02T03:04:05.000Z",
           "finishedAt": "2026-01-02T03:04:09.000Z", "polls": 4})
}
