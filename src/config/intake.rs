//! `[intake]`: the local socket and its limits.
//!
//! Promises that the path fits into a socket address. Must not know whether anything exists at that path.

use std::path::{Path, PathBuf};

use super::section::{Section, section};

/// The socket's default path.
pub(super) const SYSTEM_SOCKET: &str = "/run/pinwatch/pinwatch.sock";

/// The longest path of a socket in bytes: `sun_path` of Linux without its final zero.
const LONGEST_SOCKET: usize = 107;

section! {
    /// `[intake]`
    pub struct Intake {
        /// Absolute, at most 107 bytes.
        pub socket: PathBuf = socket(),
        /// Permission bits of the socket file.
        pub mode: u32 = parsed("0660", mode),
        /// How many PINs may be in flight at once.
        pub max_in_flight: usize = count(1_000_000, 1..=100_000_000),
        /// How many clients may be connected at once.
        pub max_connections: usize = count(256, 1..=65_536),
    }
}

impl Section<'_> {
    pub fn socket(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key, SYSTEM_SOCKET)?;
        if path.as_os_str().len() > LONGEST_SOCKET {
            return self.refuse(key, format!("must have at most {LONGEST_SOCKET} bytes, as sockets do"));
        }
        Some(path)
    }
}

fn mode(text: &str) -> Result<u32, &'static str> {
    let is_octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or("must be permission bits in octal, such as 0660; in a file in quotation marks, \"0660\"")
}

/// Returns the socket of a user who has no configuration file, and the origin of that path.
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
    fn the_socket_path_must_fit_a_socket_address_and_the_mode_must_be_octal() {
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
