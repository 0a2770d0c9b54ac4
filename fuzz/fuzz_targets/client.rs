//! See `fuzz/checks/client.rs`. Commands write to this process's stdout, which becomes a pseudo-terminal: on anything else
//! they write JSON.
#![no_main]

#[path = "../checks/mod.rs"]
#[allow(unused, reason = "each target uses a part")]
mod checks;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::LazyLock;

use checks::client::Daemon;
use libfuzzer_sys::fuzz_target;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Ends what one command shows. No command shows it: controls are escaped.
const END: u8 = 0;

static CHECK: LazyLock<(Daemon, File)> = LazyLock::new(|| {
    checks::ignore_sigpipe();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    rustix::stdio::dup2_stdout(&theirs).unwrap();
    (Daemon::start(), ours.into())
});

fuzz_target!(|input: &[u8]| {
    let (daemon, terminal) = &*CHECK;
    daemon.check(input, |arguments| {
        std::thread::scope(|scope| {
            let shown = scope.spawn(|| {
                let mut shown = Vec::new();
                for byte in std::io::BufReader::new(terminal).bytes() {
                    match byte.unwrap() {
                        END => break,
                        byte => shown.push(byte),
                    }
                }
                shown
            });
            pinwatch::commands::run(["pinwatch"].iter().chain(arguments));
            let mut stdout = std::io::stdout();
            stdout.write_all(&[END]).and_then(|()| stdout.flush()).unwrap();
            shown.join().unwrap()
        })
    });
});
