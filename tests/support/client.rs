//! A simple client of the local socket that writes and reads lines.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{TIMEOUT, json, until};

pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap()
    }

    /// As [`Client::connect`], where there may be no daemon.
    pub fn try_connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The stream itself.
    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// Writes these bytes as they are.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).unwrap();
    }

    /// As [`Client::write`], to a daemon that may have ended.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// The next line without its newline; `None` at the end.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                assert_eq!(line.pop(), Some('\n'), "the last line is cut off: {line}");
                Some(line)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// As [`Client::line`], from a daemon that may have been killed within a line: that one does not count.
    pub fn whole_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer for {TIMEOUT:?}"),
            read => read.ok()?,
        };
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        json(&self.line().expect("the daemon closed the connection"))
    }

    /// Writes one line and reads its answer as text.
    #[track_caller]
    pub fn ask_line(&mut self, line: impl AsRef<[u8]>) -> String {
        self.write([line.as_ref(), b"\n"].concat());
        self.line().expect("the daemon closed the connection")
    }

    /// Writes one line and reads its answer.
    #[track_caller]
    pub fn ask(&mut self, line: impl AsRef<[u8]>) -> Value {
        let mut bytes = line.as_ref().to_vec();
        bytes.push(b'\n');
        self.write(bytes);
        self.answer()
    }

    /// As [`Client::ask`], of a daemon that may end first.
    pub fn try_ask(&mut self, line: &str) -> Option<Value> {
        self.try_write(format!("{line}\n")).ok()?;
        Some(json(&self.whole_line()?))
    }

    /// Asks for one op.
    #[track_caller]
    pub fn op(&mut self, request: &Value) -> Value {
        self.ask(request.to_string())
    }

    /// Submits a bare PIN ID; gives the state.
    #[track_caller]
    pub fn submit(&mut self, pin: &str) -> String {
        let answer = self.ask(pin);
        answer["state"].as_str().unwrap_or_else(|| panic!("not taken: {answer}")).to_owned()
    }

    /// Submits many new PINs in one write.
    #[track_caller]
    pub fn submit_all(&mut self, pins: &[String]) {
        self.write(pins.iter().map(|pin| format!("{pin}\n")).collect::<String>());
        for pin in pins {
            assert_eq!(self.answer(), serde_json::json!({"ok": true, "pinId": pin, "state": "accepted"}));
        }
    }

    /// Waits for a PIN's outcome.
    #[track_caller]
    pub fn outcome(&mut self, pin: &str) -> Value {
        let mut answer = self.op(&serde_json::json!({"op": "wait", "pinId": pin, "timeout": "60s"}));
        assert_eq!(answer["ok"], true, "{answer}");
        answer["outcome"].take()
    }

    #[track_caller]
    pub fn stats(&mut self) -> Value {
        self.op(&serde_json::json!({"op": "stats"}))["stats"].take()
    }

    /// Every outcome record that the store has, as its line.
    #[track_caller]
    pub fn outbox(&mut self) -> Vec<String> {
        self.write("{\"op\":\"tail\",\"from\":1}\n");
        let mut records = Vec::new();
        loop {
            let line = self.line().expect("the daemon runs to the end of the tail");
            if json(&line)["end"] == true {
                return records;
            }
            records.push(line);
        }
    }

    /// Closes the write side; answers can still be read.
    pub fn finish(&mut self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }
}

/// The code of a refusal.
#[track_caller]
pub fn code(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    answer["error"]["code"].as_str().unwrap()
}

/// This many PIN IDs.
pub fn pins(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("PIN-{n}")).collect()
}

/// Waits for the brake, and returns it as `stats` reports it.
#[track_caller]
pub fn brake(client: &mut Client) -> Value {
    until("the brake", || Some(client.stats()["brake"].take()).filter(Value::is_object))
}
