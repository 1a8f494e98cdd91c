//! HTTP: routes, sizes, content types. One function answers one request and never fails: what goes wrong becomes a
//! status and a text.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use broker_api::status::AskMigration;
use broker_api::xmlrpc::{self, Fault, fault};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::Server;
use super::dispatch::{self, Verb};
use super::policy::Peer;
use crate::verbs::Verbs;

/// Largest request body: an alive list of 2000 hosts in Python's spelling takes 64 KB.
const MAX_REQUEST: usize = 256 << 10;

/// A request's body must be whole within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait of `GET /v1/wake`; longer ones are shortened to it.
pub const MAX_WAKE: Duration = Duration::from_mins(1);

/// What `GET /v1/wake` waits when it does not say: one loop of an agent.
const DEFAULT_WAKE: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// Answers one request.
pub async fn answer<V: Verbs>(
    request: Request<Incoming>,
    server: &Arc<Server<V>>,
    peer: &Peer,
) -> Result<Answer, Infallible> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let allowed = match path.as_str() {
        "/RPC2" | "/" => Method::POST,
        "/v1/agent" | "/v1/migration" => Method::PUT,
        "/v1/status" | "/v1/wake" | "/metrics" => Method::GET,
        _ => {
            let text = "no such document; there are POST /RPC2, GET /v1/status, GET /v1/wake, PUT /v1/agent, PUT /v1/migration, GET /metrics";
            return Ok(plain(StatusCode::NOT_FOUND, text));
        }
    };
    if method != allowed {
        let mut answer =
            plain(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} can only be asked with {allowed}"));
        if let Ok(value) = HeaderValue::from_str(allowed.as_str()) {
            answer.headers_mut().insert(ALLOW, value);
        }
        return Ok(answer);
    }
    Ok(match path.as_str() {
        "/v1/status" => json(&server.verbs.status().await),
        "/v1/wake" => wake(request.uri().query().unwrap_or_default(), server).await,
        "/metrics" => {
            content(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", server.verbs.metrics().await)
        }
        "/v1/agent" | "/v1/migration" if !server.policy.may_write(peer) => {
            plain(StatusCode::FORBIDDEN, &not_permitted(&format!("PUT {path}"), peer))
        }
        "/v1/agent" => match parsed(request, "an agent's report").await {
            Ok(report) => {
                server.verbs.put_agent_report(report).await;
                taken()
            }
            Err(answer) => answer,
        },
        "/v1/migration" => match parsed::<AskMigration>(request, "a request for a migration").await {
            Ok(asked) => {
                server.verbs.ask_migration(asked.to).await;
                taken()
            }
            Err(answer) => answer,
        },
        _ => match body(request).await {
            Ok(bytes) => content(StatusCode::OK, "text/xml", rpc(&bytes, server, peer).await),
            Err(answer) => answer,
        },
    })
}

/// An XML-RPC call; the answer is XML in any case.
async fn rpc<V: Verbs>(bytes: &[u8], server: &Arc<Server<V>>, peer: &Peer) -> Vec<u8> {
    let result = match xmlrpc::decode_call(bytes) {
        Ok(call) => match Verb::from_name(&call.name) {
            Some(verb) if verb.writes() && !server.policy.may_write(peer) => {
                let message = not_permitted(verb.name(), peer);
                Err(Fault { code: fault::NOT_PERMITTED, message })
            }
            Some(verb) => run(verb, call.params, server).await,
            None => {
                // The Python broker's text: clients may look for it.
                let message = format!("<class 'Exception'>:method \"{}\" is not supported", call.name);
                Err(Fault { code: fault::UNKNOWN_METHOD, message })
            }
        }
        .inspect_err(|fault| debug!(%peer, verb = call.name, fault.code, fault.message, "a request failed")),
        Err(error) => {
            debug!(%peer, %error, "a request is not XML-RPC");
            Err(Fault { code: fault::BAD_ARGUMENT, message: format!("the request is not XML-RPC: {error}") })
        }
    };
    match result {
        Ok(value) => xmlrpc::encode_response(&value),
        Err(fault) => xmlrpc::encode_fault(&fault),
    }
}

