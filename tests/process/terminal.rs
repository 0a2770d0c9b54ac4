//! A pseudo-terminal, so that a program shows what it shows to people.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::common::{Child, until};

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
pub fn shown(mut command: Command) -> (String, Option<i32>) {
    let (mut ours, theirs) = terminal();
    let streams = [(); 2].map(|()| Stdio::from(theirs.try_clone().unwrap()));
    let [stdout, stderr] = streams;
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let mut process = Child::spawn(command);
    drop(theirs);
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        // It ends with an error when nobody has the other end open any more.
        let _ = ours.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    });
    let status = until("the program's end", || process.ended());
    (reading.join().unwrap(), status.code())
}
