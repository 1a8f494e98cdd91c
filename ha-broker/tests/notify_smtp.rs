//! Notifications through a real SMTP conversation, against a small mail server that lives in this test.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::{ManualClock, Monotonic, Wall};
use ha_broker::notify::{Notifier, Smtp, Source};
use ha_config::BrokerConf;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const TEMPLATE: &str = "From: {source-email}\nTo: {destination-emails}\nSubject: engine {detail}\n\nHost {hostname}: {detail}.\n";

/// Rules and a template as if they came from files.
struct Fixed(String);

impl Source for Fixed {
    fn conf(&self) -> Result<BrokerConf, String> {
        BrokerConf::parse(Path::new("broker.conf"), &self.0).map_err(|error| error.to_string())
    }
    fn template(&self, _event: &str) -> Result<String, String> {
        Ok(TEMPLATE.to_owned())
    }
}

/// A mail as the server took it.
#[derive(Debug)]
struct Taken {
    from: String,
    to: Vec<String>,
    lines: Vec<String>,
}

/// A mail server for this test: speaks SMTP, refuses recipients at `refused.example`, hands over what it took.
async fn mail_server() -> (u16, mpsc::UnboundedReceiver<Taken>) {
    mail_server_at("127.0.0.1").await
}

async fn mail_server_at(address: &str) -> (u16, mpsc::UnboundedReceiver<Taken>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (taken, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, taken.clone()));
        }
    });
    (port, receiver)
}

async fn converse(stream: TcpStream, taken: mpsc::UnboundedSender<Taken>) {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 test.example ESMTP\r\n").await.unwrap();
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        let answer = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => "250-test.example\r\n250 8BITMIME",
            "MAIL" => {
                from = line.to_owned();
                to.clear();
                "250 ok"
            }
            "RCPT" if line.contains("@refused.example") => "550 no such user",
            "RCPT" => {
                to.push(line.to_owned());
                "250 ok"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.unwrap();
                let mut lines = Vec::new();
                loop {
                    let mut line = Vec::new();
                    stream.read_until(b'\n', &mut line).await.unwrap();
                    let line = String::from_utf8(line).unwrap();
                    // Every line must end as the protocol wants it.
                    let line = line.strip_suffix("\r\n").unwrap();
                    if line == "." {
                        break;
                    }
                    lines.push(line.strip_prefix('.').unwrap_or(line).to_owned());
                }
                taken.send(Taken { from: from.clone(), to: to.clone(), lines }).unwrap();
                "250 taken"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n").await;
                return;
            }
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
}

fn notifier(port: u16, destinations: &str) -> Notifier {
    notifier_by("127.0.0.1", port, destinations)
}

fn notifier_by(server: &str, port: u16, destinations: &str) -> Notifier {
    let conf = format!(
        "[email]\nsmtp-server={server}\nsmtp-port={port}\nsmtp-timeout=10\nsource-email=ha@example.org\n\
         destination-emails={destinations}\n[notify]\nstate_transition=maintenance|start|stop|up|down\n"
    );
    let clock = ManualClock::new(Monotonic::from_secs(1), Wall(1_795_230_455));
    Notifier::new(Fixed(conf), Smtp, Arc::new(clock))
}

fn hostname(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("hostname".to_owned(), name.to_owned())])
}

async fn next(taken: &mut mpsc::UnboundedReceiver<Taken>) -> Taken {
    tokio::time::timeout(Duration::from_secs(20), taken.recv()).await.expect("no mail in 20 s").unwrap()
}

