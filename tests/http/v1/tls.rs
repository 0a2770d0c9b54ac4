//! `/v1` over TLS, by real clients: curl, Python and Node, over HTTP/2 and HTTP/1.1, with and without certificates of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::client::Api;
use crate::support::not_run::not_run;
use crate::support::{Authority, Ended, run_to_end, until_true};

/// Submits a PIN and reads the answer.
const PYTHON: &str = r#"
import http.client, json, ssl, sys
host, port, ca, token, pin, *client = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if client:
    context.load_cert_chain(*client)
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
connection.request("POST", "/v1/pins", json.dumps({"pinId": pin}), headers)
answer = connection.getresponse()
print(answer.status, "1.1", answer.read().decode())
"#;

const NODE_1: &str = r#"
const [host, port, ca, token, pin, cert, key] = process.argv.slice(1);
const read = (file) => file && require('fs').readFileSync(file);
const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
const options = { host, port, path: '/v1/pins', method: 'POST', headers, ca: read(ca), cert: read(cert), key: read(key) };
const fail = (error) => { console.error(error.message); process.exit(1); };
const request = require('https').request(options, (answer) => {
  let text = '';
  answer.on('data', (data) => { text += data; });
  answer.on('end', () => console.log(answer.statusCode, answer.httpVersion, text));
  answer.on('error', fail);
});
request.on('error', fail);
request.end(JSON.stringify({ pinId: pin }));
"#;

const NODE_2: &str = r#"
const [host, port, ca, token, pin, cert, key] = process.argv.slice(1);
const read = (file) => file && require('fs').readFileSync(file);
const fail = (error) => { console.error(error.message); process.exit(1); };
const options = { ca: read(ca), cert: read(cert), key: read(key) };
const connection = require('http2').connect(`https://${host}:${port}`, options);
connection.on('error', fail);
const headers = { ':method': 'POST', ':path': '/v1/pins', authorization: `Bearer ${token}`, 'content-type': 'application/json' };
const request = connection.request(headers);
let [status, text] = [0, ''];
request.on('error', fail);
request.on('response', (headers) => { status = headers[':status']; });
request.on('data', (data) => { text += data; });
request.on('end', () => { console.log(status, '2', text); connection.close(); });
request.end(JSON.stringify({ pinId: pin }));
"#;

/// A daemon that speaks TLS as `localhost`, and what its clients know.
struct Server {
    api: Api,
    files: TempDir,
    authority: Authority,
}

impl Server {
    /// `until` is the year in which its certificate expires.
    fn start(until: i32, client_ca: Option<&Authority>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let authority = Authority::new("of the server");
        let mut settings = Vec::new();
        if let Some(client_ca) = client_ca {
            let file = files.path().join("client-ca.pem");
            fs::write(&file, &client_ca.pem).unwrap();
            settings.push(format!("http.client_ca={}", file.display()));
        }
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let api = Api::with_tls(files.path(), authority.certify("localhost", until), &settings);
        Self { api, files, authority }
    }

    /// What each client says that submits to `host` and trusts this authority.
    fn asked_by_all(&self, host: &str, trusted: &Authority, client: Option<&[PathBuf; 2]>) -> Vec<Asked> {
        let ca = self.files.path().join("trusted-ca.pem");
        fs::write(&ca, &trusted.pem).unwrap();
        let port = self.api.address().port();
        let mut all = Vec::new();
        for (name, program, flag, version) in [
            ("curl", "curl", "--http2", "2"),
            ("curl", "curl", "--http1.1", "1.1"),
            ("Python", "python3", PYTHON, "1.1"),
            ("Node", "node", NODE_1, "1.1"),
            ("Node", "node", NODE_2, "2"),
        ] {
            if Command::new(program).arg("--version").output().is_err() {
                not_run(
                    &format!("/v1 over TLS by {name}"),
                    if program == "node" { "nodejs" } else { program },
                );
                continue;
            }
            let pin = format!("sim-waiting-{}-{version}", name.to_lowercase());
            let mut command = Command::new(program);
            if name == "curl" {
                command.args([
                    flag,
                    "--silent",
                    "--show-error",
                    "--noproxy",
                    "*",
                    "--max-time",
                    "60",
                    "--cacert",
                ]);
                command.arg(&ca).args(["--write-out", "%{http_code} %{http_version}"]);
                if let Some([certificate, key]) = client {
                    command.arg("--cert").arg(certificate).arg("--key").arg(key);
                }
                command.args(["--header", &format!("authorization: Bearer {}", self.api.submit), "--json"]);
                command.args([format!("{{\"pinId\":\"{pin}\"}}"), format!("https://{host}:{port}/v1/pins")]);
            } else {
                command.args([if name == "Node" { "-e" } else { "-c" }, flag, host, &port.to_string()]);
                command.arg(&ca).args([&self.api.submit, &pin]).args(client.into_iter().flatten());
            }
            all.push(Asked { name, version, pin, ended: run_to_end(command) });
        }
        all
    }

