//! The broker's Unix socket: XML-RPC for existing clients, and our own JSON documents and metrics beside it.
//!
//! It knows HTTP and who is calling; what a verb does is behind [`Verbs`]. It never opens storage, never decides
//! anything, and no client can hold up another: every connection is a task of its own with limits on time and size.
//!
//! ```text
//! accept ─ peer's uid ─ room left for its class? ─ HTTP ┬ POST /RPC2 ─ decode ─ may it write? ─ Verbs
//!                        └ no: 503, closed              └ GET, PUT ─────────── may it write? ─ Verbs
//! ```

mod bind;
mod deadline;
mod dispatch;
mod http;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

pub use self::bind::{BoundSocket, SocketError, bind};
pub use self::dispatch::Verb;
pub use self::policy::{Peer, WriterPolicy};
use crate::verbs::Verbs;

/// Connections at one time of users that may write: agents, the operator's command.
const MAX_WRITERS: usize = 64;

/// Connections at one time of everybody else, so that they cannot shut the agent out.
const MAX_READERS: usize = 32;

/// Connections of a class that may wait for a place at one time. More are closed without a word.
const MAX_WAITING: usize = 64;

/// Time to wait for a place: others may just be closing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time for a refused client to take that answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's header must be whole within this; an idle kept connection is closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that does not take its answer for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for running requests at the end. A stop must be over within a second.
const GRACE: Duration = Duration::from_millis(800);

/// Everything that a connection needs.
struct Server<V> {
    verbs: Arc<V>,
    policy: WriterPolicy,
    ending: watch::Receiver<bool>,
}

impl<V> Server<V> {
    /// Completes when the broker is about to end.
    async fn ended(&self) {
        let mut ending = self.ending.clone();
        // An error means that the server is gone altogether.
        let _ = ending.wait_for(|ending| *ending).await;
    }
}

/// Connections of users with the same rights.
struct Class {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Class {
    fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// A place in the waiting room, if there is one.
    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }
}

/// Serves the socket until `shutdown` completes, then lets running requests finish for at most 0.8 s, and removes
/// the socket file. Connections are independent of one another.
pub async fn serve<V: Verbs>(
    socket: BoundSocket,
    verbs: Arc<V>,
    policy: WriterPolicy,
    shutdown: impl Future<Output = ()>,
) {
    let (end, ending) = watch::channel(false);
    let server = Arc::new(Server { verbs, policy, ending });
    let writers = Class::new(MAX_WRITERS);
    let readers = Class::new(MAX_READERS);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    info!(path = %socket.path().display(), "serving the broker's socket");

    loop {
        let stream = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = socket.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of descriptors or memory: others may free some soon.
                    warn!(%error, "cannot accept a connection on the broker's socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                debug!(%error, "a client was gone before it was served");
                continue;
            }
        };
        let class = if server.policy.may_write(&peer) { &writers } else { &readers };
        if let Some(waiting) = class.enter() {
            connections.spawn(admit(stream, peer, Arc::clone(&server), Arc::clone(&class.places), waiting));
        } else {
            warn!(%peer, "closed a connection unheard: too many wait for a place");
        }
    }

    drop(socket);
    // Without receivers there is no connection to tell.
    let _ = end.send(true);
    let drained =
        tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        info!(connections = connections.len(), "closing connections whose requests did not finish in time");
    }
}

/// Serves the connection once its class has a place, or says that there is none.
async fn admit<V: Verbs>(
    stream: UnixStream,
    peer: Peer,
    server: Arc<Server<V>>,
    places: Arc<Semaphore>,
    waiting: OwnedSemaphorePermit,
) {
    if let Ok(Ok(_place)) = tokio::time::timeout(PATIENCE, places.acquire_owned()).await {
        drop(waiting);
        connection(stream, peer, server).await;
    } else {
        warn!(%peer, "refused a connection: too many are open");
        refuse(stream).await;
    }
}

async fn connection<V: Verbs>(stream: UnixStream, peer: Peer, server: Arc<Server<V>>) {
    let service = service_fn(|request| http::answer(request, &server, &peer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(deadline::WriteDeadline::new(stream, WRITE_TIMEOUT)), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = server.ended() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%peer, %error, "a connection ended early");
    }
}

/// Says why. Its request is read first and the rest of it afterwards: an answer before the request confuses clients,
/// and closing with something unread would reset the connection.
async fn refuse(mut stream: UnixStream) {
    let text = "too many open connections to the broker's socket; close some and try again\n";
    let answer = format!(
        "HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut rest = [0; 4096];
    let farewell = async {
        if stream.read(&mut rest).await? == 0 {
            return Ok(());
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether it heard or not, it is gone now.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, farewell).await;
}
