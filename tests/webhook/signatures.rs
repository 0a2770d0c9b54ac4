//! Signatures, verified by an independent implementation: the Python package `standardwebhooks` of the Standard Webhooks
//! project, installed below `target/` by the first test that needs it.

use crate::support::not_run::not_run;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pinwatch::config::WebhookFormat;
use secrecy::SecretString;

use crate::webhook::bench::{Folder, SECRET, webhook};
use crate::webhook::receiver::{Answers, Receiver, Request};

const PACKAGE: &str = "standardwebhooks==1.1.0";
const OTHER_SECRET: &str = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY=";
const STRANGE_SECRET: &str = "whsec_c3RyYW5nZXN0cmFuZ2VzdHJhbmdlc3RyYW5nZXN0cmE=";

/// Reads lines of {secret, headers, body}, answers each by a line.
const VERIFIER: &str = "
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError
for line in sys.stdin:
    message = json.loads(line)
    try:
        Webhook(message['secret']).verify(message['body'], message['headers'])
        print('good')
    except WebhookVerificationError as error:
        print('bad:', error)
";

/// Where the package is; `None` if there is no Python to install it with, which CI must have.
fn package() -> Option<&'static Path> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace("==", "-"));
        match if path.is_dir() { Ok(()) } else { install(&path) } {
            Ok(()) => Some(path),
            Err(why) => {
                not_run(&format!("webhook signatures, by {PACKAGE} ({why})"), "python3-pip");
                None
            }
        }
    })
    .as_deref()
}

fn install(path: &Path) -> Result<(), String> {
    // Atomic, because another process may install it at the same time.
    let parent = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let target = parent.path().join("package");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    let output = pip.arg(&target).arg(PACKAGE).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    match std::fs::rename(&target, path) {
        Err(error) if !path.is_dir() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The verifier's result for each request with this secret; `None` if it can't be installed.
pub fn verify(requests: &[Request], secret: &str) -> Option<Vec<String>> {
    let mut python = Command::new("python3")
        .args(["-c", VERIFIER])
        .env("PYTHONPATH", package()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let lines: String = requests
        .iter()
        .map(|request| {
            let Request { headers, body, .. } = request;
            serde_json::json!({ "secret": secret, "headers": headers, "body": body }).to_string() + "\n"
        })
        .collect();
    // It answers while it reads, so the pipe must not fill up on both sides.
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    let verdicts: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(verdicts.len(), requests.len());
    Some(verdicts)
}

#[track_caller]
pub fn assert_all_good(requests: &[Request], secret: &str) {
    if let Some(verdicts) = verify(requests, secret) {
        assert!(verdicts.iter().all(|verdict| verdict == "good"), "{verdicts:?}");
    }
}

#[tokio::test]
async fn another_implementation_verifies_every_signature_and_rejects_changed_messages() {
    for (format, batch) in [(WebhookFormat::Record, 1), (WebhookFormat::CloudEvents, 7)] {
        let receiver = Receiver::start(|n, _| Answers(if n % 10 == 0 { 500 } else { 200 })).await;
        let folder = Folder::new();
        let mut webhook = webhook(&receiver.url());
        (webhook.format, webhook.batch) = (format, batch);
        let bench = folder.start(&webhook).await;
        bench.outcomes(60).await;
        bench.until_all_delivered().await;
        bench.stop().await;
        let mut requests = receiver.requests();
        assert_all_good(&requests, SECRET);
        requests[0].body += " ";
        requests[1].headers.insert("webhook-id".into(), "another".into());
        requests[2].headers.insert("webhook-timestamp".into(), "1".into());
        if let Some(verdicts) = verify(&requests[..3], SECRET) {
            assert!(verdicts.iter().all(|verdict| verdict.starts_with("bad")), "{verdicts:?}");
        }
    }
}

#[tokio::test]
async fn during_a_rotation_signatures_are_valid_for_both_secrets_and_no_other() {
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.secrets = [SECRET, OTHER_SECRET].map(SecretString::from).to_vec().into();
    let bench = folder.start(&webhook).await;
    bench.outcomes(5).await;
    bench.until_all_delivered().await;
    bench.stop().await;
    let requests = receiver.requests();
    assert_all_good(&requests, SECRET);
    assert_all_good(&requests, OTHER_SECRET);
    if let Some(verdicts) = verify(&requests, STRANGE_SECRET) {
        assert!(verdicts.iter().all(|verdict| verdict == "bad: No matching signature found"), "{verdicts:?}");
    }
}

#[tokio::test]
async fn without_a_secret_there_is_an_id_and_no_signature() {
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.secrets = Default::default();
    let bench = folder.start(&webhook).await;
    bench.outcomes(1).await;
    bench.until_all_delivered().await;
    bench.stop().await;
    let request = &receiver.requests()[0];
    assert!(!request.headers.contains_key("webhook-signature"));
    assert!(request.headers.contains_key("webhook-timestamp") && !request.id().is_empty());
}
