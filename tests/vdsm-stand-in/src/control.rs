//! The control socket: one line in, one line out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::rpc::Server;

/// How long a command may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest command in bytes.
const LIMIT: u64 = 4096;

/// Listens. A socket that an earlier stand-in left is replaced.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Answers until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, server: Arc<Server>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept on the control socket")?;
        match tokio::time::timeout(PATIENCE, answer(stream, &server)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a command on the control socket was not answered"),
            Err(_) => tracing::warn!("nothing came on the control socket for {PATIENCE:?}"),
        }
    }
}

async fn answer(stream: UnixStream, server: &Server) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LIMIT)).read_line(&mut line).await?;
    let line = line.trim();
    let answer = if line == "status" {
        json!({"misbehaviour": server.misbehaviour.shown(), "vms": server.vms.statuses()}).to_string()
    } else {
        match server.misbehaviour.command(line) {
            Ok(()) => {
                tracing::info!("told to: {line}");
                "ok".to_owned()
            }
            Err(error) => format!("error: {error}"),
        }
    };
    writer.write_all(format!("{answer}\n").as_bytes()).await
}
