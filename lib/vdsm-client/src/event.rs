//! What VDSM tells without being asked.

use serde_json::Value;

use crate::value;
use crate::verbs::vm::VmStats;

/// An event, as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `|component|operation|object`, for example `|virt|VM_status|UUID`.
    pub method: String,
    /// An object, or a list with one.
    pub params: Value,
}

/// The status of a virtual machine changed.
#[derive(Clone, Debug, PartialEq)]
pub struct VmStatusEvent {
    /// The virtual machine's UUID.
    pub vm_id: String,
    /// Its status; VDSM sends only what it takes to understand the change.
    pub status: VmStats,
    /// When it changed: milliseconds of the host's monotonic clock, the clock of [`VmStats::status_time`]. Order events
    /// and answers by it, not by their arrival.
    pub notify_time: i64,
}

impl Event {
    /// The change of a virtual machine's status, when the event is one. Its parameters are
    /// `{UUID: {status…}, "notify_time": milliseconds}`.
    pub fn vm_status(&self) -> Option<VmStatusEvent> {
        let vm_id = self.method.strip_prefix("|virt|VM_status|")?;
        let params = match &self.params {
            Value::Array(list) => list.first()?,
            other => other,
        };
        let status = params.get(vm_id).filter(|status| status.is_object())?;
        Some(VmStatusEvent {
            vm_id: vm_id.to_owned(),
            status: VmStats::of(status),
            notify_time: params.get("notify_time").and_then(value::integer)?,
        })
    }
}
