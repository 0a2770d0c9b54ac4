//! TLS with real clients: which are served, what the others and the log report, and how a certificate is renewed.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::not_run::not_run;
use crate::support::{Authority, Daemon, Ended, Place, Simulated, json, program, run_to_end, until_true};

/// A daemon that speaks TLS as `localhost`.
struct Server {
    _api: Simulated,
    daemon: Daemon,
    address: SocketAddr,
    place: Place,
    authority: Authority,
}

impl Server {
    fn start(until: i32, client_ca: Option<&Authority>) -> Self {
        Self::start_at("127.0.0.1:0", until, client_ca)
    }

    fn start_at(listen: &str, until: i32, client_ca: Option<&Authority>) -> Self {
        let authority = Authority::new("of the server");
        let api = Simulated::start();
        let place = Place::in_folders(&api.base_url());
        let mut config = format!("[http]\nlisten = \"{listen}\"\n");
        for (key, file) in [("tls_cert", "cert.pem"), ("tls_key", "key.pem")] {
            config += &format!("{key} = {:?}\n", place.path(file));
        }
        fs::write(place.path("server-ca.pem"), &authority.pem).unwrap();
        if let Some(client_ca) = client_ca {
            fs::write(place.path("client-ca.pem"), &client_ca.pem).unwrap();
            config += &format!("client_ca = {:?}\n", place.path("client-ca.pem"));
        }
        put(&place, authority.certify("localhost", until));
        place.configure(&config);
        let daemon = place.start();
        let address = daemon.http_address();
        Self { _api: api, daemon, address, place, authority }
    }

    /// Asks by curl for `/readyz` of `https://localhost`, with these arguments too.
    fn curl(&self, arguments: &[&str]) -> Ended {
        self.curl_at("https://localhost", arguments)
    }

    fn curl_at(&self, host: &str, arguments: &[&str]) -> Ended {
        let port = self.address.port();
        let name = host.rsplit('/').next().unwrap();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]);
        curl.args([
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
            "--write-out",
            "%{http_code} %{http_version}",
        ]);
        curl.args(arguments).arg(format!("{host}:{port}/readyz"));
        run_to_end(curl)
    }

    fn ca(&self) -> String {
        self.place.path("server-ca.pem").display().to_string()
    }

    /// Whether a client that trusts this authority and no other is served.
    fn is_certified_by(&self, authority: &Authority) -> bool {
        let file = self.place.path("asked-ca.pem");
        fs::write(&file, &authority.pem).unwrap();
        self.curl(&["--cacert", file.to_str().unwrap()]).code == Some(0)
    }

    /// The body of `/readyz`.
    fn ready(&self, authority: &Authority) -> serde_json::Value {
        let file = self.place.path("asked-ca.pem");
        fs::write(&file, &authority.pem).unwrap();
        let answer = self.curl(&["--cacert", file.to_str().unwrap()]);
        json(answer.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{}", answer.stderr)).0)
    }

    #[track_caller]
    fn until_logged(&self, what: &str) {
        until_true(&format!("{what:?} in the log"), || self.daemon.log().contains(what));
    }
}

/// Writes a certificate and its key to where the server looks.
fn put(place: &Place, (certificate, key): (String, String)) {
    fs::write(place.path("key.pem"), key).unwrap();
    fs::write(place.path("cert.pem"), certificate).unwrap();
}

/// Files of a client's certificate and key.
fn client_files(folder: &Path, name: &str, (certificate, key): (String, String)) -> [PathBuf; 2] {
    let files = ["cert", "key"].map(|kind| folder.join(format!("{name}-{kind}.pem")));
    fs::write(&files[0], certificate).unwrap();
    fs::write(&files[1], key).unwrap();
    files
}

/// Whether the machine has curl with HTTP/2.
fn has_curl() -> bool {
    let version = Command::new("curl").arg("--version").output();
    let has = version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains("HTTP2"));
    if !has {
        not_run("TLS by curl", "curl");
    }
    has
}

/// The output of Python and Node, which get `/healthz` twice on one connection; Node also over HTTP/2.
fn others(server: &Server, client: Option<&[PathBuf; 2]>) -> Vec<Ended> {
    const PYTHON: &str = "
import http.client, ssl, sys
port, ca, *client = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if client:
    context.load_cert_chain(*client)
connection = http.client.HTTPSConnection('localhost', int(port), context=context, timeout=60)
for _ in range(2):
    connection.request('GET', '/healthz')
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().strip())
";
    const NODE: &str = "
