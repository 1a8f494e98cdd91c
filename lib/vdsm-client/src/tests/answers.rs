//! Requests and answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn it_speaks_like_vdsms_own_clients() {
    let recorded = include_str!("../../tests/recorded/session.txt");
    let wire = recorded.replace("\\0\n", "\0");
    let mut decoder = Decoder::default();
    let mut theirs = Vec::new();
    for section in wire.split("### ").filter(|section| section.starts_with("C->S")) {
        decoder.feed(section.split_once('\n').unwrap().1.as_bytes());
        while let Ok(Some(incoming)) = decoder.next() {
            if let Incoming::Frame(frame) = incoming {
                theirs.push(frame);
            }
        }
    }
    let recorded_frame = |command: &str| theirs.iter().find(|frame| frame.command == command).unwrap();

    let (client, mut place) = Place::with_client();
    let call = calling(&client, "Host.ping2");
    let mut server = place.accept().await;
    let connect = server.frame().await.unwrap();
    assert_eq!(connect.encode(), recorded_frame("CONNECT").encode());
    server.send(&Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", "24000,0")])).await;

    let names = |frame: &Frame| frame.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let (first, second) = (server.frame().await.unwrap(), server.frame().await.unwrap());
    assert_eq!(names(&first), names(recorded_frame("SUBSCRIBE")));
    assert_eq!(first.header("ack"), Some("auto"));
    assert_eq!(second.header("destination"), Some("jms.queue.events"));
    assert_ne!(first.header("id"), second.header("id"));

    let send = server.frame().await.unwrap();
    assert_eq!(names(&send), names(recorded_frame("SEND")));
    assert_eq!(send.header("content-type"), Some("application/json"));
    assert_eq!(send.header("reply-to"), first.header("destination"));
    // Theirs is in a list, which not every server takes.
    let body: Value = serde_json::from_slice(&send.body).unwrap();
    let theirs: Value = serde_json::from_slice(&recorded_frame("SEND").body).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&body), keys(&theirs[0]));
    assert!(body["id"].is_string());
    server.replies = first.header("destination").unwrap().to_owned();
    server.answer(&body, json!(true)).await;
    assert_eq!(call.await.unwrap(), Ok(json!(true)));
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_calls_in_any_order() {
    let (client, mut place) = Place::with_client();
    // More than may be unanswered at the same time.
    let calls: Vec<_> = (0..1500).map(|number| calling(&client, &format!("verb{number}"))).collect();
    let mut server = place.welcome("24000,0").await;
    let mut answered = 0;
    while answered < calls.len() {
        let mut requests = Vec::new();
        while requests.len() < 500 {
            requests.push(server.request().await);
        }
        for request in requests.iter().rev() {
            server.answer(request, request["method"].clone()).await;
            answered += 1;
        }
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(json!(format!("verb{number}"))));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_its_code_and_words() {
    let (client, mut place) = Place::with_client();
    let call = calling(&client, "VM.getStats");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    server.refuse(&request, 1, "Virtual machine does not exist").await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(crate::code::NO_SUCH_VM));
    assert_eq!(error.to_string(), "VDSM refused VM.getStats: Virtual machine does not exist (code 1)");
}

