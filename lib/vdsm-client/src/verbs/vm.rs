//! Verbs about virtual machines.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{QUICK, SLOW, misunderstood, object};
use crate::client::Client;
use crate::error::CallError;
use crate::value;

/// What is known of a virtual machine. Only [`VmStats::raw`] is always there; VDSM leaves out what it does not know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VmStats {
    /// In VDSM's words: `Up`, `Down`, `WaitForLaunch`, `Powering up`, `Migration Source`, …
    pub status: Option<String>,
    /// Why it is down, in words.
    pub exit_message: Option<String>,
    /// Why it is down, as VDSM's number: 4 after a migration, 6 and 7 after a shutdown, …
    pub exit_reason: Option<i64>,
    /// 0 if it went down as it should, else 1.
    pub exit_code: Option<i64>,
    /// Time on the CPU spent by the guest, in percent of one CPU.
    pub cpu_user: Option<f64>,
    /// Time on the CPU spent by QEMU for other ends, in percent of one CPU.
    pub cpu_sys: Option<f64>,
    /// Whether the two were measured; before the first measurement they are made up.
    pub cpu_actual: Option<bool>,
    /// When the status changed, in milliseconds of the host's monotonic clock.
    pub status_time: Option<i64>,
    /// Its consoles.
    pub display_info: Vec<DisplayInfo>,
    /// Why it is paused; `NOERR` when nothing is wrong.
    pub pause_code: Option<String>,
    /// The answer as it came.
    pub raw: Value,
}

/// A console of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayInfo {
    /// `vnc` or `spice`.
    pub kind: Option<String>,
    /// Where it listens.
    pub address: Option<String>,
    /// TCP port, when there is one without TLS.
    pub port: Option<u16>,
    /// TCP port with TLS, when there is one.
    pub tls_port: Option<u16>,
}

impl VmStats {
    pub(crate) fn of(raw: &Value) -> VmStats {
        let text = |name: &str| raw.get(name).and_then(value::text);
        let integer = |name: &str| raw.get(name).and_then(value::integer);
        let float = |name: &str| raw.get(name).and_then(value::float);
        let displays = raw.get("displayInfo").and_then(Value::as_array);
        VmStats {
            status: text("status"),
            exit_message: text("exitMessage"),
            exit_reason: integer("exitReason"),
            exit_code: integer("exitCode"),
            cpu_user: float("cpuUser"),
            cpu_sys: float("cpuSys"),
            cpu_actual: raw.get("cpuActual").and_then(value::truth),
            status_time: integer("statusTime"),
            display_info: displays.into_iter().flatten().map(DisplayInfo::of).collect(),
            pause_code: text("pauseCode"),
            raw: raw.clone(),
        }
    }
}

impl DisplayInfo {
    fn of(raw: &Value) -> DisplayInfo {
        // -1 stands for none.
        let port = |name: &str| {
            let number = raw.get(name).and_then(value::integer)?;
            u16::try_from(number).ok().filter(|port| *port > 0)
        };
        DisplayInfo {
            kind: raw.get("type").and_then(value::text),
            address: raw.get("ipAddress").and_then(value::text),
            port: port("port"),
            tls_port: port("tlsPort"),
        }
    }
}

/// What virtual machine to create.
#[derive(Clone, Debug, PartialEq)]
pub enum VmParams {
    /// Libvirt's domain XML, with oVirt's metadata.
    Xml(String),
    /// The object of parameters that came before it.
    Legacy(Value),
}

/// Where and how a virtual machine migrates.
#[derive(Clone, Debug, PartialEq)]
pub struct MigrateParams {
    /// The other host's VDSM: host name or address, with a port if it is not 54321 (`host[:port]`).
    pub destination: String,
    /// The other host's address for the guest's memory, if it is another one.
    pub data_address: Option<String>,
    /// Whether libvirt encrypts the guest's memory on its way.
    pub encrypted: Option<bool>,
    /// Whether the guest is slowed down when it changes its memory faster than that can be copied.
    pub auto_converge: Option<bool>,
    /// Whether pages that were sent before are sent as differences.
    pub compressed: Option<bool>,
    /// Most bandwidth, in MiB/s.
    pub max_bandwidth: Option<u32>,
    /// Whatever else VDSM should get, by its own names (`convergenceSchedule`, …); overrides the above.
    pub more: Map<String, Value>,
}

impl MigrateParams {
    /// To that VDSM, all the rest as VDSM likes.
    pub fn to(destination: impl Into<String>) -> MigrateParams {
        MigrateParams {
            destination: destination.into(),
            data_address: None,
            encrypted: None,
            auto_converge: None,
            compressed: None,
            max_bandwidth: None,
            more: Map::new(),
        }
    }

    fn to_value(&self, vm_id: &str) -> Value {
        let mut params = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                params.insert(name.to_owned(), value);
            }
        };
        put("vmId", Some(vm_id.into()));
        put("mode", Some("remote".into()));
        put("method", Some("online".into()));
        put("dst", Some(self.destination.as_str().into()));
        put("dstqemu", self.data_address.as_deref().map(Value::from));
        put("encrypted", self.encrypted.map(Value::from));
        put("autoConverge", self.auto_converge.map(Value::from));
        put("compressed", self.compressed.map(Value::from));
        put("maxBandwidth", self.max_bandwidth.map(Value::from));
        params.extend(self.more.clone());
        Value::Object(params)
    }
}

