//! What the server tells unasked.

use super::*;

const VM: &str = "eccb9cb6-affd-4806-8200-708370581227";

#[tokio::test(start_paused = true)]
async fn interest_in_events_connects() {
    let (client, mut place) = Place::with_client();
    let mut events = client.events();
    let mut server = place.welcome("24000,0").await;
    let recorded = json!({
        "jsonrpc": "2.0",
        "method": format!("|virt|VM_status|{VM}"),
        "params": {VM: {"status": "Powering up"}, "notify_time": 2_149_055_066_i64},
    });
    server.say(recorded.clone()).await;
    let event = events.recv().await.unwrap();
    assert_eq!(event.params, recorded["params"]);
    let status = event.vm_status().unwrap();
    assert_eq!(status.vm_id, VM);
    assert_eq!(status.status.status.as_deref(), Some("Powering up"));
    assert_eq!(status.notify_time, 2_149_055_066);
}

#[tokio::test(start_paused = true)]
async fn parameters_may_be_in_a_list_and_figures_texts() {
    let (client, mut place) = Place::with_client();
    let mut events = client.events();
    let mut server = place.welcome("24000,0").await;
    let params = json!([{VM: {"status": "Down", "exitReason": "6", "exitCode": 0}, "notify_time": "17"}]);
    server.say(json!({"id": null, "method": format!("|virt|VM_status|{VM}"), "params": params})).await;
    let status = events.recv().await.unwrap().vm_status().unwrap();
    assert_eq!(status.notify_time, 17);
    assert_eq!((status.status.exit_reason, status.status.exit_code), (Some(6), Some(0)));
}

#[test]
fn other_events_are_not_taken_for_changes_of_status() {
    for (method, params) in [
        ("|storage|domain|x", json!({"x": {}, "notify_time": 1})),
        ("|virt|VM_status|x", json!({"y": {}, "notify_time": 1})),
        ("|virt|VM_status|x", json!({"x": "Up", "notify_time": 1})),
        ("|virt|VM_status|x", json!({"x": {}})),
        ("|virt|VM_status|x", json!([])),
        ("|virt|VM_status|notify_time", json!({"notify_time": 1})),
        ("", json!(null)),
    ] {
        let event = crate::Event { method: method.to_owned(), params };
        assert_eq!(event.vm_status(), None, "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_survives_reconnects_and_is_told_of_them() {
    let (client, mut place) = Place::with_client();
    let mut events = client.events();
    let mut connection = client.connection();
    for round in 0..3 {
        let mut server = place.welcome("24000,0").await;
        server.say(json!({"method": "event", "params": {"round": round}})).await;
        assert_eq!(events.recv().await.unwrap().params["round"], round);
        assert_eq!(*connection.borrow_and_update(), Connection::Up);
        drop(server);
        connection.changed().await.unwrap();
        let why = "vdsm.example:54321: VDSM closed the connection".to_owned();
        assert_eq!(*connection.borrow_and_update(), Connection::Down { why });
    }
}

#[tokio::test(start_paused = true)]
async fn events_without_receivers_and_slow_receivers_do_no_harm() {
    let (client, mut place) = Place::with_client();
    let mut slow = client.events();
    let mut server = place.welcome("24000,0").await;
    for number in 0..1000 {
        server.say(json!({"method": "event", "params": {"number": number}})).await;
    }
    let call = calling(&client, "verb");
    let request = server.request().await;
    server.answer(&request, json!(true)).await;
    assert_eq!(call.await.unwrap(), Ok(json!(true)));
    let lost = slow.recv().await.unwrap_err();
    assert_eq!(lost, tokio::sync::broadcast::error::RecvError::Lagged(1000 - 256));
    assert_eq!(slow.recv().await.unwrap().params["number"], 1000 - 256);
}