    /// Checks that all clients are served, each with its version of HTTP.
    #[track_caller]
    fn serves_all(&self, client: Option<&[PathBuf; 2]>) {
        for Asked { name, version, pin, ended } in self.asked_by_all("localhost", &self.authority, client) {
            let said = &ended.stdout;
            assert_eq!(ended.code, Some(0), "{name} {version}: {}", ended.stderr);
            assert!(said.contains(&format!("202 {version}")), "{name} {version}: {said}");
            assert!(said.contains(&format!("\"pinId\":\"{pin}\",\"state\":\"accepted\"")), "{name}: {said}");
        }
    }

    /// Checks that no client is served, and that each reports one of these reasons.
    #[track_caller]
    fn refuses_all(&self, asked: &[Asked], reasons: &[&str]) {
        for Asked { name, version, ended, .. } in asked {
            let said = ended.stderr.to_lowercase();
            assert!(ended.code != Some(0) && !ended.stdout.contains("202"), "{name} {version}: {ended:?}");
            assert!(reasons.iter().any(|reason| said.contains(reason)), "{name} {version}: {said}");
        }
        assert_eq!(self.api.served.daemon.client().stats()["inFlight"], 0);
    }

    #[track_caller]
    fn until_logged(&self, what: &str) {
        until_true(&format!("{what:?} in the log"), || self.api.served.daemon.log().contains(what));
    }
}

/// The result of one client.
struct Asked {
    name: &'static str,
    version: &'static str,
    pin: String,
    ended: Ended,
}

/// Files of a client's certificate and key.
fn client_files(folder: &Path, name: &str, (certificate, key): (String, String)) -> [PathBuf; 2] {
    let files = ["cert", "key"].map(|kind| folder.join(format!("{name}-{kind}.pem")));
    fs::write(&files[0], certificate).unwrap();
    fs::write(&files[1], key).unwrap();
    files
}

const NOT_ACCEPTED: &str = "the client does not accept the certificate in http.tls_cert";

#[test]
fn curl_python_and_node_submit_over_tls_and_refuse_another_name_or_authority() {
    let server = Server::start(2090, None);
    let other = Authority::new("another one");
    let asked = server.asked_by_all("localhost", &other, None);
    server.refuses_all(&asked, &["unable to get local issuer", "unable to verify the first certificate"]);
    server.until_logged(NOT_ACCEPTED);
    // The certificate has another name than this. Only the client knows which name it meant.
    let asked = server.asked_by_all("127.0.0.1", &server.authority, None);
    server.refuses_all(&asked, &["subject name matches", "does not match", "not valid for"]);
    server.serves_all(None);
}

#[test]
fn an_expired_certificate_is_refused_by_curl_python_and_node_and_logged() {
    let server = Server::start(2021, None);
    let asked = server.asked_by_all("localhost", &server.authority, None);
    server.refuses_all(&asked, &["expired"]);
    server.until_logged(NOT_ACCEPTED);
    server.until_logged("has expired on 2021-01-01");
}

#[test]
fn with_client_ca_curl_python_and_node_can_submit_only_with_its_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Server::start(2090, Some(&ours));
    let folder = server.files.path();
    let right = client_files(folder, "right", ours.certify("client", 2090));
    let expired = client_files(folder, "expired", ours.certify("client", 2021));
    let unknown = client_files(folder, "unknown", theirs.certify("client", 2090));
    for (client, reasons, said) in [
        (
            None,
            &["certificate required"][..],
            "the client sent no certificate, and http.client_ca asks for one",
        ),
        (
            Some(&expired),
            &["certificate expired", "certificate has expired"],
            "the client's certificate has expired",
        ),
        (Some(&unknown), &["unknown ca"], "of an authority that is not in http.client_ca"),
    ] {
        let asked = server.asked_by_all("localhost", &server.authority, client);
        server.refuses_all(&asked, reasons);
        server.until_logged(said);
    }
    server.serves_all(Some(&right));
}
