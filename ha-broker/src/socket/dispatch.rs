//! From XML-RPC values to the broker's verbs and back. Every argument is checked here; a fault names it.
//!
//! The Python broker answers `<nil/>` when a verb fails. Ours answers a fault with the reason, for every verb: the
//! clients that use a result (`get_stats`, `is_host_alive`, the monitors, `notify`) fail on nil anyway, with a text
//! that helps nobody; those that use none (writes and lockspace verbs) would take nil for success.

use std::collections::BTreeMap;

use broker_api::xmlrpc::{Fault, Value, fault};

use crate::verbs::{VerbError, Verbs};

/// Largest block: what a host owns in the metadata file.
const MAX_BLOCK: usize = 4096;

macro_rules! verbs {
    ($($verb:ident $name:literal $access:ident $arguments:literal)*) => {
        /// A verb of the socket.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Verb {
            $(#[doc = concat!("`", $name, $arguments, "`")] $verb,)*
        }

        impl Verb {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$verb),*];

            /// As it is called on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$verb => $name,)* }
            }

            /// Its arguments, for people.
            const fn arguments(self) -> &'static str {
                match self { $(Self::$verb => $arguments,)* }
            }

            /// Whether it changes something, so that only writers may use it.
            pub const fn writes(self) -> bool {
                match self { $(Self::$verb => verbs!(@ $access),)* }
            }
        }
    };
    (@ reads) => { false };
    (@ writes) => { true };
}

verbs! {
    StartMonitor       "start_monitor"        writes "(type, options)"
    StopMonitor        "stop_monitor"         writes "(id)"
    StatusMonitor      "status_monitor"       reads  "(id)"
    GetStats           "get_stats"            reads  "()"
    PutStats           "put_stats"            writes "(host_id, data)"
    PushHostsState     "push_hosts_state"     writes "(alive_hosts)"
    IsHostAlive        "is_host_alive"        reads  "()"
    Notify             "notify"               writes "(event_type, detail, options)"
    StartDomainMonitor "start_domain_monitor" writes "(host_id)"
    StopDomainMonitor  "stop_domain_monitor"  writes "()"
    LockHostId         "lock_host_id"         writes "(host_id)"
    ReleaseHostId      "release_host_id"      writes "()"
    ResetLockspace     "reset_lockspace"      writes "()"
}

impl Verb {
    /// The verb of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.name() == name)
    }
}

/// Checks the arguments and calls the verb.
pub async fn call<V: Verbs>(verbs: &V, verb: Verb, params: Vec<Value>) -> Result<Value, Fault> {
    let mut args = Arguments::new(verb, params);
    let ok = |()| Value::from("ok");
    let result = match verb {
        Verb::StartMonitor => {
            let (kind, options) = (args.text("type")?, args.options("options")?);
            args.end()?;
            verbs.start_monitor(&kind, options).await.map(Value::String)
        }
        Verb::StopMonitor => {
            let id = args.text("id")?;
            args.end()?;
            verbs.stop_monitor(&id).await.map(ok)
        }
        Verb::StatusMonitor => {
            let id = args.text("id")?;
            args.end()?;
            let text = verbs.status_monitor(&id).await;
            text.map(|text| Value::String(text.unwrap_or_else(|| "None".to_owned())))
        }
        Verb::GetStats => {
            args.end()?;
            verbs.get_stats().await.map(|blocks| {
                Value::Struct(
                    blocks.into_iter().map(|(id, bytes)| (id.to_string(), Value::Bytes(bytes))).collect(),
                )
            })
        }
        Verb::PutStats => {
            let (block, bytes) = (args.host_id("host_id", 0)?, args.block("data")?);
            args.end()?;
            verbs.put_stats(block, bytes).await.map(ok)
        }
        Verb::PushHostsState => {
            let alive = args.host_ids("alive_hosts")?;
            args.end()?;
            verbs.push_hosts_state(alive).await.map(ok)
        }
        Verb::IsHostAlive => {
            args.end()?;
            let alive = verbs.is_host_alive().await;
            alive.map(|ids| Value::Array(ids.into_iter().map(|id| Value::Int(id.into())).collect()))
        }
        Verb::Notify => {
            let (event, detail) = (args.text("event_type")?, args.text("detail")?);
            let options = args.options("options")?;
            args.end()?;
            // Python's templates would print an absent option like this.
            let options =
                options.into_iter().map(|(name, value)| (name, value.unwrap_or_else(|| "None".to_owned())));
            let sent = verbs.notify(&event, &detail, options.collect()).await;
            sent.map(|sent| Value::from(if sent { "sent" } else { "ignored" }))
        }
        Verb::StartDomainMonitor => {
            let host_id = args.host_id("host_id", 1)?;
            args.end()?;
            verbs.start_domain_monitor(host_id).await.map(ok)
        }
        Verb::StopDomainMonitor => {
            args.end()?;
            verbs.stop_domain_monitor().await.map(ok)
        }
        Verb::LockHostId => {
            let host_id = args.host_id("host_id", 1)?;
            args.end()?;
            verbs.lock_host_id(host_id).await.map(ok)
        }
        Verb::ReleaseHostId => {
            args.end()?;
            verbs.release_host_id().await.map(ok)
        }
        Verb::ResetLockspace => {
            args.end()?;
            verbs.reset_lockspace().await.map(ok)
        }
    };
    result.map_err(|error| {
        let code = match error {
            VerbError::BadArgument(_) => fault::BAD_ARGUMENT,
            VerbError::NotHeld(_) => fault::NOT_HELD,
            VerbError::Storage(_) => fault::STORAGE,
            VerbError::Lockspace(_) => fault::LOCKSPACE,
        };
        Fault { code, message: error.to_string() }
    })
}

