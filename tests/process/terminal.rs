//! A pseudo-terminal, so that a program prints what users see.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::{Child, until};

/// Both ends of a new pseudo-terminal: ours, and that of the program.
pub fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    (ours.into(), theirs)
}

/// Runs a program whose output goes to a terminal. Gives what that got, and the exit status.
#[track_caller]
pub fn shown(command: Command) -> (String, Option<i32>) {
    shown_on(terminal(), |theirs| theirs.try_clone().unwrap().into(), command)
}

/// Runs a program whose results go to a terminal of so many columns, and whose notes go nowhere. Gives what that got,
/// with the ends of lines as the program wrote them, and the exit status.
#[track_caller]
pub fn shown_in(columns: u16, command: Command) -> (String, Option<i32>) {
    let (ours, theirs) = terminal();
    tcsetwinsize(&ours, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let (text, status) = shown_on((ours, theirs), |_| Stdio::null(), command);
    (text.replace("\r\n", "\n"), status)
}

#[track_caller]
fn shown_on(
    (mut ours, theirs): (File, File),
    stderr: impl FnOnce(&File) -> Stdio,
    mut command: Command,
) -> (String, Option<i32>) {
    command.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(stderr(&theirs));
    let mut process = Child::spawn(command);
    drop(theirs);
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        // The read fails once the other end is closed.
        let _ = ours.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    });
    let status = until("the program's end", || process.ended());
    (reading.join().unwrap(), status.code())
}