/// Runs a verb. One that writes runs to its end even when its client goes away: half a write helps nobody.
async fn run<V: Verbs>(
    verb: Verb,
    params: Vec<xmlrpc::Value>,
    server: &Arc<Server<V>>,
) -> Result<xmlrpc::Value, Fault> {
    if !verb.writes() {
        return dispatch::call(&*server.verbs, verb, params).await;
    }
    let verbs = Arc::clone(&server.verbs);
    let task = tokio::spawn(async move { dispatch::call(&*verbs, verb, params).await });
    task.await.unwrap_or_else(|error| {
        let message = format!("{} did not finish inside the broker ({error}); see its log", verb.name());
        Err(Fault { code: fault::INTERRUPTED, message })
    })
}

/// The body as a document of that kind.
async fn parsed<T: DeserializeOwned>(request: Request<Incoming>, kind: &str) -> Result<T, Answer> {
    let bytes = body(request).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| plain(StatusCode::BAD_REQUEST, &format!("the body is not {kind}: {error}")))
}

/// It was taken; there is nothing to answer.
fn taken() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

async fn wake<V: Verbs>(query: &str, server: &Arc<Server<V>>) -> Answer {
    let (mut after, mut timeout) = (0, DEFAULT_WAKE);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value.parse::<u64>()) {
            ("after", Ok(number)) => after = number,
            ("timeout_ms", Ok(number)) => timeout = Duration::from_millis(number).min(MAX_WAKE),
            _ => {
                let text =
                    format!("{pair:?} is not understood: use after=N and timeout_ms=N with whole numbers");
                return plain(StatusCode::BAD_REQUEST, &text);
            }
        }
    }
    tokio::select! {
        biased;
        wake = server.verbs.wake(after, timeout) => json(&wake),
        () = server.ended() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "the broker is shutting down")
        }
    }
}

/// The whole body, unpacked, or the answer that says why not.
async fn body(request: Request<Incoming>) -> Result<Bytes, Answer> {
    let packed = match request.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        // Python's client packs large requests when it was told to.
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => return Err(closing(StatusCode::NOT_IMPLEMENTED, "send the body as it is, or with gzip")),
    };
    let too_large =
        || closing(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {MAX_REQUEST} bytes"));
    if request.body().size_hint().lower() > MAX_REQUEST as u64 {
        return Err(too_large());
    }
    let read = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => {
            return Err(closing(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {error}")));
        }
        Err(_) => return Err(closing(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    if !packed {
        return Ok(body);
    }
    let mut plain = Vec::new();
    // What it unpacks to is bounded like a plain body, however small it came.
    match MultiGzDecoder::new(&body[..]).take(MAX_REQUEST as u64 + 1).read_to_end(&mut plain) {
        Ok(length) if length > MAX_REQUEST => Err(too_large()),
        Ok(_) => Ok(plain.into()),
        Err(error) => Err(closing(StatusCode::BAD_REQUEST, &format!("the body is not gzip: {error}"))),
    }
}

fn not_permitted(what: &str, peer: &Peer) -> String {
    let user = peer.user();
    warn!(%peer, what, "refused: this user may not write");
    format!(
        "{user} may not use {what}: only root, the broker's own user and the users that its configuration names may; \
         reading is open to all"
    )
}

fn json(document: &impl Serialize) -> Answer {
    match serde_json::to_vec(document) {
        Ok(bytes) => content(StatusCode::OK, "application/json", bytes),
        Err(error) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("the document cannot be written: {error}"))
        }
    }
}

/// An answer after which the connection ends, because the rest of the request is still on the line.
fn closing(status: StatusCode, text: &str) -> Answer {
    let mut answer = plain(status, text);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn plain(status: StatusCode, text: &str) -> Answer {
    content(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn content(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
