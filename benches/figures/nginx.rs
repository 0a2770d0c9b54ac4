//! nginx, of this machine, with one answer: "not final yet". It counts the requests of whoever asks.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{Process, SERVER, pinned};

/// The answer to every poll.
const ANSWER: &str = concat!(
    r#"[{"status":"MESSAGE_WAITING_DELIVERY","description":"Message sent, waiting for delivery","#,
    r#""finalStatus":false}]"#
);

pub struct Nginx {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// One process of it, on its own core, without a log.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let at = folder.path().display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;\n\
               client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
               uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
               server {{\n\
                 listen {address};\n\
                 location = /requests {{ stub_status; }}\n\
                 location / {{ default_type application/json; return 200 '{ANSWER}'; }}\n\
               }}\n\
             }}\n"
        );
        let path = folder.path().join("nginx.conf");
        fs::write(&path, config).expect("its configuration");
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
        let program = program.into_iter().find(|path| fs::exists(path).unwrap_or(false));
        let program = program.expect("nginx is not installed: apt-get install nginx-light");
        let mut command = pinned(Some(SERVER), Path::new(program));
        command.arg("-c").arg(&path).arg("-p").arg(folder.path());
        command.arg("-e").arg(folder.path().join("error.log"));
        let mut process = Process::start(command);
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(!process.has_ended() && Instant::now() < patience, "nginx did not start at {address}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { _process: process, address, _folder: folder }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests answered so far; being asked this is one.
    pub fn requests(&self) -> f64 {
        let mut stream = TcpStream::connect(self.address).expect("nginx");
        stream.write_all(b"GET /requests HTTP/1.0\r\n\r\n").expect("nginx");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("nginx");
        // " accepts handled requests" over its numbers.
        let numbers = answer.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
        let requests = numbers.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
        requests.unwrap_or_else(|| panic!("nginx was built without stub_status: {answer}"))
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}
