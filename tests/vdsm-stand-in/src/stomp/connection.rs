//! One connection: frames in, frames out, heart-beats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use vdsm_client::frame::{Decoder, Frame, Incoming};

use super::hub::{ConnectionId, Hub, Outgoing};
use crate::rpc::Server;

/// Frames that may wait for a slow peer.
const OUTBOX: usize = 1024;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Destinations whose messages are requests, and all below them.
const REQUEST_QUEUES: [&str; 2] = ["jms.topic.vdsm_requests", "jms.topic.vdsm_irs_requests"];
/// VDSM knows a protocol by the first bytes of a connection, and looks at so many.
const DETECTED: usize = "UNSUBSCRIBE".len();
/// What it knows.
const COMMANDS: [&str; 9] =
    ["MESSAGE", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "CONNECT", "CONNECTED", "ERROR", "RECEIPT", "DISCONNECT"];
/// The shortest interval of heart-beats that VDSM agrees to, in milliseconds.
const SHORTEST_BEAT: u64 = 1000;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(stream: S, id: ConnectionId, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = tokio::io::split(stream);
    let mut first = [0; DETECTED];
    if reader.read_exact(&mut first).await.is_err()
        || !COMMANDS.iter().any(|one| first.starts_with(one.as_bytes()))
    {
        return;
    }
    let (outbox, inbox) = mpsc::channel(OUTBOX);
    let (beat, beats) = watch::channel(Beat::default());
    let hub = server.hub.clone();
    let writing = tokio::spawn(write(writer, inbox, beats.clone(), hub.clone()));
    let mut connection = Connection {
        id,
        server,
        outbox: outbox.clone(),
        subscriptions: BTreeMap::new(),
        beat,
        is_over: false,
    };
    tokio::select! {
        biased;
        // The peer, or a misbehaviour, ended it from the other side.
        () = outbox.closed() => {}
        () = connection.read(reader, &first, beats) => {}
    }
    for (subscription, destination) in &connection.subscriptions {
        hub.unsubscribe(destination, id, subscription);
    }
    // What was queued before the end goes out still.
    let _ = outbox.try_send(Outgoing::Close);
    let _ = writing.await;
}

/// Heart-beats as agreed; zero for none.
#[derive(Debug, Clone, Copy, Default)]
struct Beat {
    /// We send one when nothing else went out for so long.
    send: Duration,
    /// The peer is dead when nothing came for so long.
    expect: Duration,
}

struct Connection {
    id: ConnectionId,
    server: Arc<Server>,
    outbox: mpsc::Sender<Outgoing>,
    /// Destination by id.
    subscriptions: BTreeMap<String, String>,
    beat: watch::Sender<Beat>,
    is_over: bool,
}

