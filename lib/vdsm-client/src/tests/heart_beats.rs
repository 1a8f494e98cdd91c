//! Signs of life, ours and theirs.

use super::*;

/// A connection with these heart-beats over which one call is unanswered.
async fn waiting(
    heart_beat: &str,
) -> (Client, Place, Server, tokio::task::JoinHandle<Result<Value, CallError>>) {
    let (client, mut place) = Place::with_client();
    let call = calling(&client, "VM.migrate");
    let mut server = place.welcome(heart_beat).await;
    server.request().await;
    (client, place, server, call)
}

#[tokio::test(start_paused = true)]
async fn half_a_minute_of_silence_is_death() {
    let (client, mut place, mut server, call) = waiting("24000,0").await;
    let begin = Instant::now();
    server.hung_up().await;
    assert_eq!(since(begin), 30_000);
    assert_eq!(call.await.unwrap(), Err(CallError::Lost { method: "VM.migrate".to_owned() }));
    assert_eq!(down(&client).await, "vdsm.example:54321: VDSM was silent for 30 s");
    // And on it goes.
    let call = calling(&client, "Host.ping2");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    server.answer(&request, json!(true)).await;
    assert_eq!(call.await.unwrap(), Ok(json!(true)));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_keep_a_connection_alive() {
    let (client, _place, mut server, call) = waiting("24000,0").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(29_900)).await;
        server.bytes(b"\n").await;
    }
    assert_eq!(*client.connection().borrow(), Connection::Up);
    assert!(!call.is_finished());
    assert_eq!(server.beats, 0, "it wants none of ours");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_heart_beats_is_probed() {
    let (_client, _place, mut server, call) = waiting("0,0").await;
    let mut last = Instant::now();
    for _ in 0..10 {
        let probe = server.request().await;
        assert_eq!(probe["method"], "Host.ping2");
        assert_eq!(since(last), 12_000);
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.answer(&probe, json!(true)).await;
        last = Instant::now();
    }
    // From now on it is silent.
    for _ in 0..2 {
        assert_eq!(server.request().await["method"], "Host.ping2");
    }
    server.hung_up().await;
    assert_eq!(since(last), 30_000);
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_an_old_server_is_answered_too() {
    let (client, _place, mut server, _call) = waiting("0,0").await;
    for _ in 0..5 {
        let probe = server.request().await;
        server.refuse(&probe, crate::code::UNKNOWN_VERB, "no such verb").await;
    }
    assert_eq!(*client.connection().borrow(), Connection::Up);
    assert_eq!(client.late_answers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_heart_beats_gets_them_in_time() {
    let (client, _place, mut server, _call) = waiting("1000,10000").await;
    for beats in 1..=6 {
        // It beats itself, and finds ours when it next reads.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.bytes(b"\n").await;
        }
        let reading = tokio::time::timeout(Duration::from_millis(1), server.frame()).await;
        assert!(reading.is_err(), "no frames are due");
        assert_eq!(server.beats, beats);
    }
    assert_eq!(*client.connection().borrow(), Connection::Up);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_bids_welcome_is_left() {
    let (client, mut place) = Place::with_client();
    let call = calling_until(&client, "verb", Duration::from_secs(12));
    let begin = Instant::now();
    let mut server = place.accept().await;
    assert_eq!(server.frame().await.unwrap().command, "CONNECT");
    server.hung_up().await;
    assert_eq!(since(begin), 10_000);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "VDSM cannot be reached: vdsm.example:54321: connecting took longer than 10 s: VDSM may be starting, or hang"
    );
}
