//! Connections that end, or do not begin.

use super::*;

#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_double_up_to_five_seconds() {
    let (client, mut place) = Place::with_client();
    place.refuse(9);
    let begin = Instant::now();
    let call = calling(&client, "verb");
    let mut server = place.welcome("24000,0").await;
    assert_eq!(since(begin), 100 + 200 + 400 + 800 + 1600 + 3200 + 5000 + 5000 + 5000);
    // The call has waited for it.
    let request = server.request().await;
    server.answer(&request, json!("at last")).await;
    assert_eq!(call.await.unwrap(), Ok(json!("at last")));
    // What was useful is tried again at once.
    drop(server);
    down(&client).await;
    let begin = Instant::now();
    place.welcome("24000,0").await;
    assert_eq!(since(begin), 100);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_after_its_welcome_is_not_hammered() {
    let (client, mut place) = Place::with_client();
    let events = client.events();
    let begin = Instant::now();
    for _ in 0..5 {
        drop(place.welcome("24000,0").await);
    }
    place.welcome("24000,0").await;
    assert_eq!(since(begin), 100 + 200 + 400 + 800 + 1600);
    assert!(events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_connection_ends_with_its_deadline_and_is_not_sent_later() {
    let (client, mut place) = Place::with_client();
    place.refuse(7);
    let begin = Instant::now();
    let error = client.call("VM.create", json!({}), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(since(begin), 5000);
    assert_eq!(
        error,
        CallError::Unreachable {
            detail: "vdsm.example:54321: connection refused; is vdsmd running?".to_owned()
        }
    );
    // One whose caller is gone without waiting for its end.
    let cancelled = calling(&client, "VM.destroy");
    tokio::task::yield_now().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());

    let mut server = place.welcome("24000,0").await;
    let call = calling(&client, "verb");
    assert_eq!(server.request().await["method"], "verb");
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_connection_ends_is_lost_and_never_sent_twice() {
    let (client, mut place) = Place::with_client();
    let lost = calling(&client, "VM.create");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    // In the middle of the answer.
    let answer = server.message(&json!({"id": request["id"], "result": {}})).encode();
    server.bytes(&answer[..answer.len() - 1]).await;
    drop(server);
    let error = lost.await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the connection to VDSM ended before it answered VM.create: whether it was done is unknown"
    );

    let mut server = place.welcome("24000,0").await;
    let next = calling(&client, "next");
    let request = server.request().await;
    assert_eq!(request["method"], "next");
    server.answer(&request, json!(1)).await;
    assert_eq!(next.await.unwrap(), Ok(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_a_connection_with_the_reason() {
    for (nonsense, reason) in [
        (
            b"ERROR\n\nSubscription not available\0".as_slice(),
            "VDSM reported an error of the connection: Subscription not available",
        ),
        (b"ERROR\nmessage:bad\\nframe\n\nlong story\0", "an error of the connection: bad frame"),
        (
            b"MESSAGE\ncontent-length:99999999999\n\n",
            "a MESSAGE frame has a body of 99999999999 bytes; the limit is 16777216",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not understood: not a STOMP frame"),
        (b"MESSAGE\nx\n", "has no colon"),
    ] {
        let (client, mut place) = Place::with_client();
        let call = calling(&client, "verb");
        let mut server = place.welcome("24000,0").await;
        server.request().await;
        server.bytes(nonsense).await;
        assert!(matches!(call.await.unwrap(), Err(CallError::Lost { .. })));
        let why = down(&client).await;
        assert!(why.contains(reason), "{why:?} does not say {reason:?}");
        place.welcome("24000,0").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_strange_welcome_is_none() {
    for (frame, reason) in [
        (Frame::new("CONNECTED", &[("version", "1.1")]), "the server speaks STOMP 1.1; VDSM speaks 1.2"),
        (Frame::new("CONNECTED", &[]), "the server speaks STOMP 1.0; VDSM speaks 1.2"),
        (Frame::new("MESSAGE", &[]), "answered CONNECT with MESSAGE, not with CONNECTED"),
        (Frame::new("ERROR", &[]).with_body(b"Version unsupported".to_vec()), "Version unsupported"),
    ] {
        let (client, mut place) = Place::with_client();
        let call = calling_until(&client, "verb", Duration::from_millis(90));
        let mut server = place.accept().await;
        server.send(&frame).await;
        let error = call.await.unwrap().unwrap_err();
        let CallError::Unreachable { detail } = &error else { panic!("{error:?}") };
        assert!(detail.contains(reason), "{detail:?} does not say {reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_connected_before_it_is_needed() {
    let (client, mut place) = Place::with_client();
    let nobody = tokio::time::timeout(LONG, place.accept()).await;
    assert!(nobody.is_err());
    assert_eq!(*client.connection().borrow(), Connection::Down { why: "not connected yet".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn the_last_client_takes_the_connection_with_it() {
    let (client, mut place) = Place::with_client();
    let other = client.clone();
    let events = client.events();
    let mut server = place.welcome("24000,0").await;
    drop(client);
    let call = calling(&other, "verb");
    let request = server.request().await;
    server.answer(&request, json!(1)).await;
    assert_eq!(call.await.unwrap(), Ok(json!(1)));
    drop(other);
    let begin = Instant::now();
    server.hung_up().await;
    assert_eq!(since(begin), 0);
    assert!(events.is_closed());
}

#[tokio::test(start_paused = true)]
async fn the_last_client_ends_the_attempts_too() {
    let (client, mut place) = Place::with_client();
    let mut connection = client.connection();
    place.refuse(3);
    let events = client.events();
    connection.changed().await.unwrap();
    drop(client);
    // The task drops its end.
    assert!(connection.changed().await.is_err());
    assert!(events.is_closed());
    assert!(place.incoming.try_recv().is_err());
}

#[test]
fn a_client_outlives_its_runtime_without_harm() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = runtime();
    let client = home.block_on(async { Place::with_client().0 });
    drop(home);
    let error = runtime().block_on(client.call("verb", json!({}), LONG)).unwrap_err();
    assert_eq!(error.to_string(), "VDSM cannot be reached: the task that holds the connection has ended");
}
