//! A daemon that serves HTTP, and its answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Daemon, Place, Simulated, TIMEOUT, json, until};

/// A daemon that serves HTTP at a port of its own, polls a simulator, and writes to a file.
pub struct Served {
    pub daemon: Daemon,
    pub address: SocketAddr,
    pub place: Place,
    settings: Vec<String>,
    _api: Simulated,
}

/// The answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// The numbers of a scrape: by name and labels, as they are written.
pub struct Numbers {
    pub text: String,
    values: BTreeMap<String, f64>,
}

impl Served {
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With settings beside those of the harness.
    #[track_caller]
    pub fn with(settings: &[&str]) -> Self {
        let api = Simulated::start();
        let place = Place::in_folders(&api.base_url());
        place.configure("[http]\nlisten = \"127.0.0.1:0\"\n");
        let mut command = place.command();
        for setting in settings {
            command.args(["--set", setting]);
        }
        let daemon = place.start_by(command);
        let address = daemon.http_address();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { daemon, address, place, settings, _api: api }
    }

    /// Starts the daemon again, which has ended.
    #[track_caller]
    pub fn restart(&mut self) {
        const SERVED: &str = "served over HTTP address=";
        self.daemon.wait();
        let before = self.daemon.times_logged(SERVED);
        let mut command = self.place.command();
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        self.daemon = self.place.start_by(command);
        // Its log still has where the one before was.
        until("it says where it serves", || (self.daemon.times_logged(SERVED) > before).then_some(()));
        self.address = self.daemon.http_address();
    }

    /// As [`Served::restart`], at the same port again.
    #[track_caller]
    pub fn restart_at(&mut self, port: u16) {
        self.settings.push(format!("http.listen=127.0.0.1:{port}"));
        self.restart();
    }

    /// Stops the daemon, changes its database, and starts it again.
    #[track_caller]
    pub fn between(mut self, change: impl FnOnce(&Path)) -> Self {
        self.daemon.signal(Signal::TERM);
        self.daemon.wait();
        change(&self.place.store());
        self.restart();
        self
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        get(self.address, path).unwrap_or_else(|| panic!("{path} was not answered"))
    }

    /// The status and the body of `/readyz`.
    #[track_caller]
    pub fn ready(&self) -> (u16, Value) {
        let answer = self.get("/readyz");
        (answer.status, json(&answer.body))
    }

    #[track_caller]
    pub fn numbers(&self) -> Numbers {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        Numbers::of(answer.body)
    }

    /// Scrapes until a metric has this value.
    #[track_caller]
    pub fn until(&self, name: &str, value: f64) -> Numbers {
        until(&format!("{name} is {value}"), || Some(self.numbers()).filter(|now| now.value(name) == value))
    }

    /// Submits PINs, and waits for their outcomes.
    #[track_caller]
    pub fn finish(&self, pins: &[&str]) {
        let mut client = self.daemon.client();
        for pin in pins {
            submit(&mut client, pin);
        }
        for pin in pins {
            let answer = client.ask(format!(r#"{{"op":"wait","pinId":"{pin}","timeout":"60s"}}"#));
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }
}

/// Submits a PIN; gives the state.
#[track_caller]
pub fn submit(client: &mut Client, pin: &str) -> String {
    let answer = client.ask(pin);
    answer["state"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Sends a GET request; `None` without a complete answer.
pub fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

/// Writes this, and reads to the end; `None` without a complete answer.
pub fn send(address: SocketAddr, request: &str) -> Option<Answer> {
    let mut stream = connect(address);
    // A client that is refused during a long request may not be able to write all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end within {TIMEOUT:?}"),
        // A connection may be reset behind its last byte.
        Ok(_) | Err(_) => {}
    }
    let text = String::from_utf8(bytes).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it takes connections");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time-out can be set");
    stream.set_write_timeout(Some(TIMEOUT)).expect("a time-out can be set");
    stream
}

impl Numbers {
    fn of(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let values = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a value is a number"))
        });
        let values = values.collect();
        Self { text, values }
    }

    #[track_caller]
    pub fn value(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("there is no {name} in:\n{}", self.text))
    }

    /// All of the metric's series, or of one of its parts (`_bucket`, `_sum`, `_count`).
    pub fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let of = move |series: &str| series.split('{').next() == Some(name);
        self.values
            .iter()
            .filter(move |(series, _)| of(series))
            .map(|(series, value)| (series.as_str(), *value))
    }
}
