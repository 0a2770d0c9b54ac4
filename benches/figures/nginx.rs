//! Runs this machine's nginx with one static answer, "not final yet", and reads its count of requests.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
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
    /// The same answer over TLS, by HTTP/1.1 and by HTTP/2.
    tls: [SocketAddr; 2],
    folder: TempDir,
}

/// The protocol of the requests.
#[derive(Clone, Copy)]
pub enum By {
    Plain,
    Tls,
    TlsAndHttp2,
}

impl Nginx {
    /// Starts one nginx process on its own core, without a log.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, tls) = (free_address(), [free_address(), free_address()]);
        let [tls1, tls2] = tls;
        let at = folder.path().display();
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        fs::write(folder.path().join("certificate.pem"), signed.cert.pem()).expect("a file");
        fs::write(folder.path().join("key.pem"), signed.signing_key.serialize_pem()).expect("a file");
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;\n\
               client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
               uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
               server {{\n\
                 listen {address}; listen {tls1} ssl; listen {tls2} ssl http2;\n\
                 ssl_certificate {at}/certificate.pem; ssl_certificate_key {at}/key.pem;\n\
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
        Self { _process: process, address, tls, folder }
    }

    pub fn base_url(&self) -> String {
        self.url(By::Plain)
    }

    pub fn url(&self, by: By) -> String {
        match by {
            By::Plain => format!("http://{}", self.address),
            By::Tls => format!("https://{}", self.tls[0]),
            By::TlsAndHttp2 => format!("https://{}", self.tls[1]),
        }
    }

    /// Its certificate, which is self-signed.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Requests answered so far, including this query.
    pub fn requests(&self) -> f64 {
        let mut stream = TcpStream::connect(self.address).expect("nginx");
        stream.write_all(b"GET /requests HTTP/1.0\r\n\r\n").expect("nginx");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("nginx");
        // The numbers are in the line after "server accepts handled requests".
        let numbers = answer.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
        let requests = numbers.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
        requests.unwrap_or_else(|| panic!("nginx was built without stub_status: {answer}"))
    }
}

/// Returns an address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}
