//! The engine's liveliness page: asked over HTTP or HTTPS, believed only with the right text.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url, redirect};

use crate::monitors::options::MonitorError;

/// The page's text when the engine and its database work.
pub const GOOD_TEXT: &str = "DB Up!Welcome to Health Status!";
/// How long the page may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read of a page; the good one has some 60 bytes.
const MAX_PAGE: usize = 16 * 1024;

/// Asks whether the engine answers.
#[async_trait]
pub trait Liveliness: Send + Sync {
    /// Asks once, with a deadline of its own. The error says what came instead of a good answer.
    async fn check(&self) -> Result<(), String>;
}

/// The page at any of some addresses: it moved between releases of the engine.
#[derive(Debug, Clone)]
pub struct HealthPage {
    client: Client,
    urls: Arc<[Url]>,
}

impl HealthPage {
    /// Asks all of `urls` at once; one good answer is enough. HTTPS is verified against the system's certificates.
    pub fn new(urls: &[String]) -> Result<Self, MonitorError> {
        let problem = |problem: String| MonitorError::Setup { kind: "engine-health", problem };
        let urls: Arc<[Url]> = urls
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
        let builder = || {
            Client::builder()
                .no_proxy()
                .timeout(TIMEOUT)
                .pool_max_idle_per_host(0)
                .redirect(redirect::Policy::limited(3))
        };
        let client = builder()
            .build()
            // A host without any CA certificates can still ask over HTTP.
            .or_else(|_| builder().tls_certs_only([]).build())
            .map_err(|e| problem(format!("no HTTP client: {e}")))?;
        Ok(Self { client, urls })
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
        if text.contains(GOOD_TEXT) {
            return Ok(());
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!("liveliness page {url} says '{}' instead of '{GOOD_TEXT}'", shown.escape_debug()))
    }
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
