//! Changes at a path under a running daemon, files of others there, and the permissions of created files.
//!
//! Tests with several users need root; without it they report that they were skipped.

mod database;
mod modes;
mod servers;
mod socket;

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Daemon, Place, json};
use serde_json::Value;

/// What `/readyz` says: its status, and the code and text of each reason.
#[track_caller]
fn readiness(daemon: &Daemon) -> (String, Vec<(String, String)>) {
    let mut stream = TcpStream::connect(daemon.http_address()).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body: Value = json(answer.split_once("\r\n\r\n").expect("it has a body").1);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let reasons = body["reasons"].as_array().unwrap();
    (text(&body["status"]), reasons.iter().map(|r| (text(&r["code"]), text(&r["what"]))).collect())
}

/// A place whose daemon also serves `/readyz`.
fn place(base_url: &str) -> Place {
    let place = Place::in_folders(base_url);
    place.configure("[http]\nlisten = \"127.0.0.1:0\"\n");
    place
}

/// Reports that a test did not run.
fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI: {why}");
    eprintln!("\n!!! SKIPPED: {why} !!!\n");
}
