//! What an author of a configuration sees: which values are in effect, and the messages when
//! something is wrong. Through the library; the messages of the binary are tested with the commands.

use std::path::{Path, PathBuf};

use pinwatch::config::{Config, ConfigError, Environment, Explained, Setting, Sources};

/// A folder with a configuration file in it, and an environment of its own.
struct Place {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Place {
    /// The environment of root, without a file and with a key in a variable.
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
fn a_later_source_wins_and_the_origin_is_shown() {
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
fn every_problem_is_reported_at_once_with_key_value_origin_and_remedy() {
    let mut place = Place::new();
    place
        .file(
            "[schedule]\nmax_interval = \"10x\"\ndeadlin = \"1h\"\n[intake]\nmode = 660\n[sched]\na = 1\n[store]\nurl = \"postgres://u:geheim@db:x/x\"\n",
        )
        .variable("PINWATCH__API__RATE", "fast")
        .set("log.level=inof")
        .set("schedule.initial_interval=10");
    insta::assert_snapshot!(place.refusal());
}

#[test]
fn all_settings_in_effect_are_listed_without_secrets() {
    let mut place = Place::new();
    place.sources.environment.variables.clear();
    std::fs::write(place.path("api-key"), "geheim\n").unwrap();
    let sinks = format!(
        "[[sink]]\ntype = \"webhook\"\nurl = \"https://h/a?token=geheim\"\nsecret = \"whsec_{}\"\n",
        "A".repeat(32)
    );
    place.file(&format!(
        "shutdown_grace = \"20s\"\n[api]\nkey_file = \"{}\"\npath = \"/logs?token=geheim&id={{pinId}}\"\n{sinks}",
        place.path("api-key").display()
    ));
    let line = |Setting { key, value, origin }| format!("{key} = {value}  # {origin}\n");
    let listed: String = place.explain().settings.into_iter().map(line).collect();
    insta::assert_snapshot!(listed.replace(&format!("{}/", place.folder.path().display()), "/etc/pinwatch/"));
}

#[test]
fn a_secret_is_in_no_error_message() {
    const SECRET: &str = "geheim";
    let file = |text: &str| Place::new().file(text).refusal();
    let flag = |text: &str| Place::new().set(text).refusal();
    let without_key = |text: &str| {
        let mut place = Place::new();
        place.sources.environment.variables.clear();
        place.set(text).refusal()
    };
    let table = [
        ("a key with a space in it", flag("api.key=geheim geheim")),
        ("a key with a typing error in its name", flag("api.kye=geheim")),
        ("a flag without an equals sign", flag("api.keygeheim")),
        ("a key in place of its file", without_key("api.key_file=geheim")),
        ("a line that isn't TOML", file("[api]\nkey = \"geheim\n")),
        ("two lines with the key", file("[api]\nkey = \"geheim\"\nkey = \"geheim\"\n")),
        ("a key that is a list", file("[api]\nkey_file = [\"geheim\"]\npassword = \"geheim\"")),
        ("a password without its user name", without_key("api.password=geheim")),
        ("a user name with its password", without_key("api.username=user:geheim")),
        ("a key in place of how it is sent", flag("api.auth=Bearer geheim")),
        ("a key in a path that is refused", flag("api.path=/status?apikey=geheim")),
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
    let shown = format!("{:?}", place.explain());
    assert!(!shown.contains("geheim") && !shown.contains("Z2VoZWlt"), "{shown}");
}

#[test]
fn a_configuration_file_given_by_name_must_exist_and_the_default_one_need_not() {
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

/// The file that is shipped.
const SHIPPED: &str = include_str!("../../config/pinwatch.toml");

/// The keys of the shipped file, in full, and their lines without the `#`. Those of sinks are `sink.…`.
fn shipped_keys() -> Vec<(String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in SHIPPED.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').filter(|_| !bare.starts_with("[ ")) {
            section = format!("{}.", name.trim_matches(['[', ']']));
        } else if let Some((key, _)) =
            bare.split_once(" = ").filter(|_| line.starts_with('#') && !bare.starts_with(' '))
        {
            keys.push((format!("{section}{key}"), bare.to_owned()));
        }
    }
    keys
}

/// The longest time that the shipped file documents for each key, as in "1s to 10 years".
fn documented_maxima() -> Vec<(String, &'static str)> {
    let mut keys = shipped_keys().into_iter();
    let (mut comment, mut maxima) = (None, Vec::new());
    for line in SHIPPED.lines() {
        let documented = line.strip_prefix("# ").and_then(|prose| {
            let ends = prose.split(" to ").skip(1).filter_map(|rest| rest.split(['.', ';']).next());
            ends.into_iter().find(|end| humantime::parse_duration(end).is_ok())
        });
        comment = documented.or(comment);
        let is_key =
            line.strip_prefix('#').is_some_and(|bare| !bare.starts_with(' ') && bare.contains(" = "));
        if is_key && let Some((key, _)) = keys.next() {
            maxima.extend(comment.take().map(|most| (key, most)));
        }
    }
    maxima
}

#[test]
fn the_documented_maximum_of_each_duration_is_the_accepted_one() {
    let maxima = documented_maxima();
    assert!(maxima.len() >= 10, "{maxima:?}");
    for (key, most) in maxima {
        let problem = |value: &str| {
            let mut place = Place::new();
            place.set("schedule.max_interval=1year");
            match key.strip_prefix("sink.") {
                Some(key) => place.set(&format!(
                    "sink=[{{type=\"webhook\", url=\"https://h.example/\", {key}=\"{value}\"}}]"
                )),
                None => place.set(&format!("{key}={value}")),
            };
            Config::load(&place.sources).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(!problem(most).contains("at most"), "{}", problem(most));
        let longer = problem(&format!("{most} 1s"));
        let most = humantime::format_duration(humantime::parse_duration(most).unwrap());
        assert!(longer.contains(&format!("at most {most}")), "{key}: {longer}");
    }
}

#[test]
fn the_shipped_file_equals_the_defaults() {
    let mut place = Place::new();
    let defaults = place.explain().settings;
    assert_eq!(place.file(SHIPPED).explain().settings, defaults);
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    let mut shipped: Vec<String> = shipped_keys().into_iter().map(|(key, _)| key).collect();
    let mut known = pinwatch::config::known_keys();
    shipped.sort();
    shipped.dedup();
    known.sort();
    assert_eq!(shipped, known);
}

#[test]
fn a_default_that_is_uncommented_changes_nothing() {
    let defaults = Place::new().explain().settings;
    for (key, line) in shipped_keys() {
        let Some(default) = defaults.iter().find(|setting| setting.key == key && !key.contains("key")) else {
            continue;
        };
        let (section, line) = match key.rsplit_once('.') {
            Some((section, _)) => (format!("[{section}]\n"), line),
            None => (String::new(), line),
        };
        let mut place = Place::new();
        let explained = place.file(&format!("{section}{line}\n")).explain();
        let setting = explained.settings.into_iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(setting.value, default.value, "{line}");
        assert_ne!(setting.origin, "default", "{line}");
    }
}

#[test]
fn the_shipped_file_with_every_key_uncommented_is_valid() {
    // Alternatives of one setting are used in turn.
    let turns = [
        vec!["username", "password", "password_file", "secret", "secrets", "key"],
        vec!["username", "password", "password_file", "secret_file", "secrets", "key_file"],
        vec!["key", "key_file", "password", "secret", "secret_file"],
        vec!["key", "key_file", "password_file", "secret_file", "secret"],
    ];
    for without in turns {
        let mut place = Place::new();
        place.sources.environment.variables.clear();
        std::fs::write(place.path("api-key"), "0123").unwrap();
        std::fs::write(place.path("api-password"), "0123").unwrap();
        std::fs::write(place.path("webhook-secret"), format!("whsec_{}\n", "A".repeat(32))).unwrap();
        std::fs::write(place.path("webhook-headers"), "X-Gateway-Key: 0123\n").unwrap();
        let signed = rcgen::generate_simple_self_signed(["pinwatch".to_owned()]).unwrap();
        for (name, pem) in [
            ("webhook-ca.pem", signed.cert.pem()),
            ("webhook-client.pem", signed.cert.pem()),
            ("webhook-client-key.pem", signed.signing_key.serialize_pem()),
        ] {
            std::fs::write(place.path(name), pem).unwrap();
        }
        let lines = SHIPPED.lines().filter_map(|line| match line.strip_prefix('#') {
            Some(prose) if prose.is_empty() || prose.starts_with(' ') => None,
            Some(key) if without.iter().any(|name| key.starts_with(&format!("{name} = "))) => None,
            Some(key) => Some(key),
            None => Some(line),
        });
        let text: Vec<&str> = lines.collect();
        let text = text.join("\n").replace("/etc/pinwatch", &place.folder.path().display().to_string());
        assert_eq!(place.file(&text).explain().config.sinks.len(), 3, "without {without:?}");
    }
}

#[test]
fn without_a_configuration_file_a_user_gets_personal_paths() {
    let mut place = Place::new();
    place.sources.environment.uid = 1000;
    place.variable("HOME", "/home/u");
    assert_eq!(
        place.effect("intake.socket"),
        "\"/tmp/pinwatch-1000/pinwatch.sock\" (default without $XDG_RUNTIME_DIR)"
    );
    assert_eq!(
        place.effect("store.url"),
        "\"sqlite:/home/u/.local/state/pinwatch/pinwatch.db\" (default, in $HOME)"
    );
    assert_eq!(place.effect("sink[0].type"), "\"stdout\" (default)");

    place.variable("XDG_RUNTIME_DIR", "/run/user/1000").variable("XDG_STATE_HOME", "/state");
    assert_eq!(
        place.effect("intake.socket"),
        "\"/run/user/1000/pinwatch/pinwatch.sock\" (default, in $XDG_RUNTIME_DIR)"
    );
    assert_eq!(
        place.effect("store.url"),
        "\"sqlite:/state/pinwatch/pinwatch.db\" (default, in $XDG_STATE_HOME)"
    );

    place.variable("XDG_RUNTIME_DIR", "relative");
    assert!(place.effect("intake.socket").starts_with("\"/tmp/"), "a relative XDG folder counts");

    place.file("");
    assert_eq!(place.effect("intake.socket"), "\"/run/pinwatch/pinwatch.sock\" (default)");
    assert_eq!(place.effect("store.url"), "\"sqlite:/var/lib/pinwatch/pinwatch.db\" (default)");
}

#[test]
fn a_user_without_any_home_is_asked_for_the_store() {
    let mut place = Place::new();
    place.sources.environment.uid = 1000;
    assert_eq!(
        place.refusal(),
        "in the configuration, store.url: must be given, because neither $XDG_STATE_HOME nor $HOME is an \
         absolute path"
    );
    place.set("store.url=sqlite:/a.db");
    assert_eq!(place.effect("store.url"), "\"sqlite:/a.db\" (--set)");
}

#[test]
fn values_from_the_environment_and_flags_get_the_type_of_their_key() {
    let mut place = Place::new();
    place
        .set("api.key=12345")
        .set("api.concurrency=1_000")
        .set("api.allow_plain_http=true")
        .set("schedule.multiplier=2")
        .set("shutdown_grace=1m 30s")
        .set("sink=[{type=\"stdout\", name=\"a\"}, {type=\"file\", path=\"/b\"}]");
    let config = place.explain().config;
    assert_eq!((config.api.concurrency, config.schedule.multiplier), (1000, 2.0));
    assert_eq!(config.shutdown_grace.as_secs(), 90);
    assert_eq!(config.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(), ["a", "file"]);
    assert_eq!(place.effect("api.key"), "set (--set)");
    assert_eq!(place.effect("sink[1].path"), "\"/b\" (--set)");
}

#[test]
fn the_values_of_a_preset_apply_unless_overridden_and_are_shown_with_their_origin() {
    let mut place = Place::new();
    place.sources.environment.variables.clear();
    place.file(
        "[api]\npreset = \"vonage-verify\"\nusername = \"u\"\npassword = \"p\"\n[api.answer]\nstatus = \"/state\"\n",
    );
    place.variable("PINWATCH__API__ANSWER__WAITING_STATUSES", "IN PROGRESS, PENDING");
    place.set("api.answer.final=/done");
    for (key, expected) in [
        ("api.preset", "\"vonage-verify\" (/etc/pinwatch/pinwatch.toml, line 2)"),
        ("api.base_url", "\"https://api.nexmo.com/\" (preset vonage-verify, line 4)"),
        ("api.auth", "\"Basic\" (preset vonage-verify, line 6)"),
        ("api.answer.status", "\"/state\" (/etc/pinwatch/pinwatch.toml, line 6)"),
        ("api.answer.id", "\"/request_id\" (preset vonage-verify, line 10)"),
        ("api.answer.final", "\"/done\" (--set)"),
        (
            "api.answer.waiting_statuses",
            "[\"IN PROGRESS\", \"PENDING\"] (PINWATCH__API__ANSWER__WAITING_STATUSES in the environment)",
        ),
        ("api.timeout", "\"10s\" (default)"),
    ] {
        assert_eq!(place.effect(key), expected, "{key}");
    }
    let answer = place.explain().config.api.answer.unwrap();
    assert_eq!((answer.status.as_str(), answer.statuses.len()), ("/state", 6));
    // What needs a user name says so, with the preset as the reason.
    let refusal = Place::new().set("api.preset=twilio-message").refusal();
    assert!(
        refusal.contains("auth is \"Basic\" (preset twilio-message, line 6): give api.username"),
        "{refusal}"
    );
}

#[test]
fn a_key_that_a_flag_or_variable_can_not_set_is_reported() {
    let table = [
        (
            "sink.0.url=x",
            "sink.0.url (--set): sinks can't be set key by key; set the whole list, or write [[sink]] in the file",
        ),
        ("sink=stdout", "sink (--set): must be a list in TOML, such as [{type=\"stdout\"}]: "),
        ("api=1", "api (--set): is a section; set one of its keys, api.…"),
        ("api.answer=1", "api.answer (--set): is a section; set one of its keys, api.answer.…"),
        ("api.answer.stat=1", "api.answer.stat (--set): [api.answer] has no such key; did you mean status?"),
        ("api.answer.status.x=1", "api.answer.status.x (--set): there is no such key"),
        ("api.preset=vonage", "api.preset = \"vonage\" (--set): must be \"infobip-2fa-pin\", "),
        ("api.auth=Bearer", "api.auth (--set): must be a scheme before the key"),
        (
            "api.answer.status=status",
            "api.answer.status = \"status\" (--set): must be a JSON pointer such as \"/results/0\"",
        ),
        ("shutdown_grace.x=1", "shutdown_grace.x (--set): there is no such key; it is written section.key"),
        ("rate=1", "rate (--set): the top level has no such key; "),
        ("apy.rate=1", "apy (--set): the top level has no such key; did you mean api?"),
        ("api.rate.x=1", "api.rate.x (--set): there is no such key; it is written section.key"),
        ("api.rat=1", "api.rat (--set): [api] has no such key; did you mean rate?"),
        ("api.rate", "--set: must be written section.key=value"),
        ("api.a[9999999999]=1", "api.a[9999999999] (--set): there is no such key"),
    ];
    for (flag, expected) in table {
        let refusal = Place::new().set(flag).refusal();
        assert!(refusal.starts_with(&format!("in the configuration, {expected}")), "{flag}: {refusal}");
    }
    let refusal = Place::new().variable("PINWATCH__API__KEY__X", "geheim").refusal();
    assert!(
        refusal.contains("api.key.x (PINWATCH__API__KEY__X in the environment): there is no such key"),
        "{refusal}"
    );
    Place::new().variable("PINWATCH_API_KEY", "another program's").explain();
}

#[test]
fn clients_find_the_socket_even_if_the_rest_of_the_configuration_is_invalid() {
    let mut place = Place::new();
    place.sources.environment.variables.clear();
    let socket =
        |place: &Place| pinwatch::config::client_socket(&place.sources).map_err(|error| error.to_string());
    assert_eq!(socket(&place), Ok("/run/pinwatch/pinwatch.sock".into()));
    place.file("nonsense = 1\n[api]\nrate = \"fast\"\n[intake]\nmode = 1\nsocket = \"/a.sock\"\n");
    assert_eq!(socket(&place), Ok("/a.sock".into()));
    place.variable("PINWATCH__INTAKE__SOCKET", "/b.sock");
    assert_eq!(socket(&place), Ok("/b.sock".into()));
    place.set("intake.socket=c.sock");
    assert!(
        socket(&place).unwrap_err().contains("intake.socket = \"c.sock\" (--set): must be the absolute path")
    );
}

#[test]
fn a_users_client_looks_for_the_users_daemon() {
    let mut place = Place::new();
    place.sources.environment.uid = 1000;
    let own = place.path("pinwatch/pinwatch.sock");
    std::fs::create_dir(place.path("pinwatch")).unwrap();
    std::fs::write(&own, "").unwrap();
    place.variable("XDG_RUNTIME_DIR", place.path(""));
    assert_eq!(pinwatch::config::client_socket(&place.sources).unwrap(), own);
}

#[test]
fn loading_a_configuration_creates_no_file() {
    let mut place = Place::new();
    place.set(&format!("store.url=sqlite:{}", place.path("a/b.db").display()));
    place.set(&format!("intake.socket={}", place.path("c.sock").display()));
    place.set(&format!("sink=[{{type=\"file\", path=\"{}\"}}]", place.path("d").display()));
    place.explain();
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 0);
}
