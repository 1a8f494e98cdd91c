//! Giving a mail to a mail server: plain SMTP, as the Python broker speaks it, to a server that is near.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use ha_config::text::bare_host;
use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::mail::Mail;

/// A conversation has about ten answers, each with the configured time.
const ANSWERS: u32 = 10;

/// Longest conversation whatever is configured.
const MAX_CONVERSATION: Duration = Duration::from_mins(5);

/// Why the server did not take a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError {
    /// Trying again does not help.
    pub permanent: bool,
    /// The server's or the network's words.
    pub text: String,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Takes mails to a server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Returns once the server took the mail, or did not. Has an end of its own.
    async fn send(&self, mail: &Mail) -> Result<(), SendError>;
}

/// SMTP over TCP. A connection for each mail: there are few.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smtp;

#[async_trait]
impl Transport for Smtp {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let limit = (mail.timeout * ANSWERS).min(MAX_CONVERSATION);
        let all = match converse(mail, mail.to.clone(), limit).await {
            Err(error) if error.permanent && mail.to.len() > 1 => error,
            result => return result,
        };
        // One refused recipient must not cost the others their mail.
        let mut taken = 0;
        for recipient in &mail.to {
            match converse(mail, vec![recipient.clone()], limit).await {
                Ok(()) => taken += 1,
                Err(error) => {
                    tracing::warn!(%recipient, %error, "a notification was refused for this recipient");
                }
            }
        }
        if taken > 0 { Ok(()) } else { Err(all) }
    }
}

async fn converse(mail: &Mail, to: Vec<lettre::Address>, limit: Duration) -> Result<(), SendError> {
    let envelope = Envelope::new(Some(mail.from.clone()), to)
        .map_err(|error| SendError { permanent: true, text: error.to_string() })?;
    let server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(bare_host(&mail.server))
        .port(mail.port)
        .timeout(Some(mail.timeout))
        .build();
    match tokio::time::timeout(limit, server.send_raw(&envelope, &mail.message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(SendError { permanent: error.is_permanent(), text: text(&error) }),
        Err(_) => Err(SendError {
            permanent: false,
            text: format!("no end of the conversation after {} s", limit.as_secs()),
        }),
    }
}

/// An error with its causes.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
