//! Any sequence of mishaps: what a call may be told, and what a server may see.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody calls, with so many milliseconds to wait.
    Call(u64),
    /// Somebody calls, and gives up at once.
    Cancelled,
    /// The server answers one of the requests that it got.
    Answer(prop::sample::Index),
    /// It says that it is recovering.
    Recovering(prop::sample::Index),
    /// It answers one that was answered before, or another connection's.
    Stale(prop::sample::Index),
    /// It sends bytes that are no frame.
    Nonsense,
    /// It hangs up, in the middle of a frame or not.
    HangUp(bool),
    /// The next attempts to connect are refused.
    Refuse(usize),
    /// Time passes, in milliseconds.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..4000).prop_map(Step::Call),
        1 => Just(Step::Cancelled),
        4 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => any::<prop::sample::Index>().prop_map(Step::Recovering),
        1 => any::<prop::sample::Index>().prop_map(Step::Stale),
        1 => Just(Step::Nonsense),
        2 => any::<bool>().prop_map(Step::HangUp),
        1 => (0_usize..4).prop_map(Step::Refuse),
        4 => (0_u64..2000).prop_map(Step::Wait),
    ]
}

/// What the servers saw of each call.
#[derive(Default)]
struct Seen {
    /// How often, by method: each call has one of its own.
    requests: BTreeMap<String, usize>,
    /// How often the server said that it had not executed it.
    recovering: BTreeMap<String, usize>,
    answered: BTreeSet<String>,
    ids: BTreeSet<String>,
}

/// The server's side: at most one connection.
struct Storm {
    place: Place,
    server: Option<Server>,
    /// Requests of this connection without an answer.
    open: Vec<Value>,
    /// Requests that are no more: answered, or of a connection that ended.
    past: Vec<Value>,
    seen: Seen,
}

impl Storm {
    /// Lets time pass and takes what comes meanwhile.
    async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let had_server = self.server.is_some();
            let taking = async {
                if let Some(server) = &mut self.server {
                    server.frame().await
                } else {
                    self.server = Some(self.place.accept().await);
                    None
                }
            };
            match tokio::time::timeout_at(end, taking).await {
                Err(_) => return,
                Ok(Some(frame)) => self.take(&frame).await,
                Ok(None) if had_server => self.hang_up(),
                Ok(None) => {}
            }
        }
    }

    async fn take(&mut self, frame: &Frame) {
        match frame.command.as_str() {
            "CONNECT" => {
                let connected = Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", "24000,0")]);
                self.tell(&connected.encode()).await;
            }
            "SEND" => {
                let request: Value = serde_json::from_slice(&frame.body).unwrap();
                let method = request["method"].as_str().unwrap().to_owned();
                *self.seen.requests.entry(method).or_default() += 1;
                let new = self.seen.ids.insert(request["id"].as_str().unwrap().to_owned());
                assert!(new, "the same request twice");
                self.open.push(request);
            }
            other => assert_eq!(other, "SUBSCRIBE"),
        }
    }

    /// The client may have hung up.
    async fn tell(&mut self, bytes: &[u8]) {
        if let Some(server) = &mut self.server
            && server.stream.write_all(bytes).await.is_err()
        {
            self.hang_up();
        }
    }

    fn hang_up(&mut self) {
        self.server = None;
        self.past.append(&mut self.open);
    }

    async fn message(&mut self, body: &Value) {
        let frame = Frame::new("MESSAGE", &[]).with_body(body.to_string().into_bytes());
        self.tell(&frame.encode()).await;
    }

    async fn answer(&mut self, which: prop::sample::Index, recovering: bool) {
        if self.open.is_empty() {
            return;
        }
        let request = self.open.remove(which.index(self.open.len()));
        let method = request["method"].as_str().unwrap().to_owned();
        let body = if recovering {
            *self.seen.recovering.entry(method).or_default() += 1;
            json!({"id": request["id"], "error": {"code": 99, "message": "recovering"}})
        } else {
            self.seen.answered.insert(method.clone());
            json!({"id": request["id"], "result": method})
        };
        self.past.push(request);
        self.message(&body).await;
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Call(_) | Step::Cancelled => unreachable!("the clients' part"),
            Step::Answer(which) => self.answer(which, false).await,
            Step::Recovering(which) => self.answer(which, true).await,
            Step::Stale(which) if !self.past.is_empty() => {
                let id = which.get(&self.past)["id"].clone();
                self.message(&json!({"id": id, "result": "stale"})).await;
            }
            Step::Stale(_) => {}
            Step::Nonsense => self.tell(b"#!\n").await,
            Step::HangUp(halfway) => {
                if halfway {
                    self.tell(b"MESSAGE\ncontent-length:10\n\n12345").await;
                }
                self.hang_up();
            }
            Step::Refuse(times) => self.place.refuse(times),
            Step::Wait(time) => self.wait(Duration::from_millis(time)).await,
        }
    }
}

async fn run(steps: Vec<Step>) {
    let (client, place) = Place::with_client();
    let mut storm = Storm { place, server: None, open: Vec::new(), past: Vec::new(), seen: Seen::default() };
    let (mut calls, mut cancelled) = (Vec::new(), Vec::new());
    for (number, step) in steps.into_iter().enumerate() {
        let method = format!("verb{number}");
        match step {
            Step::Call(deadline) => {
                let begin = Instant::now();
                let deadline = Duration::from_millis(deadline);
                let client = client.clone();
                let name = method.clone();
                let call = tokio::spawn(async move {
                    let result = client.call(&name, json!({}), deadline).await;
                    assert!(begin.elapsed() <= deadline + Duration::from_millis(1), "{name} took too long");
                    result
                });
                calls.push((method, call));
            }
            Step::Cancelled => {
                let call = calling(&client, &method);
                tokio::task::yield_now().await;
                call.abort();
                cancelled.push(method);
            }
            other => storm.step(other).await,
        }
    }
    // All deadlines pass.
    storm.wait(Duration::from_secs(10)).await;
    let seen = &storm.seen;
    for (method, call) in calls {
        let times = seen.requests.get(&method).copied().unwrap_or(0);
        let recovering = seen.recovering.get(&method).copied().unwrap_or(0);
        assert!(times <= recovering + 1, "{method} was sent again without leave");
        match call.await.unwrap() {
            Ok(result) => {
                assert_eq!(result, json!(method), "another's answer");
                assert!(seen.answered.contains(&method));
            }
            // Whatever was sent of it was not executed.
            Err(CallError::Unreachable { .. }) => assert_eq!(times, recovering, "{method} was sent"),
            Err(CallError::Server { code, .. }) => {
                assert_eq!(code, 99);
                assert!(recovering > 0);
            }
            Err(CallError::Deadline { .. } | CallError::Lost { .. }) => {}
            Err(error @ CallError::Answer { .. }) => panic!("{error}"),
        }
    }
    for method in cancelled {
        assert!(seen.requests.get(&method).copied().unwrap_or(0) <= 1);
    }
    // And it still works.
    storm.place.refuse(0);
    let last = calling_until(&client, "last", Duration::from_mins(1));
    while !storm.open.iter().any(|request| request["method"] == "last") {
        storm.wait(Duration::from_millis(100)).await;
    }
    let request = storm.open.pop().unwrap();
    storm.message(&json!({"id": request["id"], "result": "good"})).await;
    assert_eq!(last.await.unwrap(), Ok(json!("good")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_call_is_sent_twice_mistaken_or_late(steps in proptest::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}
