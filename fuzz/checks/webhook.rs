//! A webhook's receiver that answers anything: the try ends, and what is told of it is one short harmless line without the
//! URL's token, the signature or the PIN.
//!
//! In the answer the bytes 1 to 4 stand for what a receiver may echo: the token, the signature, the PIN, the request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinwatch::config::{Headers, SigningSecrets, Webhook, WebhookFormat};
use pinwatch::sinks::Endpoint;
use pinwatch::store::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::is_harmful;

const TOKEN: &str = "T0k3n-hunter2+b/c";
const PIN: &str = "9C817C6F8AF3D48F";
const MAX_TEXT: usize = 320;

pub struct Receiver {
    runtime: Runtime,
    endpoint: Endpoint,
    answer: Arc<Mutex<Vec<u8>>>,
    /// The signature of the last request.
    signature: Arc<Mutex<String>>,
}

impl Receiver {
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (answer, signature) = <(Arc<Mutex<Vec<u8>>>, Arc<Mutex<String>>)>::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let webhook = Webhook {
            url: format!("http://{}/hook?token={TOKEN}", listener.local_addr().unwrap()).parse().unwrap(),
            secrets: SigningSecrets::from(vec!["whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()]),
            timeout: Duration::from_secs(10),
            concurrency: 1,
            max_age: Duration::from_secs(60),
            format: WebhookFormat::Record,
            batch: 1,
            pool_max_age: Duration::from_secs(60),
            headers: Headers::default(),
            ca_file: Vec::new(),
            client_cert: None,
        };
        let endpoint = Endpoint::new(&webhook).unwrap();
        let (answers, signed) = (answer.clone(), signature.clone());
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that hangs up first has what it wants.
                let _ = serve(stream, &answers, &signed).await;
            }
        });
        Self { runtime, endpoint, answer, signature }
    }

    pub fn check(&self, answer: &[u8]) {
        answer.clone_into(&mut self.answer.lock().unwrap());
        let record = format!(
            r#"{{"seq":1,"id":"0193e6a0-0000-7000-8000-000000000001","pinId":"{PIN}","outcome":"final","finishedAt":"2026-01-02T03:04:05.678Z"}}"#
        );
        let outcome = Outcome { seq: 1, pin: PIN.parse().unwrap(), record: record.into() };
        let tried = self.runtime.block_on(self.endpoint.try_once(&outcome));
        let Err((summary, text)) = tried else { return };
        for told in [&summary, &text] {
            assert!(!told.is_empty() && told.chars().count() <= MAX_TEXT, "{told:?}");
            assert!(!told.contains(is_harmful), "{told:?}");
            let told = told.to_ascii_lowercase();
            let signature = self.signature.lock().unwrap().trim_start_matches("v1,").to_ascii_lowercase();
            for secret in [TOKEN.to_ascii_lowercase(), PIN.to_ascii_lowercase(), signature] {
                assert!(secret.is_empty() || !told.contains(&secret), "{secret} in {told:?}");
            }
        }
        // Health has none of the receiver's own words: a status code, or what happened to the connection.
        assert!(text.starts_with(&summary), "{summary:?} {text:?}");
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &Mutex<Vec<u8>>,
    signature: &Mutex<String>,
) -> std::io::Result<()> {
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    // The record ends with the only "}" of the request.
    while !request.ends_with(b"}") {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&piece[..count]),
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let signed = text.lines().find_map(|line| line.strip_prefix("webhook-signature: ")).unwrap_or_default();
    signed.clone_into(&mut signature.lock().unwrap());
    let mut bytes = Vec::new();
    for byte in answer.lock().unwrap().iter() {
        match byte {
            1 => bytes.extend_from_slice(TOKEN.as_bytes()),
            2 => bytes.extend_from_slice(signed.as_bytes()),
            3 => bytes.extend_from_slice(PIN.as_bytes()),
            4 => bytes.extend_from_slice(&request),
            byte => bytes.push(*byte),
        }
    }
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}
