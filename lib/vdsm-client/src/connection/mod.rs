//! The task that holds the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::client::Connection;
use crate::error::CallError;
use crate::event::Event;
use crate::settings::Settings;

/// What clients ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// There is interest in events.
    Connect,
    /// A call.
    Call(Request),
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) body: Vec<u8>,
    pub(crate) ticket: Ticket,
    pub(crate) answer: oneshot::Sender<Result<Value, CallError>>,
}

/// Decides, once, whether a request is sent or was given up before: its caller and the task may both try at the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU8>);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// The task is about to send; `false` if the caller gave up.
    pub(crate) fn take(&self) -> bool {
        self.move_to(TAKEN)
    }

    /// The caller gives up; `false` if the request may have been sent.
    pub(crate) fn withdraw(&self) -> bool {
        self.move_to(WITHDRAWN)
    }

    fn move_to(&self, next: u8) -> bool {
        self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where the task tells what happens.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) connection: watch::Sender<Connection>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) late: Arc<AtomicU64>,
}

/// The task: ends with the last client.
pub(crate) async fn run(settings: Settings, mut commands: mpsc::Receiver<Command>, publisher: Publisher) {
    while let Some(command) = commands.recv().await {
        if let Command::Call(request) = command
            && request.ticket.take()
        {
            let detail = format!("{}:{} is not connected", settings.host, settings.port);
            tracing::debug!(
                detail,
                late = publisher.late.load(Ordering::Relaxed),
                receivers = publisher.events.receiver_count()
            );
            publisher.connection.send_replace(Connection::Down { why: detail.clone() });
            request.answer.send(Err(CallError::Unreachable { detail })).ok();
            drop((request.id, request.method, request.body));
        }
    }
}
