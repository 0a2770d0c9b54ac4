//! Folders and files that can't be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{NOWHERE, assert_refused, contents};
use crate::support::Place;

/// Folders in which not even root can create anything: a file, and a folder of the kernel.
fn unusable(place: &Place) -> Vec<String> {
    let file = place.path("notes.txt");
    fs::write(&file, "mine").unwrap();
    vec![file.to_str().unwrap().to_owned(), "/proc/pinwatch".to_owned()]
}

#[test]
fn a_store_in_a_folder_that_can_not_be_created_is_named() {
    let place = Place::new(NOWHERE);
    for folder in unusable(&place) {
        let place = Place::new(NOWHERE).set("store.url", &format!("sqlite:{folder}/pinwatch.db"));
        assert_refused(&place, 1, &["make the folder", &folder]);
        assert!(!place.socket().exists() && !place.results().exists());
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_store_that_is_a_folder_is_named() {
    let place = Place::new(NOWHERE);
    fs::create_dir(place.store()).unwrap();
    assert_refused(&place, 1, &[place.store().to_str().unwrap()]);
    assert!(contents(&place.store()).is_empty());
}

#[test]
fn a_socket_in_a_folder_that_can_not_be_created_is_named() {
    let place = Place::new(NOWHERE);
    for folder in unusable(&place) {
        let place = Place::new(NOWHERE).set("intake.socket", &format!("{folder}/pinwatch.sock"));
        assert_refused(&place, 1, &["make the folder", &folder]);
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_file_or_folder_at_the_sockets_path_is_left_unchanged() {
    let place = Place::new(NOWHERE);
    fs::write(place.socket(), "mine").unwrap();
    assert_refused(&place, 1, &["is not a socket", place.socket().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");

    let place = Place::new(NOWHERE);
    fs::create_dir(place.socket()).unwrap();
    assert_refused(&place, 1, &["is not a socket"]);
    assert!(place.socket().is_dir());

    // The target of the link belongs to another user.
    let place = Place::new(NOWHERE);
    fs::write(place.path("notes.txt"), "mine").unwrap();
    std::os::unix::fs::symlink(place.path("notes.txt"), place.socket()).unwrap();
    assert_refused(&place, 1, &["is not a socket"]);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");
}

/// A place whose sink writes to this file.
fn with_sink_at(path: &Path) -> Place {
    Place::new(NOWHERE).set("sink", &format!("[{{type=\"file\",name=\"results\",path={path:?}}}]"))
}

/// Runs `check-config`; gives its exit status and what it says.
fn check(place: &Place) -> (Option<i32>, String) {
    let run = place.command();
    let arguments =
        run.get_args().map(|argument| if argument == "run" { "check-config".as_ref() } else { argument });
    let mut command = Command::new(run.get_program());
    command.args(arguments).env("PINWATCH__API__KEY", "key");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_result_file_that_is_a_symbolic_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("precious"), folder.path().join("outcomes.jsonl"));
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let place = with_sink_at(&link);
    let told = ["is a symbolic link to", target.to_str().unwrap(), "remove the link"];
    assert_refused(&place, 1, &told);
    let (status, said) = check(&place);
    assert!(status == Some(1) && told.iter().all(|told| said.contains(told)), "{said}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    // Links in the folders above are the administrator's.
    let alias = folder.path().join("alias");
    std::os::unix::fs::symlink(folder.path(), &alias).unwrap();
    assert_eq!(check(&with_sink_at(&alias.join("other.jsonl"))).0, Some(0));
}

#[test]
fn a_file_sink_at_standard_output_is_refused_with_the_right_sink_type() {
    for stream in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let place = with_sink_at(Path::new(stream));
        assert_refused(&place, 2, &["sink[0].path", stream, "type = \"stdout\""]);
        assert_eq!(check(&place).0, Some(2));
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, kind) in [(pipe.as_path(), "is a named pipe"), (Path::new("/dev/null"), "is a device")] {
        let place = with_sink_at(path);
        assert_refused(&place, 1, &[path.to_str().unwrap(), kind, "type = \"stdout\""]);
        let (status, said) = check(&place);
        assert!(status == Some(1) && said.contains(kind), "{said}");
    }
}

#[test]
fn a_folder_that_every_user_can_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let place = with_sink_at(&folder.path().join("outcomes.jsonl"));
    let told = format!("chmod o-w {}", folder.path().display());
    assert_refused(&place, 1, &[&told]);
    assert!(matches!(check(&place), (Some(1), said) if said.contains(&told)));
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn the_start_fails_if_a_sink_can_not_be_written_and_creates_no_folder_for_it() {
    let place = Place::new(NOWHERE);
    let missing = place.path("missing");
    for path in
        [missing.join("outcomes.jsonl"), place.folder.path().to_owned(), "/proc/outcomes.jsonl".into()]
    {
        let place =
            Place::new(NOWHERE).set("sink", &format!("[{{type=\"file\",name=\"results\",path={path:?}}}]"));
        assert_refused(&place, 1, &["the sink \"results\" can't be used", path.to_str().unwrap()]);
        assert!(!place.socket().exists(), "no client finds a daemon that can't deliver");
    }
    assert!(!missing.exists());
}
