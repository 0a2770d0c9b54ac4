//! A daemon with tokens, and a simple client of `/v1`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use pinwatch::http::tokens::{NewToken, Scope};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::served::{Served, connect};
use crate::support::{TIMEOUT, change, json};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";

/// A daemon, and a token of each scope for the names `submitter`, `reader` and `boss`.
pub struct Api {
    pub served: Served,
    pub submit: String,
    pub read: String,
    pub admin: String,
    folder: TempDir,
}

impl Api {
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    #[track_caller]
    pub fn with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let [submit, read, admin] =
            [("submitter", Scope::Submit), ("reader", Scope::Read), ("boss", Scope::Admin)]
                .map(|(name, scope)| new_token(name, scope));
        let lines = [&submit, &read, &admin].map(|(_, line)| line.as_str());
        let file = folder.path().join("tokens");
        write_private(&file, &lines.join("\n"));
        let setting = format!("http.tokens_file={}", file.display());
        let served = Served::with(&[&[setting.as_str()], settings].concat());
        Self { served, submit: submit.0, read: read.0, admin: admin.0, folder }
    }

    /// With TLS, by this certificate and key, whose files go into `files`.
    #[track_caller]
    pub fn with_tls(files: &Path, (certificate, key): (String, String), settings: &[&str]) -> Self {
        let (cert_file, key_file) = (files.join("cert.pem"), files.join("key.pem"));
        fs::write(&cert_file, certificate).expect("a file can be written");
        fs::write(&key_file, key).expect("a file can be written");
        let tls = [("tls_cert", cert_file), ("tls_key", key_file)]
            .map(|(name, file)| format!("http.{name}={}", file.display()));
        Self::with(&[&tls.each_ref().map(String::as_str), settings].concat())
    }

    pub fn token(&self, scope: &str) -> &str {
        match scope {
            "submit" => &self.submit,
            "read" => &self.read,
            _ => &self.admin,
        }
    }

    pub fn tokens_file(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    pub fn address(&self) -> SocketAddr {
        self.served.address
    }

    /// Asks as administrator.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], "")
    }

    #[track_caller]
    pub fn post(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Response {
        self.ask("POST", path, &[("content-type", content_type)], body)
    }

    /// Asks as administrator, unless `headers` has another Authorization.
    #[track_caller]
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        self.stream(method, path, headers, body).rest()
    }

    /// As [`Api::ask`]; `None` where the daemon ended first.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Response> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        let length = format!("content-length: {}\r\n", body.len());
        stream.write_all((self.head(method, path, headers, &length) + body).as_bytes()).ok()?;
        Stream::try_read(stream).map(Stream::rest)
    }

    /// Stops the daemon, changes its database, and starts it again.
    pub fn pruned(self, sql: &str) -> Self {
        let Self { served, submit, read, admin, folder } = self;
        Self { served: served.between(|store| change(store, sql)), submit, read, admin, folder }
    }

    /// Sends a request, and gives its response as it comes.
    #[track_caller]
    pub fn stream(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Stream {
        let body = body.as_ref();
        let mut stream = self.begin(method, path, headers, &format!("content-length: {}\r\n", body.len()));
        // A client that is refused during a long body may not be able to write all of it.
        let _ = stream.write_all(body);
        Stream::read(stream)
    }

    /// Sends the head of a request, and its body is to come.
    #[track_caller]
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], length: &str) -> TcpStream {
        let mut stream = connect(self.address());
        stream.write_all(self.head(method, path, headers, length).as_bytes()).expect("it takes a request");
        stream
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: &str) -> String {
        let address = self.address();
        let bearer = format!("Bearer {}", self.admin);
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{length}");
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            head += &format!("authorization: {bearer}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

/// A token, and its line.
pub fn new_token(name: &str, scope: Scope) -> (String, String) {
    let new = NewToken::make(&name.parse().expect("a name"), scope).expect("there are random numbers");
    (new.token.expose_secret().to_owned(), new.line)
}

/// Writes a file that others can't.
pub fn write_private(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, text).expect("a file can be written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
}

/// A chunk of a body whose length nobody knows yet.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Whether the body ended as it should.
    pub is_whole: bool,
}

impl Response {
    #[track_caller]
    pub fn json(&self) -> Value {
        json(&self.body)
    }

    pub fn lines(&self) -> Vec<Value> {
        self.body.lines().map(json).collect()
    }

    /// The code of a problem; checks its other members.
    #[track_caller]
    pub fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["type"] == "about:blank" && problem["title"].is_string(), "{self:?}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
        problem["code"].as_str().expect("a problem has a code").to_owned()
    }
}

/// A response as it comes.
pub struct Stream {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    body: BufReader<Body>,
}

struct Body {
    stream: BufReader<TcpStream>,
    /// What is left of the chunk, or of the body; none if it goes to the end of the connection.
    left: Option<usize>,
    is_chunked: bool,
    is_whole: bool,
}

impl Stream {
    #[track_caller]
    pub fn read(stream: TcpStream) -> Self {
        Self::try_read(stream).expect("there is a response")
    }

    /// `None` if there is none.
    pub fn try_read(stream: TcpStream) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            let read = stream.read_line(&mut line);
            assert!(
                !read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
                "no response in time"
            );
            read.ok().filter(|count| *count > 0).map(|_| line.trim_end().to_owned())
        };
        let status = line()?.split_whitespace().nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let is_chunked = headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
        let left = headers.get("content-length").and_then(|length| length.parse().ok());
        let body = Body { stream, left, is_chunked, is_whole: false };
        Some(Self { status, headers, body: BufReader::new(body) })
    }

    /// The next line of the body, without its newline; `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.body.read_line(&mut line) {
            Ok(_) if line.pop() == Some('\n') => Some(line),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no line in time"),
            _ => None,
        }
    }

    /// All the rest.
    pub fn rest(mut self) -> Response {
        let mut bytes = Vec::new();
        let end = self.body.read_to_end(&mut bytes);
        assert!(
            !end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            "no end in time"
        );
        let is_whole = end.is_ok() && self.body.get_ref().is_whole;
        let body = String::from_utf8(bytes).expect("answers are text");
        Response { status: self.status, headers: self.headers, body, is_whole }
    }

    /// The connection, to write to it.
    pub fn connection(&mut self) -> &mut TcpStream {
        self.body.get_mut().stream.get_mut()
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.is_whole {
            return Ok(0);
        }
        if self.is_chunked && self.left.is_none() {
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            if size == 0 {
                self.stream.read_line(&mut String::new())?;
                self.is_whole = true;
                return Ok(0);
            }
            self.left = Some(size);
        }
        let most = self.left.map_or(into.len(), |left| left.min(into.len()));
        let count = if most == 0 { 0 } else { self.stream.read(&mut into[..most])? };
        if let Some(left) = &mut self.left {
            *left -= count;
            if *left == 0 && self.is_chunked {
                self.left = None;
                self.stream.read_line(&mut String::new())?;
            } else if *left == 0 {
                self.is_whole = true;
            } else if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(count)
    }
}