#[tokio::test]
async fn a_matching_event_arrives_as_the_template_says() {
    let (port, mut taken) = mail_server().await;
    let notifier = notifier(port, "ops@example.org, Duty <duty@example.org>");
    assert!(notifier.notify("state_transition", "EngineUp-EngineDown", &hostname("hôst1")));
    let mail = next(&mut taken).await;
    assert!(mail.from.starts_with("MAIL FROM:<ha@example.org>"), "{}", mail.from);
    assert_eq!(mail.to, ["RCPT TO:<ops@example.org>", "RCPT TO:<duty@example.org>"]);
    let text = mail.lines.join("\n");
    for line in [
        "From: ha@example.org",
        "To: ops@example.org, Duty <duty@example.org>",
        "Subject: engine EngineUp-EngineDown",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
    ] {
        assert!(mail.lines.iter().any(|known| known == line), "{line} in:\n{text}");
    }
    assert!(text.contains("\nDate: "), "{text}");
    assert!(text.contains("2026"), "{text}");
    assert!(
        text.contains(
            "

Host h=C3=B4st1: EngineUp-EngineDown."
        ),
        "{text}"
    );
    notifier.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_mail_server_may_be_at_an_ipv6_address() {
    let (port, mut taken) = mail_server_at("::1").await;
    for server in ["::1", "[::1]"] {
        let notifier = notifier_by(server, port, "ops@example.org");
        assert!(notifier.notify("state_transition", "EngineUp-EngineDown", &hostname("h1")));
        assert_eq!(next(&mut taken).await.to, ["RCPT TO:<ops@example.org>"]);
        notifier.finish(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn events_without_a_matching_rule_are_ignored() {
    let (port, mut taken) = mail_server().await;
    let notifier = notifier(port, "ops@example.org");
    assert!(!notifier.notify("state_transition", "ReinitializeFSM-Foo", &hostname("h")));
    assert!(!notifier.notify("nosuch", "EngineDown", &hostname("h")));
    assert!(!notifier.notify("../state_transition", "EngineDown", &hostname("h")));
    notifier.finish(Duration::from_secs(5)).await;
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn hostile_text_adds_no_header_no_recipient_and_no_end_of_mail() {
    let (port, mut taken) = mail_server().await;
    let notifier = notifier(port, "ops@example.org");
    let detail =
        "down\r\nBcc: evil@example.org\r\n\r\n.\r\nMAIL FROM:<evil@example.org>\r\n\u{2028}X: y\x1b[31m";
    assert!(notifier.notify("state_transition", detail, &hostname("h\nCc: evil@example.org")));
    let mail = next(&mut taken).await;
    assert_eq!(mail.to, ["RCPT TO:<ops@example.org>"]);
    let end = mail.lines.iter().position(String::is_empty).unwrap();
    let headers = &mail.lines[..end];
    for header in headers.iter().filter(|line| !line.starts_with(' ')) {
        let name = header.split(':').next().unwrap();
        assert!(
            ["From", "To", "Subject", "Date", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
                .contains(&name),
            "{header}"
        );
    }
    assert!(!mail.lines.iter().any(|line| line.contains('\x1b')), "{:?}", mail.lines);
    notifier.finish(Duration::from_secs(5)).await;
    assert!(taken.try_recv().is_err(), "one event, one mail");
}

#[tokio::test]
async fn a_refused_recipient_does_not_cost_the_others_their_mail() {
    let (port, mut taken) = mail_server().await;
    let notifier = notifier(port, "gone@refused.example, ops@example.org");
    assert!(notifier.notify("state_transition", "EngineUp-EngineStop", &hostname("h")));
    assert_eq!(next(&mut taken).await.to, ["RCPT TO:<ops@example.org>"]);
    notifier.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_stalled_mail_server_delays_nothing() {
    // Takes connections, never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let notifier = notifier(listener.local_addr().unwrap().port(), "ops@example.org");
    let started = tokio::time::Instant::now();
    assert!(notifier.notify("state_transition", "EngineUp-EngineDown", &hostname("h")));
    let (_stalled, _) =
        tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.unwrap().unwrap();
    for _ in 0..1000 {
        assert!(notifier.notify("state_transition", "EngineUp-EngineDown", &hostname("h")));
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // The queue is bounded: 64 wait, one is under way, the others went.
    assert_eq!(notifier.counts().lost, 1000 - 64);
    let ending = tokio::time::Instant::now();
    notifier.finish(Duration::from_millis(100)).await;
    assert!(ending.elapsed() < Duration::from_secs(1));
}