impl Connection {
    async fn read(&mut self, mut reader: impl AsyncRead + Unpin, first: &[u8], beats: watch::Receiver<Beat>) {
        let mut decoder = Decoder::default();
        decoder.feed(first);
        let mut chunk = vec![0; CHUNK];
        loop {
            loop {
                match decoder.next() {
                    Ok(Some(Incoming::Frame(frame))) => self.take(&frame),
                    Ok(Some(Incoming::HeartBeat)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "connection {} is closed", self.id.0);
                        return;
                    }
                }
                if self.is_over {
                    return;
                }
            }
            let expect = beats.borrow().expect;
            let read = reader.read(&mut chunk);
            let got = if expect.is_zero() { Ok(read.await) } else { timeout(expect, read).await };
            match got {
                Ok(Ok(0) | Err(_)) | Err(_) => return,
                Ok(Ok(length)) => decoder.feed(&chunk[..length]),
            }
        }
    }

    fn take(&mut self, frame: &Frame) {
        match frame.command.as_str() {
            "CONNECT" => self.connect(frame),
            "SUBSCRIBE" => self.subscribe(frame),
            "UNSUBSCRIBE" => self.unsubscribe(frame),
            "SEND" => self.send(frame),
            "DISCONNECT" => match frame.header("receipt") {
                Some(receipt) if !receipt.is_empty() => {
                    self.tell(Frame::new("RECEIPT", &[("receipt-id", receipt)]));
                }
                Some(_) => {}
                None => self.is_over = true,
            },
            // VDSM takes the lack of a command for a broken connection.
            _ => self.is_over = true,
        }
    }

    fn tell(&self, frame: Frame) {
        if self.outbox.try_send(Outgoing::Frame(frame)).is_err() {
            tracing::warn!("connection {} takes nothing more", self.id.0);
        }
    }

    fn error(&self, text: &str) {
        self.tell(Frame::new("ERROR", &[]).with_body(text.as_bytes().to_vec()));
    }

    fn connect(&self, frame: &Frame) {
        if frame.header("accept-version") != Some("1.2") {
            self.error("Version unsupported");
            return;
        }
        let (theirs, ours) = heart_beat(frame.header("heart-beat").unwrap_or("0,0"));
        let beat = Beat { send: Duration::from_millis(ours), expect: Duration::from_millis(theirs) };
        self.beat.send_replace(beat);
        let agreed = format!("{ours},{theirs}");
        self.tell(Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", &agreed)]));
    }

    fn subscribe(&mut self, frame: &Frame) {
        let present = |name| frame.header(name).filter(|value: &&str| !value.is_empty());
        let (Some(destination), Some(id)) = (present("destination"), present("id")) else {
            self.error("Missing destination or subscription id header");
            return;
        };
        if self.subscriptions.contains_key(id) {
            self.error("Subscription id already exists");
            return;
        }
        self.subscriptions.insert(id.to_owned(), destination.to_owned());
        self.server.hub.subscribe(destination, self.id, id, self.outbox.clone());
    }

    fn unsubscribe(&mut self, frame: &Frame) {
        let Some(id) = frame.header("id").filter(|id| !id.is_empty()) else {
            self.error("Missing id header");
            return;
        };
        if let Some(destination) = self.subscriptions.remove(id) {
            self.server.hub.unsubscribe(&destination, self.id, id);
        }
    }

    fn send(&mut self, frame: &Frame) {
        let Some(destination) = frame.header("destination") else {
            // VDSM stumbles here, and closes.
            self.is_over = true;
            return;
        };
        let forwarded = self.server.hub.forward(destination, frame);
        let is_request = REQUEST_QUEUES.iter().any(|queue| {
            destination.strip_prefix(queue).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if is_request {
            self.server.hub.expect(&frame.body, frame.header("reply-to"));
            let outbox = self.outbox.clone();
            let close = move || drop(outbox.try_send(Outgoing::Close));
            self.server.clone().take(&frame.body, close);
        } else if forwarded == 0 {
            self.error("Subscription not available");
        }
    }
}

/// The two numbers of the header, raised to what VDSM agrees to; what is no number is zero.
fn heart_beat(text: &str) -> (u64, u64) {
    let number = |text: &str| match text.trim().parse::<u64>() {
        Ok(0) | Err(_) => 0,
        Ok(millis) => millis.clamp(SHORTEST_BEAT, 24 * 3600 * 1000),
    };
    text.split_once(',').map_or((0, 0), |(theirs, ours)| (number(theirs), number(ours)))
}

/// Writes what is queued, and a line end whenever nothing was written for as long as was agreed.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut inbox: mpsc::Receiver<Outgoing>,
    mut beats: watch::Receiver<Beat>,
    hub: Arc<Hub>,
) {
    let wrong = hub.misbehaviour();
    let mut is_mute = false;
    let mut last = Instant::now();
    loop {
        let interval = beats.borrow_and_update().send;
        let written = tokio::select! {
            biased;
            message = inbox.recv() => match message {
                Some(Outgoing::Frame(frame)) => {
                    let mut bytes = frame.encode();
                    if wrong.is_silent() || is_mute {
                        continue;
                    }
                    if frame.command == "MESSAGE" && wrong.take_half_frame() {
                        bytes.truncate(bytes.len() / 2);
                        is_mute = true;
                    }
                    write_all(&mut writer, &bytes).await
                }
                Some(Outgoing::Close) | None => break,
            },
            changed = beats.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            () = sleep_until(last + interval), if !interval.is_zero() => {
                last = Instant::now();
                if wrong.is_silent() || is_mute || !wrong.sends_heart_beats() {
                    continue;
                }
                write_all(&mut writer, b"\n").await
            }
        };
        if written.is_err() {
            return;
        }
        last = Instant::now();
    }
    let _ = writer.shutdown().await;
}

async fn write_all(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heart_beats_are_raised_to_a_second() {
        assert_eq!(heart_beat("0,24000"), (0, 24000));
        assert_eq!(heart_beat("500,500"), (1000, 1000));
        assert_eq!(heart_beat("x,500"), (0, 1000));
        assert_eq!(heart_beat("none"), (0, 0));
    }
}
