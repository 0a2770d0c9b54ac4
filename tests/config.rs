//! What somebody who writes a configuration gets to see: which values are in effect, and what is said when
//! something is wrong. Through the library; the binary's own words are tested with the commands.

use std::path::{Path, PathBuf};

use pinwatch::config::{Config, ConfigError, Environment, Explained, Sources};

/// A folder with a configuration file in it, and an environment that is nobody's.
struct Place {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Place {
    /// Root's place without any file and with a key in the environment.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment =
            Environment { system_file: folder.path().join("pinwatch.toml"), ..Environment::default() };
        let mut place = Self { folder, sources: Sources { environment, ..Sources::default() } };
        place.variable("PINWATCH__API__KEY", "from-the-environment");
        place
    }

    fn variable(&mut self, name: &str, value: impl AsRef<Path>) -> &mut Self {
        self.sources.environment.variables.insert(name.to_owned(), value.as_ref().into());
        self
    }

    fn file(&mut self, text: &str) -> &mut Self {
        std::fs::write(&self.sources.environment.system_file, text).unwrap();
        self
    }

    fn set(&mut self, flag: &str) -> &mut Self {
        self.sources.set.push(flag.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn explain(&self) -> Explained {
        Config::explain(&self.sources).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The message without the folder's name, which differs in each run.
    fn refusal(&self) -> String {
        let error = Config::load(&self.sources).expect_err("it was taken");
        error.to_string().replace(&format!("{}/", self.folder.path().display()), "/etc/pinwatch/")
    }

    /// `value (origin)` of a key in effect.
    fn effect(&self, key: &str) -> String {
        let setting = self.explain().settings.into_iter().find(|setting| setting.key == key);
        let setting = setting.unwrap_or_else(|| panic!("{key} isn't listed"));
        format!("{} ({})", setting.value, setting.origin)
            .replace(&format!("{}/", self.folder.path().display()), "/etc/pinwatch/")
    }
}

#[test]
fn a_later_source_wins_and_the_origin_is_told() {
    let mut place = Place::new();
    assert_eq!(place.effect("api.concurrency"), "64 (default)");
    place.file("[api]\n\nconcurrency = 1\n");
    assert_eq!(place.effect("api.concurrency"), "1 (/etc/pinwatch/pinwatch.toml, line 3)");
    place.variable("PINWATCH__API__CONCURRENCY", "2");
    assert_eq!(place.effect("api.concurrency"), "2 (PINWATCH__API__CONCURRENCY in the environment)");
    place.set("api.concurrency=3").set("api.concurrency=4");
    assert_eq!(place.effect("api.concurrency"), "4 (--set)");
    assert_eq!(place.effect("api.timeout"), "\"10s\" (default)");
}

#[test]
fn every_problem_is_told_at_once_with_key_value_origin_and_what_would_be_right() {
    let mut place = Place::new();
    place
        .file(
            "[schedule]\nmax_interval = \"10x\"\ndeadlin = \"1h\"\n[intake]\nmode = 660\n[sched]\na = 1\n[store]\nurl = \"postgres://u:geheim@db/x\"\n",
        )
        .variable("PINWATCH__API__RATE", "fast")
        .set("log.level=inof")
        .set("schedule.initial_interval=10");
    insta::assert_snapshot!(place.refusal());
}

#[test]
fn a_secret_is_in_no_message_whatever_is_wrong_with_it() {
    const SECRET: &str = "geheim";
    let file = |text: &str| Place::new().file(text).refusal();
    let flag = |text: &str| Place::new().set(text).refusal();
    let table = [
        ("a key with a space in it", flag("api.key=geheim geheim")),
        ("a key with a typing error in its name", flag("api.kye=geheim")),
        ("a flag without an equals sign", flag("api.keygeheim")),
        ("a key in place of its file", {
            let mut place = Place::new();
            place.sources.environment.variables.clear();
            place.set("api.key_file=geheim").refusal()
        }),
        ("a line that isn't TOML", file("[api]\nkey = \"geheim\n")),
        ("two lines with the key", file("[api]\nkey = \"geheim\"\nkey = \"geheim\"\n")),
        ("a key that is a list", file("[api]\nkey_file = [\"geheim\"]\npassword = \"geheim\"")),
        ("a password in the base URL", flag("api.base_url=https://user:geheim@host")),
        ("a token in the base URL's query", flag("api.base_url=https://host?token=geheim")),
        ("a password in a URL that isn't one", flag("api.base_url=https:/user:geheim#x@ho st")),
        ("the password of a database", flag("store.url=postgres://user:geheim/geheim?geheim@db/x")),
        (
            "a signing secret without its prefix",
            flag("sink=[{type=\"webhook\", url=\"https://h/\", secret=\"geheim\"}]"),
        ),
        (
            "a signing secret of the wrong type",
            flag("sink=[{type=\"webhook\", url=\"https://h/\", secrets=\"geheim\"}]"),
        ),
    ];
    for (title, message) in table {
        assert!(!message.contains(SECRET), "{title}: {message}");
    }
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let mut place = Place::new();
    let secret = format!("whsec_{}", "Z2VoZWlt".repeat(6));
    place
        .variable("PINWATCH__API__KEY", "geheim")
        .set(&format!("sink=[{{type=\"webhook\", url=\"https://h/\", secret=\"{secret}\"}}]"));
    let shown = format!("{:?} {:?}", place.sources, place.explain());
    assert!(!shown.contains("geheim") && !shown.contains("Z2VoZWlt"), "{shown}");
}

#[test]
fn a_file_given_by_name_must_be_there_and_the_systems_need_not() {
    let mut place = Place::new();
    assert_eq!(place.explain().file, None);
    place.sources.file = Some(place.path("other.toml"));
    assert_eq!(place.refusal(), "can't read the configuration file /etc/pinwatch/other.toml");
    std::fs::write(place.path("other.toml"), "shutdown_grace = \"1m\"").unwrap();
    assert_eq!(place.effect("shutdown_grace"), "\"1m\" (/etc/pinwatch/other.toml, line 1)");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let mut place = Place::new();
    let table = [
        ("[api]\nkey = \n", 2),
        ("[api\n", 1),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", 3),
        ("[api]\nrate = 99999999999999999999\n", 2),
    ];
    for (text, expected) in table {
        match Config::load(&place.file(text).sources) {
            Err(ConfigError::Syntax { line, .. }) => assert_eq!(line, expected, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}
