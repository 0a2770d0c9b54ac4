//! Who may read and use what the daemon makes, and what it does not follow.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::{Api, Daemon, Home, pins, submit};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// The daemon of this home, under this umask.
fn start_with_umask(home: &Home, umask: &str) -> Daemon {
    let run = home.command();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
    command.arg(run.get_program()).args(run.get_args());
    Daemon::spawn(command, &home.socket(), &home.log()).ready()
}

#[test]
fn whatever_the_umask_the_database_is_its_users_alone_and_the_socket_has_its_mode() {
    for umask in ["0", "027", "077"] {
        let api = Api::start();
        let home = Home::new(&api.base_url());
        fs::remove_dir(&home.data).unwrap();
        let daemon = start_with_umask(&home, umask);
        assert_eq!(submit(&mut daemon.client(), &pins("waiting", 1))[0]["ok"], true);
        assert_eq!(mode(&home.data), 0o700, "umask {umask}");
        let files: BTreeMap<_, _> = ["", "-wal", "-shm", ".lock"]
            .map(|suffix| (suffix, format!("{:o}", mode(&home.beside(suffix)))))
            .into();
        assert!(files.values().all(|mode| mode == "600"), "umask {umask}: {files:?}");
        assert_eq!(mode(&home.socket()), 0o660, "umask {umask}");
        daemon.kill();

        // As an earlier version left them.
        for suffix in files.keys() {
            fs::set_permissions(home.beside(suffix), Permissions::from_mode(0o644)).unwrap();
        }
        let daemon = start_with_umask(&home, umask);
        for suffix in files.keys() {
            assert_eq!(mode(&home.beside(suffix)), 0o600, "{suffix}");
        }
        daemon.stop();
    }
}

/// Starts the daemon, which must refuse; gives what it said.
#[track_caller]
fn refusal(home: &Home) -> String {
    let mut daemon = home.spawn();
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.said());
    daemon.said()
}

#[test]
fn no_symbolic_link_is_followed_for_the_database_and_its_lock_and_nothing_is_written_behind_one() {
    let api = Api::start();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        for target in ["notes.txt", "nowhere", "real.db"] {
            let home = Home::new(&api.base_url());
            let path = |name: &str| home.path().join(name);
            fs::write(path("notes.txt"), "mine, and longer than the note of a lock file").unwrap();
            let daemon = home.start();
            submit(&mut daemon.client(), &pins("waiting", 1));
            daemon.kill();
            fs::rename(home.beside(suffix), path("real.db")).unwrap();
            let real = fs::read(path("real.db")).unwrap();
            symlink(path(target), home.beside(suffix)).unwrap();
            let said = refusal(&home);
            let link = home.beside(suffix);
            assert!(said.contains(&format!("{} is a symbolic link", link.display())), "{said}");
            let notes = fs::read_to_string(path("notes.txt")).unwrap();
            assert_eq!(notes, "mine, and longer than the note of a lock file");
            assert!(!path("nowhere").exists() && fs::read(path("real.db")).unwrap() == real);
        }
    }
}

#[test]
fn a_file_in_the_lock_files_place_that_is_not_one_is_left_as_it_is() {
    let api = Api::start();
    for text in ["mine", "00000000000000000001\nand mine"] {
        let home = Home::new(&api.base_url());
        fs::write(home.beside(".lock"), text).unwrap();
        let said = refusal(&home);
        assert!(said.contains("is not a lock file of pinwatch"), "{said}");
        assert_eq!(fs::read_to_string(home.beside(".lock")).unwrap(), text);
        assert!(!home.database().exists());
    }
    // A power cut can leave these.
    for text in [&b""[..], b"000000000000", &[0; 21]] {
        let home = Home::new(&api.base_url());
        fs::write(home.beside(".lock"), text).unwrap();
        home.start().stop();
    }
}

#[test]
fn folders_that_others_can_write_to_are_refused_unless_they_are_sticky() {
    let api = Api::start();
    for (bits, is_refused) in [(0o777, true), (0o770, true), (0o1777, false), (0o755, false)] {
        let home = Home::new(&api.base_url());
        fs::set_permissions(&home.data, Permissions::from_mode(bits)).unwrap();
        if is_refused {
            let said = refusal(&home);
            assert!(said.contains("others may write to the folder"), "{said}");
            assert!(said.contains("store.url") && said.contains("chmod go-w"), "{said}");
            assert!(fs::read_dir(&home.data).unwrap().next().is_none(), "something was made");
        } else {
            home.start().stop();
        }
    }
}
