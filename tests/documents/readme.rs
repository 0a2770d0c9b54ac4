//! Runs the snippets of the README and of the client examples against a real daemon and a simulated API; the README's
//! configuration is loaded, and its record is compared with a real one.
//!
//! A language that is not installed is skipped with a message; CI has them all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Daemon, Place, Simulated, until};
use pinwatch::config::{Config, SinkKind, Sources};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
const CLIENTS: &str = include_str!("../../docs/clients.md");

/// How long a snippet may take; Java compiles its own first.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The code blocks below a heading of a document, each with its language.
fn snippets(document: &'static str, heading: &str) -> Vec<(&'static str, String)> {
    let section = document.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
    let mut lines = section.unwrap_or_else(|| panic!("no \"## {heading}\"")).lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((language, code.join("\n") + "\n"));
        }
    }
    found
}

/// The one snippet below a heading in a language.
fn snippet(document: &'static str, heading: &str, language: &str) -> String {
    let mut found: Vec<_> =
        snippets(document, heading).into_iter().filter(|(found, _)| *found == language).collect();
    assert_eq!(found.len(), 1, "snippets in {language:?} below {heading:?}");
    found.remove(0).1
}

/// A daemon with a file sink that polls a simulated API.
struct Service {
    place: Place,
    // In this order: the daemon ends before what it polls.
    daemon: Daemon,
    _api: Simulated,
}

impl Service {
    fn start() -> Self {
        let api = Simulated::start();
        let daemon = Place::new(&api.base_url()).file_sinks(&["results"]).start();
        Self { place: daemon.place.clone(), daemon, _api: api }
    }

    /// Runs a command with the daemon's socket in its environment; gives what it printed.
    #[track_caller]
    fn run(&self, command: Command) -> String {
        let mut command = isolated(command);
        command.env("PINWATCH_SOCKET", self.place.socket());
        let done = assert_cmd::Command::from_std(command).timeout(TIMEOUT).assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).into_owned()
    }

    /// Checks that the daemon knows the PIN, and that it is delivered.
    #[track_caller]
    fn knows(self, pin: &str) {
        assert_eq!(self.place.ask(&["show", pin])[0]["pinId"], pin);
        self.daemon.terminate();
    }
}

/// The command without what this environment would change of it.
fn isolated(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PINWATCH_") || text.to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a program is installed. Where it is not, that is said even if nobody asked for a test's output.
fn is_installed(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    crate::support::not_run::not_run(&format!("the example for {program}"), program);
    false
}

/// Saves the snippet of a language, runs it with `program`, and checks that its PIN is accepted.
fn is_accepted(language: &str, program: &str, file: &str, pin: &str) {
    if !is_installed(program) {
        return;
    }
    let service = Service::start();
    let code = snippet(CLIENTS, "Submit", language);
    assert!(code.contains(pin), "the snippet no longer submits {pin}");
    std::fs::write(service.place.path(file), code).unwrap();
    let mut command = Command::new(program);
    command.arg(file).current_dir(service.place.path(""));
    let printed = service.run(command);
    // The bare word, or Java's whole answer.
    let state =
        serde_json::from_str(&printed).map_or(printed.clone(), |answer: Value| answer["state"].to_string());
    assert_eq!(state.trim().trim_matches('"'), "accepted", "{printed}");
    service.knows(pin);
}

#[test]
fn every_snippet_about_submit_has_a_test() {
    let languages: Vec<_> = snippets(CLIENTS, "Submit").into_iter().map(|(language, _)| language).collect();
    assert_eq!(languages, ["sh", "python", "php", "js", "java"]);
}

#[test]
fn the_shell_snippets_submit() {
    if !is_installed("nc") {
        return;
    }
    let service = Service::start();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pinwatch"));
    let path = std::env::var("PATH").unwrap_or_default();
    // Each line on its own, so that a failure in the first is not covered by the second.
    let printed: Vec<Value> = snippet(CLIENTS, "Submit", "sh")
        .lines()
        .map(|line| {
            // As a service's environment would have it; the test's own is taken away.
            let mut command = Command::new("env");
            command
                .arg(format!("PINWATCH__INTAKE__SOCKET={}", service.place.socket().display()))
                .args(["sh", "-euc", line])
                .env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
            serde_json::from_str(&service.run(command)).unwrap_or_else(|error| panic!("{line}: {error}"))
        })
        .collect();
    let states: Vec<_> = printed.iter().map(|answer| answer["state"].as_str().unwrap_or("none")).collect();
    // It is the same PIN, which may be final before the second line comes.
    assert!(matches!(states[..], ["accepted", "duplicate" | "finished"]), "{states:?}");
    service.knows("9C817C6F8AF3D48F9FE553282AFA2B67");
}

#[test]
fn the_python_snippet_submits() {
    is_accepted("python", "python3", "submit.py", "PYTHON-9C81");
}

#[test]
fn the_php_snippet_submits() {
    is_accepted("php", "php", "submit.php", "PHP-9C81");
}

#[test]
fn the_node_snippet_submits() {
    is_accepted("js", "node", "submit.js", "NODE-9C81");
}

#[test]
fn the_java_snippet_submits() {
    is_accepted("java", "java", "Submit.java", "JAVA-9C81");
}

/// What the first terminal of "A first webhook" runs. All of it ends when this is dropped.
struct Terminal(std::process::Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only where all of them have ended.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// A port that nobody else has, for snippets that are word for word but for it.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Runs the lines of a snippet, as a user of this place would.
fn shell(place: &Place, code: &str) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pinwatch")).parent().unwrap().display();
    let mut command = isolated(Command::new("sh"));
    command.args(["-euc", code]).current_dir(place.path("")).stdin(Stdio::null());
    command.env("PATH", format!("{program}:{}", std::env::var("PATH").unwrap()));
    // Root's socket and store are the system's.
    command.env("PINWATCH__INTAKE__SOCKET", place.socket());
    command.env("PINWATCH__STORE__URL", format!("sqlite:{}", place.path("pinwatch.db").display()));
    command
}

#[test]
fn the_commands_of_the_readme_produce_a_first_outcome() {
    let place = Place::of("");
    let port = free_port();
    let scripts = snippets(README, "Sixty seconds to the first outcome").into_iter();
    let scripts: Vec<String> = scripts
        .map(|(_, code)| code.replace("pinwatch simulate", "pinwatch simulate --listen 127.0.0.1:8085"))
        .map(|code| code.replace("8085", &port))
        .collect();
    let [first, second] = scripts.try_into().unwrap();
    let mut command = shell(&place, &first);
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    let _terminal = Terminal(command.spawn().unwrap());
    until("the daemon listens", || {
        place.pinwatch(&["ping"]).output().unwrap().status.success().then_some(())
    });
    let done = assert_cmd::Command::from_std(shell(&place, &second)).timeout(TIMEOUT).assert().success();
    let printed = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(printed.contains("\"outcome\":\"final\"") && printed.contains("order-42"), "{printed}");
}

#[test]
fn the_readme_is_short_and_its_picture_exists() {
    assert!(README.lines().count() < 150, "{} lines", README.lines().count());
    for picture in ["docs/page-light.png", "docs/page-dark.png"] {
        assert!(README.contains(&format!("=\"{picture}\"")), "{picture}");
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(picture).is_file(), "{picture}");
    }
}

