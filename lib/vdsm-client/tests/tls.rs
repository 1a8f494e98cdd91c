//! TLS with real sockets: what works, and what is said when it does not.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use support::{Identity, Server, VERSIONS};
use tempfile::TempDir;
use vdsm_client::{Client, Connection, Settings, TlsFiles};

const EC_PKCS8: &str = include_str!("keys/ec-pkcs8.pem");
const EC_SEC1: &str = include_str!("keys/ec-sec1.pem");
const RSA_PKCS1: &str = include_str!("keys/rsa-pkcs1.pem");
const RSA_PKCS8: &str = include_str!("keys/rsa-pkcs8.pem");

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Of a certificate as on an oVirt host: it is made out to the host's name, not to localhost.
fn params() -> CertificateParams {
    CertificateParams::new(vec!["host1.example".to_owned()]).unwrap()
}

fn certificate(authority: &Authority, params: &CertificateParams, key: &str) -> String {
    let key = KeyPair::from_pem(key).unwrap();
    params.signed_by(&key, authority).unwrap().pem()
}

/// A host's files, in a directory of their own.
struct Files(TempDir);

impl Files {
    fn new(authority: &Authority) -> Files {
        let files = Files(TempDir::new().unwrap());
        files.put("ca.pem", &authority.pem());
        files.put("cert.pem", &certificate(authority, &params(), EC_PKCS8));
        files.put("key.pem", EC_PKCS8);
        files
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn settings(&self, server: &Server) -> Settings {
        let tls =
            TlsFiles { ca: self.path("ca.pem"), cert: self.path("cert.pem"), key: self.path("key.pem") };
        Settings::new("localhost", server.port, Some(tls))
    }
}

/// A server that shows this certificate of the EC key, and lets in whom the authority knows.
async fn server_with(authority: &Authority, cert: String) -> Server {
    let identity = Identity { ca: authority.pem(), cert, key: EC_PKCS8.to_owned() };
    Server::start(Some((identity, &VERSIONS))).await
}

async fn good_server(authority: &Authority) -> Server {
    server_with(authority, certificate(authority, &params(), EC_PKCS8)).await
}

/// Why there is no connection.
async fn why(settings: Settings) -> String {
    let client = Client::new(settings);
    let _events = client.events();
    let mut connection = client.connection();
    let told = |state: &Connection| match state {
        Connection::Up => panic!("it connects"),
        Connection::Down { why } => why != "not connected yet",
    };
    match &*connection.wait_for(told).await.unwrap() {
        Connection::Down { why } => why.clone(),
        Connection::Up => panic!("it connects"),
    }
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
}

#[tokio::test]
async fn keys_of_all_forms_do_with_all_versions() {
    let authority = authority("CA");
    for version in VERSIONS {
        let identity = Identity {
            ca: authority.pem(),
            cert: certificate(&authority, &params(), RSA_PKCS8),
            key: RSA_PKCS1.to_owned(),
        };
        let server = Server::start(Some((identity, &[version]))).await;
        for (key, form) in
            [(EC_PKCS8, EC_PKCS8), (EC_PKCS8, EC_SEC1), (RSA_PKCS8, RSA_PKCS8), (RSA_PKCS8, RSA_PKCS1)]
        {
            let files = Files::new(&authority);
            files.put("cert.pem", &certificate(&authority, &params(), key));
            files.put("key.pem", form);
            assert_eq!(Client::new(files.settings(&server)).ping().await, Ok(()));
        }
    }
}

#[tokio::test]
async fn it_does_without_tls() {
    let server = Server::start(None).await;
    assert_eq!(Client::new(Settings::new("localhost", server.port, None)).ping().await, Ok(()));
}

#[tokio::test]
async fn certificates_are_read_anew_at_each_attempt() {
    let authority = authority("CA");
    let server = good_server(&authority).await;
    let files = Files::new(&authority);
    std::fs::rename(files.path("key.pem"), files.path("away")).unwrap();
    let client = Client::new(files.settings(&server));
    let _events = client.events();
    let mut connection = client.connection();
    connection.changed().await.unwrap();
    assert!(matches!(&*connection.borrow(), Connection::Down { .. }));
    std::fs::rename(files.path("away"), files.path("key.pem")).unwrap();
    assert_eq!(client.ping().await, Ok(()));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    // The second is what a renewed authority looks like: the same name, another key.
    for (ours, theirs) in [("CA", "other CA"), ("CA", "CA")] {
        let (ours, theirs) = (authority(ours), authority(theirs));
        let server = good_server(&theirs).await;
        let files = Files::new(&ours);
        let ca = files.path("ca.pem").display().to_string();
        says(&why(files.settings(&server)).await, &["does not come from an authority in", &ca, "check that"]);
    }
}

#[tokio::test]
async fn a_server_whose_certificate_is_out_of_time_is_refused() {
    let authority = authority("CA");
    let files = Files::new(&authority);
    let (mut expired, mut future) = (params(), params());
    expired.not_after = date_time_ymd(2020, 1, 1);
    future.not_before = date_time_ymd(4000, 1, 1);
    for (params, reason) in [
        (expired, "certificate has expired: enroll the host's certificate anew"),
        (future, "certificate is not valid yet: check the host's clock"),
    ] {
        let server = server_with(&authority, certificate(&authority, &params, EC_PKCS8)).await;
        says(&why(files.settings(&server)).await, &["localhost:", reason]);
    }
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_understood() {
    let (authority, stranger) = (authority("CA"), authority("stranger"));
    let mut expired = params();
    expired.not_after = date_time_ymd(2020, 1, 1);
    for version in VERSIONS {
        for cert in [certificate(&authority, &expired, EC_PKCS8), certificate(&stranger, &params(), EC_PKCS8)]
        {
            let identity = Identity {
                ca: authority.pem(),
                cert: certificate(&authority, &params(), EC_PKCS8),
                key: EC_PKCS8.to_owned(),
            };
            let server = Server::start(Some((identity, &[version]))).await;
            let files = Files::new(&authority);
            files.put("cert.pem", &cert);
            let path = files.path("cert.pem").display().to_string();
            says(
                &why(files.settings(&server)).await,
                &["the server refuses our certificate", &path, "check that it has not expired"],
            );
        }
    }
}

#[tokio::test]
async fn files_that_do_not_do_are_named() {
    let authority = authority("CA");
    let server = good_server(&authority).await;
    for (name, text, reason) in [
        ("ca.pem", None, "cannot read the authority's certificate"),
        ("cert.pem", None, "cannot read the host's certificate"),
        ("key.pem", None, "cannot read the host's private key"),
        ("ca.pem", Some(""), "does not hold the authority's certificate in PEM form"),
        ("cert.pem", Some("nonsense"), "does not hold the host's certificate in PEM form"),
        ("key.pem", Some("-----BEGIN"), "does not hold the host's private key in PEM form"),
        ("key.pem", Some(RSA_PKCS1), "they must belong together"),
        ("ca.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be used"),
    ] {
        let files = Files::new(&authority);
        match text {
            None => std::fs::remove_file(files.path(name)).unwrap(),
            Some(text) => files.put(name, text),
        }
        let said = why(files.settings(&server)).await;
        says(&said, &[reason, &files.path(name).display().to_string()]);
        assert!(!said.contains("BEGIN"), "{said}");
    }
}

#[tokio::test]
async fn one_side_with_tls_and_one_without_is_said_so() {
    let plain = Server::start(None).await;
    let authority = authority("CA");
    let files = Files::new(&authority);
    says(&why(files.settings(&plain)).await, &["does VDSM speak TLS"]);
    let tls = good_server(&authority).await;
    says(
        &why(Settings::new("localhost", tls.port, None)).await,
        &["not a STOMP frame", "check the port, and whether it wants TLS"],
    );
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    // Taken, and given back.
    let port = Server::unused_port().await;
    says(
        &why(Settings::new("127.0.0.1", port, None)).await,
        &[&format!("127.0.0.1:{port}: "), "refused", "is vdsmd running?"],
    );
}
