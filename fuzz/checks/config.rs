//! Any configuration: the file, `--set` and the environment. It is taken, or refused with the key and a reason; and no
//! message, no list of settings and no `Debug` has the API key in it.
//!
//! Of the input, lines that begin with `--set ` and `--env ` are what they say; the others are the file.

use std::collections::BTreeMap;

use pinwatch::config::{Config, ConfigError, Environment, Sources};

/// The key in force, whatever the input says.
const KEY: &str = "k3y-hunter2-0123";

pub fn check(input: &[u8]) {
    // A fuzzer finds the key by itself, and then anything may have it.
    if input.windows(KEY.len()).any(|part| part == KEY.as_bytes()) {
        return;
    }
    let Ok(input) = str::from_utf8(input) else { return check_file(input) };
    let (mut file, mut set, mut variables) = (String::new(), Vec::new(), BTreeMap::new());
    for line in input.split_inclusive('\n') {
        if let Some(flag) = line.strip_prefix("--set ") {
            set.push(flag.trim_end_matches('\n').to_owned());
        } else if let Some(variable) = line.strip_prefix("--env ") {
            let (name, value) = variable.trim_end_matches('\n').split_once('=').unwrap_or((variable, ""));
            variables.insert(format!("PINWATCH__{name}"), value.into());
        } else {
            file.push_str(line);
        }
    }
    check_sources(file.as_bytes(), set, variables);
}

fn check_file(content: &[u8]) {
    check_sources(content, Vec::new(), BTreeMap::new());
}

fn check_sources(content: &[u8], mut set: Vec<String>, variables: BTreeMap<String, std::ffi::OsString>) {
    set.push(format!("api.key={KEY}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pinwatch.toml");
    std::fs::write(&file, content).unwrap();
    let environment =
        Environment { variables, working_directory: folder.path().into(), ..Environment::default() };
    let sources = Sources { file: Some(file), environment, set };
    let told = match Config::explain(&sources) {
        Ok(explained) => {
            for setting in &explained.settings {
                assert!(!setting.key.is_empty() && !setting.origin.is_empty(), "{setting:?}");
            }
            format!("{explained:?}")
        }
        Err(error) => {
            if let ConfigError::Invalid(problems) = &error {
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!(!problem.key.is_empty() && !problem.reason.is_empty(), "{problem:?}");
                }
            }
            format!("{error}{error:?}")
        }
    };
    assert!(!told.contains(KEY), "the key is shown: {told}");
    // A client that only asks for the socket reads the same.
    if let Err(error) = pinwatch::config::client_socket(&sources) {
        assert!(!error.to_string().contains(KEY), "the key is shown: {error}");
    }
}
