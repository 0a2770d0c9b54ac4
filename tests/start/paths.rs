//! Folders and files that can't be used.

use std::fs;

use super::common::Place;
use super::{NOWHERE, assert_refused, contents};

/// Folders in which nobody can make anything, not even root: a file, and a folder of the kernel's.
fn unusable(place: &Place) -> Vec<String> {
    let file = place.path("notes.txt");
    fs::write(&file, "mine").unwrap();
    vec![file.to_str().unwrap().to_owned(), "/proc/pinwatch".to_owned()]
}

#[test]
fn a_store_in_a_folder_that_can_not_be_made_is_named() {
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
fn a_socket_in_a_folder_that_can_not_be_made_is_named() {
    let place = Place::new(NOWHERE);
    for folder in unusable(&place) {
        let place = Place::new(NOWHERE).set("intake.socket", &format!("{folder}/pinwatch.sock"));
        assert_refused(&place, 1, &["make the folder", &folder]);
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "mine");
}

#[test]
fn what_is_at_the_sockets_path_and_is_no_socket_is_left_as_it_is() {
    let place = Place::new(NOWHERE);
    fs::write(place.socket(), "mine").unwrap();
    assert_refused(&place, 1, &["is not a socket", place.socket().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");

    let place = Place::new(NOWHERE);
    fs::create_dir(place.socket()).unwrap();
    assert_refused(&place, 1, &["is not a socket"]);
    assert!(place.socket().is_dir());

    // Where a link leads to is somebody else's.
    let place = Place::new(NOWHERE);
    fs::write(place.path("notes.txt"), "mine").unwrap();
    std::os::unix::fs::symlink(place.path("notes.txt"), place.socket()).unwrap();
    assert_refused(&place, 1, &["is not a socket"]);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");
}

#[test]
fn a_sink_that_can_not_be_written_stops_the_start_and_no_folder_is_made_for_it() {
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
