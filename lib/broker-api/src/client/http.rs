//! One HTTP request and its answer over a fresh connection to a Unix socket.
//!
//! Requests look like those of existing clients (`POST /RPC2 HTTP/1.1`, the socket's path in hexadecimal as Host),
//! but never offer gzip: on a local socket it costs more than it saves.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Method;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;

use super::{ClientError, protocol};
use crate::unix_path;

/// Largest answer that is read: all 2001 blocks of 4096 bytes take 11 MB as base64, with line breaks.
pub const MAX_ANSWER: usize = 32 << 20;

/// What to ask.
pub struct Request {
    /// What errors call it: the verb, or the path without its query.
    pub name: String,
    method: Method,
    target: String,
    content_type: Option<&'static str>,
    body: Bytes,
}

impl Request {
    /// An XML-RPC call.
    pub fn rpc(verb: &str, body: Vec<u8>) -> Self {
        Self {
            name: verb.to_owned(),
            method: Method::POST,
            target: "/RPC2".to_owned(),
            content_type: Some("text/xml"),
            body: body.into(),
        }
    }

    /// A GET of one of our own documents.
    pub fn get(target: &str) -> Self {
        let name = target.split('?').next().unwrap_or(target).to_owned();
        Self { name, method: Method::GET, target: target.to_owned(), content_type: None, body: Bytes::new() }
    }

    /// A PUT of a JSON document.
    pub fn put(target: &str, json: Vec<u8>) -> Self {
        Self {
            name: target.to_owned(),
            method: Method::PUT,
            target: target.to_owned(),
            content_type: Some("application/json"),
            body: json.into(),
        }
    }
}

/// What came back.
pub struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    /// The server does not know this path or method: Python's answers 501 to GET and PUT, others 404 or 405.
    pub const fn is_unknown(&self) -> bool {
        matches!(self.status, 404 | 405 | 501)
    }

    /// The body of a successful answer.
    pub fn success(self, request: &str) -> Result<Vec<u8>, ClientError> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default().chars().take(500).collect();
        Err(ClientError::Http { request: request.to_owned(), status: self.status, text: line })
    }
}

/// Sends `request` to the broker on `path`. The caller sets the deadline; dropping this future closes the connection.
pub async fn exchange(path: &Path, request: &Request) -> Result<Answer, ClientError> {
    let stream = unix_path::connect(path)
        .await
        .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
    let broken = |error: hyper::Error| {
        // hyper's own text names the step; what went wrong there is its source.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        protocol(&request.name, &format!("the connection broke: {error}{cause}"))
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;

    let mut builder = hyper::Request::builder()
        .method(request.method.clone())
        .uri(&request.target)
        .header(HOST, hex(path.as_os_str().as_bytes()))
        .header(CONNECTION, "close");
    if let Some(kind) = request.content_type {
        builder = builder.header(CONTENT_TYPE, kind);
    }
    let message = builder
        .body(Full::new(request.body.clone()))
        .map_err(|e| protocol(&request.name, &format!("the request cannot be built: {e}")))?;

    let conversation = async {
        let response = sender.send_request(message).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                protocol(&request.name, &format!("the answer is larger than {MAX_ANSWER} bytes"))
            } else {
                protocol(&request.name, &format!("the connection broke inside the answer: {e}"))
            }
        })?;
        Ok(Answer { status, body: body.to_bytes().into() })
    };
    // The connection's own task is driven here, so that nothing outlives this call.
    let mut connection = std::pin::pin!(connection);
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        result = &mut conversation => result,
        // Once the connection is over, whatever it brought is already with the conversation; if that is not
        // enough, the connection knows why.
        end = &mut connection => match (conversation.await, end) {
            (Err(_), Err(error)) => Err(broken(error)),
            (result, _) => result,
        },
    }
}

/// Upper-case hexadecimal, as Python's `base64.b16encode` writes it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}
