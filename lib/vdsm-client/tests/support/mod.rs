//! A small VDSM on a real port: it answers every request with true.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use vdsm_client::frame::{Decoder, Frame, Incoming};

/// Both versions that a VDSM may speak.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// What a server shows, and whom it lets in, all as PEM.
pub struct Identity {
    /// Its clients' certificates must come from here.
    pub ca: String,
    pub cert: String,
    pub key: String,
}

/// A server; it ends with the test's runtime.
pub struct Server {
    pub port: u16,
}

impl Server {
    /// Speaks TLS of these versions, or none.
    pub async fn start(tls: Option<(Identity, &[&'static SupportedProtocolVersion])>) -> Server {
        let acceptor = tls.map(|(identity, versions)| TlsAcceptor::from(configure(&identity, versions)));
        let listener = TcpListener::bind(("localhost", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a listener accepts");
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream).await,
                        Some(acceptor) => serve(acceptor.accept(stream).await?).await,
                    }
                });
            }
        });
        Server { port }
    }

    /// A port on which nobody listens, as long as nobody else takes it.
    pub async fn unused_port() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        listener.local_addr().expect("it is bound").port()
    }
}

fn configure(identity: &Identity, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&identity.ca)).expect("an authority");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(vec![certificate(&identity.cert)], key)
        .expect("an identity");
    Arc::new(config)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        decoder.feed(&buffer[..count]);
        while let Some(incoming) = decoder.next().map_err(std::io::Error::other)? {
            let Incoming::Frame(frame) = incoming else { continue };
            if let Some(answer) = answer(&frame) {
                stream.write_all(&answer.encode()).await?;
                stream.flush().await?;
            }
        }
    }
}

fn answer(frame: &Frame) -> Option<Frame> {
    match frame.command.as_str() {
        "CONNECT" => Some(Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", "24000,0")])),
        "SEND" => {
            let request: Value = serde_json::from_slice(&frame.body).ok()?;
            let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": true});
            Some(Frame::new("MESSAGE", &[]).with_body(answer.to_string().into_bytes()))
        }
        _ => None,
    }
}
