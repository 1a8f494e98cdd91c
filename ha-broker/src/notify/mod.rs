//! E-mail about events, by the rules and templates that operators have today (broker.conf, `notifications/EVENT.txt`).
//!
//! It never delays whoever reports an event: [`Notifier::notify`] reads two small local files, matches, fills in the
//! template and queues; a task of its own talks to the mail server. It never fails towards the caller either: what goes
//! wrong is logged, less and less often while it stays wrong.

mod mail;
mod queue;
mod smtp;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use ha_config::{BrokerConf, Paths};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub use self::mail::{Mail, MailError};
pub use self::queue::Counts;
use self::queue::{Queue, Trouble};
pub use self::smtp::{SendError, Smtp, Transport};
pub use self::template::TemplateError;

/// Where rules and templates come from.
pub trait Source: Send + Sync + 'static {
    /// broker.conf as it is now.
    fn conf(&self) -> Result<BrokerConf, String>;
    /// The template of an event. The name was checked: letters, digits, `_` and `-` only.
    fn template(&self, event: &str) -> Result<String, String>;
}

/// The files under the root prefix, read for each event, so that a change needs no restart.
impl Source for Paths {
    fn conf(&self) -> Result<BrokerConf, String> {
        BrokerConf::load(self).map_err(|error| error.to_string())
    }

    fn template(&self, event: &str) -> Result<String, String> {
        let path = self.notification_template(event);
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }
}

/// Turns events into mail.
pub struct Notifier {
    source: Box<dyn Source>,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    trouble: Trouble,
    worker: JoinHandle<()>,
}

impl Notifier {
    /// Starts the task that sends. Must be called inside a tokio runtime.
    pub fn new(source: impl Source, transport: impl Transport, clock: Arc<dyn Clock>) -> Self {
        let queue = Arc::new(Queue::default());
        let worker = tokio::spawn(queue::work(Arc::clone(&queue), transport));
        Self { source: Box::new(source), clock, queue, trouble: Trouble::default(), worker }
    }

    /// Queues a mail about `event` if a rule wants one. False when none does, or when the mail cannot even be
    /// written (then the log says why). Never waits.
    pub fn notify(&self, event: &str, detail: &str, options: &BTreeMap<String, String>) -> bool {
        match self.compose(event, detail, options) {
            Ok(Some(mail)) => {
                if let Some(failures) = self.trouble.over() {
                    info!(failures, "notifications can be written again");
                }
                self.queue.push(mail);
                true
            }
            Ok(None) => {
                debug!(event, detail, "no rule of broker.conf wants this event sent");
                false
            }
            Err(error) => {
                if let Some(failures) = self.trouble.report() {
                    warn!(event, detail, failures, error, "a notification cannot be written");
                }
                false
            }
        }
    }

    /// How many mails went which way since the start.
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Gives mails that are still queued `limit` to be sent, then ends.
    pub async fn finish(mut self, limit: Duration) {
        self.queue.close();
        if tokio::time::timeout(limit, &mut self.worker).await.is_err() {
            warn!(mails = self.queue.len(), "the broker ends before all notifications were sent");
        }
    }

    fn compose(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Mail>, String> {
        // The name becomes part of a path.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if event.is_empty() || event.len() > 100 || !event.chars().all(plain) {
            return Err("the event's name may have letters, digits, _ and - only".to_owned());
        }
        let conf = self.source.conf()?;
        if !conf.wants(event, detail) {
            return Ok(None);
        }
        let template = self.source.template(event)?;
        let mut values = conf.template_values.clone();
        values.extend(options.iter().map(|(name, value)| (name.clone(), value.clone())));
        values.insert("detail".to_owned(), detail.to_owned());
        let mail = Mail::compose(&conf.email, &template, &values, self.clock.wall());
        mail.map(Some).map_err(|error| error.to_string())
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.worker.abort();
    }
}
