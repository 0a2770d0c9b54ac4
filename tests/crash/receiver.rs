//! A webhook receiver that outlives the daemon: it accepts requests, and sometimes hangs up instead
//! of answering.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One request in this many is accepted but not answered: it must be repeated with the same id.
const UNANSWERED: usize = 50;

/// The received requests.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The header `webhook-id`.
    pub id: String,
    pub body: String,
}

#[derive(Default)]
struct Received {
    deliveries: Mutex<Vec<Delivery>>,
    refuses: AtomicBool,
}

pub struct Receiver {
    address: SocketAddr,
    received: Arc<Received>,
}

impl Receiver {
    /// Listens on a port of its own, until the end of the test's process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let received = Arc::<Received>::default();
        let ours = received.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = ours.clone();
                // Connections of a killed daemon may end with any error.
                thread::spawn(move || serve(stream, &received));
            }
        });
        Self { address, received }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Sets whether it hangs up on every request.
    #[allow(dead_code, reason = "the tests of the cluster do; they have this module too")]
    pub fn refuse(&self, refuses: bool) {
        self.received.refuses.store(refuses, Ordering::Relaxed);
    }

    pub fn received(&self) -> Vec<Delivery> {
        self.received.deliveries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads HTTP/1.1 requests and answers each with 204, until the client disconnects.
fn serve(stream: TcpStream, received: &Received) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut id, mut length) = (None, 0);
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "webhook-id" => id = Some(value.to_owned()),
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        if received.refuses.load(Ordering::Relaxed) {
            return Ok(());
        }
        let count = {
            let mut received = received.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
            received.push(Delivery { id: id.unwrap_or_default(), body });
            received.len()
        };
        if count % UNANSWERED == 0 {
            return Ok(());
        }
        stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