/// How far a migration is.
#[derive(Clone, Debug, PartialEq)]
pub struct MigrationStatus {
    /// Progress in percent.
    pub progress: Option<i64>,
    /// 0 while all is well, else the error's number.
    pub code: Option<i64>,
    /// What the code means.
    pub message: Option<String>,
    /// The answer as it came.
    pub raw: Value,
}

/// A graphical console's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// VNC.
    Vnc,
    /// SPICE.
    Spice,
}

impl ConsoleKind {
    fn name(self) -> &'static str {
        match self {
            ConsoleKind::Vnc => "vnc",
            ConsoleKind::Spice => "spice",
        }
    }
}

impl Client {
    /// `VM.getStats`. [`crate::code::NO_SUCH_VM`] when VDSM does not know it.
    pub async fn vm_stats(&self, vm_id: &str) -> Result<VmStats, CallError> {
        let method = "VM.getStats";
        let answer = self.call(method, json!({"vmID": vm_id}), QUICK).await?;
        // A list of one, bare or in an object.
        let list = answer.get("statsList").unwrap_or(&answer);
        match list.as_array().map(Vec::as_slice) {
            Some([stats]) if stats.is_object() => Ok(VmStats::of(stats)),
            Some(_) | None => Err(misunderstood(method, "a list of one object", &answer)),
        }
    }

    /// `VM.create`: starts it; the answer comes before it runs (status `WaitForLaunch`).
    pub async fn vm_create(&self, vm_id: &str, params: VmParams) -> Result<VmStats, CallError> {
        let method = "VM.create";
        let params = match params {
            VmParams::Xml(xml) => json!({ "xml": xml }),
            VmParams::Legacy(params) => params,
        };
        let params = json!({"vmID": vm_id, "vmParams": params});
        let answer = self.call(method, params, SLOW).await?;
        let description = answer.get("vmList").unwrap_or(&answer);
        object(method, description)?;
        Ok(VmStats::of(description))
    }

    /// `VM.destroy`: pulls the plug, and forgets a virtual machine that is down.
    pub async fn vm_destroy(&self, vm_id: &str) -> Result<(), CallError> {
        self.of_vm("VM.destroy", vm_id, &[]).await
    }

    /// `VM.shutdown`: asks the guest to shut down after a delay (in whole seconds), with a message for its users.
    pub async fn vm_shutdown(&self, vm_id: &str, delay: Duration, message: &str) -> Result<(), CallError> {
        let more = [("delay", delay.as_secs().into()), ("message", message.into())];
        self.of_vm("VM.shutdown", vm_id, &more).await
    }

    /// `VM.migrate`: begins to migrate it; the answer comes when it has begun.
    pub async fn vm_migrate(&self, vm_id: &str, params: &MigrateParams) -> Result<(), CallError> {
        let more = [("params", params.to_value(vm_id))];
        self.of_vm("VM.migrate", vm_id, &more).await
    }

    /// `VM.migrateCancel`: asks for its end.
    pub async fn vm_migrate_cancel(&self, vm_id: &str) -> Result<(), CallError> {
        self.of_vm("VM.migrateCancel", vm_id, &[]).await
    }

    /// `VM.getMigrationStatus`.
    pub async fn vm_migration_status(&self, vm_id: &str) -> Result<MigrationStatus, CallError> {
        let method = "VM.getMigrationStatus";
        let answer = self.call(method, json!({"vmID": vm_id}), QUICK).await?;
        let stats = answer.get("migrationStats").unwrap_or(&answer);
        object(method, stats)?;
        let outcome = stats.get("status").unwrap_or(stats);
        Ok(MigrationStatus {
            progress: stats.get("progress").and_then(value::integer),
            code: outcome.get("code").and_then(value::integer),
            message: outcome.get("message").and_then(value::text),
            raw: stats.clone(),
        })
    }

    /// `VM.cont`: lets a paused one go on.
    pub async fn vm_cont(&self, vm_id: &str) -> Result<(), CallError> {
        self.of_vm("VM.cont", vm_id, &[]).await
    }

    /// `VM.pause`: stops its CPUs.
    pub async fn vm_pause(&self, vm_id: &str) -> Result<(), CallError> {
        self.of_vm("VM.pause", vm_id, &[]).await
    }

    /// `VM.updateDevice`: sets a console's password, valid for so long (in whole seconds). Who is connected stays so.
    pub async fn vm_set_ticket(
        &self,
        vm_id: &str,
        kind: ConsoleKind,
        password: &str,
        valid: Duration,
    ) -> Result<(), CallError> {
        let device = json!({
            "deviceType": "graphics",
            "graphicsType": kind.name(),
            "password": password,
            "ttl": valid.as_secs(),
            "existingConnAction": "keep",
            "params": {},
        });
        self.of_vm("VM.updateDevice", vm_id, &[("params", device)]).await.map_err(|error| match error {
            // In case the server repeats what it was sent.
            CallError::Server { method, code, message } if !password.is_empty() => {
                CallError::Server { method, code, message: message.replace(password, "***") }
            }
            other @ (CallError::Server { .. }
            | CallError::Unreachable { .. }
            | CallError::Deadline { .. }
            | CallError::Lost { .. }
            | CallError::Answer { .. }) => other,
        })
    }

    /// A verb whose answer says no more than that it was done.
    async fn of_vm(&self, method: &str, vm_id: &str, more: &[(&str, Value)]) -> Result<(), CallError> {
        let mut params = Map::new();
        params.insert("vmID".to_owned(), vm_id.into());
        params.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.call(method, Value::Object(params), SLOW).await.map(drop)
    }
}
