//! TLS to the database: it is used, and the server's identity is verified.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::cluster::nodes::{Cluster, pins};
use crate::support::postgres::Postgres;
use crate::support::{Authority, Ended, Place, program, run_to_end};

impl Authority {
    /// Makes the server use TLS with a certificate for this name.
    fn secure(&self, server: &Postgres, name: &str) {
        let (certificate, key) = self.certify(name, 2090);
        server.speak_tls(&certificate, &key);
    }

    /// Where a node finds its certificate.
    fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, &self.pem).unwrap();
        path
    }
}

#[test]
fn a_node_connects_only_to_a_database_server_that_its_authority_certified() {
    let Some(server) = Postgres::launch() else { return };
    let cluster = Cluster::on(&server);
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (ours_pem, theirs_pem) = (ours.file(folder.path(), "ours"), theirs.file(folder.path(), "theirs"));
    let place = |name: &str, mode: &str, root: &Path| {
        let url = format!("{}?sslmode={mode}&sslrootcert={}", cluster.database.url(), root.display());
        cluster.place_at(name, &url)
    };
    let refused = |mode: &str, root: &Path| {
        let ended = place("refused", mode, root).refusal();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        ended.stderr
    };

    let said = refused("verify-full", &ours_pem);
    assert!(said.contains("does not speak TLS") && said.contains("ssl = on"), "{said}");

    ours.secure(&server, "127.0.0.1");
    let said = refused("verify-full", &theirs_pem);
    assert!(said.contains("no authority that this machine trusts") && said.contains("sslrootcert"), "{said}");
    let said = refused("verify-ca", &theirs_pem);
    assert!(said.contains("no authority that this machine trusts"), "{said}");
    let said = refused("verify-full", &folder.path().join("nothing"));
    assert!(said.contains("sslrootcert"), "{said}");

    let node = place("a", "verify-full", &ours_pem).start();
    cluster.wait_until_shared_by(&["a"]);
    let pins = pins("delivered", "x", 50);
    node.client().submit_all(&pins);
    cluster.wait_for_one_outcome_each(&pins);
    cluster.wait_until_webhook_has_all();
    let bare = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'pinwatch' AND NOT ssl";
    let covered = bare.replace("NOT ssl", "ssl");
    assert_eq!(cluster.database.count(bare), 0);
    assert!(cluster.database.count(&covered) >= 3, "the writer, the lease and the listener at least");
    node.terminate();

    // Certified by the authority, but for another name.
    ours.secure(&server, "elsewhere.example");
    let said = refused("verify-full", &ours_pem);
    assert!(said.contains("127.0.0.1") && said.contains("elsewhere.example"), "{said}");
    place("b", "verify-ca", &ours_pem).start().terminate();
}

/// How a client asks for TLS, <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A hostile server. It does not use TLS, asks each client for its password in clear text, and
/// keeps everything that it receives.
struct Rogue {
    port: u16,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Rogue {
    fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let (port, sent) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<u8>>>::default());
        let kept = sent.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                // The client is expected to give up.
                let _ = Self::ask_for_password(client.unwrap(), &kept);
            }
        });
        Self { port, sent }
    }

    fn ask_for_password(mut client: TcpStream, kept: &Mutex<Vec<u8>>) -> std::io::Result<()> {
        let mut message = [0; 4096];
        loop {
            let length = client.read(&mut message)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            kept.lock().unwrap().extend_from_slice(&message[..length]);
            match message[..length] == SSL_REQUEST {
                true => client.write_all(b"N")?,
                // AuthenticationCleartextPassword
                false => client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3])?,
            }
        }
    }

    /// The bytes received since the last call.
    fn received(&self) -> Vec<u8> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

#[test]
fn a_password_is_sent_to_no_server_on_another_machine_that_is_not_verified() {
    let rogue = Rogue::start();
    // Not a name of this machine, but it resolves to it.
    let host = format!("0.0.0.0:{}", rogue.port);
    let place = Place::new("http://127.0.0.1:9");
    let pgpass = place.path("pgpass");
    fs::write(&pgpass, "*:*:*:*:geheim\n").unwrap();
    fs::set_permissions(&pgpass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let run = |what: &str, url: &str, more: &[&str], variables: &[(&str, &str)]| -> Ended {
        let mut command = program();
        if what == "migrate-store" {
            let to = format!("sqlite:{}", place.store().display());
            command.args(["migrate-store", "--from", url, "--to", &to]);
        } else {
            command.arg(what).arg("--config").arg(place.path("pinwatch.toml"));
            command.arg("--set").arg(format!("store.url={url}")).env("PINWATCH__API__KEY", "key");
        }
        command.args(more).envs(variables.iter().copied());
        run_to_end(command)
    };
    let with_password = format!("postgres://u:geheim@{host}/d");
    let without = format!("postgres://u@{host}/d");
    let elsewhere = format!("postgres://u:geheim@localhost:{}/d?hostaddr=0.0.0.0", rogue.port);
    let port = rogue.port.to_string();
    let pgpass = pgpass.to_str().unwrap();
    for (url, variables) in [
        (with_password.as_str(), &[][..]),
        (&format!("{with_password}?sslmode=prefer"), &[]),
        (&format!("{with_password}?sslmode=require"), &[]),
        (&format!("{with_password}?sslmode=verify-ca"), &[]),
        (&elsewhere, &[]),
        (&without, &[("PGPASSWORD", "geheim")]),
        (&without, &[("PGPASSFILE", pgpass)]),
        (&with_password, &[("PGSSLMODE", "require")]),
        ("postgres:///d?user=u&password=geheim", &[("PGHOST", "0.0.0.0"), ("PGPORT", &port)]),
        ("postgres:///d?user=u&password=geheim", &[("PGHOSTADDR", "0.0.0.0"), ("PGPORT", &port)]),
    ] {
        for what in ["run", "check-config", "doctor", "migrate-store"] {
            let Ended { code, stderr, .. } = run(what, url, &[], variables);
            assert_eq!(code, Some(2), "{what} {url} {variables:?}: {stderr}");
            let told = ["must have sslmode=verify-full", "sslrootcert", "store.allow_insecure_tls = true"];
            assert!(told.iter().all(|told| stderr.contains(told)), "{stderr}");
            assert!(!stderr.contains("geheim"), "{stderr}");
        }
    }
    assert!(rogue.received().is_empty(), "nobody connected");

    // With verification the server gets only the TLS request.
    for variables in [&[][..], &[("PGSSLMODE", "disable")]] {
        let Ended { code, stderr, .. } =
            run("run", &format!("{with_password}?sslmode=verify-full"), &[], variables);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("does not speak TLS"), "{stderr}");
        assert_eq!(rogue.received(), SSL_REQUEST);
    }

    // With the explicit setting it gets the password, as documented.
    let allowed: [(&str, &[&str]); 2] =
        [("run", &["--set", "store.allow_insecure_tls=true"]), ("migrate-store", &["--allow-insecure-tls"])];
    for (what, allow) in allowed {
        let Ended { code, stderr, .. } = run(what, &with_password, allow, &[]);
        assert_eq!(code, Some(1), "{what}: {stderr}");
        assert!(rogue.received().windows(6).any(|bytes| bytes == b"geheim"), "{what}");
    }
}
