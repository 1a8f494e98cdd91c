//! The engine's liveliness page: asked over HTTP or HTTPS, believed only with the right text.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Certificate, Client, Url, redirect};

use crate::monitors::options::MonitorError;

/// The most that is read of a page; the good one has some 60 bytes.
const MAX_PAGE: usize = 16 * 1024;

/// Asks whether the engine answers.
#[async_trait]
pub trait Liveliness: Send + Sync {
    /// Asks once, with a deadline of its own. The error says what came instead of a good answer.
    async fn check(&self) -> Result<(), String>;
}

/// Where the page is and what it says when all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOptions {
    /// Its addresses, `http` or `https`. All are asked at once; one good answer is enough.
    pub urls: Vec<String>,
    /// Text that a good page contains.
    pub expected: String,
    /// How long it may take.
    pub timeout: Duration,
    /// PEM file with CA certificates to trust beside the system's: the engine signs its own.
    pub ca: Option<PathBuf>,
}

/// The page at any of some addresses: it moved between releases of the engine.
#[derive(Debug, Clone)]
pub struct HealthPage {
    client: Client,
    urls: Arc<[Url]>,
    expected: Arc<str>,
}

impl HealthPage {
    /// A page of these options. A CA file that cannot be used is logged and left out, as HTTP may still work.
    pub fn new(options: &PageOptions) -> Result<Self, MonitorError> {
        let problem = |problem: String| MonitorError::Setup { kind: "engine-health", problem };
        let urls: Arc<[Url]> = options
            .urls
            .iter()
            .map(|url| {
                Url::parse(url)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                    .ok_or_else(|| {
                        problem(format!("'{url}' is no http or https address of a liveliness page"))
                    })
            })
            .collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(problem(
                "no address of a liveliness page: is fqdn set in hosted-engine.conf?".to_owned(),
            ));
        }
        // Fails when another part of the process has chosen one: that one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = options.ca.as_deref().map(certificates).unwrap_or_default();
        let builder = || {
            Client::builder()
                .no_proxy()
                .timeout(options.timeout)
                .pool_max_idle_per_host(0)
                .redirect(redirect::Policy::limited(3))
        };
        let client = builder()
            .tls_certs_merge(own.clone())
            .build()
            // A host without any CA certificates of the system can still ask over HTTP, or with the engine's own.
            .or_else(|_| builder().tls_certs_only(own).build())
            .map_err(|e| problem(format!("no HTTP client: {e}")))?;
        Ok(Self { client, urls, expected: options.expected.as_str().into() })
    }

    async fn ask(&self, url: &Url) -> Result<(), String> {
        let trouble = |e: reqwest::Error| format!("liveliness page {}", describe(&e));
        let mut response = self.client.get(url.clone()).send().await.map_err(trouble)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("liveliness page {url} answers {}", response.status()));
        }
        let mut page = Vec::new();
        while let Some(part) = response.chunk().await.map_err(trouble)? {
            page.extend_from_slice(&part);
            if page.len() > MAX_PAGE {
                return Err(format!("liveliness page {url} is longer than {MAX_PAGE} bytes"));
            }
        }
        let text = String::from_utf8_lossy(&page);
        if text.contains(&*self.expected) {
            return Ok(());
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!("liveliness page {url} says '{}' instead of '{}'", shown.escape_debug(), self.expected))
    }
}

fn certificates(path: &Path) -> Vec<Certificate> {
    let read = std::fs::read(path).map_err(|e| e.to_string());
    read.and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|e| e.to_string())).unwrap_or_else(|e| {
        tracing::warn!("cannot use the CA certificates in {}: {e}", path.display());
        Vec::new()
    })
}

/// An error with its innermost cause, which alone says what happened.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        cause = inner.source();
        if cause.is_none() {
            text = format!("{text}: {inner}");
        }
    }
    text
}

#[async_trait]
impl Liveliness for HealthPage {
    async fn check(&self) -> Result<(), String> {
        let asked = self.urls.iter().map(|url| Box::pin(self.ask(url)));
        futures_util::future::select_ok(asked).await.map(drop)
    }
}
