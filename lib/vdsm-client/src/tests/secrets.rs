//! Passwords stay between caller and server.

use std::io;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::ConsoleKind;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_console_ticket_is_neither_logged_nor_in_errors() {
    const PASSWORD: &str = "correct-horse";
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let (client, mut place) = Place::with_client();
    let ticket = |client: Client| {
        tokio::spawn(async move {
            client.vm_set_ticket("vm", ConsoleKind::Vnc, PASSWORD, Duration::from_mins(2)).await
        })
    };
    let first = ticket(client.clone());
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    assert_eq!(
        request["params"],
        json!({"vmID": "vm", "params": {
            "deviceType": "graphics",
            "graphicsType": "vnc",
            "password": PASSWORD,
            "ttl": 120,
            "existingConnAction": "keep",
            "params": {},
        }})
    );
    let words = format!("Failed to update device: {}", request["params"]);
    server.refuse(&request, 56, &words).await;
    let refused = first.await.unwrap().unwrap_err();

    let second = ticket(client.clone());
    server.request().await;
    drop(server);
    let lost = second.await.unwrap().unwrap_err();

    place.refuse(usize::MAX);
    let third = ticket(client.clone());
    let unreachable = third.await.unwrap().unwrap_err();

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("VM.updateDevice"), "{logged}");
    let said =
        format!("{logged} {refused:?} {refused} {lost:?} {lost} {unreachable:?} {unreachable} {client:?}");
    assert!(!said.contains(PASSWORD), "{said}");
}
