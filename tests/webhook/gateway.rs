//! A receiver behind a real gateway (nginx) that requires a client certificate and a header; and the messages while one of
//! them is missing or wrong.

use std::collections::HashSet;
use std::fs;

use pinwatch::simulate::{Settings, Simulator};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::Authority;
use crate::support::{Daemon, Ended, Place, program, run_to_end, until, until_true};
use crate::webhook::bench::SECRET;
use crate::webhook::nginx::Gateway;
use crate::webhook::receiver::{Answers, Receiver, Request};
use crate::webhook::signatures::assert_all_good;

const KEY: &str = "gateway-k3y-0123456789";
const WRONG_KEY: &str = "wr0ng-gateway-k3y";

/// How the base64 of each of the test's private keys begins (PKCS #8, P-256).
const KEY_BEGINS: &str = "MIGHAgEA";

/// A daemon's place and the gateway before its receiver. The files that the sink names are in the place's folder.
struct Bench {
    place: Place,
    url: String,
    base_url: String,
    receiver: Receiver,
    ours: Authority,
    theirs: Authority,
    _gateway: Gateway,
    _simulator: Simulator,
    _folder: TempDir,
}

impl Bench {
    /// `None` if this machine has no nginx.
    async fn start() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = Simulator::start(Settings::default(), listener).unwrap();
        let receiver = Receiver::start(|_, _| Answers(200)).await;
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(folder.path(), &ours.server(), &ours, KEY, receiver.addr)?;
        let (url, base_url) = (gateway.url(), simulator.base_url());
        let place = Place::of("");
        let bench = Self {
            place,
            url,
            base_url,
            receiver,
            ours,
            theirs,
            _gateway: gateway,
            _simulator: simulator,
            _folder: folder,
        };
        bench.write("ca.pem", &bench.ours.pem);
        bench.write("headers", &format!("# of the gateway\nX-Gateway-Key: {KEY}\n"));
        bench.client_of(&bench.ours);
        bench.configure("client_cert = \"client.pem\"\nclient_key = \"client-key.pem\"\n");
        Some(bench)
    }

    /// The configuration, with these keys of the sink beside the others.
    fn configure(&self, more: &str) {
        self.place.write_config(&format!(
            "api.base_url = {:?}\napi.key = \"demo-key\"\nschedule.initial_interval = \"50ms\"\n\
             intake.socket = \"FOLDER/pinwatch.sock\"\nstore.url = \"sqlite:FOLDER/pinwatch.db\"\n\
             [[sink]]\ntype = \"webhook\"\nurl = {:?}\nsecret = {SECRET:?}\nca_file = \"ca.pem\"\n\
             headers = {{ X-Tenant = \"tenant-4711\" }}\nheaders_file = \"headers\"\n{more}",
            self.base_url, self.url
        ));
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.place.path(name), content).unwrap();
    }

    /// Gives the sink a certificate of this authority.
    fn client_of(&self, authority: &Authority) {
        let client = authority.client();
        self.write("client.pem", &client.certificate);
        self.write("client-key.pem", &client.key);
    }

    fn send_test(&self) -> (Option<i32>, String) {
        let mut command = program();
        command.args(["doctor", "--send-test", "webhook", "--config"]).arg(self.place.config());
        let Ended { code, stdout, stderr } = run_to_end(command);
        assert_secret(&[&stdout, &stderr]);
        (code, stdout + &stderr)
    }
}

fn pins(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("sim-delivered-{number}")).collect()
}

