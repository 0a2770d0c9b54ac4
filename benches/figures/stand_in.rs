//! A simulated API for what nginx can't do: answers with a delay, and PINs that become final. It runs in its own process, on one
//! thread and without a framework, so that it costs as little as possible.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::process::{Process, pinned};

/// The program's first argument when it runs as the API.
pub const MODE: &str = "--stand-in";

const WAITING: &str = concat!(
    r#"[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","#,
    r#""finalStatus":false}]"#
);
const DELIVERED: &str =
    r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#;

/// A running API, which ends when this is dropped.
pub struct StandIn {
    _process: Process,
    pub base_url: String,
}

impl StandIn {
    /// Starts an API that answers after `latency`. If `final_at` is given, that answer about a PIN is final.
    pub fn start(latency: Duration, final_at: Option<u8>, core: Option<usize>) -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut command = pinned(core, &this);
        command.args([MODE, &latency.as_millis().to_string(), &final_at.unwrap_or(0).to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let mut port = String::new();
        BufReader::new(process.stdout()).read_line(&mut port).expect("its port");
        Self { _process: process, base_url: format!("http://127.0.0.1:{}", port.trim()) }
    }
}

/// Runs the API until its standard input ends, which happens when the process that started it ends.
pub fn run(latency: &str, final_at: &str) {
    let latency = Duration::from_millis(latency.parse().expect("milliseconds"));
    let final_at = final_at.parse().expect("a number");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port").port());
        let asked = Rc::new(RefCell::new(HashMap::new()));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            spawn_local(serve(stream, latency, final_at, asked.clone()));
        }
    });
}

async fn serve(mut stream: TcpStream, latency: Duration, final_at: u8, asked: Rc<RefCell<HashMap<u64, u8>>>) {
    let (mut requests, mut answers) = (Vec::with_capacity(4096), Vec::new());
    while stream.read_buf(&mut requests).await.is_ok_and(|read| read > 0) {
        while let Some(end) = memchr::memmem::find(&requests, b"\r\n\r\n") {
            answer(&requests[..end], final_at, &mut asked.borrow_mut(), &mut answers);
            requests.drain(..end + 4);
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
        answers.clear();
    }
}

fn answer(request: &[u8], final_at: u8, asked: &mut HashMap<u64, u8>, out: &mut Vec<u8>) {
    let mut body = WAITING;
    if final_at > 0 {
        // The second half of each PIN ID of this benchmark is its number.
        let pin = request.strip_prefix(b"GET /2fa/1/pin/").and_then(|rest| rest.get(16..32));
        let pin = pin.and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let pin = pin.expect("a PIN of ours");
        let times = asked.entry(pin).or_default();
        *times += 1;
        if *times >= final_at {
            asked.remove(&pin);
            body = DELIVERED;
        }
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    out.extend_from_slice(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
}
