//! Clients that misbehave: slow, large, many, or gone.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::fake::Served;

/// Sends `request` as it is and reads until the server closes.
async fn raw(served: &Served, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed_and_http_1_1_is_kept() {
    let served = Served::start();
    let answer = raw(&served, b"GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n# TYPE up gauge\nup 1\n"), "{answer}");

    let both = raw(
        &served,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(both.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{both}");
    served.stop().await;
}

#[tokio::test]
async fn wrong_requests_get_a_status_and_a_text_that_helps() {
    let served = Served::start();
    let close = "Host: x\r\nConnection: close\r\n";
    for (request, status, text) in [
        (format!("GET /nosuch HTTP/1.1\r\n{close}\r\n"), "404 Not Found", "GET /v1/status"),
        (format!("GET /RPC2 HTTP/1.1\r\n{close}\r\n"), "405 Method Not Allowed", "asked with POST"),
        (format!("DELETE /v1/agent HTTP/1.1\r\n{close}\r\n"), "405 Method Not Allowed", "asked with PUT"),
        (
            format!("GET /v1/wake?after=x HTTP/1.1\r\n{close}\r\n"),
            "400 Bad Request",
            "\"after=x\" is not understood",
        ),
        (
            format!("PUT /v1/agent HTTP/1.1\r\n{close}Content-Length: 2\r\n\r\n{{}}"),
            "400 Bad Request",
            "state",
        ),
        (
            format!("PUT /v1/migration HTTP/1.1\r\n{close}Content-Length: 10\r\n\r\n{{\"to\":2001}}"),
            "400 Bad Request",
            "a request for a migration",
        ),
        (
            format!("POST /RPC2 HTTP/1.1\r\n{close}Content-Length: 262145\r\n\r\n"),
            "413 Payload Too Large",
            "262144",
        ),
        (
            format!("POST /RPC2 HTTP/1.1\r\n{close}Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx"),
            "501 Not Implemented",
            "as it is, or with gzip",
        ),
        (
            format!("POST /RPC2 HTTP/1.1\r\n{close}Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
            "400 Bad Request",
            "not gzip",
        ),
        (format!("POST /RPC2 HTTP/1.1\r\n{close}Content-Length: 5\r\n\r\n<oops"), "200 OK", "not XML-RPC"),
        ("garbage\r\n\r\n".to_owned(), "400 Bad Request", ""),
    ] {
        let answer = raw(&served, request.as_bytes()).await;
        assert!(answer.contains(status) && answer.contains(text), "{request:?}\n{answer}");
    }
    served.stop().await;
}

/// A megabyte in a kilobyte.
#[tokio::test]
async fn a_packed_body_is_cut_off_at_the_limit_too() {
    use std::io::Write as _;
    let served = Served::start();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b' '; 1 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 4096);
    let head = format!(
        "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    let answer = raw(&served, &[head.as_bytes(), &packed].concat()).await;
    assert!(answer.contains("413 Payload Too Large") && answer.contains("262144"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_at_the_limit() {
    let served = Served::start();
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    stream.write_all(b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // The server stops reading at 256 KiB; sending fails or stalls soon after.
    let sent = tokio::time::timeout(Duration::from_secs(5), async {
        for n in 0..1000 {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                return n;
            }
        }
        1000
    })
    .await
    .unwrap_or(0);
    assert!(sent < 20, "{sent} chunks of 64 KiB were taken");
    served.stop().await;
}

#[tokio::test]
async fn clients_that_never_finish_hold_up_nobody() {
    let served = Served::start();
    let mut stuck = Vec::new();
    for part in [
        &b""[..],
        b"POST",
        b"POST /RPC2 HTTP/1.1\r\nContent-Length: 100\r\n\r\n<?xml",
        b"GET /v1/wake?timeout_ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        for _ in 0..10 {
            let mut stream = UnixStream::connect(&served.path).await.unwrap();
            stream.write_all(part).await.unwrap();
            stuck.push(stream);
        }
    }
    let client = served.client().with_timeout(Duration::from_secs(2));
    client.push_hosts_state(&[1, 2]).await.unwrap();
    assert_eq!(client.is_host_alive().await.unwrap(), [1, 2]);
    drop(stuck);
    served.stop().await;
}

#[tokio::test]
async fn too_many_connections_are_refused_with_a_reason_and_room_comes_back() {
    let served = Served::start();
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        // Accepted once it has answered.
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
        open.push(stream);
    }
    let error = served.client().is_host_alive().await.unwrap_err().to_string();
    assert!(error.contains("status 503: too many open connections"), "{error}");
    drop(open);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match served.client().is_host_alive().await {
            Ok(alive) => break assert!(alive.is_empty()),
            // The server notices the closed connections in its own time.
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    }
    served.stop().await;
}

#[tokio::test]
async fn a_verb_that_writes_ends_even_when_its_client_is_gone() {
    let served = Served::start();
    let client = served.client();
    let call = tokio::spawn(async move { client.lock_host_id(2000).await });
    served.broker.locking.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    served.broker.locked.notify_one();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !served.broker.called("lock_host_id 2000") {
        assert!(tokio::time::Instant::now() < deadline, "the verb was cut off");
        tokio::task::yield_now().await;
    }
    served.stop().await;
}
