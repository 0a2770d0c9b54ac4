//! A receiver on a raw socket, for what no decent HTTP server does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::AMPLE;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
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
pub enum Does {
    Answers(u16),
    AnswersWith(u16, &'static str, &'static str),
    /// Closes the connection without an answer.
    Closes,
    /// Closes it with a RST in the middle of the answer's head.
    CutsHead,
    /// Closes it in the middle of the answer's body.
    CutsBody(u16),
    /// Never answers.
    Hangs,
    /// Answers as soon as it is let.
    Waits(watch::Receiver<bool>),
}

pub use Does::*;

type Whim = Arc<dyn Fn(usize, &Request) -> Does + Send + Sync>;

/// Takes requests until it is dropped.
pub struct Receiver {
    pub addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    count: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Receiver {
    /// A receiver that does with request number n, from 0, what `whim` says.
    pub async fn start(whim: impl Fn(usize, &Request) -> Does + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), whim).await
    }

    pub async fn start_at(
        addr: SocketAddr,
        whim: impl Fn(usize, &Request) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let (whim, seen): (Whim, _) = (Arc::new(whim), requests.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            let counter = Arc::new(counter);
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, whim.clone(), seen.clone(), counter.clone()));
            }
        });
        Self { addr, requests, count, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=hunter2", self.addr)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits for as many requests.
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        let mut counts = self.count.clone();
        let waited = tokio::time::timeout(AMPLE, counts.wait_for(|n| *n >= count)).await;
        let requests = self.requests();
        waited.unwrap_or_else(|_| panic!("{} of {count} requests came", requests.len())).unwrap();
        requests
    }
}

async fn serve(
    stream: TcpStream,
    whim: Whim,
    requests: Arc<Mutex<Vec<Request>>>,
    counter: Arc<watch::Sender<usize>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let does = whim(number, &request);
        counter.send_modify(|count| *count += 1);
        let text = match does {
            Answers(status) => answer(status, "", "ok"),
            AnswersWith(status, headers, body) => answer(status, headers, body),
            CutsBody(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 1000\r\n\r\nhalf of"),
            CutsHead => "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
            Closes => return,
            Hangs => std::future::pending().await,
            Waits(ref let_go) => {
                let_go.clone().wait_for(|go| *go).await.unwrap();
                answer(200, "", "ok")
            }
        };
        // The sender may have gone away, which is its right.
        let _ = stream.get_mut().write_all(text.as_bytes()).await;
        match does {
            CutsBody(_) => return,
            CutsHead => return stream.get_ref().set_zero_linger().unwrap(),
            _ => {}
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut headers = HashMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /hook?token=hunter2 HTTP/1.1"), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { headers, body: String::from_utf8(body).unwrap() })
}
