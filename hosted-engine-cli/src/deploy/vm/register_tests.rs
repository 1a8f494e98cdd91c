//! A stand-in of the engine: its resources and its API's answers, over HTTP. It serves the secure pages in plain, but
//! where the certificate is what is looked at.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::deploy::made::Undo as _;
use crate::deploy::testing::{Heard, Recorded};
use crate::deploy::vm::testing::Bench;
use crate::deploy::{Boot, Journal, Request, Step, StepId};

const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB ovirt-engine";

/// Answers requests in this order with status and body; keeps the requests.
async fn serve(answers: Vec<(u16, String)>) -> (Api, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !is_whole(&request) {
                let mut part = vec![0; 4096];
                let got = stream.read(&mut part).await.unwrap();
                request.push_str(std::str::from_utf8(&part[..got]).unwrap());
            }
            seen.lock().unwrap().push(request);
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (Api { plain: base.clone(), secure: base }, requests)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem()
}

/// As an engine writes a host, shortened.
fn host(status: &str) -> String {
    format!(
        r#"{{"address":"h1","name":"hosted_engine_1","status":"{status}","ssh":{{"port":"22"}},"href":"/ovirt-engine/api/hosts/7","id":"7"}}"#
    )
}

async fn added(answers: Vec<(u16, String)>) -> (Result<String, String>, Vec<String>) {
    let (api, requests) = serve(answers).await;
    let mut bench = Bench::new(Boot::Pxe);
    let client = liveliness::client(DEADLINE).unwrap();
    let password = Secret::new("s3cret");
    let result = add(&client, &api, bench.first(), &password, &Heard::default()).await;
    let requests = requests.lock().unwrap().clone();
    (result, requests)
}

#[tokio::test]
async fn the_authority_is_read_shown_and_the_key_is_taken() {
    let (api, requests) = serve(vec![(200, authority()), (200, format!("{KEY}\n"))]).await;
    let heard = Heard::default();
    let (_, key) = trust(&api, &heard).await.unwrap();
    assert_eq!(key, KEY);
    assert!(heard.all()[0].contains("SHA-256 fingerprint ") && heard.all()[0].matches(':').count() == 31);
    let requests = requests.lock().unwrap().clone();
    let wanted = "GET /ovirt-engine/services/pki-resource?resource=";
    assert!(requests[0].starts_with(&format!("{wanted}ca-certificate&format=X509-PEM-CA ")));
    assert!(requests[1].starts_with(&format!("{wanted}engine-certificate&format=OPENSSH-PUBKEY ")));

    let (api, _) = serve(vec![(200, "no certificate".to_owned())]).await;
    assert!(trust(&api, &heard).await.unwrap_err().contains("authority cannot be read"));
    let (api, _) = serve(vec![(200, authority()), (200, "<html>".to_owned())]).await;
    assert!(trust(&api, &heard).await.unwrap_err().contains("SSH key"));
    let (api, _) = serve(vec![(404, String::new())]).await;
    assert!(trust(&api, &heard).await.unwrap_err().contains("answered 404"));
}

/// An authority that signs servers' certificates.
fn issuer() -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (rcgen::Issuer::new(params, key), pem)
}

/// Serves the engine's SSH key once over TLS, with a certificate for this name.
fn serve_key(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, name: &str, is_expired: bool) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    if is_expired {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let mut stream =
            rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::new(config)).unwrap(), tcp);
        let mut request = String::new();
        while !is_whole(&request) {
            let mut part = [0; 4096];
            // A client that does not believe us is gone.
            let Ok(got @ 1..) = stream.read(&mut part) else { return };
            request.push_str(std::str::from_utf8(&part[..got]).unwrap());
        }
        let length = KEY.len();
        write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{KEY}")
            .unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    url
}

