//! The task that holds the connection.
//!
//! ```text
//!             first call or                  CONNECTED
//!             interest in events
//!   Idle ────────────────────► Connecting ─────────────► Serving
//!                                ▲      │                   │
//!                                │      │ refused, silent   │ closed, silent, nonsense:
//!                                │      ▼                   │ every sent call is Lost
//!                                └─── Pausing ◄─────────────┘
//! ```
//!
//! Calls that are made while there is no connection are collected, and sent when there is one. From every state the
//! task ends when the last client is gone. What the protocol wants is decided in [`session`]; here bytes and calls are
//! only moved.

mod dial;
mod heart_beat;
mod inbox;
mod session;
mod tls;

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::client::Connection;
use crate::settings::Settings;
use inbox::{Abandoned, Inbox};
use session::{Fault, Session};

pub(crate) use dial::{Dial, DialError, Network, Stream};
pub(crate) use inbox::{Command, Request, Secret, Ticket};
pub(crate) use session::Outlet;

/// Bytes that are read at once.
const READ: usize = 64 << 10;

/// Why a connection was not made or is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("connecting took longer than {} s: VDSM may be starting, or hang", .0.as_secs_f64())]
    TimeOut(Duration),
}

/// The task: ends with the last client.
pub(crate) async fn run(
    settings: Settings,
    dial: impl Dial,
    commands: mpsc::Receiver<Command>,
    connection: watch::Sender<Connection>,
    outlet: Outlet,
) {
    let task = Task { settings, dial, inbox: Inbox::new(commands), connection, outlet };
    let Abandoned = task.live().await;
    tracing::debug!("the last client of VDSM is gone: disconnected");
}

struct Task<D> {
    settings: Settings,
    dial: D,
    inbox: Inbox,
    connection: watch::Sender<Connection>,
    outlet: Outlet,
}

impl<D: Dial> Task<D> {
    async fn live(mut self) -> Abandoned {
        if let Err(abandoned) = self.inbox.receive().await {
            return abandoned;
        }
        let mut pause = self.settings.first_pause;
        loop {
            let begin = Instant::now();
            let connecting = connect(&self.dial, &self.settings, &self.outlet);
            let (ended, useful) = match self.inbox.collect_during(connecting).await {
                Err(abandoned) => return abandoned,
                Ok(Err(ended)) => (ended, false),
                Ok(Ok((stream, mut session))) => {
                    self.tell_up();
                    let served = self.serve(stream, &mut session).await;
                    session.lose_all();
                    match served {
                        Err(abandoned) => return abandoned,
                        Ok(fault) => {
                            let useful =
                                session.was_useful() || begin.elapsed() >= self.settings.longest_pause;
                            (fault.into(), useful)
                        }
                    }
                }
            };
            self.tell_down(&ended);
            // A server that welcomes us and then hangs up must not be hammered.
            if useful {
                pause = self.settings.first_pause;
            }
            let pausing = tokio::time::sleep(pause);
            if let Err(abandoned) = self.inbox.collect_during(pausing).await {
                return abandoned;
            }
            pause = (pause * 2).min(self.settings.longest_pause);
        }
    }

    /// Moves calls and bytes until the connection ends.
    async fn serve(&mut self, stream: Box<dyn Stream>, session: &mut Session) -> Result<Fault, Abandoned> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; READ];
        loop {
            while session.has_room()
                && let Some(request) = self.inbox.pop()
            {
                session.submit(request, Instant::now());
            }
            let next_tick = session.next_tick();
            // Writing comes first because calls and heart-beats wait for it. It cannot keep reading from its turn: what
            // there is to write is limited, and grows by calls and time only.
            let result = tokio::select! {
                biased;
                result = session.write(&mut writer), if session.has_output() => result,
                result = self.inbox.receive(), if session.has_room() => {
                    result?;
                    Ok(())
                }
                result = reader.read(&mut buffer) => match result {
                    Ok(count) => session.received(&buffer[..count], Instant::now()),
                    Err(error) => Err(error.into()),
                },
                () = tokio::time::sleep_until(next_tick) => Ok(()),
            };
            if let Err(fault) = result.and_then(|()| session.tick(Instant::now())) {
                return Ok(fault);
            }
        }
    }

    fn address(&self) -> String {
        let Settings { host, port, .. } = &self.settings;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn tell_up(&self) {
        tracing::info!(address = self.address(), "connected to VDSM");
        self.connection.send_replace(Connection::Up);
    }

    fn tell_down(&self, ended: &Ended) {
        let down = Connection::Down { why: format!("{}: {ended}", self.address()) };
        // Once for each reason, not for each attempt.
        let news = self.connection.send_if_modified(|known| {
            let news = *known != down;
            *known = down;
            news
        });
        if news {
            tracing::warn!(address = self.address(), why = %ended, "no connection to VDSM");
        }
    }
}

/// Connects, and waits for the server's welcome.
async fn connect(
    dial: &impl Dial,
    settings: &Settings,
    outlet: &Outlet,
) -> Result<(Box<dyn Stream>, Session), Ended> {
    let connecting = async {
        let mut stream = dial.dial(settings).await?;
        let mut session = Session::new(settings.heart_beat, Instant::now(), outlet.clone());
        match welcome(&mut stream, &mut session).await {
            Ok(()) => Ok((stream, session)),
            // In TLS 1.3 it is only now that a client hears what the server thinks of its certificate.
            Err(Fault::Io(error)) => Err(Ended::Dial(DialError::of_io(error, settings))),
            Err(fault) => Err(fault.into()),
        }
    };
    tokio::time::timeout(settings.connect_timeout, connecting)
        .await
        .unwrap_or(Err(Ended::TimeOut(settings.connect_timeout)))
}

async fn welcome(stream: &mut Box<dyn Stream>, session: &mut Session) -> Result<(), Fault> {
    let mut buffer = vec![0; READ];
    session.write(stream).await?;
    while !session.is_ready() {
        let count = stream.read(&mut buffer).await?;
        session.received(&buffer[..count], Instant::now())?;
    }
    Ok(())
}
