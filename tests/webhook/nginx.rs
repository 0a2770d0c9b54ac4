//! A real nginx as the gateway before a receiver, and the certificates for it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};

use crate::support::not_run::not_run;
use crate::support::{Authority, Child, isolate, until_true};

/// A certificate and its key, both as PEM.
pub struct Certified {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A certificate of a server at 127.0.0.1.
    pub fn server(&self) -> Certified {
        self.certify_for("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate of a client.
    pub fn client(&self) -> Certified {
        self.certify_for("pinwatch", ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify_for(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Certified {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let (certificate, key) = self.sign(params);
        Certified { certificate, key }
    }
}

/// A gateway that lets a request pass only with a client certificate and a header.
pub struct Gateway {
    address: SocketAddr,
    _nginx: Child,
}

impl Gateway {
    /// Starts nginx in this folder, before the receiver at `behind`. It asks for a certificate of `clients`, and for the header
    /// `X-Gateway-Key` with this value; what it refuses it quotes. `None` if this machine has no nginx.
    pub fn start(
        folder: &Path,
        server: &Certified,
        clients: &Authority,
        key: &str,
        behind: SocketAddr,
    ) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
        let Some(program) = program.into_iter().find(|path| Path::new(path).exists()) else {
            not_run("webhooks through a gateway", "nginx-light");
            return None;
        };
        // Another process may take the port in the moment until nginx has it: then nginx ends, and the next port is tried.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let at = folder.display();
            for (name, content) in [
                ("server.pem", &server.certificate),
                ("server-key.pem", &server.key),
                ("clients.pem", &clients.pem),
            ] {
                fs::write(folder.join(name), content).unwrap();
            }
            let config = format!(
                "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log warn;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{\n\
                   access_log off; default_type text/plain;\n\
                   client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
                   uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
                   server {{\n\
                     listen {address} ssl http2;\n\
                     ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server-key.pem;\n\
                     ssl_client_certificate {at}/clients.pem; ssl_verify_client on;\n\
                     location / {{\n\
                       if ($http_x_gateway_key != \"{key}\") {{ return 403 'wrong key: $http_x_gateway_key\\n'; }}\n\
                       proxy_pass http://{behind}; proxy_http_version 1.1;\n\
                     }}\n\
                   }}\n\
                 }}\n"
            );
            let path = folder.join("nginx.conf");
            fs::write(&path, config).unwrap();
            let mut command = Command::new(program);
            isolate(&mut command);
            command.arg("-c").arg(&path).arg("-p").arg(folder).arg("-e").arg(folder.join("error.log"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut nginx = Child::spawn(command);
            let mut has_ended = false;
            until_true("nginx listens, or has ended", || {
                has_ended = nginx.ended().is_some();
                has_ended || TcpStream::connect(address).is_ok()
            });
            if !has_ended {
                return Some(Self { address, _nginx: nginx });
            }
        }
        panic!("nginx did not start: {}", fs::read_to_string(folder.join("error.log")).unwrap_or_default());
    }

    pub fn url(&self) -> String {
        format!("https://{}/hook?token=hunter2", self.address)
    }
}
