//! Permissions of the files that the daemon creates, and links that it does not follow.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Daemon, Place, Simulated, sim_pins, submit, wrapped};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// The daemon of this place, under this umask.
fn start_with_umask(place: &Place, umask: &str) -> Daemon {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
    place.start_by(wrapped(shell, &place.command()))
}

#[test]
fn with_any_umask_the_database_is_private_and_the_socket_has_its_mode() {
    for umask in ["0", "027", "077"] {
        let api = Simulated::start();
        let place = Place::in_folders(&api.base_url());
        fs::remove_dir(&place.data).unwrap();
        let daemon = start_with_umask(&place, umask);
        assert_eq!(submit(&mut daemon.client(), &sim_pins("waiting", 1))[0]["ok"], true);
        assert_eq!(mode(&place.data), 0o700, "umask {umask}");
        let files: BTreeMap<_, _> = ["", "-wal", "-shm", ".lock"]
            .map(|suffix| (suffix, format!("{:o}", mode(&place.beside(suffix)))))
            .into();
        assert!(files.values().all(|mode| mode == "600"), "umask {umask}: {files:?}");
        assert_eq!(mode(&place.socket()), 0o660, "umask {umask}");
        daemon.kill9();

        // As an earlier version left them.
        for suffix in files.keys() {
            fs::set_permissions(place.beside(suffix), Permissions::from_mode(0o644)).unwrap();
        }
        let daemon = start_with_umask(&place, umask);
        for suffix in files.keys() {
            assert_eq!(mode(&place.beside(suffix)), 0o600, "{suffix}");
        }
        daemon.terminate();
    }
}

/// Starts the daemon, which must refuse; returns its message.
#[track_caller]
fn refusal(place: &Place) -> String {
    let mut daemon = place.spawn();
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    daemon.log()
}

#[test]
fn no_symbolic_link_is_followed_for_the_database_and_its_lock_file() {
    let api = Simulated::start();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        for target in ["notes.txt", "nowhere", "real.db"] {
            let place = Place::in_folders(&api.base_url());
            let path = |name: &str| place.folder.path().join(name);
            fs::write(path("notes.txt"), "mine, and longer than the note of a lock file").unwrap();
            let daemon = place.start();
            submit(&mut daemon.client(), &sim_pins("waiting", 1));
            daemon.kill9();
            fs::rename(place.beside(suffix), path("real.db")).unwrap();
            let real = fs::read(path("real.db")).unwrap();
            symlink(path(target), place.beside(suffix)).unwrap();
            let said = refusal(&place);
            let link = place.beside(suffix);
            assert!(said.contains(&format!("{} is a symbolic link", link.display())), "{said}");
            let notes = fs::read_to_string(path("notes.txt")).unwrap();
            assert_eq!(notes, "mine, and longer than the note of a lock file");
            assert!(!path("nowhere").exists() && fs::read(path("real.db")).unwrap() == real);
        }
    }
}

#[test]
fn a_foreign_file_in_place_of_the_lock_file_is_left_unchanged() {
    let api = Simulated::start();
    for text in ["mine", "00000000000000000001\nand mine"] {
        let place = Place::in_folders(&api.base_url());
        fs::write(place.beside(".lock"), text).unwrap();
        let said = refusal(&place);
        assert!(said.contains("is not a lock file of pinwatch"), "{said}");
        assert_eq!(fs::read_to_string(place.beside(".lock")).unwrap(), text);
        assert!(!place.store().exists());
    }
    // A power cut can leave these.
    for text in [&b""[..], b"000000000000", &[0; 21]] {
        let place = Place::in_folders(&api.base_url());
        fs::write(place.beside(".lock"), text).unwrap();
        place.start().terminate();
    }
}

#[test]
fn folders_that_others_can_write_to_are_refused_unless_they_are_sticky() {
    let api = Simulated::start();
    for (bits, is_refused) in [(0o777, true), (0o770, true), (0o1777, false), (0o755, false)] {
        let place = Place::in_folders(&api.base_url());
        fs::set_permissions(&place.data, Permissions::from_mode(bits)).unwrap();
        if is_refused {
            let said = refusal(&place);
            assert!(said.contains("others may write to the folder"), "{said}");
            assert!(said.contains("store.url") && said.contains("chmod go-w"), "{said}");
            assert!(fs::read_dir(&place.data).unwrap().next().is_none(), "something was made");
        } else {
            place.start().terminate();
        }
    }
}
