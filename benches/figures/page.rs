//! Measures what people who look cost the daemon: 100 open status pages, one `pinwatch top`, and the history that is kept for
//! pages while none is open. All of it beside 100,000 PINs in flight, of which 10 are polled each second: enough to
//! change the numbers, and few enough to be no noise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::daemon::{Daemon, Home, NEVER_DUE, every};
use super::measure::window;
use super::report::{Asked, Report};
use super::stand_in::StandIn;
use super::submit::submit;

const PINS: u64 = 100_000;

/// With it, 10 of the PINs are due each second after a restart.
const INTERVAL: &str = "10000s";

const PAGES: usize = 100;

/// What a start and newly opened pages cost is over after this.
const SETTLE: Duration = Duration::from_secs(4);

/// Three samples of the charts.
const LENGTH: Duration = Duration::from_secs(30);

pub fn measure(report: &mut Report, runs: usize) {
    let api = StandIn::start(Duration::ZERO, None, None);
    let home = Home::new(&api.base_url);
    home.start(None, &NEVER_DUE).submit_and_end(&home);
    let interval = every(INTERVAL);
    let settings = interval.each_ref().map(String::as_str);
    let (mut off, mut none, mut pages, mut top, mut sent) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..runs {
        let mut daemon = home.start(None, &settings);
        off.push(share(&daemon));
        top.push(share_with_top(&daemon, &home));
        daemon.process.end(Signal::TERM);
        let (mut daemon, address) = home.start_observed(&settings);
        none.push(share(&daemon));
        let open = OpenPages::open(address);
        let before = open.bytes();
        pages.push(share(&daemon));
        sent.push((open.bytes() - before) as f64 / 1e3 / (SETTLE + LENGTH).as_secs_f64() / PAGES as f64);
        open.close();
        daemon.process.end(Signal::TERM);
    }
    let more =
        |with: &[f64], without: &[f64]| with.iter().zip(without).map(|(a, b)| a - b).collect::<Vec<_>>();
    let (of_top, of_sampler, of_pages) = (more(&top, &off), more(&none, &off), more(&pages, &none));
    report.figure("100,000 PINs, 10 polls a second, without HTTP: share of a core", off, "%", Asked::Nothing);
    report.figure("  what one `pinwatch top` adds", of_top, "%", Asked::AtMost(1.0));
    report.figure("  what HTTP adds with no page open (the history)", of_sampler, "%", Asked::AtMost(0.1));
    report.figure("  what 100 open pages add", of_pages, "%", Asked::AtMost(1.0));
    report.figure("    sent to each page per second", sent, "kB", Asked::Nothing);
}

impl Daemon {
    /// Submits all PINs, and ends the daemon: only PINs that a start finds are due evenly.
    fn submit_and_end(mut self, home: &Home) {
        submit(&home.socket(), 0..PINS);
        self.process.end(Signal::TERM);
    }
}

/// The daemon's share of a core from now on, in percent.
fn share(daemon: &Daemon) -> f64 {
    thread::sleep(SETTLE);
    window(LENGTH, &daemon.process, || 0.0).cpu_share * 100.0
}

/// The same while a client asks what `pinwatch top` asks.
fn share_with_top(daemon: &Daemon, home: &Home) -> f64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, socket) = (is_over.clone(), home.socket());
    let top = thread::spawn(move || {
        let mut stream = UnixStream::connect(socket).expect("the socket");
        let mut answers = BufReader::new(stream.try_clone().expect("the connection"));
        while !over.load(Ordering::Relaxed) {
            stream.write_all(b"{\"op\":\"stats\"}\n").expect("a question");
            let mut line = String::new();
            answers.read_line(&mut line).expect("an answer");
            assert!(line.starts_with("{\"ok\":true"), "{line}");
            thread::sleep(Duration::from_secs(1));
        }
    });
    let share = share(daemon);
    is_over.store(true, Ordering::Relaxed);
    top.join().expect("the client");
    share
}

/// Status pages that are open, and read what comes.
struct OpenPages {
    streams: Vec<TcpStream>,
    bytes: Arc<AtomicU64>,
}

impl OpenPages {
    fn open(address: SocketAddr) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let open = || {
            let mut stream = TcpStream::connect(address).expect("the page");
            let request = format!("GET /live HTTP/1.1\r\nhost: {address}\r\naccept-encoding: gzip\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("a request");
            let (mut reader, count) = (stream.try_clone().expect("the connection"), bytes.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = reader.read(&mut buffer) {
                    count.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
            stream
        };
        let streams = (0..PAGES).map(|_| open()).collect();
        Self { streams, bytes }
    }

    /// What all of them got so far.
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn close(self) {
        for stream in self.streams {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
