//! The checks of the fuzz targets (`fuzz/checks`), with what proptest makes up and with the seeds: a short form for every
//! test run. `PROPTEST_CASES=25600` makes it a hundred times as long.

#[path = "../../fuzz/checks/mod.rs"]
#[allow(unused, reason = "some is for the fuzz targets alone")]
mod checks;

use crate::process::terminal;

use std::path::Path;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

/// Runs a check with the target's seeds, then with pieces of them and other bytes in any order.
fn fuzz(target: &str, pieces: &[&str], cases: u32, check: impl Fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<Vec<u8>> =
        std::fs::read_dir(seeds).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
    seeds.iter().for_each(|seed| check(seed));
    let part = (select(seeds), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let part = part.prop_map(|(seed, from, to)| {
        let (from, to) = (from.index(seed.len() + 1), to.index(seed.len() + 1));
        seed[from.min(to)..from.max(to)].to_vec()
    });
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    let piece = prop_oneof![3 => select(pieces), 2 => part, 1 => vec(any::<u8>(), 0..8)];
    let defaults = ProptestConfig::default();
    let config =
        ProptestConfig { cases: cases * defaults.cases / 256, failure_persistence: None, ..defaults };
    // Tells the shortest input that fails; what is worth keeping becomes a seed.
    let ran = TestRunner::new(config).run(&vec(piece, 0..8), |pieces| {
        check(&pieces.concat());
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn any_bytes_of_a_client_are_answered_line_by_line() {
    let daemon = checks::handlers::Daemon::start();
    let pieces =
        ["{\"op\":\"", "show", "list", "\",\"pinId\":\"P1\"}\n", "\n", "\"P1\"", "W1\n", ",\"after\":", "}"];
    fuzz("handlers", &pieces, 300, |input| daemon.check(input));
}

#[test]
fn any_answer_of_a_receiver_is_quoted_in_one_harmless_line_without_secrets() {
    let receiver = checks::webhook::Receiver::start();
    let pieces = [
        "HTTP/1.1 500 X\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\n",
        "\r\n",
        "\u{1}",
        "\u{2}",
        "\u{3}",
        "\u{4}",
        "%2",
        "\\u00",
    ];
    fuzz("webhook", &pieces, 300, |input| receiver.check(input));
}

#[test]
fn any_end_of_a_result_file_loses_no_line_and_changes_no_foreign_data() {
    let files = checks::file_end::Files::new();
    let pieces = [
        "\u{1}",
        "\u{2}",
        "\u{3}",
        "\u{4}\u{9}",
        "\u{5}\u{14}",
        "\u{6}\u{7f}",
        "\u{7}",
        "\n",
        "\0",
        "{\"seq\":",
        "other",
    ];
    fuzz("file_end", &pieces, 500, |input| files.check(input));
}

#[test]
fn with_any_answer_description_only_a_flag_or_a_listed_status_makes_it_final() {
    let pieces = [
        "\t/status",
        "\t",
        "\n",
        "/a~1b/0",
        "{\"status\":\"C\"",
        ",\"final\":true",
        "[",
        "]",
        "}",
        ",",
        "\"",
        "null",
        "1e3",
        "\\u0000",
    ];
    fuzz("described", &pieces, 2000, checks::described::check);
}

#[test]
fn any_configuration_is_accepted_or_refused_without_showing_the_key() {
    let pieces = [
        "[api]\n",
        "[[sink]]\n",
        "type = \"file\"\n",
        "--set ",
        "--env ",
        "=",
        "\"",
        "\n",
        "'''",
        "0x",
        "{",
        "]",
    ];
    fuzz("config", &pieces, 500, checks::config::check);
}

#[test]
fn a_client_shows_no_control_characters_of_any_answer() {
    let daemon = checks::client::Daemon::start();
    let pieces = [
        "{\"ok\":true",
        "{\"ok\":false,\"error\":{\"code\":\"x",
        "\"}}\n",
        ":\"\\u001b[2J\\u202e\"",
        "\u{1b}[2J",
        "}\n",
        "null",
        "[",
    ];
    fuzz("client", &pieces, 60, |input| {
        daemon.check(input, |arguments| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pinwatch"));
            command.args(arguments);
            terminal::shown(command).0.into_bytes()
        });
    });
}