fn assert_secret(told: &[&str]) {
    for text in told {
        for secret in ["hunter2", KEY, WRONG_KEY, "tenant-4711", SECRET, KEY_BEGINS] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// Waits until the sink is in this trouble, and returns all that is told of it.
fn until_trouble(daemon: &Daemon, trouble: &str) -> String {
    let mut client = daemon.client();
    let stats = until(trouble, || {
        let stats = client.stats();
        let is_there = stats["sinks"]["webhook"]["trouble"].to_string().contains(trouble);
        is_there.then(|| stats.to_string())
    });
    let sinks = Value::from(daemon.place.ask(&["sinks", "list"])).to_string();
    assert!(sinks.contains(trouble), "{sinks}");
    stats + &sinks
}

fn reload(daemon: &Daemon) {
    let done = "the configuration was reloaded";
    let before = daemon.times_logged(done);
    daemon.signal(Signal::HUP);
    until_true(done, || daemon.times_logged(done) > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_gateway_is_served_and_each_missing_setting_is_named() {
    let Some(bench) = Bench::start().await else { return };
    let mut told = Vec::new();

    // The authority of the gateway's certificate is not trusted.
    bench.write("ca.pem", &bench.theirs.pem);
    let daemon = bench.place.start();
    daemon.client().submit_all(&pins(0..40));
    told.push(until_trouble(
        &daemon,
        "TLS: invalid peer certificate: UnknownIssuer (is its authority in ca_file?)",
    ));
    let (code, said) = bench.send_test();
    assert!(code == Some(1) && said.contains("is its authority in ca_file?"), "{said}");

    bench.write("ca.pem", &bench.ours.pem);
    bench.configure("");
    reload(&daemon);
    told.push(until_trouble(&daemon, "400 Bad Request (set client_cert and client_key)"));
    let (code, said) = bench.send_test();
    assert!(code == Some(1) && said.contains("set client_cert and client_key"), "{said}");

    bench.configure("client_cert = \"client.pem\"\nclient_key = \"client-key.pem\"\n");
    bench.client_of(&bench.theirs);
    reload(&daemon);
    told.push(until_trouble(&daemon, "400 Bad Request (it refuses client_cert)"));

    // Only the content of files changes from here on.
    bench.client_of(&bench.ours);
    bench.write("headers", &format!("X-Gateway-Key: {WRONG_KEY}\n"));
    reload(&daemon);
    told.push(until_trouble(&daemon, "403 Forbidden (check secret and headers)"));
    let (code, said) = bench.send_test();
    assert!(code == Some(1) && said.contains("wrong key: ***"), "{said}");
    let shown = until("what the gateway said", || {
        let mut client = daemon.client();
        let mut shown = pins(0..40)
            .into_iter()
            .map(|pin| client.ask_line(serde_json::json!({"op": "show", "pinId": pin}).to_string()));
        // An outcome that waits for its first try shows the sink's trouble only.
        shown.find(|shown| shown.contains("403 Forbidden") && shown.contains("wrong key: ***"))
    });
    told.push(shown);
    assert!(bench.receiver.requests().is_empty(), "nothing has passed the gateway");

    bench.write("headers", &format!("X-Gateway-Key: {KEY}\n"));
    reload(&daemon);
    let requests = bench.receiver.wait_for(40).await;
    let pin = |request: &Request| request.json()["pinId"].as_str().unwrap().to_owned();
    assert_eq!(requests.iter().map(pin).collect::<HashSet<_>>(), pins(0..40).into_iter().collect());
    for request in &requests {
        assert_eq!(
            (request.headers["x-gateway-key"].as_str(), request.headers["x-tenant"].as_str()),
            (KEY, "tenant-4711")
        );
    }
    assert_all_good(&requests, SECRET);
    until_true("the sink has recovered", || {
        let stats = daemon.client().stats();
        let sink = &stats["sinks"]["webhook"];
        sink["trouble"].is_null() && sink["behind"] == 0 && sink["deadLetters"] == 0
    });
    told.push(Value::from(daemon.place.ask(&["dead-letters", "list"])).to_string());
    told.push(daemon.terminate().stderr());
    assert_secret(&told.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_file_is_refused_with_its_key_by_a_start_a_reload_and_doctor() {
    let Some(bench) = Bench::start().await else { return };
    let daemon = bench.place.start();
    let refused = [
        ("ca.pem", "hunter2", "sink[0].ca_file"),
        ("client.pem", "hunter2", "sink[0].client_cert"),
        ("client-key.pem", "hunter2", "sink[0].client_key"),
        ("client-key.pem", &bench.ours.client().key, "sink[0].client_key"),
        ("headers", "X-Tenant: hunter2\n", "sink[0].headers_file"),
        ("headers", "hunter2\n", "sink[0].headers_file"),
    ];
    for (file, content, key) in refused {
        let before = daemon.times_logged("was not reloaded");
        let good = fs::read_to_string(bench.place.path(file)).unwrap();
        bench.write(file, content);
        daemon.signal(Signal::HUP);
        until_true("the reload is refused", || daemon.times_logged("was not reloaded") > before);
        until_true("with its key", || {
            let said = daemon.log();
            said.lines().any(|line| line.contains("was not reloaded") && line.contains(key))
        });
        for command in ["doctor", "check-config", "run"] {
            let mut refused = program();
            refused.arg(command).arg("--config").arg(bench.place.config());
            let Ended { code, stderr, stdout } = run_to_end(refused);
            assert!(code == Some(2) && stderr.contains(key), "{command}: {stderr}");
            assert_secret(&[&stderr, &stdout]);
        }
        bench.write(file, &good);
    }
    daemon.client().submit_all(&pins(0..10));
    bench.receiver.wait_for(10).await;

    let mut check = program();
    check.arg("check-config").arg("--config").arg(bench.place.config());
    let Ended { code, stdout, stderr } = run_to_end(check);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("set (x-tenant)") && stdout.contains("client-key.pem"), "{stdout}");
    assert_secret(&[&stdout, &daemon.terminate().stderr()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_delivery_is_signed_marked_as_a_test_and_not_in_the_outbox() {
    let Some(bench) = Bench::start().await else { return };
    let (code, said) = bench.send_test();
    assert!(code == Some(0) && said.contains("which is signed: 200 OK, after "), "{said}");
    let requests = bench.receiver.requests();
    assert_eq!(requests.len(), 1);
    let record = requests[0].json();
    assert_eq!((&record["test"], record["pinId"].as_str()), (&Value::Bool(true), Some("pinwatch-test")));
    assert_eq!(record["id"], requests[0].id());
    assert_all_good(&requests, SECRET);
    assert!(!bench.place.store().exists(), "it needs no store");

    let other = |sink: &str| {
        let mut command = program();
        command.args(["doctor", "--send-test", sink, "--set", "sink=[{type=\"stdout\"}]", "--config"]);
        command.arg(bench.place.config());
        run_to_end(command)
    };
    let Ended { code, stdout, .. } = other("stdout");
    assert!(code == Some(1) && stdout.contains("there is nothing to send"), "{stdout}");
    let Ended { code, stderr, .. } = other("hook");
    assert!(code == Some(2) && stderr.contains("there is no sink \"hook\""), "{stderr}");
}
