//! The connection to libvirtd: opened when it is needed, given up when it is dead, and never waited for without end.
//!
//! libvirt's calls block, and one to a daemon that hangs blocks until the keep-alive gives up on it. So each runs in a
//! thread of its own, which may outlive who asked. There are never many of them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use virt::connect::Connect;
use virt::error::Error;

use super::sys::{self, Listener, STACK, Session};
use crate::port::VmError;

/// Opening a connection takes milliseconds.
const OPEN: Duration = Duration::from_secs(4);
/// After a failure nobody tries again for so long.
const BACK_OFF: Duration = Duration::from_secs(1);
/// A question about a domain.
pub(super) const QUESTION: Duration = Duration::from_secs(4);
/// More calls than this that were not answered: the daemon hangs, and nobody adds to them.
const PENDING: usize = 8;

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// Nothing was asked.
    Unreachable(String),
    /// It was asked, and may be done or not.
    Unsure(String),
    /// The daemon said no.
    Refused(Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(detail) | Self::Unsure(detail) => f.write_str(detail),
            Self::Refused(error) => f.write_str(error.message()),
        }
    }
}

impl Trouble {
    /// As the port has it; `action` names what was asked.
    pub fn to_error(&self, action: &'static str) -> VmError {
        match self {
            Self::Unreachable(_) | Self::Unsure(_) => VmError::Unreachable { detail: self.to_string() },
            Self::Refused(error) if error.code() == virt::error::ErrorNumber::NoDomain => VmError::NotRunning,
            Self::Refused(_) => VmError::Failed { action, detail: self.to_string() },
        }
    }
}

/// A session that is closed in a thread of its own: closing may block.
struct Held(Option<Session>);

impl Drop for Held {
    fn drop(&mut self) {
        let session = self.0.take();
        let thread = thread::Builder::new().name("libvirt-close".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || drop(session)) {
            tracing::error!(%error, "cannot start a thread to close a connection to libvirt");
        }
    }
}

#[derive(Default)]
struct State {
    session: Option<Arc<Held>>,
    failed: Option<(Instant, String)>,
}

/// The way to one daemon.
pub(super) struct Link {
    uri: String,
    uuid: String,
    listener: Option<Listener>,
    state: Mutex<State>,
    /// Lets one at a time open a connection.
    door: tokio::sync::Mutex<()>,
    pending: Arc<AtomicUsize>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to the daemon at `uri`; `listener` is told about the domain `uuid`.
    pub fn new(uri: &str, uuid: &str, listener: Option<Listener>) -> Self {
        Self {
            uri: uri.to_owned(),
            uuid: uuid.to_owned(),
            listener,
            state: Mutex::default(),
            door: tokio::sync::Mutex::default(),
            pending: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, why: &str) -> String {
        format!(
            "libvirtd at {}: {why}. Is it running? Look at `systemctl status libvirtd virtqemud`, and at [libvirt] uri \
             in ha.toml",
            self.uri
        )
    }

    /// Does the work in a thread and waits for it until `deadline`. `None`: not in time, or not at all.
    async fn in_thread<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, String> {
        if self.pending.load(Ordering::Acquire) >= PENDING {
            return Err(format!("{PENDING} earlier calls have not been answered"));
        }
        let (answer, answered) = oneshot::channel();
        let pending = Pending::new(&self.pending);
        let thread = thread::Builder::new().name("libvirt-call".to_owned()).stack_size(STACK);
        let run = move || {
            let _pending = pending;
            // Nobody waits any more: then the answer is of no use.
            let _ = answer.send(work());
        };
        thread.spawn(run).map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(tokio::time::timeout(deadline, answered).await.ok().and_then(Result::ok))
    }

    fn open_session(&self) -> Option<Arc<Held>> {
        let mut state = self.state();
        let is_alive = |held: &Arc<Held>| held.0.as_ref().is_some_and(Session::is_alive);
        if !state.session.as_ref().is_some_and(is_alive) {
            state.session = None;
        }
        state.session.clone()
    }

    async fn session(&self) -> Result<Arc<Held>, String> {
        if let Some(session) = self.open_session() {
            return Ok(session);
        }
        let Ok(_inside) = tokio::time::timeout(OPEN, self.door.lock()).await else {
            return Err(self.unreachable("it does not answer"));
        };
        if let Some(session) = self.open_session() {
            return Ok(session);
        }
        if let Some((at, why)) = &self.state().failed
            && at.elapsed() < BACK_OFF
        {
            return Err(why.clone());
        }
        let (uri, uuid, listener) = (self.uri.clone(), self.uuid.clone(), self.listener.clone());
        let open = move || -> Result<Session, String> {
            sys::run_event_loop()?;
            Session::open(&uri, &uuid, listener.as_ref()).map_err(|error| error.message().to_owned())
        };
        let opened = match self.in_thread(OPEN, open).await {
            Ok(Some(opened)) => opened,
            Ok(None) => Err(format!("it did not answer within {} s", OPEN.as_secs())),
            Err(error) => Err(error),
        };
        let mut state = self.state();
        match opened {
            Ok(session) => {
                let session = Arc::new(Held(Some(session)));
                state.session = Some(session.clone());
                state.failed = None;
                Ok(session)
            }
            Err(error) => {
                let why = self.unreachable(&error);
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// Asks the daemon. Work that is not answered by the deadline goes on, and nobody hears of it.
    pub async fn ask<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Trouble> {
        let session = self.session().await.map_err(Trouble::Unreachable)?;
        let call = move || {
            let Some(open) = &session.0 else { return (false, Err(Error::last_error())) };
            let answer = work(open.connect());
            (open.is_alive(), answer)
        };
        match self.in_thread(deadline, call).await {
            Err(error) => Err(Trouble::Unreachable(self.unreachable(&error))),
            Ok(None) => {
                Err(Trouble::Unsure(self.unreachable(&format!("no answer within {} s", deadline.as_secs()))))
            }
            Ok(Some((_, Ok(answer)))) => Ok(answer),
            Ok(Some((true, Err(error)))) => Err(Trouble::Refused(error)),
            Ok(Some((false, Err(error)))) => Err(Trouble::Unsure(self.unreachable(error.message()))),
        }
    }

    /// True with an open connection.
    pub fn is_open(&self) -> bool {
        self.open_session().is_some()
    }
}

/// A call that was not answered yet.
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