const [port, ...files] = process.argv.slice(1);
const [ca, cert, key] = files.map((file) => require('fs').readFileSync(file));
const connection = require('http2').connect(`https://localhost:${port}`, { ca, cert, key });
const fail = (error) => { console.error(error.message); process.exit(1); };
connection.on('error', fail);
const ask = () => new Promise((done) => {
  const request = connection.request({ ':path': '/healthz' });
  let answer = '';
  request.on('error', fail);
  request.on('response', (headers) => { answer = `${headers[':status']} `; });
  request.on('data', (data) => { answer += data; });
  request.on('end', () => { console.log(answer.trim()); done(); });
});
Promise.all([ask(), ask()]).then(() => connection.close());
";
    let mut answers = Vec::new();
    for (program, flag, text) in [("python3", "-c", PYTHON), ("node", "-e", NODE)] {
        if Command::new(program).arg("--version").output().is_err() {
            not_run(&format!("TLS by {program}"), if program == "node" { "nodejs" } else { program });
            continue;
        }
        let mut command = Command::new(program);
        command.args([flag, text, &server.address.port().to_string(), &server.ca()]);
        command.args(client.into_iter().flatten());
        answers.push(run_to_end(command));
    }
    answers
}

#[test]
fn clients_that_trust_the_authority_are_served_over_tls_and_others_are_told_why() {
    if !has_curl() {
        return;
    }
    let server = Server::start(2090, None);
    let ca = server.ca();
    for (arguments, version) in
        [(&[][..], " 2"), (&["--http1.1"], " 1.1"), (&["--tls-max", "1.2"], " 2"), (&["--tlsv1.3"], " 2")]
    {
        let answer = server.curl(&[&["--cacert", &ca], arguments].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert!(answer.stdout.ends_with(&format!("200{version}")), "{arguments:?}: {}", answer.stdout);
    }
    for answer in others(&server, None) {
        assert_eq!(answer.stdout.matches("200 {\"alive\":true").count(), 2, "{}", answer.stderr);
    }

    let unknown = server.curl(&[]);
    assert_eq!(unknown.code, Some(60), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("unable to get local issuer certificate"), "{}", unknown.stderr);
    server.until_logged("does not accept the certificate in http.tls_cert");
    let wrong_name = server.curl_at("https://pinwatch.example", &["--cacert", &ca]);
    assert_eq!(wrong_name.code, Some(60), "{}", wrong_name.stderr);
    assert!(wrong_name.stderr.contains("subject name matches"), "{}", wrong_name.stderr);
    let old = server.curl(&["--cacert", &ca, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]);
    assert_eq!(old.code, Some(35), "{}", old.stderr);

    let plain = server.curl_at("http://localhost", &[]);
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    assert!(
        plain.stdout.contains("this port speaks HTTPS") && plain.stdout.contains("400"),
        "{}",
        plain.stdout
    );
    server.until_logged("the client spoke plain HTTP");
    server.daemon.terminate();
}

#[test]
fn an_expired_certificate_is_refused_by_clients_and_reported_by_the_daemon() {
    if !has_curl() {
        return;
    }
    let server = Server::start(2021, None);
    let refused = server.curl(&["--cacert", &server.ca()]);
    assert_eq!(refused.code, Some(60), "{}", refused.stderr);
    assert!(refused.stderr.contains("certificate has expired"), "{}", refused.stderr);
    server.until_logged("has expired on 2021-01-01");
    let answer = server.curl(&["--insecure"]);
    assert!(answer.stdout.contains("degraded") && answer.stdout.contains("tls_files"), "{}", answer.stdout);
}

#[test]
fn with_client_ca_only_clients_of_that_authority_are_served() {
    if !has_curl() {
        return;
    }
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::start(2090, Some(&ours));
    let folder = server.place.folder.path();
    let right = client_files(folder, "right", ours.certify("client", 2090));
    let expired = client_files(folder, "expired", ours.certify("client", 2021));
    let unknown = client_files(folder, "unknown", theirs.certify("client", 2090));
    let ca = server.ca();
    let curl = |files: &[PathBuf; 2], more: &[&str]| {
        let files = files.each_ref().map(|file| file.to_str().unwrap());
        server.curl(&[&["--cacert", &ca, "--cert", files[0], "--key", files[1]], more].concat())
    };
    for tls in ["1.2", "1.3"] {
        let answer = curl(&right, &["--tls-max", tls]);
        assert!(answer.stdout.ends_with("200 2"), "{} {}", answer.stdout, answer.stderr);
        for (client, alerts, said) in [
            (
                None,
                &["certificate required", "handshake failure"][..],
                "the client sent no certificate, and http.client_ca asks for one",
            ),
            (
                Some(&expired),
                &["expired", "certificate verification failed"],
                "the client's certificate has expired",
            ),
            (
                Some(&unknown),
                &["unknown ca", "certificate verification failed"],
                "of an authority that is not in http.client_ca",
            ),
        ] {
            let answer = match client {
                None => server.curl(&["--cacert", &ca, "--tls-max", tls]),
                Some(client) => curl(client, &["--tls-max", tls]),
            };
            assert_ne!(answer.code, Some(0), "{said}: {}", answer.stdout);
            let hears = alerts.iter().any(|alert| answer.stderr.contains(alert));
            assert!(hears, "{said}, TLS {tls}: {}", answer.stderr);
            server.until_logged(said);
        }
    }
    for answer in others(&server, Some(&right)) {
        assert_eq!(answer.stdout.matches("200 {\"alive\":true").count(), 2, "{}", answer.stderr);
    }
    for refused in others(&server, None) {
        assert!(refused.code != Some(0) && !refused.stdout.contains("200"), "{}", refused.stdout);
        assert!(refused.stderr.to_lowercase().contains("certificate required"), "{}", refused.stderr);
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_an_invalid_one_is_ignored() {
    if !has_curl() {
        return;
    }
    let server = Server::start(2090, None);
    assert!(server.is_certified_by(&server.authority));
    let second = Authority::new("second");
    put(&server.place, second.certify("localhost", 2090));
    until_true("the new certificate is used", || server.is_certified_by(&second));
    assert!(!server.is_certified_by(&server.authority));

    // The key of another one.
    let third = Authority::new("third");
    let (certificate, key) = third.certify("localhost", 2090);
    fs::write(server.place.path("cert.pem"), certificate).unwrap();
    server.daemon.signal(Signal::HUP);
    server.until_logged("it is not the key of the first certificate in");
    let ready = server.ready(&second);
    assert_eq!(
        (&ready["status"], &ready["reasons"][0]["code"]),
        (&"degraded".into(), &"tls_files".into()),
        "{ready}"
    );
    assert!(ready["reasons"][0]["what"].as_str().unwrap().contains("http.tls_key"), "{ready}");

    fs::write(server.place.path("key.pem"), key).unwrap();
    server.daemon.signal(Signal::HUP);
    until_true("the mended one is used", || server.is_certified_by(&third));
    until_true("all is well again", || server.ready(&third)["status"] == "ready");
    let said = server.daemon.times_logged("new TLS files can't be used");
    assert_eq!(said, 1, "it is said once: {}", server.daemon.log());
    server.daemon.terminate();
}

#[test]
fn invalid_tls_files_are_named_by_the_start_by_check_config_and_by_doctor() {
    let api = Simulated::start();
    let place = Place::in_folders(&api.base_url());
    let (certificate, _) = Authority::new("one").certify("localhost", 2090);
    let (_, key) = Authority::new("other").certify("localhost", 2090);
    put(&place, (certificate, key));
    let (cert, key) = (place.path("cert.pem"), place.path("key.pem"));
    place.configure(&format!("[http]\nlisten = \"127.0.0.1:0\"\ntls_cert = {cert:?}\ntls_key = {key:?}\n"));
    let expected = format!("http.tls_key {} can't be used: it is not the key of", key.display());
    let refused = place.refusal();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    assert!(!place.store().exists(), "nothing was opened");
    for command in ["check-config", "doctor"] {
        let mut asked = program();
        asked.arg("--config").arg(place.config()).arg(command).env("PINWATCH__API__KEY", "demo-key");
        asked.arg("--set").arg(format!("api.base_url={}", api.base_url()));
        let ended = run_to_end(asked);
        assert_ne!(ended.code, Some(0));
        assert!(
            format!("{}{}", ended.stdout, ended.stderr).contains(&expected),
            "{command}: {} {}",
            ended.stdout,
            ended.stderr
        );
    }
}

#[test]
fn with_tls_an_address_that_other_machines_reach_is_allowed() {
    if !has_curl() {
        return;
    }
    let server = Server::start_at("0.0.0.0:0", 2090, None);
    let answer = server.curl(&["--cacert", &server.ca()]);
    assert!(answer.stdout.ends_with("200 2"), "{} {}", answer.stdout, answer.stderr);
}

#[test]
fn http_2_works_without_tls_with_prior_knowledge() {
    if !has_curl() {
        return;
    }
    let served = crate::http::served::Served::start();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--http2-prior-knowledge"]);
    curl.args(["--write-out", "%{http_code} %{http_version}\n"]);
    // One alone: curl 7.88 can't reuse such a connection.
    curl.arg(format!("http://{}/healthz", served.address));
    let answer = run_to_end(curl);
    assert!(answer.stdout.ends_with("200 2\n"), "{} {}", answer.stdout, answer.stderr);
}
