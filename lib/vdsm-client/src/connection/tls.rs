//! TLS as VDSM wants it: both sides show a certificate of the same authority.
//!
//! The server's certificate is checked like any other, with one exception: on the loopback its name is not, because it
//! is made out to the host's name, and nobody else can listen there.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::LOCALHOST;
use crate::settings::TlsFiles;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("cannot read {what} {}: {error}; a host gets it when it is added to the engine", path.display())]
    Read { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{} does not hold {what} in PEM form: {error}", path.display())]
    Pem { what: &'static str, path: PathBuf, error: pem::Error },
    #[error("a certificate in {} cannot be used: {error}", path.display())]
    Authority { path: PathBuf, error: rustls::Error },
    #[error(
        "certificate {} and key {} cannot be used: {error}; they must belong together: enroll the host's certificate anew",
        cert.display(), key.display()
    )]
    OwnCertificate { cert: PathBuf, key: PathBuf, error: rustls::Error },
    #[error("{0:?} is no host name or address that a certificate could be checked against")]
    Name(String),
    #[error(
        "the server's certificate does not come from an authority in {}: check that this is the certificate of VDSM's authority",
        ca.display()
    )]
    Issuer { ca: PathBuf },
    #[error("the server's certificate has expired: enroll the host's certificate anew")]
    Expired,
    #[error("the server's certificate is not valid yet: check the host's clock")]
    NotYet,
    #[error("the server's certificate is refused: {0}")]
    ServerCertificate(CertificateError),
    #[error(
        "the server refuses our certificate {} ({alert}): check that it has not expired and comes from the server's authority",
        cert.display()
    )]
    Refused { cert: PathBuf, alert: String },
    #[error("TLS failed: {0}; does VDSM speak TLS (ssl in /etc/vdsm/vdsm.conf)?")]
    Protocol(rustls::Error),
    #[error("TLS failed: {0}; does VDSM speak TLS (ssl in /etc/vdsm/vdsm.conf)?")]
    Io(io::Error),
}

/// Begins TLS on a connection. The files are read anew each time.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let config = configure(host, files).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| explain(error, files))
}

async fn configure(host: &str, files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority's certificate", &files.ca).await? {
        roots.add(authority).map_err(|error| TlsError::Authority { path: files.ca.clone(), error })?;
    }
    let chain = certificates("the host's certificate", &files.cert).await?;
    let key = key(&files.key).await?;
    let verifier = Verifier { roots, provider: Arc::clone(&provider), check_name: !is_loopback(host) };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_auth_cert(chain, key)
        })
        .map_err(|error| TlsError::OwnCertificate { cert: files.cert.clone(), key: files.key.clone(), error })
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path).await.map_err(|error| TlsError::Read { what, path: path.to_owned(), error })
}

/// At least one.
async fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path).await?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) });
    all.map_err(|error| TlsError::Pem { what, path: path.to_owned(), error })
}

async fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "the host's private key";
    let text = read(what, path).await?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Pem { what, path: path.to_owned(), error })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case(LOCALHOST)
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// What an error of the stream means, and what to do about it.
pub(super) fn explain(error: io::Error, files: &TlsFiles) -> TlsError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return TlsError::Io(error);
    };
    match tls {
        rustls::Error::InvalidCertificate(why) => match why {
            // A bad signature is that of an authority that was renewed: the same name, another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsError::Issuer { ca: files.ca.clone() }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsError::NotYet,
            other => TlsError::ServerCertificate(other.clone()),
        },
        rustls::Error::AlertReceived(alert) => {
            TlsError::Refused { cert: files.cert.clone(), alert: format!("{alert:?}") }
        }
        other => TlsError::Protocol(other.clone()),
    }
}

/// Checks the server's certificate against the authorities, and against the name unless that is the loopback.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        if self.check_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_is() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["host1.example", "localhost.example", "10.0.0.1", "fe80::1", "0.0.0.0", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_name_matters_except_on_the_loopback() {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let host = rcgen::CertificateParams::new(vec!["host1.example".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = host.signed_by(&key, &authority).unwrap();
        let verify = |name: &str| {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            let verifier = Verifier {
                roots,
                provider: Arc::new(rustls::crypto::ring::default_provider()),
                check_name: !is_loopback(name),
            };
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_hours(500_000));
            verifier.verify_server_cert(certificate.der(), &[], &name, &[], now)
        };
        assert!(verify("host1.example").is_ok());
        assert!(verify("localhost").is_ok());
        assert!(verify("127.0.0.1").is_ok());
        let files = TlsFiles { ca: "ca".into(), cert: "cert".into(), key: "key".into() };
        for other in ["host2.example", "10.0.0.1"] {
            let error = verify(other).unwrap_err();
            let said = explain(io::Error::other(error), &files).to_string();
            assert!(said.contains("not valid for name") && said.contains(other), "{said}");
        }
    }
}
