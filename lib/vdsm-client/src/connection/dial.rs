//! Making the connection below STOMP: TCP, and TLS on it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{self, TlsError};
use crate::settings::Settings;

/// The name of the loopback.
pub(super) const LOCALHOST: &str = "localhost";

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections. Tests have their own.
#[async_trait]
pub(crate) trait Dial: Send + Sync {
    /// A new connection, ready for STOMP. An error is worth another try: files and servers get repaired.
    async fn dial(&self, settings: &Settings) -> Result<Box<dyn Stream>, DialError>;
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// TCP says no.
    #[error("{0}; is vdsmd running?")]
    Tcp(io::Error),
    /// TLS says no.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl DialError {
    /// Of an error of the stream, which may be TCP's or TLS's.
    pub(super) fn of_io(error: io::Error, settings: &Settings) -> DialError {
        match &settings.tls {
            Some(files) => tls::explain(error, files).into(),
            None => DialError::Tcp(error),
        }
    }
}

/// Dials for real.
#[derive(Debug)]
pub(crate) struct Network;

#[async_trait]
impl Dial for Network {
    async fn dial(&self, settings: &Settings) -> Result<Box<dyn Stream>, DialError> {
        let stream = connect(&settings.host, settings.port).await.map_err(DialError::Tcp)?;
        // Requests are small and waited for.
        stream.set_nodelay(true).map_err(DialError::Tcp)?;
        match &settings.tls {
            None => Ok(Box::new(stream)),
            Some(files) => Ok(Box::new(tls::wrap(stream, &settings.host, files).await?)),
        }
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    if host.eq_ignore_ascii_case(LOCALHOST) {
        // Not looked up: the name is not checked against a certificate, so it must not lead anywhere else. And VDSM may
        // listen on either.
        let addresses =
            [SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        TcpStream::connect(addresses.as_slice()).await
    } else {
        TcpStream::connect((host, port)).await
    }
}
