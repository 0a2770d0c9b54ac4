//! A client that submits many PINs at once and waits until all are acknowledged.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The ID of a PIN: 32 hexadecimal digits, as Infobip's, in random order.
pub fn pin(n: u64) -> String {
    format!("{:016X}{n:016X}", scrambled(n))
}

/// Submits these PINs at once; returns how long it took until all were acknowledged.
pub fn submit(socket: &Path, pins: std::ops::Range<u64>) -> Duration {
    let stream = UnixStream::connect(socket).expect("the socket");
    let mut writer = stream.try_clone().expect("the socket");
    let lines: String = pins.clone().flat_map(|n| [pin(n), "\n".to_owned()]).collect();
    let begun = Instant::now();
    let writing = thread::spawn(move || writer.write_all(lines.as_bytes()).expect("submits"));
    let mut answers = BufReader::new(stream);
    let (mut missing, mut buffer) = (pins.count(), vec![0; 1 << 20]);
    while missing > 0 {
        let read = answers.read(&mut buffer).expect("answers");
        assert!(read > 0, "the daemon closed the connection");
        missing -= memchr::memchr_iter(b'\n', &buffer[..read]).count();
        assert!(memchr::memmem::find(&buffer[..read], b"\"ok\":false").is_none(), "a PIN was refused");
    }
    let took = begun.elapsed();
    writing.join().expect("the writer");
    took
}

/// Maps numbers to other numbers in pseudo-random order, each once (the finalizer of splitmix64).
fn scrambled(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
