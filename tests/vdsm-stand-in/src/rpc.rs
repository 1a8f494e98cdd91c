//! JSON-RPC as VDSM serves it: which requests are carried out, which fail, and which never get an answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::Failure;
use crate::misbehaviour::Misbehaviour;
use crate::network::Networks;
use crate::parameters::Arguments;
use crate::stomp::Hub;
use crate::storage::Storage;
use crate::verbs;
use crate::vm::Vms;

/// Everything that a request can reach.
pub(crate) struct Server {
    pub hub: Arc<Hub>,
    pub misbehaviour: Arc<Misbehaviour>,
    pub storage: Arc<Storage>,
    pub vms: Arc<Vms>,
    pub networks: Networks,
}

/// A request that is well formed.
#[derive(Debug, PartialEq)]
struct Request {
    method: String,
    params: Params,
    id: Value,
}

#[derive(Debug, PartialEq)]
enum Params {
    Named(Map<String, Value>),
    InOrder(Vec<Value>),
}

/// What becomes of a message.
#[derive(Debug, PartialEq)]
enum Message {
    Requests(Vec<Request>),
    /// Nobody is told what is wrong with it.
    Unanswered,
    /// A request without an id: it ends the thread that takes requests.
    Deadly,
}

impl Server {
    /// Takes the body of a message. Answers go out on their own; `close` ends the connection that it came on.
    pub fn take(self: Arc<Self>, body: &[u8], close: impl Fn() + Send + Sync + 'static) {
        if self.misbehaviour.is_dead() {
            return;
        }
        let requests = match understand(body) {
            Message::Requests(requests) => requests,
            Message::Unanswered => return,
            Message::Deadly => {
                tracing::error!("a request without an id: from now on nobody gets an answer, as with VDSM");
                self.misbehaviour.die();
                return;
            }
        };
        // VDSM answers a batch in one list, which its broker then cannot deliver.
        let is_batch = requests.len() > 1;
        let close = Arc::new(close);
        for request in requests {
            let (server, close) = (self.clone(), close.clone());
            tokio::spawn(async move { server.answer(request, is_batch, &*close).await });
        }
    }

    async fn answer(&self, request: Request, is_batch: bool, close: &(dyn Fn() + Send + Sync)) {
        let Request { method, params, id } = request;
        let result = self.call(&method, params).await;
        match &result {
            Ok(_) => tracing::debug!("{method}: done"),
            Err(failure) => tracing::info!("{method}: {failure}"),
        }
        let delay = self.misbehaviour.delay();
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let is_closing = self.misbehaviour.closes_in_calls();
        if is_closing {
            close();
        }
        if is_closing || is_batch {
            self.hub.forget(&id);
            return;
        }
        let answer = match result {
            Ok(Value::Null) => json!({"jsonrpc": "2.0", "id": id, "result": true}),
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(failure) => json!({"jsonrpc": "2.0", "id": id, "error": failure.to_json()}),
        };
        self.hub.answer(&id, &answer);
    }

    async fn call(&self, method: &str, params: Params) -> Result<Value, Failure> {
        if self.misbehaviour.is_recovering() || self.vms.is_recovering() {
            return Err(Failure::recovering());
        }
        let verb = verbs::find(method).filter(|_| !self.misbehaviour.is_unknown(method));
        let verb = verb.ok_or_else(|| Failure::unknown_method(method))?;
        let arguments = match params {
            Params::Named(named) => named,
            Params::InOrder(values) if values.len() <= verb.parameters.len() => {
                verb.parameters.iter().map(|name| (*name).to_owned()).zip(values).collect()
            }
            Params::InOrder(_) => return Err(Failure::internal("list index out of range")),
        };
        verbs::call(self, verb, Arguments(arguments)).await
    }
}

fn understand(body: &[u8]) -> Message {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Message::Unanswered };
    let raw = match body {
        Value::Array(many) if many.is_empty() => return Message::Unanswered,
        Value::Array(many) => many,
        one => vec![one],
    };
    let mut requests = Vec::new();
    for one in raw {
        let Value::Object(mut one) = one else { continue };
        let method = one.remove("method");
        let params = one.remove("params").unwrap_or_else(|| Value::Array(Vec::new()));
        let (Some(Value::String(method)), Some("2.0")) = (method, one.get("jsonrpc").and_then(Value::as_str))
        else {
            continue;
        };
        let params = match params {
            Value::Object(named) => Params::Named(named),
            Value::Array(values) => Params::InOrder(values),
            _ => continue,
        };
        match one.remove("id") {
            None | Some(Value::Null) => return Message::Deadly,
            Some(id) => requests.push(Request { method, params, id }),
        }
    }
    if requests.is_empty() { Message::Unanswered } else { Message::Requests(requests) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_never_answered_and_what_has_no_id_is_deadly() {
        for body in [
            "{nope",
            "[]",
            "5",
            r#"{"method": "Host.ping2", "id": "k"}"#,
            r#"{"jsonrpc": "2.0", "method": "Host.ping2", "params": "x", "id": "m"}"#,
        ] {
            assert_eq!(understand(body.as_bytes()), Message::Unanswered, "{body}");
        }
        let request = r#"{"jsonrpc": "2.0", "method": "Host.ping2", "params": {}}"#;
        assert_eq!(understand(request.as_bytes()), Message::Deadly);
        let request = br#"[{"jsonrpc": "2.0", "method": "VM.getStats", "params": ["x"], "id": "l"}]"#;
        let Message::Requests(requests) = understand(request) else { panic!("a good request") };
        assert_eq!(requests[0].params, Params::InOrder(vec![json!("x")]));
    }
}
