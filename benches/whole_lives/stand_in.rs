//! The cheapest API that can be: says "not final" twice and "final" the third time. Knows only PIN IDs of this bench.

use std::collections::HashMap;
use std::io::Read;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::POLLS_A_LIFE;

/// The API, in a process of its own: one thread, no framework. Prints its port; ends with its parent.
pub fn stand_in() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("a port").port());
        let asked = std::rc::Rc::new(std::cell::RefCell::new(HashMap::<u64, u8>::new()));
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let asked = asked.clone();
            tokio::task::spawn_local(async move {
                let (mut request, mut answers) = (Vec::with_capacity(4096), Vec::new());
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                    while let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
                        answer(&request[..end], &mut asked.borrow_mut(), &mut answers);
                        request.drain(..end + 4);
                    }
                    if stream.write_all(&answers).await.is_err() {
                        return;
                    }
                    answers.clear();
                }
            });
        }
    });
}

/// Not final twice, final the third time.
fn answer(request: &[u8], asked: &mut HashMap<u64, u8>, out: &mut Vec<u8>) {
    let pin = request.strip_prefix(b"GET /2fa/1/pin/").and_then(|rest| rest.get(16..32));
    let pin = pin.and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let pin = pin.expect("a PIN of ours");
    let polls = asked.entry(pin).or_default();
    *polls += 1;
    let body = if *polls < POLLS_A_LIFE {
        r#"[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","finalStatus":false}]"#
    } else {
        asked.remove(&pin);
        r#"[{"status":"MESSAGE_DELIVERED","description":"Message sent and delivered","finalStatus":true}]"#
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
}
