//! The process and its surroundings: a log that nobody reads, signals, limits, the environment, terminals, and who can
//! read its secrets. The real binary.

mod environment;
mod json;
mod log;
#[cfg(not(feature = "fault-points"))]
mod no_fault_points;
mod output;
mod secrets;
mod signals;
mod stdout;
mod tables;
pub mod terminal;
mod top;

use std::io::{ErrorKind, PipeReader, PipeWriter, Write, pipe};

use rustix::fs::{OFlags, fcntl_setfl};

/// A pipe that is full, so that a write to it blocks until somebody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    loop {
        match writer.write(&[b'.'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}
