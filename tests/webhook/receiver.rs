//! A receiver on a raw socket, for behaviour that no normal HTTP server has.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::webhook::bench::LONG_TIMEOUT;

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The number of its connection, from 1.
    pub connection: usize,
    /// How many connections there were when it arrived.
    pub connections: usize,
    /// `POST` and the URL's path and query.
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The `seq` of its outcomes, in any format.
    pub fn seqs(&self) -> Vec<i64> {
        let seq = |record: &Value| record.get("data").unwrap_or(record)["seq"].as_i64().unwrap();
        match self.json() {
            Value::Array(records) => records.iter().map(seq).collect(),
            record => vec![seq(&record)],
        }
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Action {
    Answers(u16),
    AnswersWith(u16, &'static str, &'static str),
    /// Closes the connection without an answer.
    Closes,
    /// Closes it with a RST in the middle of the answer's head.
    CutsHead,
    /// Closes it in the middle of the answer's body.
    CutsBody(u16),
    /// Stops in the middle of the answer's body, until the sender closes the connection.
    HangsInBody(u16),
    /// Answers with all of the request, as error pages do.
    Echoes(u16),
    /// Never answers.
    Hangs,
    /// Answers when the test allows it.
    Waits(watch::Receiver<bool>),
}

pub use Action::*;

type Script = Box<dyn Fn(usize, &Request) -> Action + Send + Sync>;

/// What all connections share.
struct Shared {
    script: Script,
    requests: Arc<Mutex<Vec<Request>>>,
    counter: watch::Sender<usize>,
    connections: AtomicUsize,
    hanging: Arc<AtomicUsize>,
}

/// Takes requests until it is dropped.
pub struct Receiver {
    pub addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    count: watch::Receiver<usize>,
    hanging: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Receiver {
    /// A receiver whose reaction to request number n, from 0, is decided by `script`.
    pub async fn start(script: impl Fn(usize, &Request) -> Action + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn start_at(
        addr: SocketAddr,
        script: impl Fn(usize, &Request) -> Action + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let hanging = Arc::new(AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: requests.clone(),
            counter,
            connections: AtomicUsize::new(0),
            hanging: hanging.clone(),
        });
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(serve(stream, number, shared.clone()));
            }
        });
        Self { addr, requests, count, hanging, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=hunter2", self.addr)
    }

    /// How many connections hang in the body of an answer.
    pub fn hanging(&self) -> Arc<AtomicUsize> {
        self.hanging.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits for as many requests.
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        let mut counts = self.count.clone();
        let waited = tokio::time::timeout(LONG_TIMEOUT, counts.wait_for(|n| *n >= count)).await;
        let requests = self.requests();
        waited.unwrap_or_else(|_| panic!("{} of {count} requests came", requests.len())).unwrap();
        requests
    }
}

async fn serve(stream: TcpStream, connection: usize, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    while let Some((line, headers, body)) = read(&mut stream).await {
        let connections = shared.connections.load(Ordering::SeqCst);
        let request = Request { connection, connections, line, headers, body };
        let number = {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let does = (shared.script)(number, &request);
        shared.counter.send_modify(|count| *count += 1);
        let text = match does {
            Answers(status) => answer(status, "", "ok"),
            AnswersWith(status, headers, body) => answer(status, headers, body),
            CutsBody(status) | HangsInBody(status) => {
                format!("HTTP/1.1 {status} X\r\ncontent-length: 1000\r\n\r\nhalf of")
            }
            Echoes(status) => {
                let headers: String =
                    request.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
                answer(status, "", &format!("{}\n{headers}\n{}", request.line, request.body))
            }
            CutsHead => "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
            Closes => return,
            Hangs => std::future::pending().await,
            Waits(ref let_go) => {
                let_go.clone().wait_for(|go| *go).await.unwrap();
                answer(200, "", "ok")
            }
        };
        // The sender may have disconnected.
        let _ = stream.get_mut().write_all(text.as_bytes()).await;
        match does {
            CutsBody(_) => return,
            HangsInBody(_) => {
                shared.hanging.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0]).await;
                shared.hanging.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            CutsHead => return stream.get_ref().set_zero_linger().unwrap(),
            _ => {}
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// The first line, the headers and the body of a request.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, HashMap<String, String>, String)> {
    let mut headers = HashMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    assert_eq!(line, "POST /hook?token=hunter2 HTTP/1.1\r\n");
    let first = line.trim_end().to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, headers, String::from_utf8(body).unwrap()))
}
