//! `[intake]`: the local socket and how much it takes.
//!
//! Promises: the path fits a socket address. Must not know: whether there is anything at that path.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::section::{Section, quoted};
use super::wire::{Count, Text};

/// Where the socket is unless anything else is said.
pub(super) const SYSTEM_SOCKET: &str = "/run/pinwatch/pinwatch.sock";

/// The longest path of a socket in bytes: `sun_path` of Linux without its final zero.
const LONGEST_SOCKET: usize = 107;

/// `[intake]`
#[derive(Debug, Clone)]
pub struct Intake {
    /// Absolute, at most 107 bytes.
    pub socket: PathBuf,
    /// Permission bits of the socket file.
    pub mode: u32,
    /// How many PINs may be in flight at once.
    pub max_in_flight: usize,
    /// How many clients may be connected at once.
    pub max_connections: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wire {
    socket: Text,
    mode: Text,
    max_in_flight: Count,
    max_connections: Count,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            socket: SYSTEM_SOCKET.into(),
            mode: "0660".into(),
            max_in_flight: Count(1_000_000),
            max_connections: Count(256),
        }
    }
}

/// Reads and checks the section; `None` if it is of no use, which is reported then.
pub(super) fn check(mut section: Section) -> Option<Intake> {
    let wire: Wire = section.read();
    let socket = socket(&mut section, &wire.socket);
    let mode = mode(&mut section, &wire.mode);
    let max_in_flight = section.count("max_in_flight", wire.max_in_flight, 1..=100_000_000);
    let max_connections = section.count("max_connections", wire.max_connections, 1..=65_536);
    Some(Intake { socket: socket?, mode: mode?, max_in_flight, max_connections })
}

/// Checks the socket alone, for a client, to whom the rest of the section is nothing.
pub(super) fn check_socket(mut section: Section) -> Option<PathBuf> {
    let wire: Wire = section.read();
    socket(&mut section, &wire.socket)
}

fn socket(section: &mut Section, text: &Text) -> Option<PathBuf> {
    section.show("socket", quoted(&text.0));
    let path = section.absolute_path("socket", &text.0)?;
    if text.0.len() > LONGEST_SOCKET {
        section.refuse("socket", format!("must have at most {LONGEST_SOCKET} bytes, as sockets do"));
        return None;
    }
    Some(path)
}

fn mode(section: &mut Section, text: &Text) -> Option<u32> {
    section.show("mode", quoted(&text.0));
    let octal = text.0.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    match u32::from_str_radix(&text.0, 8) {
        Ok(mode) if octal && mode <= 0o777 => Some(mode),
        _ => {
            section
                .refuse("mode", "must be permission bits in octal and in quotation marks, such as \"0660\"");
            None
        }
    }
}

/// The socket of a user who has no configuration file, and where that follows from.
pub(super) fn user_socket(runtime_dir: Option<&Path>, uid: u32) -> (PathBuf, &'static str) {
    match runtime_dir {
        Some(folder) => (folder.join("pinwatch/pinwatch.sock"), "default, in $XDG_RUNTIME_DIR"),
        None => (format!("/tmp/pinwatch-{uid}/pinwatch.sock").into(), "default without $XDG_RUNTIME_DIR"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, table};

    #[test]
    fn the_socket_fits_an_address_and_the_mode_is_octal() {
        let longest = format!("intake.socket = \"/{}\"", "x".repeat(106));
        let too_long = format!("intake.socket = \"/{}\"", "x".repeat(107));
        table(&[
            ("an absolute path is taken", "intake.socket = \"/tmp/p.sock\"", ""),
            (
                "a relative one is refused",
                "intake.socket = \"p.sock\"",
                "intake.socket: must be the absolute path",
            ),
            (
                "a folder is refused",
                "intake.socket = \"/tmp/\"",
                "intake.socket: must be the absolute path of a file",
            ),
            ("107 bytes are taken", &longest, ""),
            ("108 are refused", &too_long, "intake.socket: must have at most 107 bytes"),
            ("three digits are taken", "intake.mode = \"600\"", ""),
            ("a number is refused", "intake.mode = 0o660", "intake.mode: must be a string"),
            ("8 is no octal digit", "intake.mode = \"0680\"", "intake.mode: must be permission bits"),
            ("a sign is no octal digit", "intake.mode = \"+660\"", "intake.mode: must be permission bits"),
            (
                "more than permission bits is refused",
                "intake.mode = \"4755\"",
                "intake.mode: must be permission",
            ),
            ("nothing is refused", "intake.mode = \"\"", "intake.mode: must be permission bits"),
            (
                "no PIN at all is refused",
                "intake.max_in_flight = 0",
                "intake.max_in_flight: must be a whole number",
            ),
            (
                "nobody at all is refused",
                "intake.max_connections = 0",
                "intake.max_connections: must be a whole",
            ),
        ]);
        assert_eq!(load("intake.mode = \"0600\"").unwrap().intake.mode, 0o600);
    }
}