#[tokio::test]
async fn only_whom_the_engines_authority_vouches_for_is_believed() {
    let ((ours, authority), (others, _)) = (issuer(), issuer());
    for (issuer, name, is_expired, expected) in [
        (&ours, "127.0.0.1", false, Ok(KEY)),
        (&others, "127.0.0.1", false, Err("another machine may answer in the engine's place")),
        (&ours, "192.0.2.1", false, Err("certificate is for another name")),
        (&ours, "127.0.0.1", true, Err("not valid any more")),
    ] {
        let (api, _) = serve(vec![(200, authority.clone())]).await;
        let api = Api { secure: serve_key(issuer, name, is_expired), ..api };
        match (trust(&api, &Heard::default()).await, expected) {
            (Ok((_, key)), Ok(expected)) => assert_eq!(key, expected),
            (Err(error), Err(expected)) => {
                assert!(error.contains(expected) && error.contains(&api.secure), "{error}");
            }
            (found, _) => panic!("{name}, expired: {is_expired}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn a_host_is_added_by_either_administrator_and_followed_until_it_is_up() {
    let (result, requests) =
        added(vec![(401, String::new()), (201, host("installing")), (200, host("up"))]).await;
    assert_eq!(result.unwrap(), "up");
    let [first, second, third] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(first.starts_with("POST /ovirt-engine/api/hosts HTTP/1.1\r\n"));
    // admin@internal:s3cret, admin@ovirt@internalsso:s3cret
    assert!(first.contains("Basic YWRtaW5AaW50ZXJuYWw6czNjcmV0\r\n"), "{first}");
    assert!(second.contains("Basic YWRtaW5Ab3ZpcnRAaW50ZXJuYWxzc286czNjcmV0\r\n"), "{second}");
    let body: serde_json::Value = serde_json::from_str(second.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["name"], &body["address"]), (&json!("hosted_engine_1"), &json!("h1")));
    assert_eq!(body["ssh"]["authentication_method"], "publickey");
    assert!(third.starts_with("GET /ovirt-engine/api/hosts/7 "), "{third}");
}

#[tokio::test]
async fn the_engines_reasons_are_told() {
    let (result, _) = added(vec![(401, String::new()), (401, String::new())]).await;
    assert!(result.unwrap_err().contains("administrator's password"));
    let fault =
        r#"{"detail":"[Cannot add Host. The Host name is already in use.]","reason":"Operation Failed"}"#;
    let (result, _) = added(vec![(409, fault.to_owned())]).await;
    let error = result.unwrap_err();
    assert!(error.contains("409") && error.contains("name is already in use") && !error.contains("s3cret"));
    let (result, _) = added(vec![(201, host("installing")), (200, host("install_failed"))]).await;
    assert!(result.unwrap_err().contains("install_failed"));
    let (result, _) = added(vec![(201, "{}".to_owned())]).await;
    assert!(result.unwrap_err().contains("cannot be understood"));
}

/// Lets the engine in.
struct Authorize;

impl Step for Authorize {
    fn id(&self) -> StepId {
        StepId::EngineAnswers
    }
    fn title(&self) -> String {
        String::new()
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        authorize(job, KEY)
    }
}

#[test]
fn the_engines_key_is_added_once_and_can_be_taken_back() {
    let bench = Bench::new(Boot::Pxe);
    assert!(matches!(&bench.request, Request::FirstHost(_)));
    std::fs::create_dir_all(bench.path("root")).unwrap();
    let keys = bench.path("root/.ssh/authorized_keys");
    let (tools, opener) = (Recorded::new(&[]), crate::deploy::vm::scripted::Script::default().opener());
    for (before, after) in
        [(None, format!("{KEY}\n")), (Some("ssh-rsa A me"), format!("ssh-rsa A me\n{KEY}\n"))]
    {
        if let Some(text) = before {
            std::fs::create_dir(bench.path("root/.ssh")).unwrap();
            std::fs::write(&keys, text).unwrap();
        }
        bench.run(Box::new(Authorize), &tools, &opener).unwrap();
        assert_eq!(std::fs::read_to_string(&keys).unwrap(), after);
        let story = Journal::read(&bench.journal()).unwrap().unwrap();
        bench.run(Box::new(Authorize), &tools, &opener).unwrap();
        assert_eq!(std::fs::read_to_string(&keys).unwrap(), after, "once only");
        for item in story.items.iter().rev() {
            item.made.undo(&bench.world(&tools, &opener)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&keys).ok().as_deref(), before);
        assert_eq!(bench.path("root/.ssh").exists(), before.is_some());
    }
}
