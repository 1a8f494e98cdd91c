//! The whole: listens, with or without TLS, and serves until it is told to end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use ha_config::Paths;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use vdsm_client::TlsFiles;

use crate::args::Serve;
use crate::control;
use crate::misbehaviour::Misbehaviour;
use crate::network::Networks;
use crate::rpc::Server;
use crate::stomp::{self, ConnectionId, Hub};
use crate::storage::{Storage, StorageSettings};
use crate::vm::{VmSettings, Vms};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The port of VDSM.
const PORT: u16 = 54321;

/// Serves until a signal ends it.
pub async fn run(arguments: &Serve) -> anyhow::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for address in &arguments.listen {
        listeners.push(listen(*address)?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let announce = move || addresses.iter().for_each(|address| println!("listening on {address}"));
    tokio::select! {
        biased;
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = serve(arguments, listeners, announce) => ended,
    }
}

/// Serves what comes to these listeners, whatever addresses the arguments name. Announces when all is ready, the control
/// socket too.
pub async fn serve(
    arguments: &Serve,
    listeners: Vec<TcpListener>,
    announce: impl FnOnce(),
) -> anyhow::Result<()> {
    let root = std::path::absolute(&arguments.root)
        .with_context(|| format!("--root {}", arguments.root.display()))?;
    let paths = Paths::new(root);
    let files = TlsFiles { ca: paths.vdsm_ca(), cert: paths.vdsm_cert(), key: paths.vdsm_key() };
    let tls = if arguments.plain { None } else { Some(acceptor(&files)?) };
    let misbehaviour = Arc::new(Misbehaviour::default());
    let hub = Arc::new(Hub::new(misbehaviour.clone()));
    let storage = Arc::new(Storage::new(StorageSettings {
        paths: paths.clone(),
        io_timeout: arguments.io_timeout,
        has_sanlock: !arguments.without_sanlock,
        interval: Duration::from_secs(arguments.monitor_interval),
    }));
    let settings = VmSettings {
        paths,
        qemu: arguments.qemu.clone(),
        accel: arguments.accel,
        tls: tls.as_ref().map(|_| files),
        port: PORT,
    };
    let vms = Arc::new(Vms::new(settings, storage.clone(), hub.clone()));
    let server =
        Arc::new(Server { hub, misbehaviour, storage, vms: vms.clone(), networks: Networks::default() });

    let control = arguments.control.as_deref().map(control::listen).transpose()?;
    announce();
    for listener in listeners {
        tokio::spawn(accept(listener, tls.clone(), server.clone()));
    }
    tokio::spawn(async move { vms.recover().await });
    match control {
        Some(listener) => control::serve(listener, server.clone()).await,
        None => std::future::pending().await,
    }
}

/// A restart must not wait for connections of the life before.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || -> std::io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(128)
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, server: Arc<Server>) {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let id = ConnectionId(COUNT.fetch_add(1, Ordering::Relaxed));
        tracing::debug!("connection {} from {peer}", id.0);
        tokio::spawn(connection(stream, tls.clone(), id, server.clone()));
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, id: ConnectionId, server: Arc<Server>) {
    // Answers are small and must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection {} is gone already", id.0);
    }
    let Some(tls) = tls else { return stomp::serve(stream, id, server).await };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stomp::serve(stream, id, server).await,
        Ok(Err(error)) => tracing::info!(%error, "connection {} does not speak TLS as it should", id.0),
        Err(_) => tracing::info!("connection {} did not finish its handshake", id.0),
    }
}

/// Both sides prove that VDSM's authority signed them.
fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).with_context(|| format!("{} is no authority", files.ca.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .with_context(|| format!("{} is no authority", files.ca.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| {
        format!("cannot read the key {}; make one with make-certificates", files.key.display())
    })?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)
        .with_context(|| format!("{} does not fit to its key", files.cert.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let found =
        read().with_context(|| format!("cannot read {}; make it with make-certificates", file.display()))?;
    anyhow::ensure!(!found.is_empty(), "{}: there is no certificate in it", file.display());
    Ok(found)
}
