//! TLS to the database: it is really spoken, and who is at the other end is really looked at.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::common::postgres::Postgres;
use crate::nodes::{Cluster, pins};

/// A certificate authority that somebody made for one database.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Has the server speak TLS, with a certificate for this name.
    fn certify(&self, server: &Postgres, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server.speak_tls(&certificate.pem(), &key.serialize_pem());
    }

    /// Where a node finds its certificate.
    fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, &self.pem).unwrap();
        path
    }
}

#[test]
fn a_node_speaks_tls_to_a_server_that_its_authority_vouches_for_and_to_no_other() {
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

    ours.certify(&server, "127.0.0.1");
    let said = refused("verify-full", &theirs_pem);
    assert!(said.contains("no authority that this machine trusts") && said.contains("sslrootcert"), "{said}");
    let said = refused("verify-ca", &theirs_pem);
    assert!(said.contains("no authority that this machine trusts"), "{said}");
    let said = refused("verify-full", &folder.path().join("nothing"));
    assert!(said.contains("sslrootcert"), "{said}");

    let node = place("a", "verify-full", &ours_pem).start();
    cluster.shared_by(&["a"]);
    let pins = pins("delivered", "x", 50);
    node.client().submit_all(&pins);
    cluster.each_once(&pins);
    cluster.all_at_the_webhook();
    let bare = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'pinwatch' AND NOT ssl";
    let covered = bare.replace("NOT ssl", "ssl");
    assert_eq!(cluster.database.count(bare), 0);
    assert!(cluster.database.count(&covered) >= 3, "the writer, the lease and the listener at least");
    node.terminate();

    // Vouched for, but not the one that was asked for.
    ours.certify(&server, "elsewhere.example");
    let said = refused("verify-full", &ours_pem);
    assert!(said.contains("127.0.0.1") && said.contains("elsewhere.example"), "{said}");
    place("b", "verify-ca", &ours_pem).start().terminate();
}
