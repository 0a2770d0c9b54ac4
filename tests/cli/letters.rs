//! Commands for dead letters, replays and sinks against a fake daemon.

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

use super::{nothing_but_an_error, pinwatch};
use crate::cli::fake::{Fake, error, record};

fn letter(sink: &str, seq: i64, pin: &str) -> Value {
    json!({"sink": sink, "seq": seq, "pinId": pin, "tries": 3, "since": "2026-01-02T03:04:05.000Z",
           "lastTryAt": "2026-01-02T03:05:05.000Z", "error": "410 Gone", "outcome": record(seq, pin, None)})
}

fn page(letters: &[Value], next: Option<&str>) -> Value {
    let mut page = json!({"ok": true, "deadLetters": letters});
    if let Some(next) = next {
        page["next"] = next.into();
    }
    page
}

fn counted(count: u64) -> Value {
    json!({"ok": true, "count": count})
}

#[test]
fn dead_letters_are_listed_page_by_page_up_to_the_limit_with_the_next_command() {
    let fake = Fake::new(|socket| {
        socket
            .accept()
            .expect(json!({"op": "dead_letters", "sink": "hook", "limit": 3}))
            .say(page(&[letter("hook", 4, "a"), letter("hook", 5, "b")], Some("hook/5")))
            .expect(json!({"op": "dead_letters", "sink": "hook", "after": "hook/5", "limit": 1}))
            .say(page(&[letter("hook", 9, "c")], Some("hook/9")));
        socket
            .accept()
            .expect(json!({"op": "dead_letters", "after": "hook/9", "limit": 100}))
            .say(page(&[], None));
    });
    let list = |args: &[&str]| {
        pinwatch(&["dead-letters", "list"]).args(args).arg("--socket").arg(fake.socket()).assert()
    };
    let lines =
        [letter("hook", 4, "a"), letter("hook", 5, "b"), letter("hook", 9, "c")].map(|l| format!("{l}\n"));
    list(&["--sink", "hook", "--limit", "3"])
        .code(0)
        .stdout(lines.concat() + "{\"next\":\"hook/9\"}\n")
        .stderr("there are more: --after hook/9\n");
    list(&["--after", "hook/9"]).code(0).stdout("").stderr("");
    fake.join();
}

#[test]
fn a_number_without_seq_is_a_pin_id() {
    let fake = Fake::new(|socket| {
        socket
            .accept()
            .expect(json!({"op": "dead_letters", "pinId": "42", "limit": 500}))
            .say(page(&[letter("file", 7, "42")], Some("file/7")))
            .expect(json!({"op": "dead_letters", "pinId": "42", "after": "file/7", "limit": 500}))
            .say(page(&[letter("hook", 7, "42")], None));
        socket
            .accept()
            .expect(json!({"op": "dead_letters", "sink": "hook", "from": 42, "to": 42, "limit": 500}))
            .say(page(&[], None));
    });
    let show = |args: &[&str]| {
        pinwatch(&["dead-letters", "show"]).args(args).arg("--socket").arg(fake.socket()).assert()
    };
    show(&["42"]).code(0).stdout(format!("{}\n{}\n", letter("file", 7, "42"), letter("hook", 7, "42")));
    show(&["--seq", "42", "--sink", "hook"])
        .code(1)
        .stdout(contains("not_found"))
        .stderr(contains("seq 42 is no dead letter"));
    fake.join();
}

#[test]
fn replay_and_drop_report_each_result_and_exit_1_if_nothing_was_found() {
    let fake = Fake::new(|socket| {
        for (op, extra) in [("replay", json!({"dead": true})), ("drop", json!({}))] {
            let request = |which: Value| {
                let mut request = json!({"op": op, "sink": "hook"});
                for part in [which, extra.clone()] {
                    request.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
                }
                request
            };
            socket
                .accept()
                .expect(request(json!({"pinId": "9C81"})))
                .say(counted(1))
                .expect(request(json!({"pinId": "9C82"})))
                .say(counted(0))
                .expect(request(json!({"pinId": "9C83"})))
                .say(error("not_found"));
            socket
                .accept()
                .expect(request(json!({"from": 4, "to": 4})))
                .say(counted(1))
                .expect(request(json!({"from": 9, "to": 9})))
                .say(counted(1));
        }
    });
    for command in ["replay", "drop"] {
        let ask = |args: &[&str]| {
            let command = ["dead-letters", command, "--sink", "hook"];
            pinwatch(&command).args(args).arg("--socket").arg(fake.socket()).assert()
        };
        ask(&["9C81", "9C82", "9C83"])
            .code(1)
            .stdout(
                "{\"sink\":\"hook\",\"pinId\":\"9C81\",\"count\":1}\n{\"sink\":\"hook\",\"pinId\":\"9C82\",\"count\":0}\n\
                 {\"ok\":false,\"sink\":\"hook\",\"pinId\":\"9C83\",\"error\":{\"code\":\"not_found\",\"message\":\"says the fake\"}}\n",
            )
            .stderr("PIN 9C82: no dead letter of this sink\nPIN 9C83: refused: says the fake (not_found)\n");
        ask(&["--seq", "4,9"])
            .code(0)
            .stdout("{\"sink\":\"hook\",\"seq\":4,\"count\":1}\n{\"sink\":\"hook\",\"seq\":9,\"count\":1}\n");
    }
    fake.join();
}

