//! The examples of docs/http-api.md, word for word, against a daemon.

use std::process::Command;

use super::client::Api;
use crate::support::not_run::not_run;

const PAGE: &str = include_str!("../../../docs/http-api.md");

/// The example in a language.
fn example(language: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("\n```{language}\n")).expect("there is an example");
    rest.split_once("\n```").expect("an example ends").0.to_owned() + "\n"
}

/// Runs an example, and checks that its PIN ends.
fn ends(language: &str, version: &str, command: &[&str], file: &str, pin: &str) {
    let program = command[0];
    // Not every shell can print its version, and every machine has a shell.
    let needed = if program == "sh" { "curl" } else { program };
    if !Command::new(needed).arg(version).output().is_ok_and(|output| output.status.success()) {
        return not_run(&format!("the example of docs/http-api.md for {language}"), needed);
    }
    let api = Api::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(file), example(language)).unwrap();
    let mut example = Command::new(program);
    example.args(&command[1..]).arg(file).current_dir(folder.path());
    example.env("PINWATCH_URL", format!("http://{}", api.address())).env("PINWATCH_TOKEN", &api.submit);
    let done = example.output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{printed}{}", String::from_utf8_lossy(&done.stderr));
    let record = api.get(&format!("/v1/pins/{pin}/outcome")).json()["outcome"].clone();
    assert_eq!(record["reference"], "order-42");
    let status = record["status"].as_str().expect("an ordinary PIN has a status");
    assert!(printed.contains(status), "{status}: {printed}");
}

#[test]
fn the_curl_example_submits_a_pin_and_prints_its_status() {
    ends("sh", "--version", &["sh", "-eu"], "example.sh", "CURL-9C81");
}

#[test]
fn the_python_example_submits_a_pin_and_prints_its_status() {
    if Command::new("python3")
        .args(["-c", "import requests"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        ends("python", "--version", &["python3"], "example.py", "PYTHON-9C81");
    } else {
        not_run("the example of docs/http-api.md for Python", "python3-requests");
    }
}

#[test]
fn the_node_example_submits_a_pin_and_prints_its_status() {
    ends("js", "--version", &["node"], "example.mjs", "NODE-9C81");
}

#[test]
fn the_php_example_submits_a_pin_and_prints_its_status() {
    ends("php", "--version", &["php"], "example.php", "PHP-9C81");
}

#[test]
fn the_java_example_submits_a_pin_and_prints_its_status() {
    ends("java", "--version", &["java"], "Api.java", "JAVA-9C81");
}

#[test]
fn the_go_example_submits_a_pin_and_prints_its_status() {
    ends("go", "version", &["go", "run"], "example.go", "GO-9C81");
}

#[test]
fn every_problem_code_is_documented() {
    for code in pinwatch::http::PROBLEM_CODES {
        assert!(PAGE.contains(&format!("`{code}`")), "{code} is not in docs/http-api.md");
    }
}
