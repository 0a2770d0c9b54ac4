//! An invalid configuration is reported before anything is opened or created.

use std::fs;

use super::{NOWHERE, assert_refused, contents};
use crate::support::{Place, program, run_to_end};

/// As [`assert_refused`], with the status of an invalid configuration; checks that nothing was created.
#[track_caller]
fn assert_wrong(place: &Place, says: &[&str]) {
    let before = contents(place.folder.path());
    assert_refused(place, 2, says);
    assert_eq!(contents(place.folder.path()), before, "something was made or changed");
}

#[test]
fn a_start_without_credentials_names_every_way_to_give_them() {
    let ways = ["api.key_file", "api.key ", "api.username", "api.password_file", "LoadCredential=api-key"];
    assert_wrong(&Place::new(NOWHERE).without_key(), &ways);
    assert_wrong(&Place::new(NOWHERE).without_key().set("api.username", "somebody"), &ways);
    assert_wrong(&Place::new(NOWHERE).set("api.key_file", "/nowhere/key"), &["api.key", "exactly one way"]);
    let place = Place::new(NOWHERE).without_key().set("api.key_file", "/nowhere/key");
    assert_wrong(&place, &["api.key_file", "/nowhere/key"]);
}

#[test]
fn an_invalid_base_url_is_named() {
    for url in [
        "",
        "api.infobip.com",
        "https://",
        "ftp://api.infobip.com",
        "https://user:hunter2@api.infobip.com",
        "https://api.infobip.com/?key=1",
        "https://api.infobip.com/#top",
        "https://a b",
        "https://[::1",
        "https://host:99999",
    ] {
        let place = Place::new(url);
        assert_wrong(&place, &["api.base_url", "must "]);
        assert!(!place.refusal().stderr.contains("hunter2"));
    }
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    for url in
        ["http://api.infobip.com", "http://10.0.0.1:8080", "http://localhost.example", "http://[2001:db8::1]"]
    {
        assert_wrong(&Place::new(url), &["api.base_url", url, "https", "api.allow_plain_http"]);
    }
}

#[test]
fn unknown_keys_wrong_units_and_impossible_values_are_all_named_at_once() {
    let place = Place::new(NOWHERE)
        .set("schedule.max_intervall", "10m")
        .set("schedule.deadline", "48")
        .set("api.concurrency", "0")
        .set("intake.mode", "999")
        .set("store.url", "mysql:/x");
    assert_wrong(
        &place,
        &[
            "schedule.max_intervall",
            "did you mean max_interval?",
            "schedule.deadline = \"48\" (--set): must be a duration with its unit",
            "api.concurrency",
            "intake.mode",
            "store.url",
        ],
    );
    let file = place.path("pinwatch.toml");
    let good = fs::read_to_string(&file).unwrap();
    let place = Place::new(NOWHERE);
    fs::write(place.path("pinwatch.toml"), good + "colour = \"red\"\n").unwrap();
    assert_wrong(&place, &["colour", "pinwatch.toml, line "]);
}

#[test]
fn a_missing_or_invalid_configuration_file_is_named_with_the_line() {
    let place = Place::new(NOWHERE);
    fs::write(place.path("pinwatch.toml"), "[api]\nkey = hunter2\n").unwrap();
    assert_wrong(&place, &["pinwatch.toml", "line 2"]);
    assert!(!place.refusal().stderr.contains("hunter2"), "the line may hold a secret");
    fs::remove_file(place.path("pinwatch.toml")).unwrap();
    assert_wrong(&place, &["can't read the configuration file", "pinwatch.toml"]);
}

#[test]
fn an_invalid_key_is_not_quoted() {
    for key in ["hunter2 hunter2", "App hunter2", "hunter2\n", "hünter2"] {
        let place = Place::new(NOWHERE).key(key);
        assert_wrong(&place, &["api.key"]);
        let told = place.refusal().stderr;
        assert!(!told.contains("hunter2") && !told.contains("hünter2"), "{told}");
    }
}

#[test]
fn check_config_agrees_with_the_start() {
    let check = |place: &Place| {
        let mut command = program();
        let run = place.command();
        command.args(run.get_args().map(|arg| if arg == "run" { "check-config".as_ref() } else { arg }));
        command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    let good = run_to_end(check(&Place::new(NOWHERE)));
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert!(good.stdout.contains("20ms") && !good.stdout.contains("demo-key"), "{}", good.stdout);
    let bad = Place::new(NOWHERE).set("schedule.deadline", "48");
    let (told, refused) = (run_to_end(check(&bad)), bad.refusal());
    assert_eq!((told.code, refused.code), (Some(2), Some(2)));
    assert_eq!(told.stderr, refused.stderr);
    // A problem that only appears when the client is built: https without a trusted certificate.
    let place = Place::new(NOWHERE).set("sink", "[{type=\"webhook\", url=\"https://h.example/\"}]");
    let [told, refused] = [check(&place), place.command()].map(|mut command| {
        command.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere");
        run_to_end(command)
    });
    assert_eq!((told.code, refused.code), (Some(1), Some(1)), "{}", told.stderr);
    assert!(told.stderr.contains("No CA certificates"), "{}", told.stderr);
    // A start logs its version before.
    assert!(refused.stderr.ends_with(&told.stderr), "{} {}", refused.stderr, told.stderr);
}
