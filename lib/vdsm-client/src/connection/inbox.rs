//! Calls on their way from the clients to the connection.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::error::CallError;

/// Most calls that are collected while there is no connection; more wait in their callers.
const COLLECTED: usize = 1024;

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
    /// The JSON-RPC request. It can hold secrets.
    pub(crate) body: Secret,
    pub(crate) ticket: Ticket,
    pub(crate) answer: oneshot::Sender<Result<Value, CallError>>,
}

/// Bytes that must not be shown.
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

/// Decides, once, whether a request is sent or was given up before: its caller and the task may try at the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU8>);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// The task is about to send; `false` if the caller gave up.
    pub(crate) fn take(&self) -> bool {
        self.leave_waiting_for(TAKEN)
    }

    /// The caller gives up; `false` if the request may have been sent.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_waiting_for(WITHDRAWN)
    }

    fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }

    fn leave_waiting_for(&self, next: u8) -> bool {
        self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Request {
    /// Whether nobody waits for the answer any more.
    fn is_given_up(&self) -> bool {
        self.ticket.is_withdrawn() || self.answer.is_closed()
    }
}

/// The last client is gone.
#[derive(Debug)]
pub(super) struct Abandoned;

/// The task's end of the clients' channel, and what was taken from it but not sent.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: mpsc::Receiver<Command>,
    collected: VecDeque<Request>,
}

impl Inbox {
    pub(super) fn new(commands: mpsc::Receiver<Command>) -> Inbox {
        Inbox { commands, collected: VecDeque::new() }
    }

    /// Takes one command, and keeps it when it is a call. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<(), Abandoned> {
        match self.commands.recv().await {
            None => Err(Abandoned),
            Some(Command::Connect) => Ok(()),
            Some(Command::Call(request)) => {
                self.collected.push_back(request);
                Ok(())
            }
        }
    }

    /// The oldest call that somebody still waits for.
    pub(super) fn pop(&mut self) -> Option<Request> {
        loop {
            let request = self.collected.pop_front()?;
            if !request.is_given_up() {
                return Some(request);
            }
        }
    }

    /// Does something, and collects calls meanwhile.
    pub(super) async fn collect_during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Abandoned> {
        let mut work = pin!(work);
        self.collected.retain(|request| !request.is_given_up());
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(result),
                result = self.receive(), if self.collected.len() < COLLECTED => result?,
            }
        }
    }
}