#[test]
fn the_documented_commands_deliver_a_first_verified_webhook() {
    if !is_installed("python3") {
        return;
    }
    let place = Place::of("");
    let scripts: Vec<String> = snippets(CLIENTS, "A first webhook")
        .into_iter()
        .filter(|(language, _)| *language == "sh")
        .map(|(_, code)| code)
        .collect();
    let [first, second] = scripts.try_into().unwrap();
    let (api, receiver) = (free_port(), free_port());
    let with_ports = |code: &str| code.replace("8085", &api).replace("8086", &receiver);
    std::fs::write(place.path("receiver.py"), with_ports(&snippet(CLIENTS, "A first webhook", "python")))
        .unwrap();
    let shell = |code: &str| shell(&place, &with_ports(code));
    let mut command = shell(&first);
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut terminal = Terminal(command.spawn().unwrap());
    let output = BufReader::new(terminal.0.stdout.take().unwrap());
    let (lines, shown) = mpsc::channel();
    // Ends with the terminal.
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| _ = lines.send(line)));
    until("the daemon listens", || {
        place.pinwatch(&["ping"]).output().unwrap().status.success().then_some(())
    });
    let connect = || TcpStream::connect(format!("127.0.0.1:{receiver}")).ok();
    // What is signed by nobody, or by somebody else, is refused.
    for signature in ["", "webhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n"] {
        let mut stream = until("the receiver listens", connect);
        let forged = "{\"pinId\":\"forged\",\"outcome\":\"final\",\"status\":\"x\"}";
        write!(stream, "POST / HTTP/1.1\r\n{signature}content-length: {}\r\n\r\n{forged}", forged.len())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 401 "), "{answer}");
    }
    assert_cmd::Command::from_std(shell(&second)).timeout(TIMEOUT).assert().success();
    let verified =
        std::iter::from_fn(|| shown.recv_timeout(TIMEOUT).ok()).find(|line| line.contains("verified"));
    assert_eq!(verified.as_deref(), Some("verified: sim-delivered-1 final MESSAGE_DELIVERED"));
    let section = CLIENTS.split("\n## A first webhook\n").nth(1).unwrap();
    assert!(section.replace('\n', " ").contains("`verified: sim-delivered-1 final MESSAGE_DELIVERED`"));
}

#[test]
fn the_configuration_of_the_readme_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let here = |path: &str| folder.path().join(path).display().to_string();
    let text = snippet(README, "Configure", "toml")
        .replace("/etc/pinwatch/", &here(""))
        .replace("/var/log/pinwatch/", &here(""));
    assert!(!text.contains("\"/etc") && !text.contains("\"/var"), "{text}");
    std::fs::write(here("api-key"), "0123-key\n").unwrap();
    std::fs::write(here("webhook-secret"), "whsec_ZXhhbXBsZS1leGFtcGxlLWV4YW1wbGUtZXhhbXBsZQ==\n").unwrap();
    std::fs::write(here("pinwatch.toml"), text).unwrap();
    let config = Config::load(&Sources { file: Some(here("pinwatch.toml").into()), ..Sources::default() });
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(config.sinks[0].kind, SinkKind::File { .. }));
    assert!(matches!(config.sinks[1].kind, SinkKind::Webhook(_)));
    assert_eq!(config.sinks.len(), 2);
}

#[test]
fn the_documented_record_has_the_fields_of_a_real_one_in_order() {
    let keys = |record: &str| {
        let record: Value = serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}: {record}"));
        record.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let service = Service::start();
    service.place.ask(&["submit", "sim-delivered-1", "--reference", "order-42"]);
    let real = &service.place.lines("results", 1)[0];
    assert_eq!(keys(&snippet(CLIENTS, "Read the results", "json").replace("[…]", "[]")), keys(real));
}
