//! wdmd's part: serves its socket, and pets the device.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clients::{ClientId, Clients};
use crate::device::{DISARM, PET};
use crate::wire::{self, Request};

/// How to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen: sanlock's library knows /run/wdmd/wdmd.sock only.
    pub socket: PathBuf,
    /// The device's socket.
    pub device: PathBuf,
    /// The device's time in the clients' seconds; what they are told.
    pub fire_timeout: u32,
    /// So many of the clients' seconds pass in one of ours: 10 for daemons under libfaketime at tenfold speed.
    pub speed: u32,
}

/// How soon a device that cannot be reached is tried again.
const DEVICE_AGAIN: Duration = Duration::from_millis(100);

struct Daemon {
    settings: Settings,
    began: Instant,
    clients: Mutex<Clients>,
}

/// Seconds between two pets, by the device's time, as wdmd has them.
const fn test_interval(fire_timeout: u32) -> u32 {
    match fire_timeout {
        60.. => 10,
        30..60 => 5,
        10..30 => 2,
        0..10 => 1,
    }
}

#[allow(clippy::print_stderr, reason = "standard error is this program's log")]
fn say(text: &str) {
    eprintln!("wdmd-stand-in: {text}");
}

/// Runs until it is told to end and no client stands in the way.
///
/// # Errors
/// When the socket cannot be served.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let listener = listen(&settings.socket)?;
    let daemon = Rc::new(Daemon { settings, began: Instant::now(), clients: Mutex::default() });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut pets = Box::pin(Rc::clone(&daemon).pet_for_ever());
    let mut next: ClientId = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut pets => {}
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("cannot accept a connection")?;
                next += 1;
                daemon.clients.lock().await.connected(next);
                tokio::task::spawn_local(Rc::clone(&daemon).serve(next, stream));
            }
            _ = terminate.recv() => {
                if daemon.clients.lock().await.may_end() {
                    let _ = daemon.tell_device(DISARM);
                    say("ended in order, the device is disarmed");
                    return Ok(());
                }
                say("told to end, but clients are being watched: going on");
            }
        }
    }
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        _ => {}
    }
    UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))
}

impl Daemon {
    fn interval(&self) -> Duration {
        let secs = test_interval(self.settings.fire_timeout);
        Duration::from_secs(secs.into()) / self.settings.speed.max(1)
    }

    async fn pet_for_ever(self: Rc<Self>) {
        let mut is_held_back = false;
        loop {
            let mut pause = self.interval();
            match self.clients.lock().await.expired(self.began.elapsed()) {
                None => {
                    if !self.tell_device(PET) {
                        pause = DEVICE_AGAIN;
                    }
                    is_held_back = false;
                }
                Some(why) if !is_held_back => {
                    say(&format!("the device is not petted any more: {why}"));
                    is_held_back = true;
                }
                Some(_) => {}
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// False when the device is not there.
    fn tell_device(&self, word: &[u8]) -> bool {
        let try_it = || UnixDatagram::unbound()?.send_to(word, &self.settings.device);
        let sent = try_it();
        if let Err(error) = &sent {
            say(&format!("the device at {} cannot be reached: {error}", self.settings.device.display()));
        }
        sent.is_ok()
    }

    async fn serve(self: Rc<Self>, id: ClientId, mut stream: UnixStream) {
        let mut message = [0; wire::LEN];
        while stream.read_exact(&mut message).await.is_ok() {
            let request = Request::parse(&message);
            let now = self.began.elapsed();
            self.clients.lock().await.asked(id, &request, now, self.settings.speed.max(1));
            let fire = self.settings.fire_timeout;
            let answer = wire::answer(&message, test_interval(fire), fire, now.as_secs());
            match request {
                Request::Status | Request::OpenWatchdog { .. } => {
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
                Request::Unknown { command } => {
                    say(&format!("client {id} sent the unknown command {command}"));
                }
                Request::Register { name } => say(&format!("client {id} is {name}")),
                Request::RefcountSet | Request::RefcountClear | Request::TestLive { .. } => {}
            }
        }
        self.clients.lock().await.disconnected(id);
    }
}