#[tokio::test(start_paused = true)]
async fn answers_that_say_nothing_are_not_understood() {
    let (client, mut place) = Place::with_client();
    let first = calling(&client, "a");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    server.say(json!({"jsonrpc": "2.0", "id": request["id"]})).await;
    let second = calling(&client, "b");
    let request = server.request().await;
    server.say(json!({"jsonrpc": "2.0", "id": request["id"], "error": "no"})).await;
    for (call, words) in [
        (first, "VDSM's answer to a is not understood: it has neither a result nor an error"),
        (second, "VDSM's answer to b is not understood: its error, a text, has no code"),
    ] {
        assert_eq!(call.await.unwrap().unwrap_err().to_string(), words);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_costs_a_call_its_deadline_and_no_more() {
    let (client, mut place) = Place::with_client();
    let begin = Instant::now();
    let call = calling_until(&client, "slow", Duration::from_secs(7));
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "VDSM did not answer slow within 7 s");
    assert_eq!(since(begin), 7000);

    // The late answer is dropped, and never taken for another's.
    let next = calling(&client, "next");
    let second = server.request().await;
    server.answer(&request, json!("late")).await;
    server.answer(&second, json!("right")).await;
    assert_eq!(next.await.unwrap(), Ok(json!("right")));
    assert_eq!(client.late_answers(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_ignored() {
    let (client, mut place) = Place::with_client();
    let call = calling(&client, "verb");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    for stranger in [
        json!({"jsonrpc": "2.0", "id": "unknown", "result": "wrong"}),
        json!({"jsonrpc": "2.0", "id": 7, "result": "wrong"}),
        json!({"jsonrpc": "2.0", "id": null, "result": "wrong"}),
        json!({"jsonrpc": "2.0", "result": "wrong"}),
        json!([]),
        json!("text"),
        json!(null),
        json!([[{"id": request["id"], "result": "wrong"}]]),
    ] {
        server.say(stranger).await;
    }
    server.send(&Frame::new("MESSAGE", &[]).with_body(b"{nope".to_vec())).await;
    server.send(&Frame::new("MESSAGE", &[]).with_body("[".repeat(100_000).into_bytes())).await;
    server.send(&Frame::new("RECEIPT", &[("receipt-id", "77")])).await;
    server.send(&Frame::new("CONNECTED", &[("version", "1.1")])).await;
    server.bytes(b"\n\r\n\n").await;
    server.answer(&request, json!("right")).await;
    server.answer(&request, json!("twice")).await;
    assert_eq!(call.await.unwrap(), Ok(json!("right")));

    // The connection is still good.
    let call = calling(&client, "verb");
    let request = server.request().await;
    // As the answer to a list of one.
    server.say(json!([{"jsonrpc": "2.0", "id": request["id"], "error": null, "result": "good"}])).await;
    assert_eq!(call.await.unwrap(), Ok(json!("good")));
    assert_eq!(client.late_answers(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_in_pieces() {
    let (client, mut place) = Place::with_client();
    let call = calling(&client, "verb");
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    let answer = server.message(&json!({"jsonrpc": "2.0", "id": request["id"], "result": "ü"})).encode();
    for byte in answer {
        server.bytes(&[byte]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(call.await.unwrap(), Ok(json!("ü")));
}

#[tokio::test(start_paused = true)]
async fn recovery_is_waited_out() {
    let (client, mut place) = Place::with_client();
    let begin = Instant::now();
    let call = calling(&client, "VM.create");
    let mut server = place.welcome("24000,0").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = server.request().await;
        ids.push(request["id"].clone());
        server.refuse(&request, 99, "Recovering from crash or Initializing").await;
    }
    let request = server.request().await;
    assert!(!ids.contains(&request["id"]), "a new request has a new id");
    assert_eq!(since(begin), 3000);
    server.answer(&request, json!({})).await;
    assert_eq!(call.await.unwrap(), Ok(json!({})));
}

#[tokio::test(start_paused = true)]
async fn recovery_is_not_waited_for_longer_than_the_deadline() {
    let (client, mut place) = Place::with_client();
    let call = calling_until(&client, "verb", Duration::from_millis(1500));
    let mut server = place.welcome("24000,0").await;
    for _ in 0..2 {
        let request = server.request().await;
        server.refuse(&request, 99, "Recovering from crash or Initializing").await;
    }
    assert_eq!(call.await.unwrap().unwrap_err().code(), Some(99));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_costs_calls_their_deadlines_only() {
    let mut place = Place::new();
    place.line.capacity = 256;
    let client = place.client();
    let welcome = calling(&client, "first");
    let mut server = place.welcome("1000,0").await;
    let request = server.request().await;
    server.answer(&request, json!(1)).await;
    welcome.await.unwrap().unwrap();

    let params = json!({"text": "x".repeat(1000)});
    let error = client.call("stuck", params, Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    // Answers and events are still read; and what was stuck goes on.
    let begin = Instant::now();
    let call = calling(&client, "next");
    let stuck = server.request().await;
    assert_eq!(stuck["method"], "stuck");
    let next = server.request().await;
    server.answer(&next, json!(2)).await;
    assert_eq!(call.await.unwrap(), Ok(json!(2)));
    assert_eq!(since(begin), 0);
}

#[test]
fn calls_may_be_awaited_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = runtime();
    let (client, mut place) = home.block_on(async { Place::with_client() });
    let elsewhere = std::thread::spawn(move || runtime().block_on(client.call("verb", json!({}), LONG)));
    home.block_on(async {
        let mut server = place.welcome("24000,0").await;
        let request = server.request().await;
        server.answer(&request, json!("there")).await;
        // The client was dropped with its thread's end.
        server.hung_up().await;
    });
    assert_eq!(elsewhere.join().unwrap(), Ok(json!("there")));
}