#[test]
fn replay_takes_pins_or_a_range_of_seqs() {
    let fake = Fake::new(|socket| {
        socket
            .accept()
            .expect(json!({"op": "replay", "sink": "file", "pinId": "9C81", "dead": false}))
            .say(counted(1));
        socket
            .accept()
            .expect(json!({"op": "replay", "sink": "file", "from": 3, "to": 5, "dead": false}))
            .say(counted(0));
    });
    let replay = |args: &[&str]| {
        pinwatch(&["replay", "--sink", "file"]).args(args).arg("--socket").arg(fake.socket()).assert()
    };
    replay(&["9C81"]).code(0).stdout("{\"sink\":\"file\",\"pinId\":\"9C81\",\"count\":1}\n");
    replay(&["--from", "3", "--to", "5"])
        .code(1)
        .stdout("{\"sink\":\"file\",\"from\":3,\"to\":5,\"count\":0}\n")
        .stderr(contains("seq 3 to 5: nothing to replay"));
    fake.join();
}

#[test]
fn sinks_are_listed_one_on_a_line_and_forgotten_by_name() {
    let fake = Fake::new(|socket| {
        let sinks =
            json!({"file": {"configured": true, "cursor": 7}, "old": {"configured": false, "cursor": 2}});
        socket.accept().expect(json!({"op": "stats"})).say(json!({"ok": true, "stats": {"sinks": sinks}}));
        socket.accept().expect(json!({"op": "forget_sink", "sink": "old"})).say(counted(1));
        socket.accept().expect(json!({"op": "forget_sink", "sink": "file"})).say(error("invalid_request"));
    });
    let ask = |args: &[&str]| pinwatch(&["sinks"]).args(args).arg("--socket").arg(fake.socket()).assert();
    ask(&["list"]).code(0).stdout(
        "{\"name\":\"file\",\"configured\":true,\"cursor\":7}\n{\"name\":\"old\",\"configured\":false,\"cursor\":2}\n",
    );
    ask(&["forget", "old"]).code(0).stdout("{\"sink\":\"old\",\"forgotten\":true}\n");
    ask(&["forget", "file"])
        .code(1)
        .stdout(contains("invalid_request"))
        .stderr(contains("says the fake (invalid_request)"));
    fake.join();
}

#[test]
fn the_help_of_every_subcommand_of_dead_letters_and_sinks_has_examples() {
    for (command, subcommands) in
        [("dead-letters", &["list", "show", "replay", "drop"][..]), ("sinks", &["list", "forget"])]
    {
        for subcommand in subcommands {
            let example = format!("pinwatch {command} {subcommand} ");
            pinwatch(&[command, subcommand, "--help"])
                .assert()
                .success()
                .stdout(contains("Examples:\n").and(contains(example.trim_end())));
        }
        pinwatch(&[command]).assert().code(2).stderr(contains("Usage:"));
    }
}

#[test]
fn replay_and_drop_need_exactly_one_selection() {
    let letters = |args: &[&'static str]| [&["dead-letters"], args].concat();
    for (args, hint) in [
        (letters(&["drop", "--sink", "hook"]), "--all"),
        (letters(&["drop", "--all"]), "--sink"),
        (letters(&["drop", "9C81", "--all", "--sink", "hook"]), "cannot be used with"),
        (letters(&["replay", "--sink", "hook", "--seq", "4", "--all"]), "cannot be used with"),
        (letters(&["replay", "--sink", "hook", "--seq", "four"]), "--seq"),
        (letters(&["replay", "--sink", "hook", "a/b"]), "a PIN ID has only the characters"),
        (letters(&["drop", "--sink", "hook", "--seq", "4", "--state", "final"]), "a filter needs --all"),
        (letters(&["drop", "--sink", "hook", "--all"]), "add --yes"),
        (letters(&["replay", "--sink", "hook", "--all", "--older-than", "soon"]), "neither an age, such as"),
        (letters(&["list", "--state", "gone"]), "a state is one of"),
        (letters(&["show"]), "--seq"),
        (letters(&["show", "9C81", "--seq", "4"]), "cannot be used with"),
        (letters(&["list", "--limit", "0"]), "--limit"),
        (vec!["replay", "--sink", "hook"], "--from"),
        (vec!["replay", "--sink", "hook", "--from", "4"], "--to"),
        (vec!["replay", "--sink", "hook", "9C81", "--from", "4", "--to", "5"], "cannot be used with"),
        (vec!["replay", "--sink", "hook", "--from", "5", "--to", "4"], "--from 5 is after --to 4"),
        (vec!["replay", "--sink", "hook", "9C81", "--all"], "cannot be used with"),
        (vec!["replay", "--sink", "hook", "9C81", "--status", "SENT"], "a filter needs --all"),
        (vec!["replay", "--sink", "hook", "--all"], "there is no terminal to ask on: add --yes"),
        (vec!["replay", "9C81"], "--sink"),
        (vec!["sinks", "forget"], "<NAME>"),
    ] {
        pinwatch(&args).assert().code(2).stdout(nothing_but_an_error()).stderr(contains(hint));
    }
}