/// A call's arguments, taken one by one.
struct Arguments {
    verb: Verb,
    given: usize,
    rest: std::vec::IntoIter<Value>,
}

impl Arguments {
    fn new(verb: Verb, params: Vec<Value>) -> Self {
        Self { verb, given: params.len(), rest: params.into_iter() }
    }

    fn next(&mut self) -> Result<Value, Fault> {
        self.rest.next().ok_or_else(|| self.wrong_count())
    }

    fn end(&mut self) -> Result<(), Fault> {
        if self.rest.len() == 0 { Ok(()) } else { Err(self.wrong_count()) }
    }

    fn text(&mut self, name: &str) -> Result<String, Fault> {
        match self.next()? {
            Value::String(text) => Ok(text),
            other => Err(self.bad(name, &format!("is {} instead of a text", other.kind()))),
        }
    }

    fn host_id(&mut self, name: &str, lowest: u16) -> Result<u16, Fault> {
        let value = self.next()?;
        host_id(&value, lowest).map_err(|wrong| self.bad(name, &wrong))
    }

    fn host_ids(&mut self, name: &str) -> Result<Vec<u16>, Fault> {
        let Value::Array(values) = self.next()? else {
            return Err(self.bad(name, "is not an array of host ids"));
        };
        values.iter().map(|value| host_id(value, 1).map_err(|wrong| self.bad(name, &wrong))).collect()
    }

    /// No bytes at all are a block of NULs: an agent that cleans up takes its host out of the file so.
    fn block(&mut self, name: &str) -> Result<Vec<u8>, Fault> {
        let bytes = match self.next()? {
            Value::Bytes(bytes) => bytes,
            Value::String(text) => text.into_bytes(),
            other => return Err(self.bad(name, &format!("is {} instead of base64", other.kind()))),
        };
        if bytes.len() > MAX_BLOCK {
            return Err(
                self.bad(name, &format!("has {} bytes; a block has at most {MAX_BLOCK}", bytes.len()))
            );
        }
        Ok(bytes)
    }

    /// A struct of simple values, each as the text that Python would print; nil is `None`.
    fn options(&mut self, name: &str) -> Result<BTreeMap<String, Option<String>>, Fault> {
        let Value::Struct(members) = self.next()? else { return Err(self.bad(name, "is not a struct")) };
        let texts = members.into_iter().map(|(key, value)| {
            let text = match value {
                Value::Nil => None,
                Value::Bool(true) => Some("True".to_owned()),
                Value::Bool(false) => Some("False".to_owned()),
                Value::Int(number) => Some(number.to_string()),
                Value::Double(number) => Some(format!("{number:?}")),
                Value::String(text) | Value::DateTime(text) => Some(text),
                Value::Bytes(_) | Value::Array(_) | Value::Struct(_) => {
                    return Err(self
                        .bad(name, &format!("has {} for {key:?}; only simple values can be", value.kind())));
                }
            };
            Ok((key, text))
        });
        texts.collect()
    }

    fn wrong_count(&self) -> Fault {
        self.fault(&format!("got {} arguments", self.given))
    }

    fn bad(&self, name: &str, wrong: &str) -> Fault {
        self.fault(&format!("{name} {wrong}"))
    }

    fn fault(&self, wrong: &str) -> Fault {
        let message = format!("{}{}: {wrong}", self.verb.name(), self.verb.arguments());
        Fault { code: fault::BAD_ARGUMENT, message }
    }
}

/// A number from `lowest` to the highest host id; as text too, for callers that took it from a file.
fn host_id(value: &Value, lowest: u16) -> Result<u16, String> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::String(text) => text.trim().parse().ok(),
        _ => return Err(format!("is {} instead of a host id", value.kind())),
    };
    let highest = metadata_format::MAX_HOST_ID;
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|id| (lowest..=highest).contains(id))
        .ok_or_else(|| format!("is {value:?}; a host id is a number from {lowest} to {highest}"))
}
